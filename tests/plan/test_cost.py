"""What a run costs: never a partial sum."""

from __future__ import annotations

from typing import Any

import pytest

from tinker_officer import LoRAPlan, TokenCounts
from tinker_officer.errors import PlanError
from tinker_officer.plan.cost import Cost, Phase


BASE = LoRAPlan.for_("Qwen/Qwen3-8B").sft(TokenCounts(examples=9_500, trained=2_000_000, total=2_600_000))


def test_two_words_for_one_price() -> None:
    """per_million and train mean the same; two different numbers contradict each other."""
    assert BASE.price(per_million=0.44) == BASE.price(train=0.44)
    assert BASE.price(per_million=0.44, train=0.44).cost.total == pytest.approx(1.144)
    with pytest.raises(PlanError, match="training has two prices"):
        BASE.price(per_million=0.44, train=0.5)


def test_prices_may_be_given_one_by_one() -> None:
    """A later call replaces what it names and leaves the rest."""
    plan = BASE.price(train=1.0).price(sample=2.0).price(train=3.0)
    assert (plan.prices.train, plan.prices.sample, plan.prices.prefill) == (3.0, 2.0, None)


@pytest.mark.parametrize("name", ["train", "prefill", "cached", "sample", "teacher", "storage"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "1", True])
def test_no_price_may_be_negative_or_nan(name: str, value: Any) -> None:
    """Each is refused by its own name, with a call that works."""
    with pytest.raises(PlanError, match=rf"the price of {name} is out of range[\s\S]*plan\.price\({name}="):
        BASE.price(**{name: value})


def test_storage_is_a_rent_and_not_part_of_the_total() -> None:
    """Rank 16 of Qwen3-8B: 46M parameters of 12 bytes are 0.55 GB, at $0.10 5.5 cents a month."""
    plan = BASE.price(train=0.44, storage=0.10)
    assert plan.cost.checkpoint_gigabytes == pytest.approx(46_143_488 * 12 / 1e9)
    assert plan.cost.storage_per_month == pytest.approx(0.0554, abs=1e-4)
    assert plan.cost.total == pytest.approx(1.144)
    assert "not in the total" in plan.explain()
    assert BASE.cost.storage_per_month is None


def test_nothing_of_something_without_a_price_costs_nothing() -> None:
    """A phase of no tokens needs no price."""
    phases = (Phase("train", 1e6, 2.0, ""), Phase("cached", 0.0, None, ""))
    assert Cost(phases).total == 2.0
    assert Cost((*phases, Phase("sample", 1.0, None, ""))).total is None
