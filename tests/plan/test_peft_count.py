"""What PEFT really adapts, component by component."""

from __future__ import annotations

from typing import Any

import pytest

from tinker_officer.errors import PlanError
from tinker_officer.plan import capacity
from tinker_officer.plan.peft_count import expert_parameters, peft_shape


SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
GQA = 2 * (32 + 32) + 2 * (32 + 16)
WITHOUT_EXPERTS: dict[str, dict[str, Any]] = {
    "gpt_oss": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 24},
    "phimoe": {"num_local_experts": 4},
    "jamba": {"num_experts": 4, "use_mamba_kernels": False},
    "llama4_text": {"num_local_experts": 4},
    "granitemoe": {"num_local_experts": 4},
}


def config(kind: str, **more: Any) -> dict[str, Any]:
    return {"model_type": kind, **SIZES, **more}


def test_on_a_dense_model_peft_and_tinker_differ_by_the_unembedding() -> None:
    """`all-linear` means the same layers, without the output head."""
    peft, tinker = peft_shape("m", config("qwen3")), capacity.config_shape(config("qwen3"))
    assert (peft.mlp, peft.attn, peft.unembed) == (tinker.mlp, tinker.attn, 0)
    assert "PEFT" in peft.source


@pytest.mark.parametrize("kind", WITHOUT_EXPERTS)
def test_a_mixture_whose_experts_would_get_nothing_is_refused(kind: str) -> None:
    """The error names the experts' tensors, and its fix gives them an adapter."""
    body = config(kind, **WITHOUT_EXPERTS[kind])
    with pytest.raises(PlanError, match=f"the routed experts of {kind} would have no adapter") as caught:
        peft_shape(kind, body)
    names = expert_parameters(body)
    assert names
    assert all(name in caught.value.fix for name in names)
    fixed = peft_shape(kind, body, target_parameters=names)
    # Per expert and unshared, so more than Tinker's.
    assert fixed.mlp > capacity.config_shape(body).mlp


def test_on_qwen3_moe_peft_adapts_experts_and_router() -> None:
    """PEFT converts these experts: each has its own factors, gate and up together at twice the rank."""
    shape = peft_shape("m", config("qwen3_moe", num_experts=4, moe_intermediate_size=24))
    experts = 4 * (2 * (32 + 48) + (24 + 32))
    router = 32 + 4
    assert shape.mlp == 2 * (experts + router)
    assert shape.attn == 2 * GQA


def test_chosen_modules_count_alone() -> None:
    """With a list of modules, only these are counted, and an untouched component is zero."""
    shape = peft_shape("m", config("qwen3"), target_modules=["q_proj", "v_proj"])
    assert (shape.mlp, shape.attn) == (0, 2 * ((32 + 32) + (32 + 16)))
    with pytest.raises(PlanError, match="the mlp layers of m would have no adapter"):
        capacity.check_components(shape, "m", mlp=True, attn=True, unembed=False)


def test_the_count_is_that_of_a_real_adapter() -> None:
    """PEFT on the CPU, with real weights and rank 5, creates five times the count."""
    import peft
    from transformers import AutoModelForCausalLM, Qwen2MoeConfig

    body = config("qwen2_moe", **WITHOUT_EXPERTS["qwen2_moe"])
    names = expert_parameters(body)
    model = AutoModelForCausalLM.from_config(
        Qwen2MoeConfig(**{k: v for k, v in body.items() if k != "model_type"})
    )
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=5, target_modules="all-linear", target_parameters=list(names))
    )
    trainable = sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)
    assert trainable == 5 * peft_shape("m", body, target_parameters=names).per_rank()
