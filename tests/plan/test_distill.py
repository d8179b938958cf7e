"""Distillation: on the student's own samples, and of a prompt."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tinker_officer import Conversations, EpisodeCounts, LoRAPlan, Run, TokenCounts
from tinker_officer.errors import OfficerError, PlanError
from tinker_officer.plan.distill import Distill


if TYPE_CHECKING:
    from tinker_officer import LocalEngine

BASE = LoRAPlan.for_("Qwen/Qwen3-8B-Base")
EPISODES = EpisodeCounts(episodes=51_200, group_size=4, prompt_tokens=150, sampled_tokens=2_000)


def test_on_policy_distillation_by_the_recipe() -> None:
    """Reasoning from a base model: rank 128, 1e-4, KL 1.0, a hundred steps of 128 groups."""
    plan = BASE.distill(EPISODES, reasoning=True)
    assert (plan.rank, plan.learning_rate, plan.batch_size, plan.steps) == (128, 1e-4, 128, 100)
    assert isinstance(plan.objective, Distill)
    assert plan.objective.kl_penalty_coef == 1.0
    assert plan.decision.learning_rate.interval == (4e-5, 2.5e-4)
    assert plan.verdict == "low-regret"


def test_short_samples_want_rank_32_and_long_ones_more() -> None:
    """It is not as cheap as RL: the bits grow with the tokens of an episode, and the rank with them."""
    ranks = [
        BASE.distill(EpisodeCounts(episodes=51_200, sampled_tokens=length)).rank
        for length in (10, 2_000, 8_000)
    ]
    assert ranks == [32, 64, 128]
    assert BASE.rl(51_200, reward_rate=0.5).rank == 8


def test_a_known_divergence_replaces_the_guess_of_a_bit_a_token() -> None:
    """teacher_kl in nats, by hand in bits."""
    demand = BASE.distill(EPISODES, teacher_kl=0.1).decision.demand
    assert demand.amount == pytest.approx(51_200 * 2_000 * 0.1 / math.log(2))
    assert "guess" not in "".join(demand.doubts)
    assert "guess" in "".join(BASE.distill(EPISODES).decision.demand.doubts)


def test_the_teacher_is_paid_too() -> None:
    """Five phases; the teacher reads what the student wrote, at the teacher's own price."""
    plan = BASE.distill(EPISODES).price(train=1, prefill=1, cached=1, sample=1)
    assert plan.cost.total is None
    paid = plan.price(teacher=2)
    tokens = 51_200 * 2_150
    assert paid.cost.total == pytest.approx((tokens + 51_200 * 150 + 51_200 * 2_000 + 2 * tokens) / 1e6)


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        (EpisodeCounts(episodes=100), {}), (EpisodeCounts(episodes=0, sampled_tokens=5), {}), (51_200, {}),
        (EPISODES, {"teacher_kl": 0}), (EPISODES, {"teacher_kl": -1}), (EPISODES, {"kl_penalty_coef": 0}),
        (EPISODES, {"groups_per_batch": 0}),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_four_parts(data: Any, settings: dict[str, Any]) -> None:
    """Samples of unknown length tell nobody how much there is to learn."""
    with pytest.raises(PlanError) as caught:
        BASE.distill(data, **settings)
    assert "fix:" in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        {"episodes": 1.5},
        {"episodes": 1, "group_size": 0},
        {"episodes": 1, "sampled_tokens": -1},
        {"episodes": 1, "prompt_tokens": float("nan")},
    ],
)
def test_impossible_counts_are_refused(bad: dict[str, Any]) -> None:
    """Counts are checked where they are written."""
    with pytest.raises(OfficerError, match="fix:"):
        EpisodeCounts(**bad)


def test_a_prompt_is_really_distilled(engine: LocalEngine, tiny_model: Path, tmp_path: Path) -> None:
    """A plan for prompt distillation trains through `Run`, on a real engine, for its four epochs."""
    rows = [
        {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i}!"}]}
        for i in range(12)
    ]
    plan = LoRAPlan.for_(str(tiny_model)).prompt_distillation(Conversations.from_list(rows), max_length=64)
    assert plan.counts.examples == 12
    assert LoRAPlan.from_json(plan.to_json(), plan.data).data is plan.data
    result = Run(plan, name="prompt").run(on=engine, at=tmp_path / "run", progress=False)
    assert result.steps == plan.steps == 8
    losses = [row["train/mean_nll"] for row in result.history() if "train/mean_nll" in row]
    assert losses[-1] < losses[0]


def test_prompt_distillation_is_sft_with_the_recipes_rate_and_epochs() -> None:
    """Four epochs at 1e-4; rank, batch and bits by the tokens; what SFT would take is said."""
    counts = TokenCounts(examples=2_000, trained=12_000, total=90_000)
    plan, plain = BASE.prompt_distillation(counts, base_nll=0.3), BASE.sft(counts, epochs=4, base_nll=0.3)
    assert (plan.learning_rate, plan.epochs, plan.method) == (1e-4, 4, "prompt_distillation")
    assert (plan.rank, plan.batch_size, plan.steps) == (plain.rank, plain.batch_size, plain.steps)
    assert plan.decision.bits_ratio == plain.decision.bits_ratio
    assert any(f"{plain.learning_rate:.1e}" in doubt for doubt in plan.decision.learning_rate.doubts)
    assert plan.counts == counts
    assert plan != plain
