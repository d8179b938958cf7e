"""The loop: forward_backward and optim_step, submitted ahead, finished in order.

Between two evaluations the server is never kept waiting: the next steps, each with its optimizer step,
are with it before the oldest is awaited, and they are rendered on a thread before that. A checkpoint is
submitted right behind the optimizer step that it holds, in the same queue, so it sits at an exact step
without the queue running dry; it is recorded once the server has confirmed it and every step up to it is
in the ledger. With it goes one forward pass over one example: weights that are not finite are never
recorded as a checkpoint.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer._files import write_atomic
from tinker_officer._progress import Progress
from tinker_officer.train import failing
from tinker_officer.train.batches import Batches
from tinker_officer.train.budget import USED_UP, Spending
from tinker_officer.train.checkpoints import Checkpoint, CheckpointLog, Saved
from tinker_officer.train.evaluating import Inline, gaps
from tinker_officer.train.folder import RunFolder
from tinker_officer.train.objective import Batch
from tinker_officer.train.saving import Pending, Saver
from tinker_officer.train.session import Session, open_session
from tinker_officer.train.sinks import Outlets
from tinker_officer.train.source import Scene
from tinker_officer.train.spikes import Spiked, Watch
from tinker_officer.train.waiting import Waiter


if TYPE_CHECKING:
    import tinker

    from tinker_officer.evals.scorecard import Scorecard
    from tinker_officer.train.run import Run

logger = logging.getLogger(__name__)
_RECENT = 20  # steps that the shown speed is averaged over


@attrs.frozen
class Step:
    """One optimizer step, finished.

    Args:
        index: the step, from 1; also how many steps the weights now hold.
        metrics: what was measured: `train/...` before the step, evaluations after it.
    """

    index: int
    metrics: dict[str, Any]


@attrs.frozen
class _Submitted:
    """A step on its way."""

    batch: Batch
    learning_rate: float
    forward_backward: Any | None  # None: a guard leaves the batch out
    optim_step: Any | None
    save: Pending | None


@attrs.define
class Loop:
    """Trains one run, on the thread that calls `train`.

    Args:
        run: what to train.
        folder: its folder, owned.
        service: the client of the service.
        publish: is given every finished step.
        cancelled: set to stop at the next finished step, with a checkpoint.
        aborted: set to stop at once, without one.
        progress: show progress (None: yes).
        outlets: the sinks that get the metrics too.
    """

    run: Run
    folder: RunFolder
    service: tinker.ServiceClient
    publish: Callable[[Step], None]
    cancelled: threading.Event
    aborted: threading.Event
    progress: bool | None
    outlets: Outlets
    step: int = 0
    bar: Progress | None = attrs.field(init=False, default=None)
    _session: Session = attrs.field(init=False)
    _batches: Batches = attrs.field(init=False)
    _inline: Inline = attrs.field(init=False)
    _asking: dict[int, Future[Scorecard]] = attrs.field(init=False, factory=dict)
    _saver: Saver = attrs.field(init=False)
    _wait: Waiter = attrs.field(init=False)
    _watch: Watch = attrs.field(init=False)
    _spending: Spending = attrs.field(init=False)
    _renderer_name: str = attrs.field(init=False)
    _clock: float = attrs.field(init=False, factory=time.monotonic)

    def train(self) -> str:
        """Train to the end, to an early stop, a used-up budget or a cancellation; return which.

        Raises:
            RunError: a number is not finite, nothing is left to train on, or the folder cannot be written.
            Exception: whatever the SDK raised, with a note.
        """
        run = self.run
        self._wait = Waiter(run.submission.stall_warning_s, self.aborted)
        self._renderer_name = run.renderer_name
        batches = Batches.of(run, self._renderer_name, progress=self.progress)
        with batches.making() as self._batches, self._explaining():
            self.folder.result_path.unlink(missing_ok=True)  # of a budget that has been raised
            self._open()
            left = self._steps - self.step
            label = run.name if not self.step else f"{run.name} from step {self.step}"
            with Progress(left, label, unit="steps", show=self.progress) as self.bar:
                reason = self._steps_with_guards(self.bar)
            self._finish(reason)
            return reason

    def _open(self) -> None:
        """Take the run up where its folder says, at the beginning and after a guard has acted."""
        run, log = self.run, CheckpointLog(self.folder.checkpoints)
        self._session = open_session(
            run,
            self.folder,
            self.service,
            renderer_name=self._renderer_name,
            batches=self._batches,
            wait=self._wait,
        )
        self._batches.opened(Scene(self.service, self._session, self.folder))
        self._inline = Inline(run, self.folder, self.service, asking=self._asking)
        self._saver = Saver(run, self.service, self._session, log, self._inline, self._wait, self._regular)
        self._watch = Watch.of(run, self.folder, run.objective.headline)
        self._spending = Spending.of(run, self.folder)
        self.step = self._session.done
        self._inline.recall(range(self.step + 1))
        self._evaluate({})

    def _steps_with_guards(self, bar: Progress) -> str:
        while True:
            try:
                return self._steps_to_the_end(bar)
            except Spiked as spiked:
                logger.warning("run.guarded: %s; %s", spiked, self.run.spikes)
                reached = self.step
                self._open()
                bar.advance(self.step - reached)

    @property
    def _steps(self) -> int:
        return self._batches.steps

    def _steps_to_the_end(self, bar: Progress) -> str:
        pending: deque[_Submitted] = deque()
        recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)
        submitted = horizon = self.step
        while True:
            if not pending:
                if reason := self._reason():
                    return reason
                horizon = self._next_evaluation()
                self._clock = time.monotonic()
            while submitted < horizon and len(pending) <= self._batches.depth and not self._stopping():
                submitted += 1
                pending.append(self._submit(submitted))
            if pending:
                metrics = self._take(pending.popleft())
                if self._may_evaluate(standing=not pending and self.step == horizon):
                    metrics = self._evaluate(metrics)
                self.publish(Step(self.step, metrics))
                recent.append((metrics["train/total_tokens"], metrics["time/step_s"]))
                tokens, seconds = map(sum, zip(*recent, strict=True))
                speed = f"{tokens / seconds:,.0f} tokens/s" if seconds else ""
                headline = self.run.objective.headline
                shown = f"{headline.partition('/')[2]} {metrics[headline]:.3f}"
                cost = f", cost {metrics['cost/train']:.4g}" if "cost/train" in metrics else ""
                bar.advance(note=f"{shown}, {speed}{cost}")

    def _may_evaluate(self, *, standing: bool) -> bool:
        """Return whether this step is evaluated, if that is due; `standing`: nothing is on its way."""
        return not self._called_off() if self._going_on else standing and not self._stopping()

    def _called_off(self) -> bool:
        return self.cancelled.is_set() or self.aborted.is_set()

    def _stopping(self) -> bool:
        if self._called_off():
            return True
        return self.step < self._steps and self._spending.over() is not None

    def _reason(self) -> str | None:
        asked = self.step in self._inline.values or self.step in self._inline.asking
        unasked = self._inline.due(self.step, self._steps) and not asked
        if self.step >= self._steps and not unasked:
            return "completed"
        if not unasked and (reason := self._inline.stop_reason()):
            return reason
        if self._called_off():
            return "cancelled"
        return self._spending.over()

    @property
    def _going_on(self) -> bool:
        """Whether nothing that an evaluation finds can end the run: then no step waits for one."""
        return self._inline.beside and self.run.early_stop is None

    def _next_evaluation(self) -> int:
        """Return the step after which the loop must stand still to evaluate, or the last step."""
        if self._going_on:
            return self._steps
        return next(
            (step for step in range(self.step + 1, self._steps) if self._inline.due(step, self._steps)),
            self._steps,
        )

    def _submit(self, step: int) -> _Submitted:
        import tinker

        run, client = self.run, self._session.client
        batch = self._wait(self._batches.ask(step), "the batch", step=step)
        rate, computed, applied = 0.0, None, None
        if self._watch.skipped(step) is None:
            rate = run.plan.learning_rate * run.decay.multiplier(step, self._steps) * self._watch.factor(step)
            computed = run.objective.submit(client, batch)
            applied = client.optim_step(tinker.AdamParams(learning_rate=rate, **attrs.asdict(run.adam)))
            self._spending.submit(batch.tokens)
        sampled = step == self._steps or self._inline.due(step, self._steps)
        save = self._saver.submit(step, sampled=sampled) if sampled or self._regular(step) else None
        self._batches.source.submitted(step)
        return _Submitted(batch, rate, computed, applied, save)

    def _regular(self, step: int) -> bool:
        """Return whether a checkpoint of `step` is one that every course of this run has."""
        due = step % self.run.saving.interval(self._steps) == 0 or step == self._steps
        return due or self._inline.due(step, self._steps)

    def _take(self, submitted: _Submitted) -> dict[str, Any]:
        """Wait for a step, check it, and write it down."""
        batch, step, waited = submitted.batch, submitted.batch.step, self._wait.waited_s
        skip = self._watch.skipped(step)
        metrics = self._answer(submitted) if skip is None else {**skip.metrics, "guard/z": skip.z}
        now = time.monotonic()
        taken, self._clock = now - self._clock, now
        tokens = 0 if skip else batch.tokens
        metrics |= {
            "train/learning_rate": submitted.learning_rate,
            "train/tokens": 0 if skip else batch.trained_tokens,
            "train/total_tokens": tokens,
            "train/examples": 0 if skip else len(batch.rows),
            "train/epoch": batch.epoch,
            **self._spending.take(tokens),
            "time/step_s": taken,
            "time/wait_s": self._wait.waited_s - waited,
            "time/elapsed_s": self._spending.seconds(),
            "time/tokens_per_s": tokens / taken if taken else 0.0,
        }
        applied = {
            "step": step,
            "epoch": batch.epoch,
            "rows": batch.rows,
            "content": batch.content,
            **batch.noted,
            **({"skipped": True} if skip else {}),
        }
        durable = submitted.save is not None
        self.folder.ledger.append({**applied, "attempt": self._session.attempt}, sync=durable)
        self._write(step, metrics, sync=durable)
        self.step = step
        if submitted.save is not None:
            self._record(submitted.save, batch)
        return metrics

    def _write(self, step: int, metrics: dict[str, Any], *, sync: bool) -> None:
        self.folder.metrics.append({"step": step, **metrics}, sync=sync)
        self.outlets.put(step, metrics)

    def _answer(self, submitted: _Submitted) -> dict[str, Any]:
        """Wait for what the server says of a step; check that it is finite, and no spike."""
        import tinker

        batch, step = submitted.batch, submitted.batch.step
        try:
            output = self._wait(submitted.forward_backward, "forward_backward", step=step)
        except tinker.RequestFailedError as error:  # the server refuses the batch, or its loss is not finite
            rows = failing.keep_rows(self.folder, self._batches.source, batch)
            error.add_note(f"the batch of step {step} is {rows}")
            raise
        metrics: dict[str, Any] = {**batch.measured, **self.run.objective.measure(batch, output)}
        self._check(metrics, batch)
        self._watch.look(
            step,
            metrics,
            attempt=self._session.attempt,
            back_to=self._saver.newest_regular,
            keep_rows=lambda: failing.keep_rows(self.folder, self._batches.source, batch),
        )
        reply = self._wait(submitted.optim_step, "optim_step", step=step)
        for key, value in (reply.metrics or {}).items():
            name = key.partition(":")[0]
            metrics["train/grad_norm" if name == "grad_norm" else f"optim/{key}"] = value
        self._check(metrics, batch)
        return metrics

    def _record(self, save: Pending, batch: Batch | None) -> Saved:
        """Wait for a checkpoint; record it once its weights are proven finite."""
        self._check(self._saver.proof(save, self.step), batch)
        return self._saver.record(save, self.step)

    def _saved_here(self) -> Saved:
        """Return a checkpoint of this very step to sample from, saved now unless there is one."""
        saved = self._saver.at(self.step)
        if saved is None:
            saved = self._record(self._saver.submit(self.step, sampled=True), None)
        return saved

    def _evaluate(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Ask the suite of the checkpoint at this step, if that is due; return `metrics` with the answer."""
        if not self._inline.due(self.step, self._steps):
            return metrics
        saved = self._saved_here()
        if self._inline.beside:
            self._collect(self.step)
            if self.step < self._steps:
                self._inline.begin(self._checkpoint(saved, metrics))
                return metrics
        return {**metrics, **self._found(saved, metrics)}

    def _collect(self, step: int) -> None:
        """Take up what was asked before `step`, now and always now: what follows from it must not vary."""
        for early in self._inline.behind(step):
            saved = self._saver.at(early)
            if saved is not None:
                self._found(saved, {})

    def _checkpoint(self, saved: Saved, metrics: dict[str, Any]) -> Checkpoint:
        return Checkpoint(
            step=saved.step,
            state_path=saved.state_path,
            sampler_path=saved.sampler_path,
            base_model=self.run.plan.base_model,
            renderer_name=self._renderer_name,
            metrics=metrics,
        )

    def _found(self, saved: Saved, metrics: dict[str, Any]) -> dict[str, Any]:
        """Return what the suite says of a checkpoint, and write it down."""
        if saved.step in self._inline.asking:
            self._wait(self._inline.asking[saved.step], "the evaluation", step=saved.step)
        found = self._inline.ask(self._checkpoint(saved, metrics))
        found |= gaps(found, self.folder, saved.step)
        written = {key for record in self.folder.metrics if record["step"] == saved.step for key in record}
        if not found.keys() <= written:
            self._write(saved.step, found, sync=True)
        return found

    def _finish(self, reason: str) -> None:
        """Save where a run stands that may go on; write down why another is over."""
        if reason == "cancelled" and self.aborted.is_set():
            return
        resumable = reason == "cancelled" or reason.startswith(USED_UP)
        if resumable:
            self._saved_here()
        if self._inline.beside and not resumable:
            self._collect(self.step + 1)
        self._saver.keep_for_good()
        if reason == "cancelled":
            return
        result = {"stopped": reason, "steps": self.step, "renderer_name": self._renderer_name}
        if resumable:
            result["resumable"] = True
        write_atomic(self.folder.result_path, json.dumps(result, indent=2) + "\n")

    def _check(self, metrics: dict[str, Any], batch: Batch | None) -> None:
        failing.check_finite(metrics, self.step, batch, self.folder, self._batches.source)

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Say of whatever stops the run where it did, and how to go on."""
        try:
            yield
        except Exception as error:
            raised = failing.explained(error, name=self.run.name, step=self.step, folder=self.folder)
            if raised is error:
                raise
            raise raised from error
