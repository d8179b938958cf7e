"""Each warning appears when it applies, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from tinker_officer import LoRAPlan, TokenCounts
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
