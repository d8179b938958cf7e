"""The worked examples of supervised fine-tuning, and its bad input.

Their learning rates are those of the rule calibrated on the sweep (docs/explanation/learning-rate.md says
how, and why they differ from lora_plan.md's first ones, which were `get_lr`'s for Qwen3 and Llama).
"""

from __future__ import annotations

from typing import Any

import pytest

from tinker_officer import LoRAPlan, TokenCounts
from tinker_officer.errors import PlanError


def test_qwen3_8b_on_two_million_tokens() -> None:
    """Small data on a dense model: the smallest rank is ample, and 2.6M tokens cost $1.14."""
    counts = TokenCounts(examples=9_500, trained=2_000_000, total=2_600_000)
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(counts).price(per_million=0.44)
    assert (plan.rank, plan.learning_rate, plan.batch_size, plan.steps) == (16, 5.3e-4, 16, 594)
    assert plan.decision.ratio == pytest.approx(23.07, abs=0.005)
    assert plan.verdict == "ample"
    assert plan.cost.total == pytest.approx(1.144)
    assert plan.warnings == ()


def test_llama_1b_on_45_million_tokens() -> None:
    """Tulu 3 on Llama-3.2-1B: rank 64 has just over a parameter a token."""
    counts = TokenCounts(examples=99_840, trained=45_000_000, total=60_000_000)
    plan = LoRAPlan.for_("meta-llama/Llama-3.2-1B", max_rank=128).sft(counts)
    assert (plan.rank, plan.learning_rate, plan.batch_size, plan.steps) == (64, 7.4e-4, 128, 780)
    assert plan.decision.ratio == pytest.approx(1.187, abs=0.0005)
    assert plan.verdict == "low-regret"
    assert not plan.decision.pilot


def test_qwen3_30b_a3b_counts_three_parameters_a_token() -> None:
    """A mixture of experts needs three parameters a token: raw 5.49 is R = 1.83."""
    counts = TokenCounts(examples=99_840, trained=45_000_000, total=60_000_000)
    plan = LoRAPlan.for_("Qwen/Qwen3-30B-A3B", max_rank=64).sft(counts)
    assert (plan.rank, plan.learning_rate, plan.verdict) == (16, 5.3e-4, "low-regret")
    assert plan.decision.ratio == pytest.approx(1.83, abs=0.005)
    assert plan.parameters / 45_000_000 == pytest.approx(5.49, abs=0.005)


def test_qwen3_5_9b_on_ten_billion_tokens_is_capped() -> None:
    """Far too much data: the rank is capped, the verdict says so, and another way is offered."""
    counts = TokenCounts(examples=1_200_000, trained=9_600_000_000, total=9_600_000_000)
    plan = LoRAPlan.for_("Qwen/Qwen3.5-9B-Base", max_rank=128).sft(counts)
    assert (plan.decision.needed, plan.rank, plan.steps) == (4096, 128, 9_375)
    assert plan.decision.ratio == pytest.approx(0.039, abs=0.0005)
    assert (plan.verdict, plan.learning_rate, plan.decision.pilot) == ("capacity-limited", 5.0e-4, True)
    assert any("capped at 128" in text for text in plan.warnings)
    [change] = plan.decision.changes
    assert "larger model" in change
    assert "full fine-tuning" in change


def test_gpt_oss_20b_with_duplicates() -> None:
    """Duplicates do not count as data; the rate has the wide interval and a pilot is asked for."""
    counts = TokenCounts(examples=2_000, trained=600_000, total=800_000, unique_trained=480_000)
    plan = LoRAPlan.for_("openai/gpt-oss-20b", max_rank=32).sft(counts, epochs=3)
    assert (plan.rank, plan.batch_size, plan.steps, plan.learning_rate) == (16, 8, 750, 4.0e-4)
    assert plan.decision.ratio == pytest.approx(83.8, abs=0.05)
    assert plan.decision.learning_rate.interval == (1.5e-4, 1e-3)
    assert plan.decision.pilot
    assert any("20% of what is trained on is duplicated" in text for text in plan.warnings)


@pytest.mark.smollm2
def test_the_quickstarts_data_gets_a_sensible_plan() -> None:
    """300 short rows on SmolLM2: rank 16, about 5e-4, batch 8, and a word about the few steps."""
    counts = TokenCounts(examples=300, trained=8_000, total=34_000)
    plan = LoRAPlan.for_("HuggingFaceTB/SmolLM2-135M-Instruct").sft(counts)
    assert (plan.rank, plan.learning_rate, plan.batch_size, plan.steps) == (16, 5.2e-4, 8, 38)
    assert plan.verdict == "ample"
    assert plan.decision.learning_rate.interval == (1.9e-4, 1.5e-3)
    assert any("38 steps" in text for text in plan.warnings)
    assert plan.decision.get_lr is None


def test_epochs_multiply_steps_and_cost_but_not_data() -> None:
    """Three epochs are three times the steps and the price of one, at the same T."""
    counts = TokenCounts(examples=1_000, trained=100_000, total=200_000)
    base = LoRAPlan.for_("Qwen/Qwen3-8B").price(per_million=1.0).pin(batch_size=8)
    one, three = base.sft(counts), base.sft(counts, epochs=3)
    assert three.steps == 3 * one.steps == 375
    assert three.cost.total == pytest.approx(0.6)
    assert (three.decision.tokens, three.rank) == (one.decision.tokens, one.rank)


def test_the_last_partial_batch_of_each_epoch_is_a_step() -> None:
    """Ten rows in batches of 8 are two steps an epoch: batches do not cross epochs."""
    counts = TokenCounts(examples=10, trained=100, total=200)
    assert LoRAPlan.for_("Qwen/Qwen3-8B").sft(counts, epochs=3).pin(batch_size=8).steps == 6


def test_a_cap_between_powers_of_two_leaves_the_lower_one() -> None:
    """With at most rank 100, the computed rank is 64; with at most 12, it is 8."""
    counts = TokenCounts(examples=99_840, trained=90_000_000, total=90_000_000)
    assert LoRAPlan.for_("meta-llama/Llama-3.2-1B", max_rank=100).sft(counts).rank == 64
    small = TokenCounts(examples=100, trained=10_000, total=10_000)
    assert LoRAPlan.for_("meta-llama/Llama-3.2-1B", max_rank=12).sft(small).rank == 8


def test_bits_are_shown_where_the_base_nll_is_known() -> None:
    """R in bits is 2 bits a parameter over T x NLL / ln 2, worked out by hand."""
    counts = TokenCounts(examples=9_500, trained=2_000_000, total=2_600_000)
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(counts, base_nll=0.693147180559945)
    assert plan.decision.bits_ratio == pytest.approx(2 * 16 * 2_883_968 / 2_000_000)


@pytest.mark.parametrize(
    "counts",
    [
        TokenCounts(examples=5, trained=0, total=100),
        TokenCounts(examples=0, trained=0, total=0),
    ],
)
def test_nothing_to_learn_is_an_error(counts: TokenCounts) -> None:
    """T = 0 is refused at `.sft`, with what to check."""
    with pytest.raises(PlanError, match="nothing to learn from"):
        LoRAPlan.for_("Qwen/Qwen3-8B").sft(counts)


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0}, {"epochs": 1.5}, {"epochs": True}, {"max_length": 0}, {"train_on": "first"},
        {"too_long": "cut"}, {"base_nll": -1.0}, {"base_nll": float("nan")},
    ],
)  # fmt: skip
def test_a_bad_setting_is_refused_where_it_is_written(bad: dict[str, Any]) -> None:
    """Each error names the setting and shows a call that works."""
    counts = TokenCounts(examples=5, trained=50, total=100)
    with pytest.raises(PlanError) as caught:
        LoRAPlan.for_("Qwen/Qwen3-8B").sft(counts, **bad)
    assert next(iter(bad)) in str(caught.value)
    assert "fix:" in str(caught.value)


def test_settings_are_checked_before_anything_is_measured() -> None:
    """A wrong epoch count costs no hour of counting."""

    class Unmeasurable:
        def measure(self, *_: object, **__: object) -> None:
            raise AssertionError("measured")

    with pytest.raises(PlanError, match="epochs"):
        LoRAPlan.for_("Qwen/Qwen3-8B").sft(Unmeasurable(), epochs=0)  # wrong on purpose


def test_data_of_another_kind_is_refused() -> None:
    """A path is not Conversations, and the error shows how to make them."""
    with pytest.raises(PlanError, match="from_jsonl"):
        LoRAPlan.for_("Qwen/Qwen3-8B").sft("train.jsonl")  # wrong on purpose


def test_settings_that_contradict_the_counts_are_refused() -> None:
    """Counts taken at one length cannot be planned at another."""
    counts = TokenCounts(examples=5, trained=50, total=100, max_length=1024)
    base = LoRAPlan.for_("Qwen/Qwen3-8B")
    assert base.sft(counts).max_length == 1024
    with pytest.raises(PlanError, match="max_length contradicts the counts"):
        base.sft(counts, max_length=2048)
    with pytest.raises(PlanError, match="train_on contradicts the counts"):
        base.sft(counts, train_on="all")
    every = TokenCounts(examples=5, trained=50, total=100, train_on="all", too_long="drop")
    assert (base.sft(every).train_on, base.sft(every).too_long) == ("all", "drop")
