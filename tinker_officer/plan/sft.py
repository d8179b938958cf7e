"""Supervised fine-tuning: from token counts to rank, learning rate, batch, steps and a verdict.

The arithmetic, in order: T = unique trained tokens (epochs never multiply it); demand = d x T, d = 3 for
a mixture of experts; rank = the power of two whose adapter has `demand` parameters, at least 16, at most
the server's; R = parameters / demand, and the verdict; batch from examples x epochs; steps; the rate.
"""

from __future__ import annotations

import math
from typing import Any, Self

import attrs

from tinker_officer._fields import one_of, real, whole
from tinker_officer.data.measure import TokenCounts
from tinker_officer.data.render import TooLong, TrainOn
from tinker_officer.errors import PlanError
from tinker_officer.plan import advice, capacity, cookbook, rates
from tinker_officer.plan.capacity import ModelShape, Verdict
from tinker_officer.plan.cost import Cost
from tinker_officer.plan.sourced import Sourced


_PRIMER = "LoRA primer: at least one parameter a trained token"
_SMALLEST_BATCH, _STEPS_WANTED = 8, 500
_FIX = "LoRAPlan.for_(base_model).sft(train, epochs=1)"


@attrs.frozen
class Pins:
    """Numbers that the user set; None is computed."""

    rank: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(
            whole(1, capacity.LARGEST_RANK, error=PlanError, fix="plan.pin(rank=32)")
        ),
    )
    learning_rate: float | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(
            real(0.0, 1.0, error=PlanError, fix="plan.pin(learning_rate=2e-4)", open_low=True)
        ),
    )
    batch_size: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(whole(1, error=PlanError, fix="plan.pin(batch_size=16)")),
    )


@attrs.frozen
class Sft:
    """The objective: predict the assistant's turns of the data.

    Attributes:
        counts: what the data measures in tokens.
        epochs: passes over the data.
        max_length: tokens a row may have; None is the model's own limit.
        train_on: the `last` assistant turn, or `all` of them.
        too_long: what happens to a longer row: `truncate` or `drop`.
        renderer_name: the cookbook renderer; None is the model's default.
        base_nll: the base model's nats per trained token on the data, where known.
        data_fingerprint: the fingerprint of the Conversations that were counted, if any.
    """

    counts: TokenCounts = attrs.field(validator=attrs.validators.instance_of(TokenCounts))
    epochs: int = attrs.field(default=1, validator=whole(1, error=PlanError, fix=_FIX))
    max_length: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(whole(2, error=PlanError, fix=_FIX))
    )
    train_on: TrainOn = attrs.field(
        default="last", validator=one_of(("last", "all"), error=PlanError, fix='.sft(train, train_on="last")')
    )
    too_long: TooLong = attrs.field(
        default="truncate",
        validator=one_of(("truncate", "drop"), error=PlanError, fix='.sft(train, too_long="drop")'),
    )
    renderer_name: str | None = None
    base_nll: float | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(
            real(0.0, error=PlanError, fix=".sft(train, base_nll=1.2)", open_low=True)
        ),
    )
    data_fingerprint: str | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse data with nothing to learn from."""
        counts = self.counts
        if counts.trained > 0 and counts.examples > 0:
            return
        lost = [
            f"{number:,} {what}"
            for number, what in (
                (counts.masked, "whose every token is masked"),
                (counts.dropped, "dropped as too long"),
                (counts.truncated, "truncated"),
            )
            if number
        ]
        raise PlanError(
            "there is nothing to learn from: no token of the data is trained on",
            got=f"{counts.examples:,} examples, {counts.total:,} tokens, {counts.trained:,} trained"
            + (f"; {', '.join(lost)}" if lost else ""),
            need="at least one example with an assistant's turn inside max_length",
            fix='check the rows with print(train[0]); or .sft(train, max_length=8192, train_on="all")',
        )

    def agreed(self, train_on: TrainOn | None, too_long: TooLong | None) -> Self:
        """Return a copy with the settings that the tokens were really counted with.

        Args:
            train_on: what the user asked for, or None.
            too_long: what the user asked for, or None.

        Raises:
            PlanError: a setting contradicts the counts.
        """
        asked = {
            "max_length": self.max_length,
            "renderer_name": self.renderer_name,
            "train_on": train_on,
            "too_long": too_long,
        }
        settled: dict[str, Any] = {}
        for name, wanted in asked.items():
            used = getattr(self.counts, name)
            if wanted is not None and used is not None and wanted != used:
                raise PlanError(
                    f"{name} contradicts the counts",
                    got=f"{name}={wanted!r}, but the tokens were counted with {used!r}",
                    need="the same value in both",
                    fix=f"train.measure(base_model, {name}={wanted!r})",
                )
            settled[name] = wanted if used is None else used
        return attrs.evolve(self, **settled)

    @property
    def tokens(self) -> int:
        """T: unique trained tokens, or all trained ones where duplicates were not counted."""
        unique = self.counts.unique_trained
        return self.counts.trained if unique is None else unique


@attrs.frozen
class Decision:
    """Everything that a plan works out, each number with its source.

    Attributes:
        rank, learning_rate, batch_size, steps: the numbers that a run needs.
        tokens: T, the unique trained tokens.
        weight: d, parameters wanted per token.
        per_rank: LoRA parameters per unit of rank.
        parameters: LoRA parameters at the rank.
        needed: the smallest power-of-two rank with a parameter a token.
        largest: the largest power-of-two rank allowed.
        ratio: R, parameters over d x T.
        verdict: R in a word.
        regret: expected excess NLL in percent against the best rank.
        bits_ratio: 2 bits a parameter over the bits in the data, where the base NLL is known.
        cost: what training costs.
        get_lr: what the cookbook's `get_lr` says, or None where it refuses the model.
        pilot: whether a short sweep of learning rates is wise first.
        warnings: what to look at before spending.
        changes: what would change the verdict.
    """

    rank: Sourced[int]
    learning_rate: Sourced[float]
    batch_size: Sourced[int]
    steps: Sourced[int]
    tokens: int
    weight: int
    per_rank: int
    parameters: int
    needed: int
    largest: int
    ratio: float
    verdict: Verdict
    regret: float
    bits_ratio: float | None
    cost: Cost
    get_lr: float | None
    pilot: bool
    warnings: tuple[str, ...]
    changes: tuple[str, ...]


def decide(
    objective: Sft,
    *,
    base_model: str,
    shape: ModelShape,
    per_rank: int,
    max_rank: int | None,
    pins: Pins,
    price: float | None,
) -> Decision:
    """Return every number of a supervised plan.

    Args:
        objective: the data's counts and how they are used.
        base_model: the model's name.
        shape: its LoRA parameters.
        per_rank: LoRA parameters per unit of rank in the chosen layers.
        max_rank: the server's largest rank, or None where it is not known.
        pins: numbers that the user set.
        price: price of a million training tokens, or None.

    Raises:
        PlanError: a pin contradicts `max_rank`.
    """
    tokens = objective.tokens
    weight = capacity.EXPERT_DISCOUNT if shape.experts else 1
    demand = weight * tokens
    largest = capacity.power_of_two_below(max_rank or capacity.LARGEST_RANK)
    needed = capacity.needed_rank(demand, per_rank)
    rank = _rank(
        pins.rank, needed=needed, largest=largest, max_rank=max_rank, shape=shape, objective=objective
    )
    parameters = rank.value * per_rank
    ratio = parameters / demand
    batch_size = _batch_size(pins.batch_size, objective)
    per_epoch = math.ceil(objective.counts.examples / batch_size.value)
    steps = Sourced(
        per_epoch * objective.epochs,
        f"ceil({objective.counts.examples:,} examples / {batch_size.value}) x {objective.epochs}; "
        "the last, smaller batch of an epoch is kept",
    )
    rule = rates.rule_for(base_model, shape)
    rate = rates.learning_rate(rule, rank.value, steps.value)
    if pins.learning_rate is not None:
        rate = attrs.evolve(rate, value=pins.learning_rate, computed=rate.value)
    nll = objective.base_nll
    word = capacity.verdict(ratio)
    decision = Decision(
        rank=rank,
        learning_rate=rate,
        batch_size=batch_size,
        steps=steps,
        tokens=tokens,
        weight=weight,
        per_rank=per_rank,
        parameters=parameters,
        needed=needed,
        largest=largest,
        ratio=ratio,
        verdict=word,
        regret=capacity.expected_regret(ratio),
        bits_ratio=None if nll is None else 2 * parameters / (tokens * nll / math.log(2)),
        cost=Cost(objective.counts.total * objective.epochs, price),
        get_lr=cookbook.get_lr(base_model, shape.hidden_size) if shape.published else None,
        pilot=pins.learning_rate is None and (rule.pilot or word == "capacity-limited"),
        warnings=(),
        changes=(),
    )
    return attrs.evolve(
        decision, warnings=advice.warnings(decision, objective), changes=advice.changes(decision)
    )


def _rank(
    pin: int | None, *, needed: int, largest: int, max_rank: int | None, shape: ModelShape, objective: Sft
) -> Sourced[int]:
    computed = min(max(capacity.SMALLEST_RANK, needed), largest)
    doubts = []
    if needed > capacity.SMALLEST_RANK // 4:
        doubts.append("very rough: within a factor of a few either way")
    if shape.experts:
        doubts.append("mixture of experts: 3 parameters a token (2.8 to 3.6 in the sweep)")
    if objective.counts.unique_trained is None:
        doubts.append("duplicates were not counted; without them the data may ask for less")
    if max_rank is None and (pin or computed) > capacity.SMALLEST_RANK:
        doubts.append("the server's largest rank is not known here; for_(..., max_rank=) holds it")
    if pin is not None and max_rank is not None and pin > max_rank:
        raise PlanError(
            "the pinned rank is above the server's largest",
            got=f"rank={pin} with max_rank={max_rank}",
            need=f"a rank from 1 to {max_rank}",
            fix=f"plan.pin(rank={largest})",
        )
    bound = "at least 16" if largest >= capacity.SMALLEST_RANK else f"at most {largest}"
    source = f"{_PRIMER}, as a power of two, {bound}"
    if pin is None:
        return Sourced(computed, source, doubts=tuple(doubts))
    return Sourced(pin, source, doubts=tuple(doubts), computed=computed)


def _batch_size(pin: int | None, objective: Sft) -> Sourced[int]:
    seen = objective.counts.examples * objective.epochs
    computed = min(
        max(capacity.power_of_two_below(seen / _STEPS_WANTED), _SMALLEST_BATCH), advice.LARGEST_BATCH
    )
    source = f"{seen:,} examples seen / {_STEPS_WANTED}, a power of two from 8 to 128"
    if pin is None:
        return Sourced(computed, source)
    return Sourced(pin, source, computed=computed)
