"""DPO and reward models: a bit a pair, the recipes' numbers, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tinker_officer import Conversations, LoRAPlan, PairCounts, Pairs, TokenCounts
from tinker_officer.errors import OfficerError, PlanError
from tinker_officer.plan.preference import Dpo


BASE = LoRAPlan.for_("Qwen/Qwen3-8B")
PAIRS = PairCounts(pairs=20_000, total=8_000_000)


def test_dpo_by_the_recipe() -> None:
    """20,000 pairs: rank 32, 1e-5, beta 0.1, batch 128 from pairs / 100, 157 steps, a bit a pair."""
    plan = BASE.dpo(PAIRS)
    assert (plan.rank, plan.learning_rate, plan.batch_size, plan.steps) == (32, 1e-5, 128, 157)
    assert plan.decision.demand.amount == 20_000
    assert plan.decision.ratio == pytest.approx(32 * 2_883_968 / 20_000)
    assert plan.decision.learning_rate.interval == (4e-6, 2.5e-5)
    assert plan.decision.learning_rate.doubts
    assert isinstance(plan.objective, Dpo)
    assert plan.objective.dpo_beta == 0.1


def test_a_reward_model_by_the_recipe() -> None:
    """The same pairs: 3e-4, in an interval that the recipe alone cannot make narrow."""
    plan = BASE.reward_model(PAIRS)
    assert (plan.rank, plan.learning_rate, plan.batch_size, plan.steps) == (32, 3e-4, 128, 157)
    assert plan.decision.learning_rate.interval == (1.2e-4, 7.5e-4)


@pytest.mark.parametrize(
    ("pairs", "epochs", "batch"),
    [(1, 1, 32), (6_399, 1, 32), (6_400, 1, 64), (6_400, 2, 128), (10**6, 1, 256)],
)
def test_the_batch_leaves_a_hundred_steps_where_it_can(pairs: int, epochs: int, batch: int) -> None:
    """clamp(pow2floor(pairs x epochs / 100), 32, 256)."""
    assert BASE.dpo(PairCounts(pairs=pairs), epochs=epochs).batch_size == batch


def test_more_bits_than_rank_32_holds_raise_the_rank() -> None:
    """A model of the size of SmolLM2, with a great many pairs, gets a parameter a bit."""
    assert BASE.dpo(PairCounts(pairs=200_000_000)).rank == 128
    capped = LoRAPlan.for_("Qwen/Qwen3-8B", max_rank=32).dpo(PairCounts(pairs=200_000_000))
    assert (capped.rank, capped.verdict) == (32, "tight")
    assert any("capped at 32; the data asks for 128" in text for text in capped.warnings)


def test_dpo_also_pays_for_the_reference() -> None:
    """Training and prefill of the same tokens, every epoch; a missing price is no total."""
    plan = BASE.dpo(PAIRS, epochs=2).price(train=0.4, prefill=0.1)
    assert plan.cost.total == pytest.approx(16 * 0.4 + 16 * 0.1)
    assert BASE.dpo(PAIRS).price(train=0.4).cost.total is None
    assert BASE.reward_model(PAIRS).price(train=0.4).cost.total == pytest.approx(3.2)
    assert BASE.reward_model(PairCounts(pairs=9)).price(train=0.4).cost.total is None


def test_pairs_are_checked_like_rows() -> None:
    """Duplicates, truncation, masked and dropped pairs, and many epochs are each said once."""
    counts = PairCounts(pairs=20_000, duplicates=5_000, truncated=900, dropped=3, masked=2)
    said = "\n".join(BASE.dpo(counts, epochs=5).warnings)
    for part in ("25% of", "4.5% of the pairs", "3 pairs are left out", "2 pairs are left out", "5 epochs"):
        assert said.count(part) == 1


def test_pins_are_checked_against_the_methods_own_limits() -> None:
    """A batch above 256 and a rate outside the recipe's interval are pointed out."""
    said = "\n".join(BASE.dpo(PAIRS).pin(batch_size=512, learning_rate=1e-4).warnings)
    assert "batch 512 is above 256" in said
    assert "1.0e-04 is outside [4.0e-06" in said


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        (PairCounts(pairs=0, masked=3), {}), (PAIRS, {"epochs": 0}), (PAIRS, {"dpo_beta": 0}),
        (PAIRS, {"dpo_beta": float("nan")}), (20_000, {}), ("pairs.jsonl", {}),
        (TokenCounts(examples=1, trained=1, total=1), {}),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_four_parts(data: Any, settings: dict[str, Any]) -> None:
    """No pair, an impossible setting, or data that are not pairs."""
    with pytest.raises(PlanError) as caught:
        BASE.dpo(data, **settings)
    assert "fix:" in str(caught.value)


def test_conversations_cannot_be_preferences() -> None:
    """The error says what to load instead."""
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    with pytest.raises(PlanError, match=r"reward_model\(Pairs.from_jsonl"):
        BASE.reward_model(Conversations.from_list(rows))  # wrong on purpose


def test_preferences_cannot_be_conversations() -> None:
    """Pairs can be measured too, but not for SFT: the error says what to load instead."""
    pairs = Pairs.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(PlanError, match=r"sft\(Conversations.from_jsonl"):
        BASE.sft(pairs)  # wrong on purpose


@pytest.mark.parametrize(
    "bad", [{"pairs": -1}, {"pairs": 1.5}, {"pairs": 3, "duplicates": 4}, {"pairs": 3, "total": -1}]
)
def test_impossible_counts_are_refused(bad: dict[str, Any]) -> None:
    """Counts are checked where they are written."""
    with pytest.raises(OfficerError, match="fix:"):
        PairCounts(**bad)


def test_a_plan_for_pairs_has_no_token_counts() -> None:
    """Asking for those of conversations says where the pairs' are."""
    plan = BASE.dpo(PAIRS)
    for name in ("counts", "train_on"):
        with pytest.raises(PlanError, match=r"plan\.objective\.counts"):
            getattr(plan, name)


@pytest.mark.parametrize("method", ["dpo", "reward_model"])
def test_pairs_are_measured_where_they_are_planned_for(tiny_model: Path, method: str) -> None:
    """A plan from Pairs holds their exact counts, the settings they were counted with, and the data."""
    rows = [{"prompt": f"q{i}", "chosen": "yes " * (i + 1), "rejected": "no"} for i in range(30)]
    pairs = Pairs.from_list([*rows, rows[0]])
    base = LoRAPlan.for_(str(tiny_model))
    plan = getattr(base, method)(pairs, max_length=48, too_long="drop")
    counts = pairs.measure(str(tiny_model), max_length=48, too_long="drop")
    assert plan.objective.counts == counts
    assert counts.dropped > 0
    assert counts.duplicates == 1
    assert (plan.max_length, plan.too_long, plan.renderer_name) == (48, "drop", "chatml")
    assert plan.data is pairs
    again = LoRAPlan.from_json(plan.to_json(), data=pairs)
    assert again == plan
    assert again.data is pairs
    with pytest.raises(PlanError, match=rf"not the data[\s\S]*\.{method}\(data\)"):
        LoRAPlan.from_json(plan.to_json(), data=pairs.take(3))
    assert f"{counts.pairs} pairs of at most 1 bit" in plan.explain()


def test_settings_that_contradict_counted_pairs_are_refused() -> None:
    """Counts made with one limit are not planned for with another."""
    counts = PairCounts(pairs=9, max_length=64, too_long="drop")
    assert BASE.dpo(counts).max_length == 64
    with pytest.raises(PlanError, match="max_length contradicts the counts"):
        BASE.dpo(counts, max_length=128)
    with pytest.raises(PlanError, match="too_long contradicts the counts"):
        BASE.reward_model(counts, too_long="truncate")


def test_a_plan_for_episodes_has_no_length_limit() -> None:
    """Asking an RL plan for the limit of rows says what it learns from instead."""
    with pytest.raises(PlanError, match="nothing limits their length"):
        _ = BASE.rl(1_000).max_length
