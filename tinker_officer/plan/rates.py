"""Learning rates: which rule answers for which model, how far off it may be, and who says so.

The first that knows the model answers: its pilot, then a calibrated rule (the user's, then the one that
comes with this package), then `get_lr`, then the rule of the nearest architecture, then the pooled one.

    rule = rates.fit(Trial.from_run(version) for version in registry.versions("tickets"))
    plan = plan.calibrated(rule)

Not known here: learning rates of anything but supervised fine-tuning with AdamW. The sweep behind the
rule that comes with the package is one dataset (Tulu 3), one batch size (128) and one length (780 steps).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import attrs

from tinker_officer._text import significant
from tinker_officer.plan import cookbook
from tinker_officer.plan.calibration import REFERENCE_RANK, CalibratedRule, fit
from tinker_officer.plan.capacity import ModelShape
from tinker_officer.plan.sourced import Sourced
from tinker_officer.plan.trials import Trial, family_like, family_of


if TYPE_CHECKING:
    from tinker_officer.plan.pilot_fit import PilotFit

__all__ = [
    "FEW_STEPS",
    "FEW_STEPS_FACTOR",
    "HIGHEST",
    "CalibratedRule",
    "Rule",
    "Trial",
    "choose",
    "fit",
    "learning_rate",
    "power_law",
    "rule_for",
    "shipped",
]

HIGHEST = 1e-3  # most divergence in the sweep is at 3e-3
FEW_STEPS = 100
FEW_STEPS_FACTOR = 1.5  # LoRA Without Regret: about 15x full fine-tuning below 100 steps, 9.8x above
_WIDE = 2.5
# Members of a tried family that were not tried themselves, or not at rates that tell.
_UNTRIED = (
    (re.compile(r"Qwen3\.8-"), "Qwen3.8 was not swept; its 27B has Qwen3.6-27B's architecture"),
    (re.compile(r"gpt-oss"), "gpt-oss-20b was swept at 4e-5 and 1e-4 only, and did better at 1e-4"),
)


@attrs.frozen
class Rule:
    """One way to a learning rate.

    Attributes:
        source: what the rule is, and who measured it.
        rate: the learning rate at a rank.
        spread: the interval is the rate divided and multiplied by this.
        doubts: what the rule does not cover.
        pilot: whether a short sweep is wise before a long run.
        ranks: the lowest and highest rank that the rule was measured at, where known.
    """

    source: str
    rate: Callable[[int], float]
    spread: float
    doubts: tuple[str, ...] = ()
    pilot: bool = False
    ranks: tuple[int, int] | None = None


def power_law(coefficient: float, exponent: float) -> Callable[[int], float]:
    """Return the rule `coefficient x (rank / 32)^exponent`."""
    return lambda rank: float(coefficient * (rank / REFERENCE_RANK) ** exponent)


@cache
def shipped() -> CalibratedRule:
    """Return the rule that comes with the package, made from the cookbook's sweep by bench/calibration.py."""
    text = resources.files("tinker_officer.plan").joinpath("calibrated.json").read_text("utf-8")
    return CalibratedRule.from_dict(json.loads(text))


def rule_for(base_model: str, shape: ModelShape, *, calibration: CalibratedRule | None = None) -> Rule:
    """Return the first rule that knows `base_model`.

    Args:
        base_model: its name.
        shape: its LoRA parameters, and whether its name says what it is.
        calibration: the user's own rule, asked before the one that comes with the package.
    """
    if calibration is not None:
        own = calibration.family(base_model) or calibration.family(family_of(base_model))
        if own is not None:
            return _calibrated(calibration, own.name)
    if shape.published:  # the name of a folder says nothing
        doubt = next((text for pattern, text in _UNTRIED if pattern.search(base_model)), None)
        family = family_of(base_model)
        if family is not None and doubt is not None:
            return _calibrated(shipped(), family, doubt)
        if shipped().family(family) is not None:
            return _calibrated(shipped(), family)
        answer = cookbook.get_lr(base_model, shape.hidden_size)
        if answer is not None:
            return _answered(answer)
    relative = family_like(shape.architecture)
    if shipped().family(relative) is not None:
        return _calibrated(
            shipped(), relative, f"{shape.architecture} architecture, but not one of the swept models"
        )
    return _calibrated(shipped(), None, "no sweep, and no formula of the cookbook, covers this model")


def _calibrated(calibration: CalibratedRule, family: str | None, doubt: str | None = None) -> Rule:
    """Return a calibrated rule as it stands for one family; with a doubt, as for one that was not tried."""
    known = calibration.family(family)
    coefficient = known.coefficient if known else calibration.pooled
    if known is not None:
        models = "1 model" if known.models == 1 else f"{known.models} models"
        measured = f"fitted to {models} of {known.name}"
    else:
        measured = "fallback: the mean of the families"
    written = f"{coefficient:.1e}".replace("e-0", "e-")
    return Rule(
        source=f"{written} x (r/32)^{calibration.exponent:.2f}, {measured} in {calibration.source}",
        rate=power_law(coefficient, calibration.exponent),
        spread=calibration.spread_unknown if doubt else calibration.spread,
        doubts=(doubt,) if doubt else (),
        pilot=doubt is not None,
        ranks=known.ranks if known else None,
    )


def _answered(answer: float) -> Rule:
    return Rule(
        source=f"{cookbook.version()}, get_lr",
        rate=lambda _rank: answer,
        spread=_WIDE,
        doubts=("one rate for every rank; in the sweep the best rate grows with the rank",),
    )


def choose(rule: Rule, pilot: PilotFit | None, *, rank: int, steps: int) -> Sourced[float]:
    """Return the learning rate: the pilot's where it settled one, else the rule's.

    Args:
        rule: what answers without a pilot.
        pilot: what a pilot found, if there was one.
        rank: the plan's rank; a pilot at another one is moved by the rank exponent of the calibration.
        steps: the plan's steps.
    """
    if pilot is None:
        return learning_rate(rule, rank, steps)
    if pilot.refused is not None:
        answer = learning_rate(rule, rank, steps)
        return attrs.evolve(
            answer, doubts=(*answer.doubts, f"a pilot was run and settles nothing: {pilot.refused}")
        )
    return pilot.sourced(rank, exponent=shipped().exponent)


def learning_rate(rule: Rule, rank: int, steps: int) -> Sourced[float]:
    """Return the rule's rate at `rank`, two significant digits, at most 1e-3, with its interval.

    Below 100 steps the top of the interval is raised to 1.5 times.
    """
    exact = rule.rate(rank)
    value = significant(min(exact, HIGHEST))
    top = min(exact * rule.spread, HIGHEST) * (FEW_STEPS_FACTOR if steps < FEW_STEPS else 1.0)
    interval = (significant(min(exact, HIGHEST) / rule.spread), significant(top))
    doubts = rule.doubts
    if rule.ranks is not None and not rule.ranks[0] <= rank <= rule.ranks[1]:
        doubts = (*doubts, f"measured at ranks {rule.ranks[0]} to {rule.ranks[1]}, and extended to {rank}")
    if exact > HIGHEST:
        doubts = (*doubts, f"the rule says {exact:.1e}; held at 1e-3, above which the sweep diverges")
    return Sourced(value, rule.source, interval=interval, doubts=doubts)
