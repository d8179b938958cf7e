"""Save a checkpoint behind the step that it holds, prove it, and record it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer.train.checkpoints import CheckpointLog, Saved, save_for_sampler
from tinker_officer.train.evaluating import Inline
from tinker_officer.train.session import Session
from tinker_officer.train.waiting import Waiter


if TYPE_CHECKING:
    import tinker

    from tinker_officer.train.run import Run

logger = logging.getLogger(__name__)
_PROBE = 8  # tokens that prove a checkpoint finite


@attrs.frozen
class Pending:
    """A checkpoint on its way."""

    name: str
    proof: Any
    state: Any
    sampler: Any | None


@attrs.frozen
class Saver:
    """Saves the checkpoints of one session.

    Args:
        run: whose they are.
        service: where they are deleted from, when `keep=` says so.
        session: whose weights are saved.
        log: where they are recorded.
        inline: knows which one is best, and so is spared.
        wait: waits for the server.
        regular: whether a checkpoint of a step is one that every course of the run has; a cancelled one
            has others besides.
    """

    run: Run
    service: tinker.ServiceClient
    session: Session
    log: CheckpointLog
    inline: Inline
    wait: Waiter
    regular: Callable[[int], bool]

    def submit(self, step: int, *, sampled: bool) -> Pending:
        """Queue a checkpoint of the weights as they are after what was queued before.

        Args:
            step: optimizer steps in those weights.
            sampled: save weights for sampling as well.
        """
        client, name, ttl = self.session.client, f"{self.run.name}-{step:06d}", self.run.saving.ttl_s
        return Pending(
            name=name,
            proof=client.forward([_probe()], "cross_entropy"),
            # The name is this client's own; overwriting makes a save that the SDK repeats harmless.
            state=client.save_state(name, ttl, overwrite=True),
            sampler=save_for_sampler(client, name, ttl) if sampled else None,
        )

    def proof(self, pending: Pending, step: int) -> dict[str, float]:
        """Return the summed log-probabilities of a few tokens under the weights that are being saved."""
        output = self.wait(pending.proof, "the proof of the checkpoint", step=step)
        total = sum(float(one["logprobs"].to_numpy().sum()) for one in output.loss_fn_outputs)
        return {"the checkpoint's log-probabilities": total}

    def record(self, pending: Pending, step: int) -> Saved:
        """Wait until the server has confirmed a checkpoint, and record it; delete what `keep=` leaves out."""
        state = self.wait(pending.state, "save_state", step=step)
        sampler = None
        if pending.sampler is not None:
            sampler = self.wait(pending.sampler, "save_weights_for_sampler", step=step)
        saved = Saved(
            step=step,
            name=pending.name,
            state_path=state.path,
            sampler_path=sampler.path if sampler else None,
            attempt=self.session.attempt,
        )
        self.log.record(saved)
        logger.info("checkpoint.saved", extra={"officer.step": step, "officer.path": saved.state_path})
        if self.run.saving.keep is not None:
            best = self.inline.best_step(one.step for one in self.log.all() if one.sampler_path)
            spare = {self.newest_regular(), *self.inline.behind(step)} | (set() if best is None else {best})
            self.log.prune(self.service, keep=self.run.saving.keep, spare=spare)
        return saved

    def newest_regular(self) -> int:
        """Return the step of the newest regular checkpoint, which a guard may go back to; 0 without one."""
        return max((saved.step for saved in self.log.all() if self.regular(saved.step)), default=0)

    def keep_for_good(self) -> None:
        """Take the time to live from the last checkpoint and the best: the run has ended with them."""
        if self.run.saving.ttl_s is None:
            return
        known = self.log.all()
        best = self.inline.best_step(one.step for one in known if one.sampler_path)
        for saved in known:
            if saved is known[-1] or saved.step == best:
                self.log.keep_for_good(self.service, saved)

    def at(self, step: int) -> Saved | None:
        """Return the recorded checkpoint of `step`, if there is one to sample from."""
        return next((saved for saved in self.log.all() if saved.step == step and saved.sampler_path), None)


def _probe() -> tinker.Datum:
    """Return a few tokens that every vocabulary has: weights that are not finite give them no probability."""
    import tinker

    targets = tinker.TensorData(data=list(range(1, _PROBE + 1)), dtype="int64", shape=[_PROBE])
    weights = tinker.TensorData(data=[1.0] * _PROBE, dtype="float32", shape=[_PROBE])
    return tinker.Datum(
        model_input=tinker.ModelInput.from_ints(list(range(_PROBE))),
        loss_fn_inputs={"target_tokens": targets, "weights": weights},
    )
