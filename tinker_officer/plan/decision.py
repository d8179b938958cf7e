"""From a brief to numbers: what every method asks of the arithmetic, and what it gets back.

A method (`sft.py`, `preference.py`, `rl.py`, `distill.py`) writes a `Brief`: how much there is to hold,
which ranks, batches and rates its recipes use, and what is billed. `decide` is the same for all: demand,
rank, R and verdict, batch, steps, rate, cost, warnings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

from tinker_officer._fields import real, whole
from tinker_officer.errors import PlanError
from tinker_officer.plan import advice, capacity, cookbook
from tinker_officer.plan.capacity import ModelShape, Verdict
from tinker_officer.plan.cost import Cost, Phase, Prices
from tinker_officer.plan.sourced import Number, Sourced


if TYPE_CHECKING:
    from tinker_officer.plan.pilot_fit import PilotFit
    from tinker_officer.plan.rates import CalibratedRule

Unit: TypeAlias = Literal["tokens", "bits"]


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
class Setting:
    """The plan around an objective.

    Attributes:
        base_model: the model's name.
        shape: its LoRA parameters.
        per_rank: LoRA parameters per unit of rank in the chosen layers.
        max_rank: the server's largest rank, or None where it is not known.
        pins: numbers that the user set.
        prices: what tokens cost, where known.
        pilot_fit: the rate that a pilot measured, if any.
        calibration: the user's own rule for the rate, if any.
    """

    base_model: str
    shape: ModelShape
    per_rank: int
    max_rank: int | None
    pins: Pins
    prices: Prices
    pilot_fit: PilotFit | None = None
    calibration: CalibratedRule | None = None

    @property
    def largest(self) -> int:
        """The largest power-of-two rank that the server allows."""
        return capacity.power_of_two_below(self.max_rank or capacity.LARGEST_RANK)

    @property
    def piloted(self) -> bool:
        """Whether a pilot settled the learning rate."""
        return self.pilot_fit is not None and self.pilot_fit.refused is None


@attrs.frozen
class Demand:
    """What the adapter has to hold.

    Attributes:
        amount: how many tokens or bits.
        unit: `tokens` or `bits`.
        weight: parameters wanted for each.
        noun: what the data comes in: `unique trained tokens`, `pairs`, `episodes`.
        each: tokens or bits of one of these.
        source: how the amount was worked out.
        doubts: what that leaves out.
    """

    amount: float
    unit: Unit
    weight: int
    noun: str
    each: float
    source: str
    doubts: tuple[str, ...] = ()

    @property
    def parameters(self) -> float:
        """Parameters that would hold it."""
        return self.weight * self.amount


@attrs.frozen
class Fact:
    """A number that the method brings with it, to be shown: label, value, and where it comes from."""

    label: str
    value: str
    source: str


@attrs.frozen
class Brief:
    """What a method asks of the arithmetic.

    Attributes:
        demand: what the adapter has to hold.
        ranks: the smallest and the largest rank that the method's rule gives; the server's comes on top.
        rank_source: whose rule that is.
        rank_doubts: what it leaves out.
        rows: what batches are drawn from, in one epoch.
        row: what one of them is called.
        epochs: passes over the rows.
        batch_size: rows a step, before pins.
        largest_batch: the largest batch that passes without a warning.
        batch_warning: what a larger one means.
        more: what helps against too few steps.
        rate: the learning rate at a rank and a number of steps.
        pilot: whether a short sweep is wise first.
        phases: what is billed.
        facts: what else is shown.
        warnings: what the method has to say about the data.
        regret: whether the sweep says what too small an adapter costs.
        bits: the data in bits, where the base NLL is known.
    """

    demand: Demand
    ranks: tuple[int, int]
    rank_source: str
    rank_doubts: tuple[str, ...]
    rows: int
    row: str
    epochs: int
    batch_size: Sourced[int]
    largest_batch: int
    batch_warning: str
    more: str
    rate: Callable[[int, int], Sourced[float]]
    pilot: bool
    phases: tuple[Phase, ...]
    facts: tuple[Fact, ...] = ()
    warnings: tuple[str, ...] = ()
    regret: bool = False
    bits: float | None = None


@attrs.frozen
class Decision:
    """Everything that a plan works out, each number with its source.

    Attributes:
        rank, learning_rate, batch_size, steps: the numbers that a run needs.
        demand: what the adapter has to hold: tokens, or bits.
        per_rank: LoRA parameters per unit of rank.
        parameters: LoRA parameters at the rank.
        needed: the smallest power-of-two rank with a parameter a token, or a bit.
        largest: the largest power-of-two rank that the server allows.
        ratio: R, parameters over what the demand asks for.
        verdict: R in a word.
        regret: expected excess NLL in percent against the best rank; None where no sweep says.
        bits_ratio: 2 bits a parameter over the bits in the data, where the base NLL is known.
        facts: what else the method brings, such as the share of mixed groups.
        cost: what the run costs.
        get_lr: what the cookbook's `get_lr` says, or None where it refuses the model.
        pilot: whether a short sweep of learning rates is wise first.
        warnings: what to look at before spending.
        changes: what would change the verdict.
    """

    rank: Sourced[int]
    learning_rate: Sourced[float]
    batch_size: Sourced[int]
    steps: Sourced[int]
    demand: Demand
    per_rank: int
    parameters: int
    needed: int
    largest: int
    ratio: float
    verdict: Verdict
    regret: float | None
    bits_ratio: float | None
    facts: tuple[Fact, ...]
    cost: Cost
    get_lr: float | None
    pilot: bool
    warnings: tuple[str, ...]
    changes: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """T, the unique trained tokens; for a method that learns from rewards or pairs, the bits."""
        return round(self.demand.amount)

    @property
    def weight(self) -> int:
        """Parameters wanted for each token or bit."""
        return self.demand.weight


def decide(setting: Setting, brief: Brief) -> Decision:
    """Return every number of a plan.

    Raises:
        PlanError: a pin contradicts `max_rank`.
    """
    pins, demand = setting.pins, brief.demand
    needed = capacity.needed_rank(demand.parameters, setting.per_rank)
    rank = _rank(setting, brief, needed)
    parameters = rank.value * setting.per_rank
    ratio = parameters / demand.parameters
    batch_size = _pinned(brief.batch_size, pins.batch_size)
    each = math.ceil(brief.rows / batch_size.value)
    steps = Sourced(
        each * brief.epochs,
        f"ceil({brief.rows:,} {brief.row}s / {batch_size.value}) x {brief.epochs}; "
        "the last, smaller batch of an epoch is kept",
    )
    rate = _pinned(brief.rate(rank.value, steps.value), pins.learning_rate)
    word = capacity.verdict(ratio)
    decision = Decision(
        rank=rank,
        learning_rate=rate,
        batch_size=batch_size,
        steps=steps,
        demand=demand,
        per_rank=setting.per_rank,
        parameters=parameters,
        needed=needed,
        largest=setting.largest,
        ratio=ratio,
        verdict=word,
        regret=capacity.expected_regret(ratio) if brief.regret else None,
        bits_ratio=None if brief.bits is None else 2 * parameters / brief.bits,
        facts=brief.facts,
        cost=Cost(brief.phases, parameters, setting.prices.storage),
        get_lr=_get_lr(setting),
        pilot=pins.learning_rate is None
        and not setting.piloted
        and (brief.pilot or (brief.regret and word == "capacity-limited")),
        warnings=(),
        changes=(),
    )
    return attrs.evolve(
        decision,
        warnings=advice.warnings(decision, brief, setting),
        changes=advice.changes(decision, setting),
    )


def given_batch(asked: int | None, setting: Setting, computed: Sourced[int]) -> Sourced[int]:
    """Return the batch that the objective's own argument sets, checked against the pin.

    Raises:
        PlanError: the argument and the pin contradict each other.
    """
    pin = setting.pins.batch_size
    if asked is None:
        return computed
    if pin is not None and pin != asked:
        raise PlanError(
            "the pinned batch contradicts the objective's",
            got=f"batch_size={pin} with groups_per_batch={asked}",
            need="one of them, or the same number in both",
            fix=f"plan.pin(batch_size={asked})",
        )
    return attrs.evolve(computed, value=asked, computed=computed.value)


def _pinned(computed: Sourced[Number], pin: Number | None) -> Sourced[Number]:
    if pin is None:
        return computed
    before = computed.value if computed.computed is None else computed.computed
    return attrs.evolve(computed, value=pin, computed=before)


def _rank(setting: Setting, brief: Brief, needed: int) -> Sourced[int]:
    (low, high), pin, cap = brief.ranks, setting.pins.rank, setting.max_rank
    computed = min(max(low, min(needed, high)), setting.largest)
    doubts = brief.rank_doubts
    if cap is None and (pin or computed) > capacity.SMALLEST_RANK:
        doubts = (*doubts, "the server's largest rank is not known here; for_(..., max_rank=) holds it")
    if pin is not None and cap is not None and pin > cap:
        raise PlanError(
            "the pinned rank is above the server's largest",
            got=f"rank={pin} with max_rank={cap}",
            need=f"a rank from 1 to {cap}",
            fix=f"plan.pin(rank={setting.largest})",
        )
    bound = f"at least {low}" if setting.largest >= low else f"at most {setting.largest}"
    if low < high < setting.largest:
        bound += f", at most {high}"
    source = f"{brief.rank_source}, as a power of two, {bound}"
    return _pinned(Sourced(computed, source, doubts=doubts), pin)


def _get_lr(setting: Setting) -> float | None:
    shape = setting.shape
    return cookbook.get_lr(setting.base_model, shape.hidden_size) if shape.published else None
