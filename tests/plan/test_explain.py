"""A plan as text."""

from __future__ import annotations

import pytest

from tinker_officer import LoRAPlan, PairCounts, TokenCounts
from tinker_officer.plan import explain


COUNTS = TokenCounts(
    examples=2_000,
    trained=600_000,
    total=800_000,
    unique_trained=480_000,
    max_length=2048,
    renderer_name="qwen3",
)


def test_every_number_is_there_with_its_source() -> None:
    """Tokens, rank, rate with interval and get_lr, batch, steps, verdict, cost and time are all shown."""
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(COUNTS, epochs=3).price(per_million=0.5)
    text = plan.explain(tokens_per_second=1_000)
    interval = plan.decision.learning_rate.interval
    assert interval is not None
    for part in (
        f"rank 16 | learning rate {explain.rate(plan.learning_rate)} | batch 8 | 750 steps | ample | ",
        "ample | cost $1.20",
        "480,000", "unique ones of 600,000", "LoRA primer", "46,143,488", "2,883,968 per unit of rank",
        "R             96.1", " to ".join(map(explain.rate, interval)), "4.7e-4",
        "the cookbook's answer", "ceil(2,000 examples / 8) x 3",
        "2.40M tokens in 3 epochs", "$0.5 a million", "about 40 min", "renderer qwen3", "2,048 tokens",
        "LoRA Without Regret",
    ):  # fmt: skip
        assert part in text, part


def test_an_unknown_price_is_called_unknown() -> None:
    """No price, no sum."""
    text = LoRAPlan.for_("Qwen/Qwen3-8B").sft(COUNTS).explain()
    assert "cost unknown" in text
    assert "no price given" in text
    assert "time " not in text


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "openai/gpt-oss-20b", "Qwen/Qwen3.5-9B-Base"])
@pytest.mark.parametrize("trained", [10, 10**7, 10**12])
def test_no_line_is_longer_than_a_terminal(name: str, trained: int) -> None:
    """Every line fits 100 columns and none ends in a space."""
    counts = TokenCounts(examples=10**7, trained=trained, total=trained, unique_trained=trained)
    lines = LoRAPlan.for_(name, max_rank=64).sft(counts).explain(tokens_per_second=1).splitlines()
    assert max(map(len, lines)) <= 100
    assert not [line for line in lines if line != line.rstrip()]


def test_what_would_change_the_verdict_is_said() -> None:
    """A tight plan names the rank that would be low-regret."""
    counts = TokenCounts(examples=10_000, trained=20_000_000, total=20_000_000)
    text = LoRAPlan.for_("meta-llama/Llama-3.2-1B").sft(counts).pin(rank=8).explain()
    assert "tight" in text
    assert "rank 32 would be low-regret" in text
    assert "rank 128 would be ample" in text


def test_a_plan_without_data_explains_what_comes_next() -> None:
    """Before `.sft` there is a size and a next step."""
    assert LoRAPlan.for_("Qwen/Qwen3-8B").explain().endswith("Next: plan.sft(train)")


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.7e-4, "4.7e-4"), (5e-4, "5e-4"), (1e-3, "1e-3"), (1.26e-5, "1.3e-5"), (0.2, "2e-1")],
)
def test_rates_are_written_as_people_write_them(value: float, text: str) -> None:
    """Two digits, no zeros that say nothing."""
    assert explain.rate(value) == text


def test_a_pin_is_shown_beside_what_it_replaces() -> None:
    """The reader sees both numbers, and bits where the base NLL is known."""
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(COUNTS, base_nll=1.0).pin(rank=64, learning_rate=1e-4)
    text = plan.explain()
    assert "64 (pinned)" in text
    assert "computed: 16, LoRA primer" in text
    computed = plan.decision.learning_rate.computed
    assert computed is not None
    assert f"computed: {explain.rate(computed)}, " in text
    assert "R in bits     533 " in text


@pytest.mark.parametrize(("value", "text"), [(0.039412, "0.0394"), (23.07, "23.1"), (3727.2, "3,730")])
def test_r_keeps_three_digits(value: float, text: str) -> None:
    """Small and large ratios alike."""
    assert explain.ratio(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.002, "below 0.01 %"), (0.0311, "0.031 %"), (2.14, "2.1 %"), (12.4, "12 %")]
)
def test_percentages_keep_two_digits(value: float, text: str) -> None:
    """Small shares keep their digits, large ones lose their decimals."""
    assert explain.percent(value) == text


def test_a_value_wider_than_its_column_takes_room_from_its_source() -> None:
    """Five thousand billion tokens still fit a terminal."""
    pairs = PairCounts(pairs=3_623_878_657, total=2_536_715_059_900)
    lines = (
        LoRAPlan.for_("Qwen/Qwen3-8B")
        .dpo(pairs, epochs=2)
        .price(train=9e3, prefill=2.0)
        .explain()
        .splitlines()
    )
    assert max(map(len, lines)) <= 96
