"""A plan as text, for a terminal of eighty columns or more."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tinker_officer._text import count, duration, significant
from tinker_officer.plan import capacity, rates
from tinker_officer.plan.sft import Sft
from tinker_officer.plan.sourced import Sourced


if TYPE_CHECKING:
    from tinker_officer.plan.cost import Phase
    from tinker_officer.plan.decision import Decision
    from tinker_officer.plan.plan import LoRAPlan

_WIDTH = 96
_LABEL, _VALUE = 16, 19
_LONG_STEPS = 300
_MEANING = {
    "ample": "the adapter has room to spare; a lower loss is not to be had from a higher rank",
    "low-regret": "the adapter is large enough to learn about what full fine-tuning would",
    "tight": "the adapter is smaller than the data asks for; a higher rank would learn more",
    "capacity-limited": "the adapter is far too small for this data",
}
_MEANING_OF_BITS = {
    "ample": "the adapter has room to spare; a higher rank would not learn more",
    "low-regret": "the adapter can hold all that the data tells",
    "tight": "the data may tell more than the adapter can hold; a higher rank would learn more",
    "capacity-limited": "the adapter is far too small for what the data may tell",
}
_REGRET = "of the loss, against the best rank: 0.38 x R^-0.80, fitted to tinker-cookbook's sweep (Tulu 3)"
_CAPACITY = {
    "sft": "with a parameter for each trained token, LoRA learns like full fine-tuning",
    "prompt_distillation": "with a parameter for each trained token, LoRA learns like full fine-tuning",
    "dpo": "a pair tells at most one bit, a parameter holds about two: a low rank is enough",
    "reward_model": "a pair tells at most one bit, a parameter holds about two: a low rank is enough",
    "rl": "an episode tells at most the entropy of its reward, so a low rank is enough",
    "distill": "an episode of N tokens tells O(N) bits: more than RL asks for, less than SFT",
}
_INTO = {"reward_model": "from", "prompt_distillation": "into", "distill": "into"}
_PLACEMENT = ("placement", "all layers, the feed-forward ones above all; attention alone learns less")
_RATE = ("rate", "about 10 times full fine-tuning's learning rate (9.8 times, over 14 models)")
_BATCH = ("batch", "small: LoRA's gap to full fine-tuning grows with the batch, whatever the rank")
_GROUPS = ("groups", "only groups whose episodes earn different rewards move the policy")
_DOCTRINE_SOURCE = "LoRA Without Regret, Thinking Machines Lab, 2025; Tinker's LoRA primer"


def rate(value: float) -> str:
    """Return a learning rate as people write it: `4.7e-4`."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def money(value: float | None) -> str:
    """Return a price in dollars, as Tinker bills; `unknown` when nobody gave one."""
    return "unknown" if value is None else f"${value:,.2f}"


def ratio(value: float) -> str:
    """Return R with three digits: `0.0394`, `23.1`, `3,730`."""
    return f"{significant(value, 3):,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - digits only


def percent(value: float) -> str:
    """Return a share in percent with the digits that matter: `below 0.01 %`, `0.031 %`, `2.1 %`, `12 %`."""
    if value < 0.01:  # noqa: PLR2004 - nobody could measure it
        return "below 0.01 %"
    return f"{value:.2g} %" if value < 10 else f"{value:.0f} %"  # noqa: PLR2004 - digits only


def meaning(plan: LoRAPlan) -> str:
    """Return what the plan's verdict says, in a sentence."""
    return (_MEANING if plan.decision.demand.unit == "tokens" else _MEANING_OF_BITS)[plan.verdict]


def placement(plan: LoRAPlan) -> str:
    """Return the adapted layers in words."""
    chosen = {"MLP": plan.train_mlp, "attention": plan.train_attn, "unembedding": plan.train_unembed}
    return " + ".join(name for name, wanted in chosen.items() if wanted)


def as_text(plan: LoRAPlan, *, tokens_per_second: float | None = None) -> str:
    """Return the whole explanation; see `LoRAPlan.explain`."""
    if plan.objective is None:
        return (
            f"{plan.base_model}: no data yet. {plan.shape.per_rank():,} LoRA parameters per unit of rank "
            f"({plan.shape.source}).\nNext: plan.sft(train)"
        )
    blocks = [
        "\n".join(_head(plan)),
        "\n".join(_numbers(plan, tokens_per_second)),
        "\n".join(_list("Look at", plan.warnings, "!")),
        "\n".join(_list("What would change the verdict", plan.decision.changes, "-")),
        "\n".join(_rules(plan.method)),
    ]
    return "\n\n".join(block for block in blocks if block)


def purpose(plan: LoRAPlan) -> str:
    """Return what the plan is for: `supervised fine-tuning of Qwen/Qwen3-8B`."""
    title = "" if plan.objective is None else plan.objective.title
    return f"{title} {_INTO.get(plan.method, 'of')} {plan.base_model}"


def _head(plan: LoRAPlan) -> Iterator[str]:
    title = f"LoRA plan: {purpose(plan)}"
    yield title
    yield "=" * min(_WIDTH, len(title))
    yield from textwrap.wrap(
        f"rank {plan.rank} | learning rate {rate(plan.learning_rate)} | batch {plan.batch_size} | "
        f"{plan.steps:,} steps | {plan.verdict} | cost {money(plan.cost.total)}",
        _WIDTH,
    )


def _numbers(plan: LoRAPlan, tokens_per_second: float | None) -> Iterator[str]:
    decision, demand = plan.decision, plan.decision.demand
    tokens = demand.unit == "tokens"
    label = "trained tokens" if tokens else "bits to learn"
    source = tokens_source(plan)
    yield from _line(label, f"{decision.tokens:,}", source, demand.doubts)
    for fact in decision.facts:
        yield from _line(f"  {fact.label}", fact.value, fact.source)
    yield from _line("rank", _shown(decision.rank, str), _origin(decision.rank, str), decision.rank.doubts)
    yield from _line(
        "parameters",
        f"{decision.parameters:,}",
        f"{decision.per_rank:,} per unit of rank in {placement(plan)}; {plan.shape.source}",
    )
    yield from _line("verdict", decision.verdict, meaning(plan))
    unit = "token" if tokens else "bit"
    wanted = unit if decision.weight == 1 else f"({decision.weight} x {unit}s)"
    yield from _line(
        "  R", ratio(decision.ratio), f"parameters / {wanted}: 4 ample, 1 low-regret, 0.25 tight"
    )
    if decision.regret is not None:
        yield from _line("  regret", percent(decision.regret), _REGRET, _beyond(decision))
    if decision.bits_ratio is not None:
        yield from _line("  R in bits", ratio(decision.bits_ratio), "2 bits a parameter / bits in the data")
    yield from _rate_lines(plan)
    batch = decision.batch_size
    yield from _line("batch size", _shown(batch, str), _origin(batch, str), batch.doubts)
    yield from _line("steps", f"{plan.steps:,}", decision.steps.source)
    yield from _cost_lines(plan, tokens_per_second)


def tokens_source(plan: LoRAPlan) -> str:
    """Return what was counted, and how."""
    if not isinstance(plan.objective, Sft):
        return plan.decision.demand.source
    counts, measured = plan.counts, plan.objective.data_fingerprint
    unique = ""
    if plan.decision.tokens != counts.trained:
        unique = f"unique ones of {counts.trained:,}; "
    where = "the last assistant turn" if plan.train_on == "last" else "every assistant turn"
    length = "" if plan.max_length is None else f", rows of at most {plan.max_length:,} tokens"
    renderer = "" if plan.renderer_name is None else f", renderer {plan.renderer_name}"
    return (
        f"{unique}{'measured' if measured else 'as given'}: {counts.examples:,} examples of {counts.total:,} "
        f"tokens, of which {where} is learned{length}{renderer}"
    )


def cost_source(plan: LoRAPlan) -> str:
    """Return what is billed, at which price."""
    cost = plan.cost
    if len(cost.phases) == 1:
        return phase_source(cost.phases[0], cost.source)
    names = " + ".join(phase.name for phase in cost.phases)
    return f"{names}; {cost.source}" if cost.total is not None else names


def phase_source(phase: Phase, source: str = "") -> str:
    """Return a line of the bill in words: tokens, which, and at what price."""
    tokens = "an unknown number of" if phase.tokens is None else count(phase.tokens)
    price = "no price given" if phase.per_million is None else f"${phase.per_million:g} a million"
    if source and phase.per_million is not None:
        price += f", {source}"
    return f"{tokens} tokens {phase.what}; {price}"


def _cost_lines(plan: LoRAPlan, tokens_per_second: float | None) -> Iterator[str]:
    cost = plan.cost
    yield from _line("cost", money(cost.total), cost_source(plan))
    if len(cost.phases) > 1:
        for phase in (one for one in cost.phases if one.tokens is not None or one.per_million is not None):
            yield from _line(f"  {phase.name}", money(phase.total), phase_source(phase))
    if cost.storage_per_month is not None:
        yield from _line(
            "  storage",
            money(cost.storage_per_month),
            f"a month for each resumable checkpoint of {cost.checkpoint_gigabytes:.2g} GB (float32 weights "
            f"and AdamW's moments); ${cost.storage_price:g} a GB; not in the total",
        )
    if tokens_per_second and cost.train_tokens is not None:
        seconds = cost.train_tokens / tokens_per_second
        sampled = "" if len(cost.phases) == 1 else ", without what is not training"
        said = f"at {tokens_per_second:,.0f} tokens a second{sampled}"
        yield from _line("time", f"about {duration(seconds)}", said)


def _beyond(decision: Decision) -> tuple[str, ...]:
    beyond = capacity.extrapolated(decision.ratio)
    return ("extrapolated: the sweep covers R from 0.07 to 12",) if beyond else ()


def _rate_lines(plan: LoRAPlan) -> Iterator[str]:
    decision = plan.decision
    chosen = decision.learning_rate
    low, high = chosen.interval or (chosen.value, chosen.value)
    doubts = chosen.doubts
    if decision.pilot:
        arms = ", ".join(rate(chosen.value * factor) for factor in (0.5, 1, 2))
        long = plan.steps > _LONG_STEPS
        advice = (
            f"before the long run, try {arms} for {rates.FEW_STEPS} steps each" if long else f"try {arms}"
        )
        doubts = (*doubts, f"{advice} and keep the best: plan.pilot(train, held_out, on=...)")
    yield from _line("learning rate", _shown(chosen, rate), _origin(chosen, rate), doubts)
    yield from _line("  interval", f"{rate(low)} to {rate(high)}", "where the best rate is expected")
    answer = "none" if decision.get_lr is None else rate(decision.get_lr)
    said = (
        "the cookbook's get_lr does not know this model"
        if decision.get_lr is None
        else "the cookbook's answer"
    )
    if decision.get_lr is not None and plan.method != "sft":
        said += ", which is for supervised fine-tuning"
    yield from _line("  get_lr", answer, said)


def _shown(number: Sourced[Any], form: Callable[[Any], str]) -> str:
    text = form(number.value)
    return text if number.computed is None else f"{text} (pinned)"


def _origin(number: Sourced[Any], form: Callable[[Any], str]) -> str:
    return number.source if number.computed is None else f"computed: {form(number.computed)}, {number.source}"


def _line(label: str, value: str, source: str, doubts: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield label, value and source in three columns; doubts follow under the source.

    A value wider than its column takes the room from the first line of the source.
    """
    width = _WIDTH - _LABEL - _VALUE
    taken = max(0, len(value) - (_VALUE - 1))
    first, *rest = textwrap.wrap(source, width, initial_indent=" " * taken)
    lines = [first[taken:], *rest]
    for doubt in doubts:
        lines += textwrap.wrap(doubt, width, initial_indent="? ", subsequent_indent="  ")
    yield f"{label:<{_LABEL}}{value:<{_VALUE - 1}} {lines[0]}".rstrip()
    for line in lines[1:]:
        yield " " * (_LABEL + _VALUE) + line


def _list(title: str, lines: tuple[str, ...], bullet: str) -> Iterator[str]:
    if not lines:
        return
    yield title
    for line in lines:
        yield from textwrap.wrap(line, _WIDTH, initial_indent=f"  {bullet} ", subsequent_indent="    ")


def _rules(method: str) -> Iterator[str]:
    lines = [("capacity", _CAPACITY[method]), _PLACEMENT]
    if method == "sft":
        lines[1:1] = [_RATE]
    lines += [_GROUPS] if method == "rl" else [_BATCH] if method in {"sft", "prompt_distillation"} else []
    yield f"Rules of thumb ({_DOCTRINE_SOURCE})"
    for name, text in lines:
        yield f"  {name:<{_LABEL - 2}}{text}"
