"""Reinforcement learning: bits of reward, groups that teach, and bad input."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from tinker_officer import EpisodeCounts, LoRAPlan
from tinker_officer.errors import OfficerError, PlanError
from tinker_officer.plan.rl import entropy, mixed


BASE = LoRAPlan.for_("meta-llama/Llama-3.1-8B")


def test_the_worked_example() -> None:
    """320k episodes at p = 0.5 in 64 groups of 32: 320,000 bits, rank 8, 68.8 times, 4e-5, 157 steps."""
    plan = BASE.rl(320_000, group_size=32, reward_rate=0.5, groups_per_batch=64)
    assert plan.decision.demand.amount == 320_000
    assert (plan.rank, plan.learning_rate, plan.batch_size, plan.steps) == (8, 4e-5, 64, 157)
    assert plan.decision.ratio == pytest.approx(68.8, abs=0.05)
    assert plan.verdict == "ample"
    assert plan.decision.learning_rate.interval == (1e-5, 1e-4)
    assert plan.method == "rl"
    assert plan.epochs == 1


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_the_entropy_is_that_of_scipy(rate: float) -> None:
    """H2 equals an independent computation in nats, turned into bits."""
    from scipy.stats import bernoulli

    assert entropy(rate) == pytest.approx(float(bernoulli(rate).entropy()) / math.log(2))


def test_the_entropy_of_a_sure_thing_is_zero() -> None:
    """A reward that always comes, or never, tells nothing."""
    assert entropy(0.0) == entropy(1.0) == 0.0


@pytest.mark.parametrize(("rate", "size"), [(0.5, 2), (0.1, 4), (0.9, 8)])
def test_the_share_of_mixed_groups_is_what_counting_gives(rate: float, size: int) -> None:
    """The formula equals the sum over all outcomes of a group that are not all the same."""
    total = 0.0
    for outcome in itertools.product((0, 1), repeat=size):
        if 0 < sum(outcome) < size:
            total += rate ** sum(outcome) * (1 - rate) ** (size - sum(outcome))
    assert mixed(rate, size) == pytest.approx(total)


def test_few_mixed_groups_are_warned_of_and_the_group_size_that_helps_is_right() -> None:
    """At p = 0.01, groups of 4 teach 3.9 % of the time; groups of 64 would be enough, 32 would not."""
    [warning, *_] = BASE.rl(51_200, group_size=4, reward_rate=0.01).warnings
    assert "only 3.9 % of the groups would be mixed, less than 30%" in warning
    assert "Groups of 64, or easier tasks" in warning
    assert mixed(0.01, 32) < 0.3 <= mixed(0.01, 64)
    [sure, *_] = BASE.rl(51_200, group_size=4, reward_rate=0.97).warnings
    assert "harder tasks" in sure
    assert not any("mixed" in text for text in BASE.rl(51_200, group_size=4, reward_rate=0.1).warnings)


def test_the_rank_stays_between_8_and_32_and_grows_with_the_bits() -> None:
    """Bits of reward ask for rank 8, 16, 32; beyond that the cap is said, with the rank that would do."""
    ranks = [BASE.rl(n, reward_rate=0.5).rank for n in (1_000, 30_000_000, 60_000_000, 10**9)]
    assert ranks == [8, 16, 32, 32]
    huge = BASE.rl(10**9, reward_rate=0.5)
    assert huge.verdict == "capacity-limited"
    assert any("capped at 32; the data asks for 512" in text for text in huge.warnings)
    assert any("rank 512 would be low-regret" in text for text in huge.decision.changes)
    assert BASE.rl(10**9, reward_rate=0.5).pin(rank=512).verdict == "low-regret"


def test_a_servers_maximum_below_8_wins() -> None:
    """The computed rank never exceeds what the server takes."""
    assert LoRAPlan.for_("meta-llama/Llama-3.1-8B", max_rank=4).rl(1_000).rank == 4


def test_a_rate_that_nobody_gave_is_assumed_aloud() -> None:
    """Without reward_rate the bits are the upper bound, and a doubt says so."""
    demand = BASE.rl(1_000).decision.demand
    assert demand.amount == 1_000
    assert any("0.5" in doubt and "assumed" in doubt for doubt in demand.doubts)


class Group:
    """A builder of one env group, as the cookbook's are: with `make_envs`, and perhaps `num_envs`."""

    def __init__(self, num_envs: int | None = None) -> None:
        if num_envs is not None:
            self.num_envs = num_envs

    async def make_envs(self) -> list[Any]:
        return []


def cookbook_dataset(batches: list[int], num_envs: int | None) -> Any:
    """Return a real cookbook RLDataset of batches of these sizes."""
    from tinker_cookbook.rl.types import RLDataset

    class Dataset(RLDataset):
        def get_batch(self, index: int) -> Any:
            return [Group(num_envs) for _ in range(batches[index])]

        def __len__(self) -> int:
            return len(batches)

    return Dataset()


def test_an_rl_dataset_says_groups_batch_and_group_size() -> None:
    """Three batches of 10, 10 and 4 groups of 8 are 192 episodes in 3 steps of 10 groups."""
    plan = BASE.rl(cookbook_dataset([10, 10, 4], num_envs=8))
    counts = plan.objective.counts
    assert counts == EpisodeCounts(episodes=192, group_size=8)
    assert (plan.batch_size, plan.steps) == (10, 3)
    with pytest.raises(PlanError, match="groups_per_batch contradicts the dataset"):
        BASE.rl(cookbook_dataset([10, 10], num_envs=8), groups_per_batch=5)
    with pytest.raises(PlanError, match="group_size contradicts the data"):
        BASE.rl(cookbook_dataset([10, 10], num_envs=8), group_size=4)


def test_a_list_of_group_builders_is_one_pass_over_them() -> None:
    """200 builders in groups of 4 are 800 episodes; the batch is computed."""
    plan = BASE.rl([Group() for _ in range(200)], group_size=4)
    assert plan.objective is not None
    assert plan.objective.counts == EpisodeCounts(episodes=800, group_size=4)
    assert plan.batch_size == 8


def test_two_batches_contradict() -> None:
    """A pin and groups_per_batch must agree; the pin alone is shown as pinned."""
    plan = BASE.rl(10_000, groups_per_batch=64)
    with pytest.raises(PlanError, match="contradicts the objective's"):
        plan.pin(batch_size=32)
    assert plan.pin(batch_size=64).batch_size == 64
    pinned = BASE.rl(10_000).pin(batch_size=32)
    assert (pinned.batch_size, pinned.decision.batch_size.pinned) == (32, True)


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        (0, {}), (-5, {}), (1_000, {"group_size": 1}), (1_000, {"group_size": 0}),
        (1_000, {"reward_rate": 0}), (1_000, {"reward_rate": -0.1}),
        (1_000, {"reward_rate": 1.0}), (1_000, {"reward_rate": 1.5}), (1_000, {"reward_rate": float("nan")}),
        (1_000, {"groups_per_batch": 0}), ("episodes.jsonl", {}), (True, {}), ([], {}), (1e6, {}),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_four_parts(data: Any, settings: dict[str, Any]) -> None:
    """Nothing that gives no signal, or is no number of episodes, becomes a plan."""
    with pytest.raises(OfficerError) as caught:
        BASE.rl(data, **settings)
    assert "fix:" in str(caught.value)


def test_the_bill_is_prefill_cached_sample_and_train() -> None:
    """Each phase by hand: prompts once a group at the full price, the rest from the cache."""
    counts = EpisodeCounts(episodes=1_000, group_size=10, prompt_tokens=100, sampled_tokens=400)
    plan = BASE.rl(counts).price(train=4.0, prefill=1.0, cached=0.1, sample=3.0)
    tokens = {phase.name: phase.tokens for phase in plan.cost.phases}
    assert tokens == {"train": 500_000, "prefill": 10_000, "cached": 90_000, "sample": 400_000}
    assert plan.cost.total == pytest.approx(2.0 + 0.01 + 0.009 + 1.2)
    turns = EpisodeCounts(
        episodes=1_000, group_size=10, prompt_tokens=100, sampled_tokens=400, cached_tokens=900
    )
    several = {phase.name: phase.tokens for phase in BASE.rl(turns).cost.phases}
    assert (several["prefill"], several["cached"]) == (100_000, 900_000)


def test_a_missing_price_or_length_leaves_no_total() -> None:
    """Three prices of four are no total, and four prices without lengths are none either."""
    counts = EpisodeCounts(episodes=1_000, prompt_tokens=100, sampled_tokens=400)
    partial = BASE.rl(counts).price(train=4.0, prefill=1.0, sample=3.0)
    assert partial.cost.total is None
    assert any("price of cached is unknown" in text for text in partial.warnings)
    unknown = BASE.rl(1_000).price(train=4.0, prefill=1.0, sample=3.0, cached=0.1)
    assert unknown.cost.total is None
    assert any("tokens of train, prefill, cached and sample are not known" in t for t in unknown.warnings)


def test_a_simulated_group_is_mixed_as_often_as_planned() -> None:
    """A hundred thousand drawn groups agree with the formula within their own chance."""
    draws = np.random.default_rng(0).random((100_000, 8)) < 0.2
    observed = float(np.mean((draws.sum(axis=1) > 0) & (draws.sum(axis=1) < 8)))
    assert observed == pytest.approx(mixed(0.2, 8), abs=0.005)
