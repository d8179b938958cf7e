"""What to look at before spending, and what would change the verdict: one sentence each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from tinker_officer.plan import capacity, cookbook, rates


if TYPE_CHECKING:
    from tinker_officer.plan.decision import Brief, Decision, Setting

_MOST_EPOCHS, _MOST_DUPLICATES, _MOST_TRUNCATED = 4, 0.10, 0.01


class Rows(Protocol):
    """What token counts and pair counts have in common."""

    @property
    def examples(self) -> int:
        """Rows that are trained on."""

    @property
    def duplicates(self) -> int:
        """Rows that repeat an earlier one."""

    @property
    def truncated(self) -> int:
        """Rows cut at the limit."""

    @property
    def dropped(self) -> int:
        """Rows left out for their length."""

    @property
    def masked(self) -> int:
        """Rows left out because nothing of theirs is trained on."""


def warnings(decision: Decision, brief: Brief, setting: Setting) -> tuple[str, ...]:
    """Return every warning that applies, the data's first and the price last."""
    return (
        *brief.warnings,
        *_about_steps(decision, brief, piloted=setting.piloted),
        *_about_size(decision),
        *_about_cost(decision),
    )


def about_rows(counts: Rows, row: str, epochs: int, *, unique: float = 1.0) -> Iterator[str]:
    """Yield what is wrong with rows of data.

    Args:
        counts: the rows.
        row: what one of them is called.
        epochs: passes over them.
        unique: the share of what is trained on that is not a repetition, where known.
    """
    repeated = max(counts.duplicates / counts.examples, 1 - unique)
    truncated = counts.truncated / counts.examples
    if repeated > _MOST_DUPLICATES:
        yield f"{repeated:.0%} of what is trained on is duplicated: it adds steps and cost, not knowledge"
    if truncated > _MOST_TRUNCATED:
        yield f"{truncated:.1%} of the {row}s are truncated, and their ends not learned: raise max_length"
    if counts.dropped:
        yield f"{counts.dropped:,} {row}s are left out because they are longer than max_length"
    if counts.masked:
        yield f"{counts.masked:,} {row}s are left out because no token of theirs is trained on"
    if epochs > _MOST_EPOCHS:
        yield f"{epochs} epochs: beyond 4 a run mostly memorises; watch the held-out loss"


def _about_steps(decision: Decision, brief: Brief, *, piloted: bool) -> Iterator[str]:
    steps, batch = decision.steps.value, decision.batch_size
    if steps < rates.FEW_STEPS:
        raised = "" if piloted else ". So may a higher rate: the top of its interval is raised 1.5 times"
        short = "only 1 step" if steps == 1 else f"only {steps} steps"
        yield f"{short}: below 100 a run has hardly begun to learn. {brief.more}{raised}"
    if batch.value > brief.largest_batch:
        yield f"batch {batch.value} is above {brief.largest_batch}: {brief.batch_warning}"
    if batch.pinned and batch.value > brief.rows:
        yield f"batch {batch.value} is more than all {brief.rows:,} {brief.row}s: an epoch is one step"
    chosen = decision.learning_rate
    low, high = chosen.interval or (0.0, math.inf)
    if chosen.value > rates.HIGHEST:
        yield f"learning rate {chosen.value:.1e} is above 1e-3; most divergence in the sweep is at 3e-3"
    if chosen.pinned and not low <= chosen.value <= high:
        yield f"the pinned learning rate {chosen.value:.1e} is outside [{low:.1e}, {high:.1e}]"


def _about_size(decision: Decision) -> Iterator[str]:
    rank = decision.rank
    if decision.needed > rank.value and not rank.pinned:
        yield f"the rank is capped at {rank.value:,}; the data asks for {decision.needed:,}"
    if decision.verdict == "capacity-limited":
        yield "the adapter is too small for this data: do not expect what full fine-tuning would give"


def _about_cost(decision: Decision) -> Iterator[str]:
    cost = decision.cost
    if cost.uncounted:
        yield (
            f"the tokens of {_and(cost.uncounted)} are not known, so the cost is not either: give the counts "
            "their lengths"
        )
    if cost.unpriced == ("train",):
        yield "the price is unknown, so the cost is too: plan.price(per_million=...)"
    elif cost.unpriced:
        missing = ", ".join(f"{name}=..." for name in cost.unpriced)
        yield f"the price of {_and(cost.unpriced)} is unknown, so the cost is too: plan.price({missing})"


def _and(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def changes(decision: Decision, setting: Setting) -> tuple[str, ...]:
    """Return what would change the verdict: a rank, a subset of the data, or another model."""
    demand = decision.demand
    out = []
    if decision.ratio >= 1:
        room = math.floor(decision.parameters / (demand.weight * demand.each))
        out.append(f"up to {room:,} {demand.noun} stay low-regret at this rank")
    for word, least in (("low-regret", 1.0), ("ample", 4.0)):
        rank = capacity.power_of_two_above(least * demand.parameters / decision.per_rank)
        if decision.ratio < least and rank <= decision.largest:
            out.append(f"rank {rank} would be {word}")
    if decision.ratio < 1 and decision.needed > decision.largest:
        room = math.floor(decision.largest * decision.per_rank / (demand.weight * demand.each))
        share = 100 * room * demand.each / demand.amount
        larger = _larger_model(decision, setting)
        out.append(
            f"no rank up to {decision.largest} is low-regret: take a larger model"
            + (f" ({larger})" if larger else "")
            + f", at most {room:,} {demand.noun} ({share:.2g} % of these), or full fine-tuning"
        )
    return tuple(out)


def _larger_model(decision: Decision, setting: Setting) -> str:
    """Return the smallest listed model of the same family that would be low-regret, and its rank."""
    name = cookbook.bare(setting.base_model)
    family = name.split("/")[0] + "/"
    fits = []
    for other, parts in cookbook.lora_parameters().items():
        if not other.startswith(family) or other == name:
            continue
        per_rank = sum(parts.values())
        experts = decision.demand.unit == "tokens" and capacity.model_shape(other).experts
        weight = capacity.EXPERT_DISCOUNT if experts else 1
        rank = capacity.power_of_two_above(weight * decision.demand.amount / per_rank)
        if rank <= decision.largest:
            fits.append((per_rank, other, rank))
    return f"{min(fits)[1]} at rank {min(fits)[2]}" if fits else ""
