"""Learning from preferences: DPO and reward models. A pair tells at most one bit: which answer is better."""

from __future__ import annotations

from typing import ClassVar

import attrs

from tinker_officer._fields import one_of, real, whole
from tinker_officer.data.pair_counts import PairCounts
from tinker_officer.data.render import TooLong
from tinker_officer.errors import PlanError
from tinker_officer.plan import advice, capacity, recipes
from tinker_officer.plan.cost import Phase
from tinker_officer.plan.decision import Brief, Demand, Fact, Setting
from tinker_officer.plan.recipes import Recipe
from tinker_officer.plan.sourced import Sourced


RANK = 32
_SMALLEST_BATCH, _LARGEST_BATCH, _STEPS_WANTED = 32, 256, 100
_FIX = "LoRAPlan.for_(base_model).dpo(PairCounts(pairs=20_000))"


@attrs.frozen
class RewardModel:
    """The objective: say which of two answers is better.

    Attributes:
        counts: the pairs.
        epochs: passes over them.
        max_length: tokens that a prompt with an answer may have; None is the model's own limit.
        too_long: what happens to a longer answer: `truncate`, or `drop` its pair.
        renderer_name: the cookbook renderer; None is the model's default.
        data_fingerprint: the fingerprint of the Pairs that were counted, if any.
    """

    counts: PairCounts = attrs.field(validator=attrs.validators.instance_of(PairCounts))
    epochs: int = attrs.field(default=1, validator=whole(1, error=PlanError, fix=_FIX))
    max_length: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(whole(2, error=PlanError, fix=_FIX)),
        kw_only=True,
    )
    too_long: TooLong = attrs.field(
        default="truncate",
        validator=one_of(("truncate", "drop"), error=PlanError, fix='.dpo(pairs, too_long="drop")'),
        kw_only=True,
    )
    renderer_name: str | None = attrs.field(default=None, kw_only=True)
    data_fingerprint: str | None = attrs.field(default=None, kw_only=True)

    method: ClassVar[str] = "reward_model"
    title: ClassVar[str] = "a reward model"
    recipe: ClassVar[Recipe] = recipes.REWARD_MODEL
    rank_source: ClassVar[str] = "rank 32 as for DPO, a parameter a bit where that is more"

    def __attrs_post_init__(self) -> None:
        """Refuse data with nothing to learn from."""
        if self.counts.pairs == 0:
            raise PlanError(
                "there is nothing to learn from: there is no pair",
                got=f"0 pairs, {self.counts.masked:,} masked, {self.counts.dropped:,} dropped as too long",
                need="at least one prompt with a chosen and a rejected answer",
                fix=f".{self.method}(PairCounts(pairs=20_000))",
            )

    def brief(self, setting: Setting) -> Brief:
        """Return what the method asks of the arithmetic."""
        pairs = self.counts.pairs
        seen = pairs * self.epochs
        batch = min(max(capacity.power_of_two_below(seen / _STEPS_WANTED), _SMALLEST_BATCH), _LARGEST_BATCH)
        return Brief(
            demand=Demand(
                pairs,
                "bits",
                1,
                noun="pairs",
                each=1,
                source=f"{pairs:,} pairs of at most 1 bit: which answer is better",
                doubts=("an upper bound: a preference that is easy to guess tells less than a bit",),
            ),
            ranks=(RANK, capacity.LARGEST_RANK),
            rank_source=self.rank_source,
            rank_doubts=self.rank_doubts,
            rows=pairs,
            row="pair",
            epochs=self.epochs,
            batch_size=Sourced(
                batch, f"{seen:,} pairs seen / {_STEPS_WANTED}, a power of two from 32 to 256"
            ),
            largest_batch=_LARGEST_BATCH,
            batch_warning="it is more than any recipe uses",
            more="More pairs, more epochs or a smaller batch help",
            rate=self.recipe.rate(),
            pilot=False,
            phases=self.phases(setting),
            facts=self.facts,
            warnings=tuple(advice.about_rows(self.counts, "pair", self.epochs)),
        )

    @property
    def rank_doubts(self) -> tuple[str, ...]:
        """What the rank's rule leaves out."""
        return ("the recipe itself uses rank 64, the same for all its stages",)

    @property
    def facts(self) -> tuple[Fact, ...]:
        """What else is shown."""
        return ()

    @property
    def tokens(self) -> int | None:
        """Tokens over all epochs, where they were counted."""
        return None if self.counts.total is None else self.counts.total * self.epochs

    def phases(self, setting: Setting) -> tuple[Phase, ...]:
        """Return what is billed."""
        return (Phase("train", self.tokens, setting.prices.train, "of both answers, prompts included"),)


@attrs.frozen
class Dpo(RewardModel):
    """The objective: prefer the chosen answer to the rejected one, more than the base model does.

    Attributes:
        counts: the pairs.
        epochs: passes over them.
        max_length: tokens that a prompt with an answer may have; None is the model's own limit.
        too_long: what happens to a longer answer: `truncate`, or `drop` its pair.
        renderer_name: the cookbook renderer; None is the model's default.
        data_fingerprint: the fingerprint of the Pairs that were counted, if any.
        dpo_beta: how strongly the policy is held to the base model.
    """

    dpo_beta: float = attrs.field(
        default=0.1,
        validator=real(0.0, error=PlanError, fix=".dpo(pairs, dpo_beta=0.1)", open_low=True),
    )

    method: ClassVar[str] = "dpo"
    title: ClassVar[str] = "direct preference optimisation (DPO)"
    recipe: ClassVar[Recipe] = recipes.DPO
    rank_source: ClassVar[str] = "the recipe's rank 32, a parameter a bit where that is more"

    @property
    def rank_doubts(self) -> tuple[str, ...]:
        """What the rank's rule leaves out."""
        return ()

    @property
    def facts(self) -> tuple[Fact, ...]:
        """What else is shown."""
        source = "how strongly the policy is held to the base model; the recipe uses 0.1"
        custom = "forward_backward_custom, whose extra forward pass may be billed: not known here"
        return (Fact("dpo_beta", f"{self.dpo_beta:g}", source), Fact("loss", "custom", custom))

    def phases(self, setting: Setting) -> tuple[Phase, ...]:
        """Return what is billed: training, and the same tokens read by the reference."""
        what = "that the reference model reads: the same ones"
        return (
            *RewardModel.phases(self, setting),
            Phase("prefill", self.tokens, setting.prices.prefill, what),
        )
