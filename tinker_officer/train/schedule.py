"""How the learning rate moves over a run: warm-up, then a shape."""

from __future__ import annotations

import math
from typing import Self

import attrs

from tinker_officer._fields import one_of, real
from tinker_officer.errors import RunError


SHAPES = ("linear", "cosine", "constant")
_FIX = 'Run(plan, name="mine").schedule("linear", warmup=0.03)'


@attrs.frozen
class Schedule:
    """A learning-rate schedule: a linear warm-up, then `shape` down to (not quite) zero.

    Args:
        shape: `linear` (the default, as the sweeps behind our learning rates used), `cosine` or `constant`.
        warmup: share of the steps that warm up, 0 for none.
    """

    shape: str = attrs.field(default="linear", validator=one_of(SHAPES, error=RunError, fix=_FIX))
    warmup: float = attrs.field(default=0.03, validator=real(0.0, 0.9, error=RunError, fix=_FIX))

    def warmup_steps(self, steps: int) -> int:
        """Return how many of `steps` warm up; at least one step always does not."""
        return min(round(self.warmup * steps), steps - 1)

    def multiplier(self, step: int, steps: int) -> float:
        """Return the share of the peak learning rate that step `step` (1 to `steps`) takes.

        With W warm-up steps and n = `steps` - W: step k takes k / (W + 1) while it warms up; then, at
        j = k - W - 1 (0 to n - 1), linear takes 1 - j / n and cosine (1 + cos(pi j / n)) / 2. The peak is
        reached once, and the last step is never 0, so no batch is wasted. Without warm-up both shapes
        equal the cookbook's.
        """
        warm = self.warmup_steps(steps)
        if step <= warm:
            return step / (warm + 1)
        position = (step - warm - 1) / (steps - warm)
        if self.shape == "linear":
            return 1.0 - position
        if self.shape == "cosine":
            return (1.0 + math.cos(math.pi * position)) / 2
        return 1.0

    def __str__(self) -> str:
        return f"{self.shape}, warm-up over {self.warmup:.0%} of the steps" if self.warmup else self.shape

    @classmethod
    def from_dict(cls, spec: dict[str, object]) -> Self:
        """Return the schedule that `attrs.asdict` wrote."""
        return cls(shape=str(spec["shape"]), warmup=float(str(spec["warmup"])))
