"""The eight rules, one by one, on weights small enough to count by hand."""

from __future__ import annotations

import pytest

from tinker_officer.errors import ModelError
from tinker_officer.plan.lora_rules import Blueprint, Counts, Weight, count


HIDDEN, VOCABULARY = 16, 100


def linear(path: str, shape: tuple[int, int], *classes: str, mamba_width: int | None = None) -> Weight:
    """A linear layer `layers.0.<path>` inside modules of the given classes."""
    around = ("DecoderLayer", *classes, "Linear")
    return Weight(f"layers.0.{path}", "layers.0", around, "linear", shape, mamba_width)


def stack(path: str, shape: tuple[int, int, int]) -> Weight:
    """Stacked experts `layers.0.mlp.experts.<path>`."""
    return Weight(
        f"layers.0.mlp.experts.{path}", "layers.0", ("DecoderLayer", "MoE", "Experts"), "stack", shape
    )


def counted(*weights: Weight, latent: int | None = None) -> Counts:
    """What the rules make of these weights in a model of width 16."""
    return count(Blueprint("made-up", HIDDEN, latent, VOCABULARY, weights))


def test_rule_1_a_projection_costs_inputs_plus_outputs() -> None:
    """Each projection adds its two sides to the component that its class names."""
    found = counted(
        linear("self_attn.q_proj", (16, 24), "LlamaAttention"), linear("mlp.up_proj", (16, 40), "LlamaMLP")
    )
    assert found == Counts(mlp=56, attn=40, unembed=116, experts=False)


def test_rule_2_experts_share_the_side_of_the_model() -> None:
    """Of 8 experts the factor on the model's width counts once a projection, the other factor 8 times."""
    found = counted(stack("gate_up_proj", (8, 2 * 6, 16)), stack("down_proj", (8, 16, 6)))
    assert found.mlp == 3 * (16 + 8 * 6)
    assert found.experts


def test_rule_2_does_not_mind_how_the_matrices_lie() -> None:
    """Experts stored inputs first, as gpt-oss and Llama 4 do, cost the same."""
    assert counted(stack("gate_up_proj", (8, 16, 12)), stack("down_proj", (8, 6, 16))).mlp == 3 * (16 + 8 * 6)


def test_rule_2_holds_for_experts_that_are_separate_modules() -> None:
    """Eight modules called experts.0 to experts.7 cost what one stack of eight costs."""
    weights = [
        linear(f"mlp.experts.{index}.{name}", shape, "MoE", "ModuleList", "ExpertMLP")
        for index in range(8)
        for name, shape in (("gate", (16, 6)), ("up", (16, 6)), ("down", (6, 16)))
    ]
    assert counted(*weights) == Counts(mlp=3 * (16 + 8 * 6), attn=0, unembed=116, experts=True)


def test_rule_2_without_a_gate_and_as_wide_as_the_model() -> None:
    """Two projections stay two when the experts are exactly as wide as the model."""
    assert counted(stack("up_proj", (8, 16, 16)), stack("down_proj", (8, 16, 16))).mlp == 2 * (16 + 8 * 16)
    assert counted(stack("gate_up", (8, 32, 16)), stack("down_proj", (8, 16, 16))).mlp == 3 * (16 + 8 * 16)


def test_rule_3_latent_experts_share_the_latent_side() -> None:
    """The latent width takes the model's place, and the projections into and out of it are ordinary."""
    found = counted(
        linear("mixer.fc1_latent_proj", (16, 4), "NemotronHMoE"),
        linear("mixer.fc2_latent_proj", (4, 16), "NemotronHMoE"),
        stack("up_proj", (8, 6, 4)),
        stack("down_proj", (8, 4, 6)),
        latent=4,
    )
    assert found.mlp == 2 * (16 + 4) + 2 * (4 + 8 * 6)


def test_rule_4_shared_experts_count_and_routers_do_not() -> None:
    """A shared expert is an ordinary MLP; the router, the scalar gate and the indexer cost nothing."""
    experts = (stack("gate_up_proj", (8, 12, 16)), stack("down_proj", (8, 16, 6)))
    beside = (
        linear("mlp.gate", (16, 8), "MoE"),
        linear("mlp.router.layer", (16, 8), "MoE", "TopKGating"),
        linear("mlp.shared_expert_gate", (16, 1), "MoE"),
        linear("self_attn.indexer.wk", (16, 32), "Attention", "Indexer"),
    )
    assert counted(*experts, *beside) == counted(*experts)
    shared = linear("mlp.shared_expert.up_proj", (16, 10), "MoE", "SharedMLP")
    assert counted(*experts, shared).mlp == counted(*experts).mlp + 26


def test_rule_4_takes_no_ordinary_projection_for_a_router() -> None:
    """An MLP's gate_proj, and a projection to as many values as there are experts, are counted."""
    experts = (stack("gate_up_proj", (8, 12, 16)), stack("down_proj", (8, 16, 6)))
    more = (linear("mlp.shared.gate_proj", (16, 10), "MoE", "MLP"), linear("mlp.down_proj", (40, 8), "MLP"))
    assert counted(*experts, *more).mlp == counted(*experts).mlp + 26 + 48


def test_rule_5_latent_attention_leaves_out_the_second_factors() -> None:
    """Of MLA's five projections, q_b and kv_b are not adapted."""
    found = counted(
        linear("self_attn.q_a_proj", (16, 6), "DeepseekV3Attention"),
        linear("self_attn.q_b_proj", (6, 32), "DeepseekV3Attention"),
        linear("self_attn.kv_a_proj_with_mqa", (16, 5), "DeepseekV3Attention"),
        linear("self_attn.kv_b_proj", (4, 48), "DeepseekV3Attention"),
        linear("self_attn.o_proj", (24, 16), "DeepseekV3Attention"),
    )
    assert found.attn == 22 + 21 + 40


def test_rule_6_a_delta_net_has_three_projections_in_one() -> None:
    """in_proj_qkv costs its input three times; decay and gates cost nothing."""
    found = counted(
        linear("linear_attn.in_proj_qkv", (16, 48), "Qwen3_5GatedDeltaNet"),
        linear("linear_attn.in_proj_z", (16, 24), "Qwen3_5GatedDeltaNet"),
        linear("linear_attn.in_proj_a", (16, 4), "Qwen3_5GatedDeltaNet"),
        linear("linear_attn.in_proj_b", (16, 4), "Qwen3_5GatedDeltaNet"),
        linear("linear_attn.out_proj", (24, 16), "Qwen3_5GatedDeltaNet"),
    )
    assert found == Counts(mlp=0, attn=3 * 16 + 48 + 40 + 40, unembed=116, experts=False)


def test_rule_6_a_kimi_delta_net_keeps_query_key_value_and_output() -> None:
    """Of Kimi's delta attention the low-rank gates are left out."""
    kept = [linear(f"self_attn.{name}_proj", (16, 24), "KimiDeltaAttention") for name in "qkv"]
    left = [linear(f"self_attn.{n}_proj", (16, 8), "KimiDeltaAttention") for n in ("f_a", "f_b", "g_a", "b")]
    assert counted(*kept, *left).attn == 3 * 40


def test_rule_7_mamba_adapts_z_x_and_the_output() -> None:
    """Of in_proj's five parts z and x count, whatever B, C and dt add to its outputs."""
    found = counted(
        linear("mixer.in_proj", (16, 2 * 32 + 2 * 8 + 4), "NemotronHMamba2Mixer", mamba_width=32),
        linear("mixer.out_proj", (32, 16), "NemotronHMamba2Mixer"),
    )
    assert found == Counts(mlp=0, attn=2 * (16 + 32) + 48, unembed=116, experts=False)


def test_rule_8_the_unembedding_is_hidden_plus_vocabulary() -> None:
    """It costs the same with any layers."""
    assert counted().unembed == HIDDEN + VOCABULARY


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (Weight("layers.0.ffn.w1", "layers.0", ("Block", "GLU"), "raw", (64, 16)), "neither a linear layer"),
        (Weight("layers.0.ffn.w", "layers.0", ("Block", "GLU"), "raw", (4, 8, 8)), "neither a linear layer"),
        (stack("odd_proj", (8, 5, 7)), "no side is the model's width of 16"),
    ],
)
def test_a_weight_that_no_rule_knows_is_refused_by_name(weight: Weight, said: str) -> None:
    """A count that would silently leave most of a model out is an error that names the weight."""
    with pytest.raises(ModelError, match=said) as caught:
        counted(weight)
    assert weight.path in str(caught.value)


def test_small_vectors_of_a_mixer_are_no_mystery() -> None:
    """Decays, gates of a recurrent block and a router's own matrix are not taken for projections."""
    router = Weight("layers.0.mlp.gate.weight", "layers.0", ("Layer", "MoE", "TopKRouter"), "raw", (8, 16))
    gates = Weight("layers.0.t.g", "layers.0", ("Layer", "RecurrentBlock", "Rglru"), "raw", (2, 8, 8))
    assert counted(router, gates) == counted()
