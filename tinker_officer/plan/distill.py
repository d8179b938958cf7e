"""On-policy distillation: the student samples, the teacher scores every token that it wrote.

Each token comes with the teacher's opinion, so an episode of N tokens tells O(N) bits, and not one: it is
not as cheap in capacity as reinforcement learning. How much exactly is the divergence of student and
teacher; where it is not known, one bit a token stands in for it.

Source:
    tinker-cookbook, recipes/distillation: rank 128 for reasoning from a base model, learning rate 1e-4,
    KL 1.0. Its ranks elsewhere are 8 and 32.
"""

from __future__ import annotations

import math
from typing import ClassVar

import attrs

from tinker_officer._fields import real, whole
from tinker_officer.errors import PlanError
from tinker_officer.plan import recipes
from tinker_officer.plan.cost import Phase
from tinker_officer.plan.counts import EpisodeCounts
from tinker_officer.plan.decision import Brief, Demand, Fact, Setting, given_batch
from tinker_officer.plan.rl import groups_a_step, rollout_phases


RANK, REASONING_RANK = 32, 128
_LARGEST_BATCH, _MOST_GROUPS = 512, 1024
_FIX = ".distill(EpisodeCounts(episodes=51_200, group_size=4, prompt_tokens=150, sampled_tokens=2_000))"


@attrs.frozen
class Distill:
    """The objective: write what the teacher would have written.

    Attributes:
        counts: the episodes, and how long they are.
        reasoning: whether a base model is to learn to reason.
        teacher_kl: nats a token between student and teacher at the start, where known.
        kl_penalty_coef: the weight of the divergence in the loss.
        groups_per_batch: groups a step, where the user or the dataset sets it.
    """

    counts: EpisodeCounts = attrs.field(validator=attrs.validators.instance_of(EpisodeCounts))
    reasoning: bool = False
    teacher_kl: float | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(real(0.0, error=PlanError, fix=_FIX, open_low=True)),
    )
    kl_penalty_coef: float = attrs.field(
        default=1.0,
        validator=real(0.0, error=PlanError, fix=".distill(data, kl_penalty_coef=1.0)", open_low=True),
    )
    groups_per_batch: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(whole(1, error=PlanError, fix=_FIX))
    )

    method: ClassVar[str] = "distill"
    title: ClassVar[str] = "on-policy distillation"
    epochs: ClassVar[int] = 1

    def __attrs_post_init__(self) -> None:
        """Refuse episodes of which nobody knows how much they hold."""
        if not self.counts.sampled:
            raise PlanError(
                "how much the teacher says is not known",
                got=f"{self.counts.episodes:,} episodes, sampled_tokens={self.counts.sampled_tokens}",
                need="episodes, and the mean number of tokens that the student writes in one",
                fix=_FIX,
            )

    @property
    def bits_a_token(self) -> float:
        """What the teacher's opinion of a token tells: the divergence, or 1."""
        return 1.0 if self.teacher_kl is None else self.teacher_kl / math.log(2)

    def brief(self, setting: Setting) -> Brief:
        """Return what on-policy distillation asks of the arithmetic."""
        counts = self.counts
        assert counts.sampled_tokens is not None  # noqa: S101 - checked above; this tells the type checker
        each = counts.sampled_tokens * self.bits_a_token
        known = self.teacher_kl is not None
        return Brief(
            demand=Demand(
                counts.episodes * each,
                "bits",
                1,
                noun="episodes",
                each=each,
                source=f"{counts.episodes:,} episodes x {counts.sampled_tokens:g} tokens x "
                f"{self.bits_a_token:.3g} bit each",
                doubts=("the divergence falls as the student learns: an upper bound",)
                if known
                else ("a bit a token is a guess of the order; give teacher_kl, in nats a token",),
            ),
            ranks=(REASONING_RANK if self.reasoning else RANK, REASONING_RANK),
            rank_source="the recipes' rank for reasoning from a base model"
            if self.reasoning
            else "the recipes' rank 32, more where an episode's tokens tell more",
            rank_doubts=("mixtures of experts were not measured",) if setting.shape.experts else (),
            rows=counts.groups,
            row="group",
            epochs=1,
            batch_size=given_batch(
                self.groups_per_batch, setting, groups_a_step(counts.groups, _LARGEST_BATCH)
            ),
            largest_batch=_MOST_GROUPS,
            batch_warning="it is more groups than any recipe uses",
            more="More episodes or fewer groups a batch help",
            rate=recipes.DISTILL.rate(),
            pilot=False,
            phases=(
                *rollout_phases(counts, setting),
                Phase(
                    "teacher", counts.trained, setting.prices.teacher, "that the teacher reads: the same ones"
                ),
            ),
            facts=(
                Fact("KL penalty", f"{self.kl_penalty_coef:g}", "the recipes use 1.0 and no other reward"),
                Fact("group size", f"{counts.group_size}", "episodes that answer the same prompt"),
            ),
        )
