"""How the learning rate moves over a run: warm-up, then a shape."""

from __future__ import annotations

import math
from typing import Self

import attrs

from tinker_officer._fields import one_of, real
from tinker_officer.errors import RunError


SHAPES = ("linear", "cosine", "constant", "wsd")
_FIX = 'Run(plan, name="mine").schedule("linear", warmup=0.03)'


@attrs.frozen
class Schedule:
    """A learning-rate schedule: a linear warm-up, then `shape` down to (not quite) zero.

    Args:
        shape: `linear` (the default, as the sweeps behind our learning rates used), `cosine`, `constant`, or
            `wsd`: warm-up, stable, decay, which falls at the end only.
        warmup: share of the steps that warm up, 0 for none.
        decay: share of the steps that fall, for `wsd`.
    """

    shape: str = attrs.field(default="linear", validator=one_of(SHAPES, error=RunError, fix=_FIX))
    warmup: float = attrs.field(default=0.03, validator=real(0.0, 0.9, error=RunError, fix=_FIX))
    decay: float = attrs.field(
        default=0.2,
        validator=real(
            0.0, 1.0, error=RunError, fix='Run(plan, name="mine").schedule("wsd", decay=0.2)', open_low=True
        ),
    )

    def warmup_steps(self, steps: int) -> int:
        """Return how many of `steps` warm up; at least one step always does not."""
        return min(round(self.warmup * steps), steps - 1)

    def multiplier(self, step: int, steps: int) -> float:
        """Return the share of the peak learning rate that step `step` (1 to `steps`) takes.

        With W warm-up steps and n = `steps` - W: step k takes k / (W + 1) while it warms up; then, at
        j = k - W - 1 (0 to n - 1), linear takes 1 - j / n and cosine (1 + cos(pi j / n)) / 2. `wsd` stays at
        the peak, and in its last d = `decay` x `steps` steps takes 1, 1 - 1 / d, ..., 1 / d, as linear does.
        The peak is reached, and the last step is never 0, so no batch is wasted. Without warm-up linear and
        cosine equal the cookbook's.
        """
        warm = self.warmup_steps(steps)
        if step <= warm:
            return step / (warm + 1)
        position = (step - warm - 1) / (steps - warm)
        if self.shape == "linear":
            return 1.0 - position
        if self.shape == "cosine":
            return (1.0 + math.cos(math.pi * position)) / 2
        if self.shape == "wsd":
            falling = min(max(round(self.decay * steps), 1), steps - warm)
            return min(1.0, (steps - step + 1) / falling)
        return 1.0

    def __str__(self) -> str:
        warm = f", warm-up over {self.warmup:.0%} of the steps" if self.warmup else ""
        falls = f", falling over the last {self.decay:.0%}" if self.shape == "wsd" else ""
        return self.shape + warm + falls

    @classmethod
    def from_dict(cls, spec: dict[str, object]) -> Self:
        """Return the schedule that `attrs.asdict` wrote."""
        return cls(shape=str(spec["shape"]), **{key: float(str(spec[key])) for key in ("warmup", "decay")})
