"""RL: rollouts that repeat, advantages against NumPy, staleness that is what was asked, runs that learn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tinker
from tinker_cookbook.completers import TokensWithLogprobs
from tinker_cookbook.rl.types import RLDataset, Trajectory, TrajectoryGroup, Transition

from tests.train.groups import NOTHING, Evens, TwoTurns, evens
from tests.train.records import numbers
from tinker_officer import EpisodeCounts, LocalEngine, LoRAPlan, Run
from tinker_officer.errors import RunError
from tinker_officer.train.objective import array
from tinker_officer.train.rl import Rl, episode_metrics, policy_metrics


def episode(reward: float, tokens: list[int], *, reason: Any = "stop") -> Trajectory:
    """One turn that earned `reward`."""
    action = TokensWithLogprobs(tokens, [-1.0] * len(tokens), reason)
    turn = Transition(tinker.ModelInput.from_ints([1, 2]), action, reward, True, {"right": reward})
    return Trajectory([turn], NOTHING)


def group(*episodes: Trajectory) -> TrajectoryGroup:
    """A group with no reward of its own."""
    return TrajectoryGroup(list(episodes), [0.0] * len(episodes), [{} for _ in episodes])


GROUPS = [
    group(episode(1.0, [3, 4]), episode(0.0, [5], reason="length"), episode(0.5, [6, 7, 8])),
    group(episode(1.0, [3]), episode(1.0, [4])),
]


def make_run(model: Path, *, lag: int = 0, steps: int = 6, size: int = 4, **settings: Any) -> Run:
    """A run of a few steps, four groups of episodes each."""
    plan = LoRAPlan.for_(str(model)).rl(4 * size * steps, group_size=size)
    run = Run(plan.pin(batch_size=4, learning_rate=1e-2, rank=4), name="evens").checkpoint(every=2)
    return run.rl(evens(size=size), max_tokens=6, max_steps_off_policy=lag, **settings)


def test_advantages_are_rewards_less_the_mean_of_their_group() -> None:
    """What is trained on are the sampled tokens of mixed groups, each with its episode's advantage."""
    datums, measured = asyncio.run(Rl(max_tokens=8).learned(GROUPS, None))
    assert len(datums) == 3  # the second group is constant
    for datum, advantage, sampled in zip(datums, (0.5, -0.5, 0.0), (2, 1, 3), strict=True):
        np.testing.assert_allclose(array(datum, "advantages"), [0.0] + [advantage] * sampled)
        np.testing.assert_array_equal(array(datum, "mask"), [0.0] + [1.0] * sampled)
    rewards = np.array([1.0, 0.0, 0.5, 1.0, 1.0])
    assert measured == pytest.approx(
        {
            "rl/reward_mean": rewards.mean(),
            "rl/reward_std": rewards.std(),
            "rl/reward_std_in_group": (rewards[:3].std() + 0.0) / 2,
            "rl/constant_groups": 0.5,
            "rl/groups": 2,
            "rl/episodes": 5,
            "rl/failed": 0,
            "rl/turns": 1.0,
            "rl/sampled_tokens": 8,
            "rl/truncated": 0.2,
            "env/right": rewards.mean(),
        }
    )
    assert episode_metrics(GROUPS) == measured


def test_constant_groups_stay_when_asked_and_one_stays_when_all_are_constant() -> None:
    """Leaving them out is a setting; a step is never empty."""
    everything = Rl(max_tokens=8, remove_constant_reward_groups=False)
    assert len(asyncio.run(everything.learned(GROUPS, None))[0]) == 5
    assert len(asyncio.run(Rl(max_tokens=8).learned([GROUPS[1], GROUPS[1]], None))[0]) == 2


def test_kl_and_entropy_are_over_sampled_tokens_alone() -> None:
    """The estimates equal their definitions, and prompt tokens do not count."""
    sampled = [np.array([-7.0, -1.0, -2.0]), np.array([-7.0, -0.5])]
    trained = [np.array([-1.0, -1.5, -2.5]), np.array([-3.0, -0.25])]
    weights = [np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0])]
    gaps = np.array([0.5, 0.5, -0.25])
    assert policy_metrics(sampled, trained, weights) == pytest.approx(
        {
            "rl/kl_sample_train_v1": gaps.mean(),
            "rl/kl_sample_train_v2": (gaps**2).mean() / 2,
            "rl/entropy": (1.0 + 2.0 + 0.5) / 3,
        }
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_fn": "pop"}, "did you mean 'ppo'"),
        ({"loss_fn_config": {"beta": 0.1}}, "has no such setting"),
        ({"temperature": 0.0}, "temperature is out of range"),
        ({"max_steps_off_policy": -1}, "max_steps_off_policy is out of range"),
    ],
)
def test_a_wrong_setting_is_refused_where_it_is_written(
    tiny_model: Path, settings: dict[str, Any], message: str
) -> None:
    """Losses have their own settings, by the server's names."""
    run = make_run(tiny_model)
    with pytest.raises(RunError, match=message):
        run.rl(evens(), max_tokens=6, **settings)


def test_a_spike_guard_is_refused(tiny_model: Path) -> None:
    """A reward that leaps up is luck or success, never a batch to leave out."""
    with pytest.raises(RunError, match="a guard watches the loss"):
        make_run(tiny_model).guard("skip")


def test_a_plan_for_rl_needs_environments(tiny_model: Path) -> None:
    """A run whose plan and objective differ says so before it starts."""
    plan = LoRAPlan.for_(str(tiny_model)).rl(120, group_size=4)
    with pytest.raises(RunError, match=r"another method[\s\S]*\.rl\(groups"):
        _ = Run(plan, name="evens").data


@pytest.mark.parametrize(
    ("loss_fn", "config"),
    [
        ("ppo", {"clip_low_threshold": 0.9}),
        ("cispo", {}),
        ("dro", {"beta": 0.1}),
        ("importance_sampling", {}),
    ],
)
def test_every_loss_trains(
    tiny_model: Path, engine: LocalEngine, tmp_path: Path, loss_fn: str, config: dict[str, float]
) -> None:
    """The server takes the datums and the settings of each loss."""
    run = make_run(tiny_model, steps=1, loss_fn=loss_fn, loss_fn_config=config)
    result = run.run(engine, tmp_path / "run", progress=False)
    assert result.metrics["train/grad_norm"] > 0
    assert result.metrics["rl/kl_sample_train_v2"] < 1e-9  # the weights that sampled are those that train


def test_a_run_earns_more_and_repeats_bit_for_bit(
    tiny_model: Path, engine: LocalEngine, tmp_path: Path, digests: Any
) -> None:
    """Even tokens become more likely; two runs of one spec sample the same and end with the same bits."""
    run = make_run(tiny_model, steps=10, size=8, kl_penalty_coef=0.01)
    results = [run.run(engine, tmp_path / name, progress=False) for name in ("one", "two")]
    history = results[0].history()
    earned = [row["rl/reward_mean"] for row in history]
    assert np.mean(earned[-3:]) > np.mean(earned[:3]) + 0.1
    assert history[-1]["rl/kl_reference"] > history[0]["rl/kl_reference"]
    assert [row["rl/staleness"] for row in history] == [0.0] * 10
    assert numbers(tmp_path / "one") == numbers(tmp_path / "two")
    assert digests(results[0].final.state_path) == digests(results[1].final.state_path)


def test_samples_lag_as_far_as_asked_and_a_stopped_run_goes_on_the_same(
    tiny_model: Path, engine: LocalEngine, tmp_path: Path, digests: Any
) -> None:
    """With a lag of two the third step is the first whose samples are two steps old, also after a stop."""
    run = make_run(tiny_model, lag=2, steps=8)
    whole = run.run(engine, tmp_path / "whole", progress=False)
    assert [row["rl/staleness"] for row in whole.history()] == [0.0, 1.0] + [2.0] * 6
    with run.start(on=engine, at=tmp_path / "halves", progress=False) as live:
        for step in live:
            if step.index == 5:
                live.cancel()
                break
    halves = run.run(engine, tmp_path / "halves", progress=False)
    assert numbers(tmp_path / "halves") == numbers(tmp_path / "whole")
    assert digests(halves.final.state_path) == digests(whole.final.state_path)
    applied = [json.loads(line) for line in (tmp_path / "halves" / "ledger.jsonl").read_text().splitlines()]
    steps = [(one["step"], one["policy"]) for one in applied if "step" in one]
    assert steps == [(step, max(0, step - 3)) for step in range(1, 9)]


class Batches(RLDataset):
    """Two batches of the cookbook's kind, of episodes with two turns."""

    def get_batch(self, index: int) -> Sequence[Evens]:
        """Return two groups."""
        return evens(4, kind=TwoTurns)[2 * index : 2 * index + 2]

    def __len__(self) -> int:
        return 2


def test_a_dataset_of_the_cookbook_plugs_in_as_it_is(
    tiny_model: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    """Its batches come in their order, again and again; turns that extend each other are one datum."""
    data = Batches()
    plan = LoRAPlan.for_(str(tiny_model)).rl(EpisodeCounts(episodes=24, group_size=4), groups_per_batch=2)
    run = Run(plan.pin(learning_rate=1e-2, rank=4), name="turns").rl(data, max_tokens=4)
    assert len(Run.from_json(run.to_json(), data=data).data) == 2
    result = run.run(engine, tmp_path / "run", progress=False)
    assert [row["train/examples"] for row in result.history()] == [1] * 3
    assert result.metrics["rl/turns"] == 2.0
    assert result.metrics["rl/sampled_tokens"] == 2 * 4 * 2 * 4
    assert result.metrics["train/tokens"] <= 64


def test_distillation_moves_the_student_to_the_teacher(
    tiny_model: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    """A student that was taught even tokens comes back to its teacher, the base model."""
    taught = make_run(tiny_model, steps=8, size=8).run(engine, tmp_path / "teacher", progress=False)
    plan = LoRAPlan.for_(str(tiny_model)).distill(
        EpisodeCounts(episodes=10 * 3 * 4, group_size=4, sampled_tokens=6)
    )
    run = Run(plan.pin(batch_size=3, learning_rate=1e-2, rank=4), name="student").distill(
        evens(), teacher=str(taught.final.sampler_path), max_tokens=6
    )
    history = run.run(engine, tmp_path / "student", progress=False).history()
    assert history[0]["distill/teacher_kl"] > 0.1
    assert history[-1]["distill/teacher_kl"] < 0.7 * history[0]["distill/teacher_kl"]
