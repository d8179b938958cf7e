"""What a plan learns, and from what: one method for each way of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer.data.conversations import Conversations
from tinker_officer.data.measure import TokenCounts
from tinker_officer.data.pair_counts import PairCounts
from tinker_officer.data.pairs import Pairs
from tinker_officer.data.render import TooLong, TrainOn
from tinker_officer.errors import PlanError
from tinker_officer.plan.agreement import agreed
from tinker_officer.plan.counts import EpisodeCounts
from tinker_officer.plan.distill import Distill
from tinker_officer.plan.numbers import Numbers, Objective
from tinker_officer.plan.preference import Dpo, RewardModel
from tinker_officer.plan.rl import Rl, episodes_of
from tinker_officer.plan.sft import PromptDistillation, Sft


if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinker_cookbook.rl.types import EnvGroupBuilder, RLDataset


# Stand in while settings are checked.
_UNMEASURED, _NO_PAIRS_YET = TokenCounts(examples=1, trained=1, total=1), PairCounts(pairs=1)

# The settings that counts depend on.
_COUNTED_BY = ("max_length", "renderer_name", "train_on", "too_long")


@attrs.frozen(repr=False)
class Methods(Numbers):
    """The methods of a `LoRAPlan` that say what is learned; each replaces the one before."""

    def sft(
        self,
        data: Conversations | TokenCounts,
        *,
        epochs: int = 1,
        max_length: int | None = None,
        train_on: TrainOn | None = None,
        too_long: TooLong | None = None,
        renderer_name: str | None = None,
        base_nll: float | None = None,
    ) -> Self:
        """Return a copy that fine-tunes on `data`, replacing any objective.

        Args:
            data: Conversations, which are measured now, or their counts alone.
            epochs: passes over the data.
            max_length: tokens a row may have; None is the model's own limit.
            train_on: the `last` assistant turn (None), or `all` of them.
            too_long: what happens to a longer row: `truncate` (None) or `drop`.
            renderer_name: the cookbook renderer; None is the model's default.
            base_nll: nats per trained token of the base model on the data, where known: it turns tokens
                into bits, which say more about capacity.

        Raises:
            PlanError: nothing is trained on, a number is out of range, or settings contradict the counts.
            ModelError: the model has no tokenizer or renderer to measure with.
        """
        settings = {
            "epochs": epochs,
            "max_length": max_length,
            "train_on": train_on,
            "too_long": too_long,
            "renderer_name": renderer_name,
            "base_nll": base_nll,
        }
        return self._on_rows_of(Sft, data, settings)

    def prompt_distillation(
        self,
        data: Conversations | TokenCounts,
        *,
        epochs: int = 4,
        max_length: int | None = None,
        train_on: TrainOn | None = None,
        too_long: TooLong | None = None,
        renderer_name: str | None = None,
        base_nll: float | None = None,
    ) -> Self:
        """Return a copy that learns a long prompt by heart, replacing any objective.

        Args:
            data: a prompted teacher's answers, without the prompt: Conversations, or their counts alone.
            epochs: passes over the data; the recipe makes four.
            max_length: tokens a row may have; None is the model's own limit.
            train_on: the `last` assistant turn (None), or `all` of them.
            too_long: what happens to a longer row: `truncate` (None) or `drop`.
            renderer_name: the cookbook renderer; None is the model's default.
            base_nll: nats per trained token of the base model on the data, where known.

        Raises:
            PlanError: nothing is trained on, a number is out of range, or settings contradict the counts.
            ModelError: the model has no tokenizer or renderer to measure with.
        """
        settings = {
            "epochs": epochs,
            "max_length": max_length,
            "train_on": train_on,
            "too_long": too_long,
            "renderer_name": renderer_name,
            "base_nll": base_nll,
        }
        return self._on_rows_of(PromptDistillation, data, settings)

    def dpo(
        self,
        data: Pairs | PairCounts,
        *,
        epochs: int = 1,
        dpo_beta: float = 0.1,
        max_length: int | None = None,
        too_long: TooLong | None = None,
        renderer_name: str | None = None,
    ) -> Self:
        """Return a copy that learns preferences directly (DPO), replacing any objective.

        Args:
            data: Pairs, which are measured now, or their counts alone.
            epochs: passes over the pairs.
            dpo_beta: how strongly the policy is held to the base model.
            max_length: tokens that a prompt with an answer may have; None is the model's own limit.
            too_long: what happens to a longer answer: `truncate` (None), or `drop` its pair.
            renderer_name: the cookbook renderer; None is the model's default.

        Raises:
            PlanError: there is no pair, a number is out of range, or settings contradict the counts.
            ModelError: the model has no tokenizer or renderer to measure with.
        """
        settings = {
            "epochs": epochs,
            "dpo_beta": dpo_beta,
            "max_length": max_length,
            "too_long": too_long,
            "renderer_name": renderer_name,
        }
        return self._on_rows_of(Dpo, data, settings)

    def reward_model(
        self,
        data: Pairs | PairCounts,
        *,
        epochs: int = 1,
        max_length: int | None = None,
        too_long: TooLong | None = None,
        renderer_name: str | None = None,
    ) -> Self:
        """Return a copy that learns to say which answer is better, replacing any objective.

        Args:
            data: Pairs, which are measured now, or their counts alone.
            epochs: passes over the pairs.
            max_length: tokens that a prompt with an answer may have; None is the model's own limit.
            too_long: what happens to a longer answer: `truncate` (None), or `drop` its pair.
            renderer_name: the cookbook renderer; None is the model's default.

        Raises:
            PlanError: there is no pair, a number is out of range, or settings contradict the counts.
            ModelError: the model has no tokenizer or renderer to measure with.
        """
        settings = {
            "epochs": epochs,
            "max_length": max_length,
            "too_long": too_long,
            "renderer_name": renderer_name,
        }
        return self._on_rows_of(RewardModel, data, settings)

    def rl(
        self,
        data: int | EpisodeCounts | RLDataset | Sequence[EnvGroupBuilder],
        *,
        group_size: int | None = None,
        reward_rate: float | None = None,
        groups_per_batch: int | None = None,
    ) -> Self:
        """Return a copy that learns from rewards, replacing any objective.

        Args:
            data: how many episodes the run samples in all, their counts, a cookbook `RLDataset`, or a
                sequence of its env group builders, for one pass over them.
            group_size: episodes of a group; None takes what `data` says, else 16.
            reward_rate: the share of episodes that are expected to earn the reward; None assumes 0.5.
            groups_per_batch: groups a step; None takes what an `RLDataset` says, else computes it.

        Raises:
            PlanError: no group would have a signal, a number is out of range, or two contradict.
        """
        counts, said = episodes_of(data, group_size)
        groups = _same_groups(groups_per_batch, said)
        return self._learning(Rl(counts, reward_rate=reward_rate, groups_per_batch=groups))

    def distill(
        self,
        data: EpisodeCounts,
        *,
        reasoning: bool = False,
        teacher_kl: float | None = None,
        kl_penalty_coef: float = 1.0,
        groups_per_batch: int | None = None,
    ) -> Self:
        """Return a copy that learns from a teacher's opinion of its own samples, replacing any objective.

        Args:
            data: counts of the episodes; how many tokens the student writes in one is needed.
            reasoning: whether a base model is to learn to reason, for which the recipes use rank 128.
            teacher_kl: nats a token by which student and teacher differ at the start, where known.
            kl_penalty_coef: the weight of that divergence in the loss.
            groups_per_batch: groups a step; None computes it.

        Raises:
            PlanError: the length of the samples is not known, or a number is out of range.
        """
        if not isinstance(data, EpisodeCounts):
            raise PlanError(
                "on-policy distillation cannot be planned from this data",
                got=type(data).__name__,
                need="EpisodeCounts with sampled_tokens",
                fix=".distill(EpisodeCounts(episodes=51_200, group_size=4, sampled_tokens=2_000))",
            )
        objective = Distill(
            data,
            reasoning=reasoning,
            teacher_kl=teacher_kl,
            kl_penalty_coef=kl_penalty_coef,
            groups_per_batch=groups_per_batch,
        )
        return self._learning(objective)

    def _learning(self, objective: Objective, data: Conversations | Pairs | None = None) -> Self:
        """Return a copy with this objective; what a pilot measured was measured on another one."""
        return attrs.evolve(self, objective=objective, data=data, pilot_fit=None)

    def _on_rows_of(self, kind: type[Sft | RewardModel], data: Any, settings: dict[str, Any]) -> Self:
        """Return a copy that learns `kind` from rows or from their counts, settings as the user gave them."""
        loaded: type[Conversations | Pairs] = Conversations
        unmeasured: Any = _UNMEASURED
        if issubclass(kind, RewardModel):
            loaded, unmeasured = Pairs, _NO_PAIRS_YET
        asked = {name: settings.pop(name) for name in _COUNTED_BY if name in settings}
        wanted = {name: value for name, value in asked.items() if value is not None}
        counted = isinstance(data, type(unmeasured))
        # Settings are checked before an hour of measuring, not after.
        draft = kind(data if counted else unmeasured, **settings, **wanted)
        if counted:
            return self._learning(agreed(draft, asked))
        if not isinstance(data, loaded):
            raise PlanError(
                "a plan cannot be made from this data",
                got=type(data).__name__,
                need=f"{loaded.__name__}, or {type(unmeasured).__name__}",
                fix=f"LoRAPlan.for_(base_model).{kind.method}({loaded.__name__}.from_jsonl('train.jsonl'))",
            )
        counts: Any = data.measure(self.base_model, **{name: getattr(draft, name) for name in asked})
        measured = attrs.evolve(draft, counts=counts, data_fingerprint=data.fingerprint)
        return self._learning(agreed(measured, asked), data)


def _same_groups(asked: int | None, said: int | None) -> int | None:
    if asked is not None and said is not None and asked != said:
        raise PlanError(
            "groups_per_batch contradicts the dataset",
            got=f"groups_per_batch={asked}, but the dataset's batches have {said} groups",
            need="the same number in both",
            fix=f".rl(dataset, groups_per_batch={said})",
        )
    return said if asked is None else asked
