"""Supervised fine-tuning, on people's answers or on a prompted teacher's: tokens to be learned.

The arithmetic, in order: T = unique trained tokens (epochs never multiply it); demand = d x T, d = 3 for
a mixture of experts; rank = the power of two whose adapter has `demand` parameters, at least 16, at most
the server's; R = parameters / demand, and the verdict; batch from examples x epochs; steps; the rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import attrs

from tinker_officer._fields import one_of, real, whole
from tinker_officer.data.measure import TokenCounts
from tinker_officer.data.render import TooLong, TrainOn
from tinker_officer.errors import PlanError
from tinker_officer.plan import advice, capacity, rates, recipes
from tinker_officer.plan.cost import Phase
from tinker_officer.plan.decision import Brief, Demand, Fact, Setting
from tinker_officer.plan.sourced import Sourced


_PRIMER = "LoRA primer: at least one parameter a trained token"
_SMALLEST_BATCH, _LARGEST_BATCH, _STEPS_WANTED = 8, 128, 500
_FIX = "LoRAPlan.for_(base_model).sft(train, epochs=1)"


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

    method: ClassVar[str] = "sft"
    title: ClassVar[str] = "supervised fine-tuning"

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

    @property
    def tokens(self) -> int:
        """T: unique trained tokens, or all trained ones where duplicates were not counted."""
        unique = self.counts.unique_trained
        return self.counts.trained if unique is None else unique

    def brief(self, setting: Setting) -> Brief:
        """Return what supervised fine-tuning asks of the arithmetic."""
        counts, shape = self.counts, setting.shape
        weight = capacity.EXPERT_DISCOUNT if shape.experts else 1
        seen = counts.examples * self.epochs
        tokens = counts.total * self.epochs
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        rule = rates.rule_for(setting.base_model, shape, calibration=setting.calibration)
        return Brief(
            demand=Demand(
                self.tokens,
                "tokens",
                weight,
                noun="unique trained tokens",
                each=1,
                source="unique trained tokens; epochs do not multiply them",
                doubts=self.demand_doubts,
            ),
            ranks=(capacity.SMALLEST_RANK, capacity.LARGEST_RANK),
            rank_source=_PRIMER,
            rank_doubts=tuple(self._rank_doubts(setting, weight)),
            rows=counts.examples,
            row="example",
            epochs=self.epochs,
            batch_size=Sourced(
                _clamped(seen / _STEPS_WANTED),
                f"{seen:,} examples seen / {_STEPS_WANTED}, a power of two from 8 to 128",
            ),
            largest_batch=_LARGEST_BATCH,
            batch_warning="LoRA falls behind full fine-tuning, whatever the rank",
            more="More data, more epochs or a smaller batch help",
            rate=lambda rank, steps: rates.choose(rule, setting.pilot_fit, rank=rank, steps=steps),
            pilot=rule.pilot and not setting.piloted,
            phases=(Phase("train", tokens, setting.prices.train, f"in {epochs}, prompts included"),),
            facts=self.facts,
            warnings=tuple(
                advice.about_rows(counts, "row", self.epochs, unique=self.tokens / counts.trained)
            ),
            regret=True,
            bits=None if self.base_nll is None else self.tokens * self.base_nll / math.log(2),
        )

    @property
    def demand_doubts(self) -> tuple[str, ...]:
        """What the number of tokens leaves out."""
        return ()

    @property
    def facts(self) -> tuple[Fact, ...]:
        """What else is shown."""
        return ()

    def _rank_doubts(self, setting: Setting, weight: int) -> Iterator[str]:
        if capacity.needed_rank(weight * self.tokens, setting.per_rank) > capacity.SMALLEST_RANK // 4:
            yield "very rough: within a factor of a few either way"
        if setting.shape.experts:
            yield "mixture of experts: 3 parameters a token (2.8 to 3.6 in the sweep)"
        if self.counts.unique_trained is None:
            yield "duplicates were not counted; without them the data may ask for less"


@attrs.frozen
class PromptDistillation(Sft):
    """The objective: answer without a long prompt as a teacher answers with it.

    The data are the teacher's answers; what is trained, and how, is supervised fine-tuning.
    """

    method: ClassVar[str] = "prompt_distillation"
    title: ClassVar[str] = "prompt distillation"

    def brief(self, setting: Setting) -> Brief:
        """Return what prompt distillation asks of the arithmetic: tokens as for SFT, the recipe's rate."""
        plain = Sft.brief(self, setting)
        if setting.piloted:
            return plain
        usual = plain.rate(capacity.SMALLEST_RANK, _STEPS_WANTED).value
        doubt = f"supervised fine-tuning of this model would begin at {usual:.1e}"
        return attrs.evolve(plain, rate=recipes.PROMPT_DISTILLATION.rate(doubt), pilot=True)

    @property
    def demand_doubts(self) -> tuple[str, ...]:
        """What the number of tokens leaves out."""
        return (
            "an upper bound: answers that the model nearly gives already hold far less than their tokens",
        )

    @property
    def facts(self) -> tuple[Fact, ...]:
        """What else is shown."""
        return (Fact("teacher", "sampled before", "what its answers cost is not in this plan"),)


def _clamped(wanted: float) -> int:
    return min(max(capacity.power_of_two_below(wanted), _SMALLEST_BATCH), _LARGEST_BATCH)
