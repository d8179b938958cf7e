"""Each warning appears when it applies, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from tinker_officer import LoRAPlan, PairCounts, TokenCounts
from tinker_officer.errors import PlanError


GOOD: dict[str, Any] = {"examples": 9_500, "trained": 2_000_000, "total": 2_600_000}


def warnings(epochs: int = 1, **counted: Any) -> tuple[str, ...]:
    base = LoRAPlan.for_("Qwen/Qwen3-8B").price(per_million=0.44)
    return base.sft(TokenCounts(**(GOOD | counted)), epochs=epochs).warnings


def test_good_data_warns_of_nothing() -> None:
    """Shares at or below the limits are quiet."""
    assert warnings(duplicates=900, truncated=90, epochs=4, unique_trained=1_800_000) == ()


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        ({"duplicates": 2_000}, "21% of what is trained on is duplicated"),
        ({"unique_trained": 1_000_000}, "50% of what is trained on is duplicated"),
        ({"truncated": 950}, "10.0% of the rows are truncated"),
        ({"dropped": 12}, "12 rows are left out"),
        ({"masked": 7}, "7 rows are left out"),
        ({"epochs": 5}, "5 epochs: beyond 4"),
        ({"examples": 60}, "only 8 steps"),
    ],
)
def test_one_thing_wrong_is_one_warning(counted: dict[str, Any], said: str) -> None:
    """Each trouble is named once, with its number."""
    [warning] = warnings(**counted)
    assert said in warning


def test_a_batch_larger_than_the_data_is_pointed_out() -> None:
    """A pinned batch that swallows the data makes an epoch one step."""
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(TokenCounts(examples=40, trained=400, total=800))
    assert any("more than all 40 examples" in text for text in plan.pin(batch_size=64).warnings)


def test_the_reason_why_nothing_is_left_is_given() -> None:
    """When T is 0 because everything is masked or dropped, the error says how many."""
    counts = TokenCounts(examples=4, trained=0, total=90, masked=4, dropped=3)
    with pytest.raises(PlanError, match=r"4 whose every token is masked, 3 dropped as too long"):
        LoRAPlan.for_("Qwen/Qwen3-8B").sft(counts)


def test_the_larger_model_that_is_offered_would_do() -> None:
    """The smallest listed model of the family that is low-regret is named, and planning with it agrees."""
    counts = TokenCounts(examples=10**6, trained=9 * 10**8, total=10**9)
    [change] = LoRAPlan.for_("Qwen/Qwen3-30B-A3B", max_rank=64).sft(counts).decision.changes
    assert "(Qwen/Qwen3-235B-A22B-Instruct-2507 at rank 64)" in change
    larger = LoRAPlan.for_("Qwen/Qwen3-235B-A22B-Instruct-2507", max_rank=64).sft(counts)
    assert (larger.rank, larger.verdict) == (64, "low-regret")


def test_the_subset_that_is_offered_would_do() -> None:
    """Exactly as many tokens as the advice allows are low-regret; one more is not."""
    base = LoRAPlan.for_("Qwen/Qwen3-30B-A3B", max_rank=64)
    counts = TokenCounts(examples=10**6, trained=9 * 10**8, total=10**9)
    [change] = base.sft(counts).decision.changes
    most = int(change.partition("at most ")[2].split()[0].replace(",", ""))
    fits = TokenCounts(examples=10**6, trained=most, total=most)
    over = TokenCounts(examples=10**6, trained=most + 1, total=most + 1)
    assert (base.sft(fits).verdict, base.sft(over).verdict) == ("low-regret", "tight")


@pytest.mark.parametrize(
    ("plan", "rank"),
    [
        (LoRAPlan.for_("meta-llama/Llama-3.2-1B").rl(10**8, reward_rate=0.5), 128),
        (
            LoRAPlan.for_("meta-llama/Llama-3.2-1B", max_rank=512).dpo(PairCounts(pairs=10**8)).pin(rank=64),
            128,
        ),
    ],
)
def test_the_rank_that_is_offered_would_do(plan: LoRAPlan, rank: int) -> None:
    """Methods that count bits name the rank that would be low-regret, too."""
    assert f"rank {rank} would be low-regret" in plan.decision.changes
    assert plan.pin(rank=rank).verdict == "low-regret"
    assert plan.pin(rank=rank // 2).verdict == "tight"
