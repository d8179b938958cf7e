"""The loss-spike guard: what counts as a spike, what is done about it, and the record that repeats it.

A spike is noticed when the server's answer is there, and by then its optimizer step, and a few more, have
been submitted behind it. So nothing is undone in place: the run goes back to a checkpoint before the spike
and comes on again, without that batch or with a lower learning rate. The decision is in the ledger before
anything follows from it, so a run that is killed and started again repeats it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import attrs
import numpy as np

from tinker_officer._fields import one_of, real, whole
from tinker_officer.errors import RunError
from tinker_officer.train.checkpoints import Saved
from tinker_officer.train.folder import RunFolder


if TYPE_CHECKING:
    from tinker_officer.train.run import Run

ACTIONS = ("skip", "roll_back", "stop")
_FIX = 'Run(plan, name="mine").guard("skip", z=8, window=64)'
_ENOUGH = 16  # losses that a judgement needs
_MAD_OF_A_NORMAL = 1.4826  # standard deviations in one median absolute deviation
_LEAST = 0.01  # of the median: spread below which losses that hardly vary make no spike


@attrs.frozen
class SpikeGuard:
    """When a loss is a spike, and what is done about it.

    Args:
        action: `skip` leaves the batch out, `roll_back` lowers the learning rate from the last regular
            checkpoint on, `stop` ends the run with an error that names the batch.
        z: robust standard deviations above the median of the losses before it.
        window: how many losses before it are looked at.
        lower: what `roll_back` multiplies the learning rate by, each time.
        most: how often the guard may act before it stops the run.
    """

    action: str = attrs.field(default="skip", validator=one_of(ACTIONS, error=RunError, fix=_FIX))
    z: float = attrs.field(default=8.0, validator=real(1.0, error=RunError, fix=_FIX))
    window: int = attrs.field(default=64, validator=whole(4, 10_000, error=RunError, fix=_FIX))
    lower: float = attrs.field(
        default=0.5,
        validator=real(
            0.01, 0.99, error=RunError, fix='Run(plan, name="mine").guard("roll_back", lower=0.5)'
        ),
    )
    most: int = attrs.field(default=3, validator=whole(1, error=RunError, fix=_FIX))

    def __str__(self) -> str:
        done = {"skip": "skipped", "roll_back": f"rolled back, learning rate x {self.lower:g}"}
        return f"beyond {self.z:g} robust deviations: {done.get(self.action, 'the run stops')}"


def robust_z(value: float, before: Sequence[float]) -> float:
    """Return how far `value` lies above the median of `before`, in robust standard deviations.

    The deviation is 1.4826 times the median absolute deviation, and at least a hundredth of the median.
    """
    median = float(np.median(before))
    spread = _MAD_OF_A_NORMAL * float(np.median(np.abs(np.asarray(before) - median)))
    spread = max(spread, _LEAST * abs(median))
    if spread == 0.0:  # every one of them is zero
        return math.inf if value > median else 0.0
    return (value - median) / spread


@attrs.frozen
class Decision:
    """What the guard did about one spike, as the ledger has it.

    Args:
        action: `skip` or `roll_back`.
        at: the step that spiked.
        back_to: the last step that still counts as it was trained.
        during: the attempt that saw it; a checkpoint that it saved after `back_to` is void.
        z: how far the loss lay out.
        lower: what the learning rate is multiplied by after `back_to`; 1 for `skip`.
        metrics: what was measured of the step.
    """

    action: str
    at: int
    back_to: int
    during: int
    z: float
    lower: float
    metrics: dict[str, Any] = attrs.field(repr=False)

    def to_record(self) -> dict[str, Any]:
        """Return the ledger's record."""
        fields = {"guard": self.action, **attrs.asdict(self)}
        del fields["action"]
        return {**fields, "when": datetime.now(UTC).isoformat(timespec="seconds")}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the decision that `to_record` wrote."""
        names = ("at", "back_to", "during", "z", "lower", "metrics")
        return cls(action=record["guard"], **{name: record[name] for name in names})


class Spiked(Exception):  # noqa: N818 - it sends the loop back, and is no error of the run
    """The guard has decided, and written it down: go back and come on again."""


@attrs.define
class Watch:
    """Watches the losses of one session of a run, and knows what was decided in those before."""

    rule: SpikeGuard | None
    metric: str
    folder: RunFolder
    decisions: tuple[Decision, ...]
    _recent: deque[float]

    @classmethod
    def of(cls, run: Run, folder: RunFolder, metric: str) -> Self:
        """Return the watch of a run whose folder is rolled back to where it goes on."""
        rule = run.spikes
        recent: deque[float] = deque(maxlen=rule.window if rule else 1)
        if rule is not None:
            recent.extend(one[metric] for one in folder.metrics if metric in one and "guard/z" not in one)
        return cls(rule, metric, folder, decisions(folder), recent)

    def skipped(self, step: int) -> Decision | None:
        """Return the decision to leave out the batch of `step`, if there is one."""
        return next((one for one in self.decisions if one.action == "skip" and one.at == step), None)

    def factor(self, step: int) -> float:
        """Return what the learning rate of `step` is multiplied by."""
        return math.prod(one.lower for one in self.decisions if one.back_to < step)

    def look(
        self,
        step: int,
        metrics: Mapping[str, Any],
        *,
        attempt: int,
        back_to: Callable[[], int],
        keep_rows: Callable[[], str],
    ) -> None:
        """Judge the loss of `step`; write down what follows from it.

        Args:
            step: the step, whose metrics are known and finite.
            metrics: its metrics.
            attempt: which start of the run this is.
            back_to: returns the step of the last regular checkpoint.
            keep_rows: writes down the rows of the batch, and returns what they are.

        Raises:
            Spiked: it is a spike, and the decision is in the ledger.
            RunError: it is a spike, and the run is to stop.
        """
        rule, value = self.rule, metrics.get(self.metric)
        if rule is None or value is None:
            return
        z = robust_z(value, self._recent) if len(self._recent) >= min(_ENOUGH, rule.window) else 0.0
        if z <= rule.z:
            self._recent.append(value)
            return
        if rule.action == "stop" or len(self.decisions) >= rule.most:
            raise self._stopped(step, value, z, keep_rows())
        skips = rule.action == "skip"
        decision = Decision(
            rule.action,
            at=step,
            back_to=step - 1 if skips else back_to(),
            during=attempt,
            z=z,
            lower=1.0 if skips else rule.lower,
            metrics=dict(metrics),
        )
        self.folder.ledger.append(decision.to_record(), sync=True)
        raise Spiked(f"{self.metric} of step {step} is {value:.4g}, {z:.1f} robust deviations above the last")

    def _stopped(self, step: int, value: float, z: float, what: str) -> RunError:
        before = "; ".join(f"step {one.at}: {one.action}" for one in self.decisions)
        return RunError(
            f"the loss spiked at step {step}, and the run was to stop",
            got=f"{self.metric} = {value:.4g}, {z:.1f} robust deviations above the median of the last"
            f" {len(self._recent)}\n{what}" + (f"\nguarded before: {before}" if before else ""),
            need="rows that belong there, a smaller learning rate, or a guard that goes on",
            fix='run = Run(plan, name="guarded").guard("skip")\nrun.start(on=engine, at="runs/guarded")',
        )


def decisions(folder: RunFolder) -> tuple[Decision, ...]:
    """Return what guards have decided in the run of `folder`, oldest first."""
    return tuple(Decision.from_record(record) for record in folder.ledger if "guard" in record)


def void(saved: Saved, made: Sequence[Decision]) -> bool:
    """Return whether a checkpoint holds steps that a decision has taken back."""
    return any(saved.attempt <= one.during and saved.step > one.back_to for one in made)
