"""What a plan holds, and its numbers: everything that is only read."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import attrs

from tinker_officer._fields import whole
from tinker_officer.data.measure import TokenCounts
from tinker_officer.data.render import TooLong, TrainOn
from tinker_officer.errors import PlanError
from tinker_officer.plan import capacity
from tinker_officer.plan.capacity import ModelShape, Verdict
from tinker_officer.plan.cost import Cost, Prices
from tinker_officer.plan.decision import Decision, Pins, Setting, decide
from tinker_officer.plan.distill import Distill
from tinker_officer.plan.preference import RewardModel
from tinker_officer.plan.rl import Rl
from tinker_officer.plan.sft import Sft


if TYPE_CHECKING:
    from tinker_officer.data.conversations import Conversations
    from tinker_officer.data.pairs import Pairs
    from tinker_officer.plan.pilot_fit import PilotFit
    from tinker_officer.plan.rates import CalibratedRule

Objective: TypeAlias = Sft | RewardModel | Rl | Distill  # with PromptDistillation and Dpo, their children


@attrs.frozen(repr=False)
class Numbers:
    """The fields of a `LoRAPlan`, and the numbers that follow from them.

    Attributes:
        base_model: the model that is adapted.
        shape: its LoRA parameters per unit of rank.
        max_rank: the server's largest rank, where known.
        seed: seeds the adapter's weights and the order of the data.
        train_mlp, train_attn, train_unembed: which layers are adapted.
        pins: numbers set by hand.
        prices: what tokens cost, where known.
        objective: what is learned, or None before a method such as `sft`.
        pilot_fit: what a pilot measured, if one was run on this objective.
        calibration: a rule for the learning rate, fitted to the user's own runs.
        data: the Conversations or Pairs that were measured, or None when the plan was made from counts.
    """

    base_model: str
    shape: ModelShape
    max_rank: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(
            whole(1, error=PlanError, fix='LoRAPlan.for_("Qwen/Qwen3-8B", max_rank=64)')
        ),
    )
    seed: int = attrs.field(
        default=0, validator=whole(0, error=PlanError, fix='LoRAPlan.for_("Qwen/Qwen3-8B", seed=0)')
    )
    train_mlp: bool = True
    train_attn: bool = True
    train_unembed: bool = True
    pins: Pins = attrs.field(factory=Pins)
    prices: Prices = attrs.field(factory=Prices)
    objective: Objective | None = None
    pilot_fit: PilotFit | None = None
    calibration: CalibratedRule | None = None
    data: Conversations | Pairs | None = attrs.field(default=None, eq=False)

    def __attrs_post_init__(self) -> None:
        """Work everything out now, so that a contradiction is reported where it was written."""
        if self.objective is not None:
            _ = self.decision

    @cached_property
    def decision(self) -> Decision:
        """Every number with its source, interval and doubts.

        Raises:
            PlanError: the plan has no data yet.
        """
        parts = {"mlp": self.train_mlp, "attn": self.train_attn, "unembed": self.train_unembed}
        capacity.check_components(self.shape, self.base_model, **parts)
        setting = Setting(
            base_model=self.base_model,
            shape=self.shape,
            per_rank=self.shape.per_rank(**parts),
            max_rank=self.max_rank,
            pins=self.pins,
            prices=self.prices,
            pilot_fit=self.pilot_fit,
            calibration=self.calibration,
        )
        return decide(setting, self._asked().brief(setting))

    def _asked(self) -> Objective:
        if self.objective is None:
            raise PlanError(
                "the plan has no data yet, so it has no numbers",
                got=repr(self),
                need="an objective",
                fix=f"LoRAPlan.for_({self.base_model!r}).sft(train)",
            )
        return self.objective

    def _supervised(self) -> Sft:
        objective = self._asked()
        if not isinstance(objective, Sft):
            raise PlanError(
                "this plan does not learn from conversations, so it has no token counts of them",
                got=f"a plan for {objective.title}",
                need="a plan made with .sft(...) or .prompt_distillation(...)",
                fix="plan.objective.counts, which this plan has",
            )
        return objective

    def _on_rows(self) -> Sft | RewardModel:
        objective = self._asked()
        if not isinstance(objective, Sft | RewardModel):
            raise PlanError(
                "this plan does not learn from rows of text, so nothing limits their length",
                got=f"a plan for {objective.title}",
                need="a plan made with .sft(...), .prompt_distillation(...), .dpo(...) or .reward_model(...)",
                fix="plan.objective, which says what this plan learns from",
            )
        return objective

    @property
    def method(self) -> str:
        """What is learned: `sft`, `prompt_distillation`, `dpo`, `reward_model`, `rl` or `distill`."""
        return self._asked().method

    @property
    def rank(self) -> int:
        """The LoRA rank."""
        return self.decision.rank.value

    @property
    def learning_rate(self) -> float:
        """The peak learning rate of AdamW."""
        return self.decision.learning_rate.value

    @property
    def batch_size(self) -> int:
        """Examples a step; pairs for preferences, groups for episodes, as the cookbook counts them."""
        return self.decision.batch_size.value

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.decision.steps.value

    @property
    def verdict(self) -> Verdict:
        """Capacity against data: `ample`, `low-regret`, `tight` or `capacity-limited`."""
        return self.decision.verdict

    @property
    def parameters(self) -> int:
        """LoRA parameters at this rank."""
        return self.decision.parameters

    @property
    def cost(self) -> Cost:
        """What the run costs; `cost.total` is None while any part of it is unknown."""
        return self.decision.cost

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to look at before spending."""
        return self.decision.warnings

    @property
    def counts(self) -> TokenCounts:
        """What the conversations measure in tokens; of pairs and episodes, see `objective.counts`.

        Raises:
            PlanError: the method does not learn from conversations.
        """
        return self._supervised().counts

    @property
    def epochs(self) -> int:
        """Passes over the data; 1 where episodes are sampled."""
        return self._asked().epochs

    @property
    def max_length(self) -> int | None:
        """Tokens a row may have; None is the model's own limit."""
        return self._on_rows().max_length

    @property
    def train_on(self) -> TrainOn:
        """Which assistant turns are learned: the `last`, or `all`."""
        return self._supervised().train_on

    @property
    def too_long(self) -> TooLong:
        """What happens to a row longer than `max_length`: `truncate` or `drop`."""
        return self._on_rows().too_long

    @property
    def renderer_name(self) -> str | None:
        """The cookbook renderer; None is the model's default."""
        return self._on_rows().renderer_name
