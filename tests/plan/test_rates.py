"""Which rule answers for which model, and how far it may be off."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinker_officer.plan import rates
from tinker_officer.plan.capacity import ModelShape, model_shape


def shape(architecture: str = "", *, hidden: int | None = 4096, published: bool = True) -> ModelShape:
    return ModelShape(
        mlp=10, attn=10, unembed=10, experts=False, architecture=architecture, published=published,
        hidden_size=hidden, source="test",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "rank", "expected", "said"),
    [
        ("Qwen/Qwen3-8B", 16, 4.7e-4, "get_lr"),
        ("Qwen/Qwen3-8B", 256, 4.7e-4, "get_lr"),
        ("meta-llama/Llama-3.1-70B", 16, 1.7e-4, "get_lr"),
        ("Qwen/Qwen3.5-9B-Base", 128, 4.2e-4, "Qwen3.5 and Qwen3.6"),
        ("Qwen/Qwen3.6-35B-A3B", 32, 3.2e-4, "Qwen3.5 and Qwen3.6"),
        ("Qwen/Qwen3.8-27B", 32, 3.2e-4, "Qwen3.5 and Qwen3.6"),
        ("moonshotai/Kimi-K2.6", 32, 4e-4, "get_lr refuses"),
        ("openai/gpt-oss-20b", 16, 3.4e-4, "get_lr refuses"),
        ("zai-org/GLM-5.3", 32, 4e-4, "fallback"),
        ("thinkingmachines/Inkling", 16, 3.4e-4, "fallback"),
    ],
)
def test_the_first_rule_that_knows_the_model_answers(
    name: str, rank: int, expected: float, said: str
) -> None:
    """The calibrated rule comes before get_lr, and get_lr before the fallback."""
    rule = rates.rule_for(name, model_shape(name))
    chosen = rates.learning_rate(rule, rank, 1000)
    assert chosen.value == expected
    assert said in chosen.source


def test_a_calibrated_rate_is_surer_than_a_borrowed_one() -> None:
    """Swept models have an interval of x/÷ 1.6, others x/÷ 2.5."""
    swept = rates.rule_for("Qwen/Qwen3.5-4B", model_shape("Qwen/Qwen3.5-4B"))
    listed = rates.rule_for("Qwen/Qwen3-8B", model_shape("Qwen/Qwen3-8B"))
    assert (swept.spread, swept.pilot) == (1.6, False)
    assert (listed.spread, listed.pilot) == (2.5, False)
    assert rates.rule_for("openai/gpt-oss-20b", model_shape("openai/gpt-oss-20b")).pilot


def test_a_small_llama_is_held_at_the_smallest_swept_width() -> None:
    """SmolLM2 (width 576) gets 4.9e-4, not the 1.3e-3 that get_lr's exponent would extrapolate to."""
    rule = rates.rule_for("HuggingFaceTB/SmolLM2-135M-Instruct", shape("llama", hidden=576))
    assert rates.learning_rate(rule, 16, 1000).value == 4.9e-4
    assert rule.pilot
    assert any("576" in doubt for doubt in rule.doubts)


def test_a_folders_name_says_nothing() -> None:
    """A Qwen3 model in a folder called `llama-ish` gets the Qwen formula."""
    rule = rates.rule_for("runs/llama-ish", shape("qwen3", published=False))
    assert "Qwen formula" in rule.source
    assert rule.doubts == ("qwen3 architecture, but not one of the swept models",)


def test_an_unknown_architecture_gets_the_fallback_and_a_pilot() -> None:
    """Where nothing is known, the rate is a guess, its interval wide, and a pilot asked for."""
    rule = rates.rule_for("someone/else", shape("olmo"))
    chosen = rates.learning_rate(rule, 32, 1000)
    assert (chosen.value, chosen.interval, rule.pilot) == (4e-4, (1.6e-4, 1e-3), True)


def test_few_steps_raise_the_top_of_the_interval_only() -> None:
    """Below 100 steps the top is 1.5 times as high; the rate and the bottom stay."""
    rule = rates.rule_for("Qwen/Qwen3.5-4B", model_shape("Qwen/Qwen3.5-4B"))
    few, many = rates.learning_rate(rule, 16, 99), rates.learning_rate(rule, 16, 100)
    assert few.interval is not None
    assert many.interval is not None
    assert few.value == many.value
    assert few.interval[0] == many.interval[0]
    assert few.interval[1] == pytest.approx(1.5 * many.interval[1], rel=0.05)


def test_no_rule_goes_above_1e_3() -> None:
    """A rate that a rule would put above 1e-3 is held there, and says so."""
    rule = rates.Rule(source="steep", rate=rates.power_law(4e-4, 0.9), spread=2.0)
    chosen = rates.learning_rate(rule, 512, 1000)
    assert chosen.value == 1e-3
    assert any("held at 1e-3" in doubt for doubt in chosen.doubts)
    assert chosen.interval == (5e-4, 1e-3)


def test_a_named_llama_of_the_hub_is_answered_by_get_lr() -> None:
    """A published Llama outside the table, whose width is known, gets get_lr's own answer."""
    rule = rates.rule_for("meta-llama/Llama-9-9B", shape("llama"))
    assert rates.learning_rate(rule, 16, 1000).value == 2.9e-4
    assert rule.source.endswith("get_lr")


def test_a_tiny_model_has_a_rate_too(tiny_model: Path) -> None:
    """The tiny models of the tests can be planned for."""
    rule = rates.rule_for(str(tiny_model), model_shape(str(tiny_model)))
    assert rates.learning_rate(rule, 16, 1000).value == 4.9e-4
