"""A plan as PEFT's configuration, held to what PEFT really builds from it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tinker_officer import LoRAPlan, PairCounts, TokenCounts
from tinker_officer.errors import ModelError, PlanError
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


def test_layers_of_unknown_names_are_not_guessed() -> None:
    """Without a config nobody knows what a mixture of experts calls its layers; the fix passes one."""
    with pytest.raises(ModelError, match=r"to_peft_config\(config="):
        LoRAPlan.for_("openai/gpt-oss-20b").sft(COUNTS).to_peft_config()


def small_config(kind: str) -> Any:
    """Return the config of a tiny mixture of experts, or of a tiny hybrid with gated delta nets."""
    import transformers

    size = {
        "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    }  # fmt: skip
    if kind == "qwen3_5_text":
        linear = {"linear_num_value_heads": 4, "linear_num_key_heads": 2}
        return transformers.AutoConfig.for_model(
            kind, **size, **linear, linear_key_head_dim=8, linear_value_head_dim=8
        )
    experts = {
        "num_experts": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    }
    return transformers.AutoConfig.for_model(kind, **size, **experts, decoder_sparse_step=1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["qwen3_moe", "gpt_oss", "qwen3_5_text"])
@pytest.mark.parametrize("layers", [{}, {"unembed": False}, {"attn": False}])
def test_other_architectures_get_the_layers_that_tinker_adapts(
    kind: str, layers: dict[str, bool], caplog: pytest.LogCaptureFixture
) -> None:
    """Experts get an adapter, routers and decay gates do not, and the log says how the counts differ."""
    import peft
    import transformers

    config = small_config(kind)
    plan = LoRAPlan.for_("someone/tiny", config=config).sft(COUNTS).pin(rank=4).layers(**layers)
    exported = plan.to_peft_config(config=config)
    model = peft.get_peft_model(transformers.AutoModelForCausalLM.from_config(config), exported)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not [name for name in trained if ".router." in name or "mlp.gate.lora" in name]
    assert not [name for name in trained if "in_proj_a" in name or "in_proj_b" in name]
    assert any("self_attn" in name for name in trained) == plan.train_attn
    assert any("linear_attn.in_proj_qkv" in name for name in trained) == (
        plan.train_attn and kind == "qwen3_5_text"
    )
    assert any("lm_head" in name for name in trained) == plan.train_unembed
    assert any("mlp.experts" in name for name in trained) == (kind != "qwen3_5_text")
    count = model.get_nb_trainable_parameters()[0]
    [said] = [record.getMessage() for record in caplog.records if record.name.endswith("plan.export")] or [""]
    assert (f"PEFT trains {count:,} parameters" in said) == (count != plan.parameters)


def test_qlora_is_the_same_adapter_on_four_bits() -> None:
    """NF4 with double quantisation and bfloat16 arithmetic under the plan's own adapter."""
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(COUNTS)
    adapter, base = plan.to_qlora_config()
    assert adapter.to_dict() == plan.to_peft_config().to_dict()
    asked = base.to_dict()
    assert (asked["load_in_4bit"], asked["bnb_4bit_quant_type"]) == (True, "nf4")
    assert (asked["bnb_4bit_use_double_quant"], asked["bnb_4bit_compute_dtype"]) == (True, "bfloat16")


@pytest.mark.slow
def test_qlora_trains_on_a_base_of_four_bits(tiny_model: Path) -> None:
    """Under bitsandbytes the base is quantised, what the plan counts is trained, and the loss falls."""
    pytest.importorskip("bitsandbytes")
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    plan = LoRAPlan.for_(str(tiny_model)).sft(COUNTS)
    adapter, base = plan.to_qlora_config()
    model = AutoModelForCausalLM.from_pretrained(str(tiny_model), quantization_config=base)
    assert any(type(module).__name__ == "Linear4bit" for module in model.modules())
    adapted = peft.get_peft_model(peft.prepare_model_for_kbit_training(model), adapter)
    trained = [weight for weight in adapted.parameters() if weight.requires_grad]
    assert sum(weight.numel() for weight in trained) == plan.parameters
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    tokens = torch.arange(3, 40)[None]
    losses = []
    for _ in range(4):
        loss = adapted(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PEFT is not installed, the message is the command that installs it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(PlanError, match=r"tinker-officer\[peft\]"):
        LoRAPlan.for_("Qwen/Qwen3-8B").sft(COUNTS).to_peft_config()


def test_a_plan_without_data_has_nothing_to_export() -> None:
    """The rank is not known yet."""
    with pytest.raises(PlanError, match="no data yet"):
        LoRAPlan.for_("Qwen/Qwen3-8B").to_peft_config()
