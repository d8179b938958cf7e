"""Parameter counts from the architecture alone, against the cookbook's table and against arithmetic."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tinker_officer.errors import ModelError, PlanError
from tinker_officer.plan import capacity, cookbook
from tinker_officer.plan.capacity import config_shape


FACTS = json.loads(Path(__file__).with_name("published_architectures.json").read_text("utf-8"))["models"]
LISTED = [(name, entry["config"]) for main, entry in FACTS.items() for name in (main, *entry["also"])]
# Ours less the table's; each is explained in docs/reference/parameter-counts.md.
MISMATCHES = {("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", "mlp"): 77_824}
# Architectures that the oldest transformers we support does not have: by hand, at the end of this file.
BY_HAND = {
    "deepseek-ai/DeepSeek-V4.1-Flash", "deepseek-ai/DeepSeek-V4.1-Flash-1017", "zai-org/GLM-5.3-Flash",
    "thinkingmachines/Inkling", "thinkingmachines/Inkling-Small",
}  # fmt: skip


def test_no_entry_of_the_table_goes_unchecked() -> None:
    """Every model that the installed cookbook lists has its architecture here, or is counted by hand."""
    assert {name for name, _ in LISTED} | BY_HAND == set(cookbook.lora_parameters())


@pytest.mark.parametrize(("name", "config"), LISTED, ids=[name for name, _ in LISTED])
def test_the_table_follows_from_the_architecture(name: str, config: dict[str, Any]) -> None:
    """Counted from the config alone, each component is the cookbook's number, but for the known mismatch."""
    shape, listed = config_shape(config, name=name), cookbook.lora_parameters()[name]
    found = {part: getattr(shape, part) - listed[part] for part in ("mlp", "attn", "unembed")}
    assert found == {part: MISMATCHES.get((name, part), 0) for part in ("mlp", "attn", "unembed")}
    assert shape.hidden_size == cookbook.hidden_size(name)
    assert shape.experts == capacity.model_shape(name).experts


def test_dense_arithmetic_and_the_module_tree_agree() -> None:
    """The dense types that are counted without torch give what the shapes on the meta device give."""
    from tinker_officer.plan.architectures import blueprint
    from tinker_officer.plan.lora_rules import count

    sizes = {
        "hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 99,
    }  # fmt: skip
    more: dict[str, dict[str, Any]] = {
        "llama": {}, "mistral": {"head_dim": 12}, "qwen2": {}, "qwen3": {"head_dim": 6},
        "smollm3": {"pad_token_id": 0},
    }  # fmt: skip
    for kind, own in more.items():
        config = {"model_type": kind, **sizes, **own}
        shape, counts = capacity.dense_shape(config), count(blueprint(config, name=kind))
        assert (shape.mlp, shape.attn, shape.unembed) == (counts.mlp, counts.attn, counts.unembed)


# Ten small mixtures and hybrids: config, and what Tinker's rules make of it by hand.
SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
GQA = 2 * (32 + 32) + 2 * (32 + 16)  # q and o, k and v
SMALL: dict[str, tuple[dict[str, Any], int, int]] = {
    "qwen3_moe": (
        {"num_experts": 4, "moe_intermediate_size": 24, "mlp_only_layers": [0]},
        3 * (32 + 48) + 3 * (32 + 4 * 24),
        2 * GQA,
    ),
    "gpt_oss": ({"num_local_experts": 4}, 2 * 3 * (32 + 4 * 48), 2 * GQA),
    "mixtral": ({"num_local_experts": 4}, 2 * 3 * (32 + 4 * 48), 2 * GQA),
    "granitemoe": ({"num_local_experts": 4}, 2 * 3 * (32 + 4 * 48), 2 * GQA),
    "qwen2_moe": (
        {"num_experts": 4, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40},
        2 * (3 * (32 + 4 * 24) + 3 * (32 + 40)),
        2 * GQA,
    ),
    "llama4_text": (
        {"num_local_experts": 4, "intermediate_size_mlp": 56, "interleave_moe_layer_step": 2},
        3 * (32 + 56) + 3 * (32 + 4 * 48) + 3 * (32 + 48),
        2 * GQA,
    ),
    "deepseek_v3": (
        {
            "n_routed_experts": 4, "n_shared_experts": 2, "moe_intermediate_size": 24,
            "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "q_lora_rank": 16, "kv_lora_rank": 12,
            "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 10,
        },
        3 * (32 + 48) + 3 * (32 + 4 * 24) + 3 * (32 + 2 * 24),
        2 * ((32 + 16) + (32 + 12 + 4) + (4 * 10 + 32)),
    ),
    "qwen3_5_moe_text": (
        {
            "num_experts": 4, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40,
            "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
            "linear_num_value_heads": 4, "linear_key_head_dim": 6, "linear_value_head_dim": 10,
        },
        2 * (3 * (32 + 4 * 24) + 3 * (32 + 40)),
        # q, k, v, z and out of the delta net; then q with its gate, k, v, o.
        (2 * (32 + 12) + 3 * (32 + 40)) + ((32 + 64) + 2 * (32 + 16) + (32 + 32)),
    ),
    "nemotron_h": (
        {
            "hybrid_override_pattern": "M*E", "mamba_num_heads": 8, "mamba_head_dim": 6, "n_groups": 2,
            "n_routed_experts": 4, "moe_latent_size": 12, "moe_intermediate_size": 20,
            "moe_shared_expert_intermediate_size": 28,
        },
        2 * (32 + 12) + 2 * (12 + 4 * 20) + 2 * (32 + 28),
        3 * (32 + 48) + GQA,
    ),
    "jamba": (
        {
            "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
            "expert_layer_offset": 1, "mamba_expand": 2, "use_mamba_kernels": False,
        },
        3 * (32 + 48) + 3 * (32 + 4 * 48),
        3 * (32 + 64) + GQA,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SMALL)
def test_a_small_model_counts_to_arithmetic_done_by_hand(kind: str) -> None:
    """The walk over transformers' own modules gives the sums that the rules give on paper."""
    more, mlp, attn = SMALL[kind]
    sizes = {k: v for k, v in SIZES.items() if k != "num_hidden_layers" or kind != "nemotron_h"}
    shape = config_shape({"model_type": kind, **sizes, **more}, name=kind)
    assert (shape.mlp, shape.attn, shape.unembed) == (mlp, attn, 32 + 96)
    assert shape.experts


@pytest.mark.parametrize("kind", ["gpt2", "falcon", "phi3", "gemma3_text", "lfm2", "olmo2", "opt"])
def test_other_dense_models_count_every_linear_layer_once(kind: str) -> None:
    """On architectures that Tinker does not serve, the layers' linears are all counted, and nothing else."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    config = CONFIG_MAPPING[kind]()
    shape = config_shape(config, name=kind)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    sides = {
        name: sum(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
    }
    head = next(name for name, module in model.named_modules() if module is model.get_output_embeddings())
    assert shape.unembed == sides.pop(head)
    assert shape.mlp + shape.attn == sum(sides.values())
    assert min(shape.mlp, shape.attn) > 0


def test_a_config_object_is_left_as_it_was() -> None:
    """Counting does not change, or hold on to, the caller's config."""
    from transformers import Qwen3MoeConfig

    config = Qwen3MoeConfig(hidden_size=64, num_hidden_layers=1, num_experts=2, moe_intermediate_size=16)
    before = config.to_dict()
    assert config_shape(config).mlp == 3 * (64 + 2 * 16)
    assert config.to_dict() == before


def test_a_model_with_vision_is_counted_by_its_decoder() -> None:
    """The config of a vision-language model counts its text decoder alone, as Tinker's table does."""
    text = FACTS["Qwen/Qwen3-VL-30B-A3B-Instruct"]["config"]["text_config"]
    whole = config_shape(FACTS["Qwen/Qwen3-VL-30B-A3B-Instruct"]["config"])
    assert whole.per_rank() == config_shape(text).per_rank()


def test_a_model_without_feed_forward_layers_is_refused_by_component() -> None:
    """Mamba has nothing to adapt under `mlp`, and the placement that asks for it is refused."""
    shape = config_shape({"model_type": "mamba2", "num_hidden_layers": 2})
    assert (shape.mlp, shape.attn) == (0, 2 * (2 * (4096 + 8192) + 8192 + 4096))
    with pytest.raises(PlanError, match=r"the mlp layers of my-mamba would have no adapter"):
        capacity.check_components(shape, "my-mamba", mlp=True, attn=True, unembed=True)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "invented"}, "'invented': not known to it"),
        ({}, "'': not known to it"),
        ({"model_type": "t5"}, "not a decoder of text"),
        ({"model_type": "qwen3_moe", "hidden_size": "wide"}, "not one of a 'qwen3_moe'"),
        ({"model_type": "invented", "auto_map": {"AutoConfig": "evil.py"}}, "code from a model's repository"),
        (42, "int"),
    ],
)
def test_a_config_that_cannot_be_counted_says_why(config: Any, said: str) -> None:
    """Unknown types, models of another kind and broken values are named in four parts."""
    with pytest.raises(ModelError, match=said):
        config_shape(config)


def test_a_size_that_does_not_fit_is_an_error_of_ours() -> None:
    """What transformers itself cannot build is reported with its reason, not as a traceback of its own."""
    with pytest.raises(ModelError, match="cannot build"):
        config_shape({"model_type": "qwen3_moe", "num_hidden_layers": 1, "num_attention_heads": 0})


def test_counting_a_listed_or_dense_model_loads_no_torch() -> None:
    """Only architectures beyond the dense ones pay for transformers and torch."""
    program = (
        "import sys\n"
        "from tinker_officer.plan.capacity import model_shape\n"
        f"config = {FACTS['Qwen/Qwen3-8B']['config']!r}\n"
        "model_shape('Qwen/Qwen3.5-397B-A17B'); model_shape('my/model', config)\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_deepseek_v4_1_flash_by_hand() -> None:
    """40 layers of 384 experts and one shared; attention by wq_a, wkv and wo_b, without their second factors.

    Source: the released text configuration, as in NVIDIA-NeMo/Automodel, deepseek_v41/config.py.
    """
    experts, shared = 3 * (5120 + 384 * 2304), 3 * (5120 + 2304)
    attention = (5120 + 1280) + (5120 + 512) + (8 * 1024 + 5120)
    for name in ("deepseek-ai/DeepSeek-V4.1-Flash", "deepseek-ai/DeepSeek-V4.1-Flash-1017"):
        assert cookbook.lora_parameters()[name] == {
            "mlp": 40 * (experts + shared), "attn": 40 * attention, "unembed": 5120 + 129_280,
        }  # fmt: skip


def test_glm_5_3_flash_by_hand() -> None:
    """45 layers, 3 of them dense; 11 of latent attention and 34 of Kimi's delta attention.

    Source: defaults of transformers' Glm5NextTextConfig.
    """
    dense, sparse = 3 * (4096 + 12288), 3 * (4096 + 288 * 2048) + 3 * (4096 + 2048)
    latent = (4096 + 1536) + (4096 + 512) + (64 * 256 + 4096)
    delta = 4 * (4096 + 64 * 128)
    assert cookbook.lora_parameters()["zai-org/GLM-5.3-Flash"] == {
        "mlp": 3 * dense + 42 * sparse, "attn": 11 * latent + 34 * delta, "unembed": 4096 + 154_880,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "hidden", "layers", "heads", "local_kv", "inner", "expert"),
    [
        ("thinkingmachines/Inkling", 6144, 66, 64, 16, 24576, 3072),
        ("thinkingmachines/Inkling-Small", 4096, 42, 32, 8, 16384, 2048),
    ],
)
def test_inkling_by_hand(
    name: str, hidden: int, layers: int, heads: int, local_kv: int, inner: int, expert: int
) -> None:
    """Gate and up are one matrix outside the routed experts; attention has a fifth projection, to 16 a head.

    Every sixth layer attends globally with 8 key-value heads; the first two are dense; 256 experts, 2 shared.

    Source: defaults of transformers' InklingTextConfig; Inkling-Small's released config.json.
    """
    fused = 2 * hidden + 3 * inner
    shared = 2 * (2 * hidden + 3 * expert)
    routed = 2 * hidden + 3 * 256 * expert
    wide = hidden + heads * 128
    around = 2 * wide + (hidden + 16 * heads)
    far, near = around + 2 * (hidden + 8 * 128), around + 2 * (hidden + local_kv * 128)
    assert cookbook.lora_parameters()[name] == {
        "mlp": 2 * fused + (layers - 2) * (routed + shared),
        "attn": layers // 6 * far + (layers - layers // 6) * near,
        "unembed": hidden + 201_024,
    }
