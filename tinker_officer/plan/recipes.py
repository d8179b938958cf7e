"""Learning rates that no sweep settles: what the cookbook's recipes use, as numbers with their doubts.

Source:
    tinker-cookbook 0.5.8: recipes/prompt_distillation/train.py, preference/train_dpo.py,
    recipes/preference/rlhf/rlhf_pipeline.py, recipes/distillation/on_policy_distillation.py; for RL,
    math_rl (2e-5 and 8e-5), code_rl (1e-5 and 4e-5), harbor_rl (1e-5), rl_numerics_check (4e-5).
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from tinker_officer._text import significant
from tinker_officer.plan import rates
from tinker_officer.plan.sourced import Sourced


_ONE = "the value of one recipe, not of a sweep; the interval is x/÷ 2.5, as for a model that nobody swept"


@attrs.frozen
class Recipe:
    """The learning rate that a recipe uses.

    Attributes:
        value: the learning rate, at every rank.
        interval: where the best one is expected.
        source: which recipe.
        doubts: what it does not cover.
    """

    value: float
    interval: tuple[float, float]
    source: str
    doubts: tuple[str, ...]

    def rate(self, *doubts: str) -> Callable[[int, int], Sourced[float]]:
        """Return the rule that a brief holds: the same rate at every rank; short runs may want more."""

        def at(_rank: int, steps: int) -> Sourced[float]:
            low, high = self.interval
            factor = rates.FEW_STEPS_FACTOR if steps < rates.FEW_STEPS else 1.0
            interval = (low, significant(high * factor))
            return Sourced(self.value, self.source, interval=interval, doubts=(*self.doubts, *doubts))

        return at


def _around(value: float, source: str, *doubts: str) -> Recipe:
    interval = (significant(value / 2.5), significant(value * 2.5))
    return Recipe(value, interval, f"tinker-cookbook, {source}", (_ONE, *doubts))


PROMPT_DISTILLATION = _around(1e-4, "recipes/prompt_distillation")
DPO = _around(1e-5, "recipes/preference/dpo")
REWARD_MODEL = _around(3e-4, "recipes/preference/rlhf")
DISTILL = _around(1e-4, "recipes/distillation")
RL = Recipe(
    4e-5,
    (1e-5, 1e-4),
    "the middle of what tinker-cookbook's RL recipes use, 1e-5 to 8e-5; constant, not decayed",
    ("recipes' values on other tasks, not a sweep on this one",),
)
