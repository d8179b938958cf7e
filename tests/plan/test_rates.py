"""Which rule answers for which model, and how far it may be off."""

from __future__ import annotations

import math
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
        ("Qwen/Qwen3-8B", 16, 5.3e-4, "7 models of Qwen3 in"),
        ("Qwen/Qwen3-8B", 64, 7.7e-4, "7 models of Qwen3 in"),
        ("Qwen/Qwen3-8B:peft:262144", 16, 5.3e-4, "7 models of Qwen3 in"),
        ("meta-llama/Llama-3.1-70B", 16, 5.2e-4, "4 models of Llama 3 in"),
        ("Qwen/Qwen3.5-9B-Base", 128, 5.0e-4, "7 models of Qwen3.5 in"),
        ("Qwen/Qwen3.6-35B-A3B", 32, 3.5e-4, "7 models of Qwen3.5 in"),
        ("Qwen/Qwen3.8-27B", 32, 3.5e-4, "7 models of Qwen3.5 in"),
        ("moonshotai/Kimi-K2.6", 32, 4.4e-4, "2 models of Kimi-K2 in"),
        ("deepseek-ai/DeepSeek-V3.1", 4, 2.4e-4, "1 model of DeepSeek-V3 in"),
        ("openai/gpt-oss-20b", 16, 4.0e-4, "fallback"),
        ("zai-org/GLM-5.3", 32, 4.8e-4, "fallback"),
        ("thinkingmachines/Inkling", 16, 4.0e-4, "fallback"),
    ],
)
def test_the_first_rule_that_knows_the_model_answers(
    name: str, rank: int, expected: float, said: str
) -> None:
    """The calibrated rule comes before get_lr, and the pooled rule last."""
    rule = rates.rule_for(name, model_shape(name))
    chosen = rates.learning_rate(rule, rank, 1000)
    assert chosen.value == expected
    assert said in chosen.source


def test_a_swept_family_is_surer_than_another() -> None:
    """Swept families have an interval of x/÷ 1.8, others x/÷ 2.7 and a pilot."""
    swept = rates.rule_for("Qwen/Qwen3-8B", model_shape("Qwen/Qwen3-8B"))
    unswept = rates.rule_for("Qwen/Qwen3.8-27B", model_shape("Qwen/Qwen3.8-27B"))
    unknown = rates.rule_for("zai-org/GLM-5.3", model_shape("zai-org/GLM-5.3"))
    assert (swept.spread, swept.pilot) == (1.8, False)
    assert (unswept.spread, unswept.pilot) == (2.7, True)
    assert (unknown.spread, unknown.pilot) == (2.7, True)
    assert rates.rule_for("openai/gpt-oss-20b", model_shape("openai/gpt-oss-20b")).pilot


def test_a_rank_beyond_the_swept_ones_is_doubted() -> None:
    """Kimi-K2 was swept at ranks 1 to 4: its rate at 32 is an extension, and says so."""
    rule = rates.rule_for("moonshotai/Kimi-K2.6", model_shape("moonshotai/Kimi-K2.6"))
    assert rates.learning_rate(rule, 4, 1000).doubts == ()
    assert rates.learning_rate(rule, 32, 1000).doubts == ("measured at ranks 1 to 4, and extended to 32",)


def test_a_relative_of_a_swept_family_borrows_its_rate() -> None:
    """SmolLM2 is a Llama by architecture only: Llama 3's rate, the wide interval, and a pilot."""
    rule = rates.rule_for("HuggingFaceTB/SmolLM2-135M-Instruct", shape("llama", hidden=576))
    assert rates.learning_rate(rule, 16, 1000).value == 5.2e-4
    assert (rule.spread, rule.pilot) == (2.7, True)
    assert rule.doubts == ("llama architecture, but not one of the swept models",)


def test_a_folders_name_says_nothing() -> None:
    """A Qwen3 model in a folder called `Llama-3-ish` gets Qwen3's rate."""
    rule = rates.rule_for("runs/Llama-3-ish", shape("qwen3", published=False))
    assert "models of Qwen3 in" in rule.source
    assert rule.doubts == ("qwen3 architecture, but not one of the swept models",)


def test_an_unknown_architecture_gets_the_fallback_and_a_pilot() -> None:
    """Where nothing is known, the rate is the mean of the families, its interval wide, a pilot asked for."""
    rule = rates.rule_for("someone/else", shape("olmo"))
    chosen = rates.learning_rate(rule, 32, 1000)
    assert (chosen.value, chosen.interval, rule.pilot) == (4.8e-4, (1.8e-4, 1e-3), True)


def test_the_users_own_calibration_is_asked_first() -> None:
    """Their runs decide for the models that they tried; for others the sweep still does."""
    rows = [
        {"model": "Qwen/Qwen3-8B", "rank": 16, "lr": rate, "test": 1 + 0.01 * math.log(rate / 1e-4) ** 2}
        for rate in (2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4)
    ]
    mine = rates.fit(rows, source="our tickets")
    own = rates.rule_for("Qwen/Qwen3-8B", model_shape("Qwen/Qwen3-8B"), calibration=mine)
    other = rates.rule_for("Qwen/Qwen3.5-4B", model_shape("Qwen/Qwen3.5-4B"), calibration=mine)
    assert rates.learning_rate(own, 16, 1000).value == pytest.approx(1e-4, rel=0.03)
    assert "our tickets" in own.source
    assert "Qwen3.5" in other.source


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
    assert rates.learning_rate(rule, 16, 1000).value == 5.2e-4
