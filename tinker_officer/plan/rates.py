"""Learning rates: which rule answers for which model, how far off it may be, and who says so.

The first rule that knows the model answers: the rule calibrated on the cookbook's sweep, then `get_lr`,
then `get_lr`'s formula for a model of the same architecture under another name, then a fallback.

Not known here: learning rates of anything but supervised fine-tuning with AdamW. The sweep is one
dataset (Tulu 3), one batch size (128) and one length (780 steps).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs

from tinker_officer._text import significant
from tinker_officer.plan import cookbook
from tinker_officer.plan.capacity import ModelShape
from tinker_officer.plan.sourced import Sourced


HIGHEST = 1e-3  # most divergence in the sweep is at 3e-3
FEW_STEPS = 100
FEW_STEPS_FACTOR = 1.5  # LoRA Without Regret: about 15x full fine-tuning below 100 steps, 9.8x above
_SWEEP = "tinker-cookbook, recipes/chat_sl/results/sft_sweep.md"
_NARROW, _WIDE = 1.6, 2.5
_SWEPT_HIDDEN = (2048, 8192)


@attrs.frozen
class Rule:
    """One way to a learning rate.

    Attributes:
        source: what the rule is, and who measured it.
        rate: the learning rate at a rank.
        spread: the interval is the rate divided and multiplied by this.
        doubts: what the rule does not cover.
        pilot: whether a short sweep is wise before a long run.
    """

    source: str
    rate: Callable[[int], float]
    spread: float
    doubts: tuple[str, ...] = ()
    pilot: bool = False


def power_law(coefficient: float, exponent: float) -> Callable[[int], float]:
    """Return the rule `coefficient x (rank / 32)^exponent`."""
    return lambda rank: float(coefficient * (rank / 32) ** exponent)


def _swept_qwen(pattern_matched: str) -> Rule:
    unswept = pattern_matched.endswith("8")
    return Rule(
        source=f"3.2e-4 x (r/32)^0.20, fitted to 7 Qwen3.5 and Qwen3.6 models in {_SWEEP}",
        rate=power_law(3.2e-4, 0.20),
        spread=_WIDE if unswept else _NARROW,
        doubts=("Qwen3.8 was not swept; its 27B has Qwen3.6-27B's architecture",) if unswept else (),
        pilot=unswept,
    )


def _swept_others(_match: str) -> Rule:
    return Rule(
        source=f"4e-4 x (r/32)^0.22, fitted to the models that get_lr refuses in {_SWEEP}",
        rate=power_law(4e-4, 0.22),
        spread=_NARROW,
        doubts=("swept at ranks 1 to 4 on most of these models",),
    )


def _swept_at_an_edge(_match: str) -> Rule:
    return Rule(
        source=f"4e-4 x (r/32)^0.22, the rule for models that get_lr refuses in {_SWEEP}",
        rate=power_law(4e-4, 0.22),
        spread=_WIDE,
        doubts=("gpt-oss-20b itself did best at the lowest rate that the sweep tried, 1e-4",),
        pilot=True,
    )


_CALIBRATED: tuple[tuple[re.Pattern[str], Callable[[str], Rule]], ...] = (
    (re.compile(r"Qwen3\.[568](?=-)"), _swept_qwen),
    (re.compile(r"gpt-oss"), _swept_at_an_edge),
    (re.compile(r"DeepSeek-V3\.1|Kimi-K2|Nemotron-3-"), _swept_others),
)


def rule_for(base_model: str, shape: ModelShape) -> Rule:
    """Return the first rule that knows `base_model`."""
    if shape.published:  # the name of a folder says nothing
        for pattern, make in _CALIBRATED:
            if match := pattern.search(base_model):
                return make(match.group())
        answer = cookbook.get_lr(base_model, shape.hidden_size)
        if answer is not None:
            return _answered(answer)
    family = {"llama": "llama", "mistral": "llama", "qwen2": "qwen", "qwen3": "qwen"}.get(shape.architecture)
    if family is not None and shape.hidden_size is not None:
        return _borrowed(family, shape)
    return Rule(
        source="fallback: 4e-4 x (r/32)^0.22",
        rate=power_law(4e-4, 0.22),
        spread=_WIDE,
        doubts=("no sweep, and no formula of the cookbook, covers this model",),
        pilot=True,
    )


def _answered(answer: float) -> Rule:
    return Rule(
        source=f"{cookbook.version()}, get_lr",
        rate=lambda _rank: answer,
        spread=_WIDE,
        doubts=("one rate for every rank; in the sweep the best rate grows as rank^0.2",),
    )


def _borrowed(family: str, shape: ModelShape) -> Rule:
    """Return `get_lr`'s formula for a model of the architecture but not the name that it looks for.

    The width is held inside the swept ones: the formula's exponent would give a 135M Llama 1.3e-3.
    """
    assert shape.hidden_size is not None  # noqa: S101 - the caller checked; this tells the type checker
    low, high = _SWEPT_HIDDEN
    width = min(max(shape.hidden_size, low), high)
    rate = cookbook.family_lr(family, width)
    doubts = [f"{shape.architecture} architecture, but not one of the swept models"]
    if width != shape.hidden_size:
        doubts.append(
            f"width {shape.hidden_size:,} is outside the swept {low:,} to {high:,}; {width:,} was used"
        )
    return Rule(
        source=f"{cookbook.version()}, get_lr's {family.capitalize()} formula at width {width:,}",
        rate=lambda _rank: rate,
        spread=_WIDE,
        doubts=tuple(doubts),
        pilot=True,
    )


def learning_rate(rule: Rule, rank: int, steps: int) -> Sourced[float]:
    """Return the rule's rate at `rank`, two significant digits, at most 1e-3, with its interval.

    Below 100 steps the top of the interval is raised to 1.5 times.
    """
    exact = rule.rate(rank)
    value = significant(min(exact, HIGHEST))
    top = min(exact * rule.spread, HIGHEST) * (FEW_STEPS_FACTOR if steps < FEW_STEPS else 1.0)
    interval = (significant(min(exact, HIGHEST) / rule.spread), significant(top))
    doubts = rule.doubts
    if exact > HIGHEST:
        doubts = (*doubts, f"the rule says {exact:.1e}; held at 1e-3, above which the sweep diverges")
    return Sourced(value, rule.source, interval=interval, doubts=doubts)
