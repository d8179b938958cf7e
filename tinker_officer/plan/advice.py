"""What to look at before spending, and what would change the verdict: one sentence each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tinker_officer.plan import capacity, rates


if TYPE_CHECKING:
    from tinker_officer.plan.sft import Decision, Sft

LARGEST_BATCH = 128
_MOST_EPOCHS, _MOST_DUPLICATES, _MOST_TRUNCATED = 4, 0.10, 0.01


def warnings(decision: Decision, objective: Sft) -> tuple[str, ...]:
    """Return every warning that applies, the data's first and the price last."""
    return (*_about_data(decision, objective), *_about_steps(decision, objective), *_about_size(decision))


def _about_data(decision: Decision, objective: Sft) -> Iterator[str]:
    counts = objective.counts
    repeated = max(counts.duplicates / counts.examples, 1 - decision.tokens / counts.trained)
    truncated = counts.truncated / counts.examples
    if repeated > _MOST_DUPLICATES:
        yield f"{repeated:.0%} of what is trained on is duplicated: it adds steps and cost, not knowledge"
    if truncated > _MOST_TRUNCATED:
        yield f"{truncated:.1%} of the rows are truncated, and their ends not learned: raise max_length"
    if counts.dropped:
        yield f"{counts.dropped:,} rows are left out because they are longer than max_length"
    if counts.masked:
        yield f"{counts.masked:,} rows are left out because no token of theirs is trained on"
    if objective.epochs > _MOST_EPOCHS:
        yield f"{objective.epochs} epochs: beyond 4 a run mostly memorises; watch the held-out loss"


def _about_steps(decision: Decision, objective: Sft) -> Iterator[str]:
    steps, batch, examples = decision.steps.value, decision.batch_size, objective.counts.examples
    if steps < rates.FEW_STEPS:
        yield (
            f"only {steps} steps: below 100 a run has hardly begun to learn. More data, more epochs or a "
            "smaller batch help. So may a higher rate: the top of its interval is raised 1.5 times"
        )
    if batch.value > LARGEST_BATCH:
        yield f"batch {batch.value} is above 128: LoRA falls behind full fine-tuning, whatever the rank"
    if batch.pinned and batch.value > examples:
        yield f"batch {batch.value} is more than all {examples:,} examples: an epoch is one step"
    chosen = decision.learning_rate
    low, high = chosen.interval or (0.0, math.inf)
    if chosen.value > rates.HIGHEST:
        yield f"learning rate {chosen.value:.1e} is above 1e-3; most divergence in the sweep is at 3e-3"
    if chosen.pinned and not low <= chosen.value <= high:
        yield f"the pinned learning rate {chosen.value:.1e} is outside [{low:.1e}, {high:.1e}]"


def _about_size(decision: Decision) -> Iterator[str]:
    if decision.needed > decision.largest and not decision.rank.pinned:
        yield f"the rank is capped at {decision.largest:,}; the data asks for {decision.needed:,}"
    if decision.verdict == "capacity-limited":
        yield "the adapter is too small for this data: do not expect what full fine-tuning would give"
    if decision.cost.per_million is None:
        yield "the price is unknown, so the cost is too: plan.price(per_million=...)"


def changes(decision: Decision) -> tuple[str, ...]:
    """Return what would change the verdict: a rank, a subset of the data, or another model."""
    demand = decision.weight * decision.tokens
    out = []
    if decision.ratio >= 1:
        room = decision.parameters // decision.weight
        out.append(f"up to {room:,} unique trained tokens stay low-regret at this rank")
    for word, least in (("low-regret", 1.0), ("ample", 4.0)):
        rank = capacity.power_of_two_above(least * demand / decision.per_rank)
        if decision.ratio < least and rank <= decision.largest:
            out.append(f"rank {rank} would be {word}")
    if decision.ratio < 1 and decision.needed > decision.largest:
        room = decision.largest * decision.per_rank // decision.weight
        out.append(
            f"no rank up to {decision.largest} is low-regret: take a larger model, at most {room:,} "
            f"trained tokens ({100 * room / decision.tokens:.2g} % of these), or full fine-tuning"
        )
    return tuple(out)
