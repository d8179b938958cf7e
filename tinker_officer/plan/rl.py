"""Reinforcement learning: a reward tells at most its entropy, so a low rank holds a great many episodes.

The arithmetic: bits = episodes x H2(p), H2 the entropy of a reward that comes with probability p; rank =
the power of two with a parameter a bit, from 8 to 32; a group of G episodes teaches only if its rewards
differ, which happens with probability 1 - p^G - (1 - p)^G.

Source:
    LoRA Without Regret (Thinking Machines Lab, 2025): RL needs at most H(Adv) bits an episode. Ranks and
    rates: tinker-cookbook's recipes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import attrs

from tinker_officer._fields import real, whole
from tinker_officer.errors import PlanError
from tinker_officer.plan import capacity, recipes
from tinker_officer.plan.cost import Phase
from tinker_officer.plan.counts import EpisodeCounts
from tinker_officer.plan.decision import Brief, Demand, Fact, Setting, given_batch
from tinker_officer.plan.sourced import Sourced


RANKS = (8, 32)
LEAST_MIXED = 0.3
_ASSUMED_RATE = 0.5
_SMALLEST_BATCH, _LARGEST_BATCH, _STEPS_WANTED = 8, 64, 100
_MOST_GROUPS = 128
_LARGEST_GROUP = 1024
_FIX = "LoRAPlan.for_(base_model).rl(320_000, group_size=32, reward_rate=0.5, groups_per_batch=64)"


@attrs.frozen
class Rl:
    """The objective: earn more reward.

    Attributes:
        counts: the episodes, and how long they are.
        reward_rate: the share of episodes that are expected to earn the reward, p; None is not known.
        groups_per_batch: groups a step, where the user or the dataset sets it.
    """

    counts: EpisodeCounts = attrs.field(validator=attrs.validators.instance_of(EpisodeCounts))
    reward_rate: float | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(real(0.0, 1.0, error=PlanError, fix=_FIX)),
    )
    groups_per_batch: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(whole(1, error=PlanError, fix=_FIX))
    )

    method: ClassVar[str] = "rl"
    title: ClassVar[str] = "reinforcement learning"
    epochs: ClassVar[int] = 1

    def __attrs_post_init__(self) -> None:
        """Refuse episodes that all earn the same reward, and groups of one."""
        counts = self.counts
        if counts.episodes == 0 or counts.group_size == 1 or self.reward_rate in {0, 1}:
            raise PlanError(
                "there is nothing to learn from: no group would hold episodes of different reward",
                got=f"{counts.episodes:,} episodes in groups of {counts.group_size}, "
                f"reward_rate={self.reward_rate}",
                need="episodes, at least two in a group, and a reward that is neither sure nor impossible",
                fix=_FIX,
            )

    @property
    def rate(self) -> float:
        """The expected reward rate, or 0.5 where none is given."""
        return _ASSUMED_RATE if self.reward_rate is None else self.reward_rate

    def brief(self, setting: Setting) -> Brief:
        """Return what reinforcement learning asks of the arithmetic."""
        counts, each = self.counts, entropy(self.rate)
        bits = counts.episodes * each
        doubts = ["an upper bound for one reward that is earned or not; finer rewards can tell more"]
        if self.reward_rate is None:
            doubts.append("no reward_rate was given: 0.5, at which an episode tells most, is assumed")
        return Brief(
            demand=Demand(
                bits,
                "bits",
                1,
                noun="episodes",
                each=each,
                source=f"{counts.episodes:,} episodes of {each:.3g} bit at most: "
                f"H2({self.rate:g}), the entropy of a reward",
                doubts=tuple(doubts),
            ),
            ranks=RANKS,
            rank_source="a parameter for each bit of reward",
            rank_doubts=("mixtures of experts were not measured with rewards",)
            if setting.shape.experts
            else (),
            rows=counts.groups,
            row="group",
            epochs=1,
            batch_size=given_batch(
                self.groups_per_batch, setting, groups_a_step(counts.groups, _LARGEST_BATCH)
            ),
            largest_batch=_MOST_GROUPS,
            batch_warning="it is more groups than any recipe uses",
            more="More episodes or fewer groups a batch help",
            rate=recipes.RL.rate(),
            pilot=False,
            phases=rollout_phases(counts, setting),
            facts=self._facts(),
            warnings=self._warnings(),
        )

    def _facts(self) -> tuple[Fact, ...]:
        given = "as given" if self.reward_rate is not None else "assumed: none was given"
        size, share = self.counts.group_size, mixed(self.rate, self.counts.group_size)
        return (
            Fact("reward rate", f"{self.rate:g}", f"share of episodes that earn the reward, {given}"),
            Fact("group size", f"{size}", "episodes that are compared with each other"),
            Fact("mixed groups", f"{share:.0%}", "1 - p^G - (1-p)^G: only these have a signal"),
        )

    def _warnings(self) -> tuple[str, ...]:
        size, share = self.counts.group_size, mixed(self.rate, self.counts.group_size)
        if share >= LEAST_MIXED:
            return ()
        sizes = (2**power for power in range(1, 11))
        larger = next((n for n in sizes if n > size and mixed(self.rate, n) >= LEAST_MIXED), None)
        tasks = "harder" if self.rate > _ASSUMED_RATE else "easier"
        way = f"groups of {larger}, or {tasks} tasks" if larger else f"{tasks} tasks"
        said = f"only {100 * share:.2g} % of the groups would be mixed, less than {LEAST_MIXED:.0%}"
        return (f"{said}: the others teach nothing. {way.capitalize()} would give more signal",)


def entropy(rate: float) -> float:
    """Return H2(p) in bits: what a reward that comes with probability `rate` tells at most."""
    if rate in {0, 1}:
        return 0.0
    return -(rate * math.log2(rate) + (1 - rate) * math.log2(1 - rate))


def mixed(rate: float, group_size: int) -> float:
    """Return the share of groups whose episodes do not all earn the same reward."""
    return float(1 - rate**group_size - (1 - rate) ** group_size)


def groups_a_step(groups: int, largest: int) -> Sourced[int]:
    """Return groups a step: a power of two that leaves a hundred steps, from 8 up to `largest`."""
    batch = min(max(capacity.power_of_two_below(groups / _STEPS_WANTED), _SMALLEST_BATCH), largest)
    source = f"{groups:,} groups / {_STEPS_WANTED}, a power of two from {_SMALLEST_BATCH} to {largest}"
    return Sourced(batch, source, doubts=("recipes use from 8 to 1,024 groups a batch",))


def rollout_phases(counts: EpisodeCounts, setting: Setting) -> tuple[Phase, ...]:
    """Return what sampling episodes and training on them is billed for."""
    prices = setting.prices
    turns = "in a single turn" if counts.cached_tokens is None else "as given"
    return (
        Phase("train", counts.trained, prices.train, "of the episodes, prompts included"),
        Phase("prefill", counts.read, prices.prefill, f"of prompts, {turns}"),
        Phase("cached", counts.cached, prices.cached, f"of prompts that the cache holds, {turns}"),
        Phase("sample", counts.sampled, prices.sample, "that the policy writes"),
    )


def episodes_of(data: Any, group_size: int | None) -> tuple[EpisodeCounts, int | None]:
    """Return the episodes of `data`, and the groups a batch where `data` fixes them.

    Args:
        data: a number of episodes, `EpisodeCounts`, a cookbook `RLDataset`, or a sequence of its
            `EnvGroupBuilder`s.
        group_size: episodes a group, or None for what `data` says, else 16.

    Raises:
        PlanError: `data` is none of these, or says another group size.
    """
    if isinstance(data, int) and not isinstance(data, bool):
        return EpisodeCounts(episodes=data, **_given(group_size)), None
    if isinstance(data, EpisodeCounts):
        _agree(group_size, data.group_size)
        return data, None
    batches: list[Sequence[Any]] = []
    if hasattr(data, "get_batch") and hasattr(data, "__len__"):
        batches = [data.get_batch(index) for index in range(len(data))]
    elif isinstance(data, Sequence) and data and hasattr(data[0], "make_envs"):
        batches = [data]
    if not batches or not batches[0]:
        raise PlanError(
            "episodes cannot be planned from this data",
            got=f"{type(data).__name__}" + (" without a batch" if hasattr(data, "get_batch") else ""),
            need="a number of episodes, EpisodeCounts, an RLDataset, or a sequence of EnvGroupBuilder",
            fix=_FIX,
        )
    said = getattr(batches[0][0], "num_envs", None)
    size = said if isinstance(said, int) else None
    if size is not None:
        _agree(group_size, size)
    given = _given(size if size is not None else group_size)
    groups = sum(map(len, batches))
    counts = EpisodeCounts(episodes=groups, **given)
    counts = attrs.evolve(counts, episodes=groups * counts.group_size)
    return counts, max(map(len, batches)) if hasattr(data, "get_batch") else None


def _given(group_size: int | None) -> dict[str, int]:
    return {} if group_size is None else {"group_size": group_size}


def _agree(asked: int | None, said: int) -> None:
    if asked is not None and asked != said:
        raise PlanError(
            "group_size contradicts the data",
            got=f"group_size={asked}, but the data has groups of {said}",
            need="the same number in both",
            fix=f".rl(data, group_size={said})",
        )
