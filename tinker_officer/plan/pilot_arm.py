"""One arm of a pilot: a short run at one learning rate, on its own training client.

It is a small copy of what the train room does, for the plan room stands below it: the same order of the
data, the same linear schedule, the same optimizer and the same mean loss. `tests/plan/test_pilot.py` holds
them equal to the train room's.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer._journal import Journal
from tinker_officer._progress import Progress


if TYPE_CHECKING:
    import tinker

    from tinker_officer.data.examples import Examples

logger = logging.getLogger(__name__)
Floats = npt.NDArray[np.float64]

ADAM = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-12}
WARMUP = 0.03
DIVERGED = 0.3  # nats above the start
_PATIENCE = 0.1  # share of the steps before an arm can be stopped
_SAVES = 4  # states saved in an arm, so that an interrupted one does not begin again
_AT_ONCE = 64  # held-out examples a request
_KEPT = 32  # rendered batches


def multiplier(step: int, steps: int) -> float:
    """Return the share of the peak rate at `step` (from 1): a linear warm-up, then linear decay."""
    warm = min(round(WARMUP * steps), steps - 1)
    return step / (warm + 1) if step <= warm else 1.0 - (step - warm - 1) / (steps - warm)


def rows_of(step: int, *, examples: int, batch_size: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the examples of `step` (from 1): each epoch in an order of its own, from the seed alone."""
    per_epoch = -(-examples // batch_size)
    epoch, position = divmod(step - 1, per_epoch)
    keys = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(examples)
    order = np.argsort(keys, kind="stable").astype(np.int64)
    return order[position * batch_size : (position + 1) * batch_size]


class Batches:
    """Batches of the training data, rendered once for all arms, off the event loop."""

    def __init__(self, examples: Examples, *, batch_size: int, seed: int) -> None:
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self._made: dict[int, asyncio.Task[list[tinker.Datum]]] = {}
        self._one = asyncio.Lock()

    async def get(self, step: int) -> list[tinker.Datum]:
        """Return the batch of `step`, its weights scaled to the mean over its trained tokens."""
        if step not in self._made:
            while len(self._made) >= _KEPT:
                del self._made[min(self._made)]
            self._made[step] = asyncio.create_task(self._render(step))
        return await asyncio.shield(self._made[step])

    async def _render(self, step: int) -> list[tinker.Datum]:
        async with self._one:
            return await asyncio.to_thread(self._datums, step)

    def _datums(self, step: int) -> list[tinker.Datum]:
        import tinker

        rows = rows_of(step, examples=len(self.examples), batch_size=self.batch_size, seed=self.seed)
        datums = [self.examples[int(row)] for row in rows]
        total = sum(float(weights(datum).sum()) for datum in datums)
        return [
            tinker.Datum(
                model_input=datum.model_input,
                loss_fn_inputs={
                    **datum.loss_fn_inputs,
                    "weights": tinker.TensorData.from_numpy((weights(datum) / total).astype(np.float32)),
                },
            )
            for datum in datums
        ]


def weights(datum: tinker.Datum) -> Floats:
    """Return the weight of each of a datum's tokens."""
    return np.asarray(datum.loss_fn_inputs["weights"].data, dtype=np.float64)


def nlls(output: tinker.ForwardBackwardOutput, data: Sequence[tinker.Datum]) -> Floats:
    """Return the weighted NLL of each datum, in nats, from the service's answer."""
    return np.array(
        [
            -float(np.asarray(one["logprobs"].data, dtype=np.float64).reshape(-1) @ weights(datum))
            for one, datum in zip(output.loss_fn_outputs, data, strict=True)
        ]
    )


async def held_out_losses(client: tinker.TrainingClient, data: Sequence[tinker.Datum]) -> Floats:
    """Return the NLL of each held-out example, in nats, summed over its trained tokens."""
    chunks = [list(data[start : start + _AT_ONCE]) for start in range(0, len(data), _AT_ONCE)]
    answers = [client.forward(chunk, "cross_entropy") for chunk in chunks]
    parts = [nlls(await answer, chunk) for answer, chunk in zip(answers, chunks, strict=True)]
    return np.concatenate(parts)


class Stopped(Exception):  # noqa: N818 - it ends an arm, and is no error of the pilot
    """The arm diverged; the message says how."""


@attrs.frozen
class Ended:
    """How an arm ended: with a loss for each held-out example, or stopped."""

    steps: int
    losses: tuple[float, ...] | None
    stopped: str | None


@attrs.frozen
class _Submitted:
    """A step on its way."""

    step: int
    data: list[tinker.Datum]
    computed: Any
    applied: Any
    saved: Any | None


@attrs.define
class ArmRun:
    """Runs one arm, or what is left of it.

    Args:
        name: the arm's name.
        learning_rate: its peak learning rate.
        steps: optimizer steps.
        untrained: the held-out loss before training, nats a token.
        adapter: what a new training client is made with.
        states: prefix of the names of its saved states.
        journal: what it has done.
        service: the service.
        batches: the training data.
        held_out: the held-out data.
        bar: counts its steps.
    """

    name: str
    learning_rate: float
    steps: int
    untrained: float
    adapter: dict[str, Any]
    states: str
    journal: Journal
    service: tinker.ServiceClient
    batches: Batches
    held_out: Sequence[tinker.Datum]
    bar: Progress

    async def run(self) -> Ended:
        """Train and evaluate; return at once what the journal already knows to have ended."""
        records = list(self.journal)
        if records and "ended" in records[-1]:
            self.bar.advance(self.steps)
            return Ended(**{**records[-1]["ended"], "losses": _tuple(records[-1]["ended"]["losses"])})
        client, done = await self._client(records)
        losses = {record["step"]: record["nll"] for record in records if "step" in record}
        losses = {step: nll for step, nll in losses.items() if step <= done}
        if done:
            self.bar.advance(done)
        try:
            await self._train(client, done, losses)
            found = await held_out_losses(client, self.held_out)
            if not np.isfinite(found).all():
                raise Stopped("the held-out loss is not finite")  # noqa: TRY301 - one place ends an arm
            ended = Ended(self.steps, tuple(found.tolist()), None)
        except Stopped as reason:
            logger.info("pilot.arm_stopped", extra={"officer.arm": self.name, "officer.why": str(reason)})
            self.bar.advance(self.steps - max(losses, default=0))
            ended = Ended(max(losses, default=0), None, str(reason))
        self.journal.append({"ended": attrs.asdict(ended)}, sync=True)
        return ended

    async def _client(self, records: list[dict[str, Any]]) -> tuple[tinker.TrainingClient, int]:
        """Return a training client, from the newest saved state that the service still has."""
        import tinker

        for record in reversed([record for record in records if "state" in record]):
            try:
                client = await self.service.create_training_client_from_state_with_optimizer(record["state"])
            except (tinker.NotFoundError, tinker.BadRequestError, tinker.RequestFailedError) as error:
                logger.warning(
                    "pilot.state_lost", extra={"officer.path": record["state"], "officer.error": str(error)}
                )
                continue
            return client, int(record["saved_at"])
        return await self.service.create_lora_training_client(**self.adapter), 0

    async def _train(self, client: tinker.TrainingClient, done: int, losses: dict[int, float]) -> None:
        """Run the steps that are left, each submitted before the last is waited for."""
        waiting: _Submitted | None = None
        for step in range(done + 1, self.steps + 2):
            submitted = await self._submit(client, step) if step <= self.steps else None
            if waiting is not None:
                await self._take(waiting, losses)
            waiting = submitted

    async def _submit(self, client: tinker.TrainingClient, step: int) -> _Submitted:
        import tinker

        data = await self.batches.get(step)
        computed = client.forward_backward(data, "cross_entropy")
        rate = self.learning_rate * multiplier(step, self.steps)
        applied = client.optim_step(tinker.AdamParams(learning_rate=rate, **ADAM))
        due = step % max(1, self.steps // _SAVES) == 0 and step < self.steps
        saved = None
        if due:  # in the same queue, so it is the state after exactly this step
            saved = client.save_state(f"{self.states}-{self.name}-{step:06d}", overwrite=True)
        return _Submitted(step, data, computed, applied, saved)

    async def _take(self, submitted: _Submitted, losses: dict[int, float]) -> None:
        """Wait for a step, write it down, and stop the arm where it diverged."""
        import tinker

        step = submitted.step
        try:
            nll = float(nlls(await submitted.computed, submitted.data).sum())
        except tinker.RequestFailedError as error:
            if "not finite" not in str(error):
                error.add_note(f"while step {step} of the pilot's arm {self.name}")
                raise
            raise Stopped(f"the loss is not finite at step {step}") from error
        if not math.isfinite(nll):
            raise Stopped(f"the loss is not finite at step {step}")
        await submitted.applied
        losses[step] = nll
        self.journal.append({"step": step, "nll": nll})
        if submitted.saved is not None:
            self.journal.append({"saved_at": step, "state": (await submitted.saved).path}, sync=True)
        self.bar.advance(note=f"{self.name}: nll {nll:.3f}")
        if reason := diverged(losses, step, self.steps, self.untrained):
            raise Stopped(reason)


def diverged(losses: dict[int, float], step: int, steps: int, untrained: float) -> str | None:
    """Return why an arm is stopped after `step`, or None: its smoothed loss is 0.3 above its start.

    The start is the first step's loss, before any update, or `untrained` where that is higher: one small
    batch may be easier than the rest.
    """
    width = max(5, steps // 20)
    if step < max(_PATIENCE * steps, width):
        return None
    start = max(losses[1], untrained)
    now = float(np.mean([losses[at] for at in range(step - width + 1, step + 1)]))
    if now <= start + DIVERGED:
        return None
    return f"the training loss rose from {start:.2f} to {now:.2f} by step {step}"


def _tuple(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)
