"""A plan as PEFT's configuration, held to what PEFT really builds from it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tinker_officer import LoRAPlan, TokenCounts
from tinker_officer.errors import ModelError, PlanError
from tinker_officer.plan.counts import PairCounts
from tinker_officer.testing import tiny_model as make


COUNTS = TokenCounts(examples=40, trained=900, total=2_000)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("layers", [{}, {"attn": False}, {"unembed": False}, {"mlp": False, "force": True}])
@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("llama", False), ("qwen3", True)])
def test_peft_trains_as_many_parameters_as_the_plan_says(
    tmp_path: Path, family: Any, tied: bool, layers: dict[str, bool]
) -> None:
    """The model that PEFT builds on a real tiny model has the plan's parameters, to the last one."""
    import peft
    import transformers

    folder = make(tmp_path / "model", family=family, tied=tied)
    plan = LoRAPlan.for_(str(folder)).sft(COUNTS).pin(rank=8).layers(**layers)
    config = plan.to_peft_config()
    model = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(folder), config)
    assert model.get_nb_trainable_parameters()[0] == plan.parameters
    assert (config.r, config.lora_alpha, config.lora_dropout) == (8, 32, 0.0)


def test_a_listed_model_needs_no_config_to_be_exported() -> None:
    """The modules of a published dense model are known by its name; every method exports."""
    plan = LoRAPlan.for_("Qwen/Qwen3-8B")
    expected = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"}
    for made in (plan.sft(COUNTS), plan.dpo(PairCounts(pairs=9)), plan.rl(1_000)):
        config = made.to_peft_config()
        assert (set(config.target_modules), config.r) == (expected, made.rank)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-30B-A3B", "openai/gpt-oss-20b", "Qwen/Qwen3.5-9B"])
def test_what_peft_cannot_mirror_is_refused_by_name(name: str) -> None:
    """Experts and fused projections would give another adapter than the plan counts."""
    with pytest.raises(ModelError, match="PEFT cannot mirror the adapter of"):
        LoRAPlan.for_(name).sft(COUNTS).to_peft_config()


def test_qlora_is_the_same_adapter_on_four_bits() -> None:
    """NF4 with double quantisation and bfloat16 arithmetic under the plan's own adapter."""
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(COUNTS)
    adapter, base = plan.to_qlora_config()
    assert adapter.to_dict() == plan.to_peft_config().to_dict()
    asked = base.to_dict()
    assert (asked["load_in_4bit"], asked["bnb_4bit_quant_type"]) == (True, "nf4")
    assert (asked["bnb_4bit_use_double_quant"], asked["bnb_4bit_compute_dtype"]) == (True, "bfloat16")


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PEFT is not installed, the message is the command that installs it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(PlanError, match=r"tinker-officer\[peft\]"):
        LoRAPlan.for_("Qwen/Qwen3-8B").sft(COUNTS).to_peft_config()


def test_a_plan_without_data_has_nothing_to_export() -> None:
    """The rank is not known yet."""
    with pytest.raises(PlanError, match="no data yet"):
        LoRAPlan.for_("Qwen/Qwen3-8B").to_peft_config()
