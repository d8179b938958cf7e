"""LoRA parameters from an architecture, and what they can hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinker_officer.errors import ModelError, PlanError
from tinker_officer.plan import capacity
from tinker_officer.plan.capacity import ModelShape, dense_shape, model_shape


# Published configs of four models that the cookbook lists; only the sizes that are counted.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-8B": {
        "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    },
    "Qwen/Qwen3-4B-Instruct-2507": {
        "model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    },
    "meta-llama/Llama-3.2-1B": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
    },
    "meta-llama/Llama-3.1-70B": {
        "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_counts_to_the_cookbooks_entry(name: str) -> None:
    """Counted from the config alone, each component equals the table that Tinker measured."""
    counted, listed = dense_shape(PUBLISHED[name]), model_shape(name)
    assert (counted.mlp, counted.attn, counted.unembed) == (listed.mlp, listed.attn, listed.unembed)
    assert counted.hidden_size == listed.hidden_size


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_count_is_that_of_the_real_modules(tmp_path: Path, family: Any, tied: bool) -> None:
    """The count from the config equals inputs + outputs over every linear of the model itself."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tinker_officer.testing import tiny_model

    folder = tiny_model(tmp_path / "tiny", family=family, tied=tied)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    linears = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    shape = model_shape(str(folder))
    assert shape.per_rank() == sum(m.in_features + m.out_features for m in linears.values())
    mlp = sum(m.in_features + m.out_features for name, m in linears.items() if ".mlp." in name)
    attn = sum(m.in_features + m.out_features for name, m in linears.items() if ".self_attn." in name)
    assert (shape.mlp, shape.attn) == (mlp, attn)


@pytest.mark.smollm2
def test_smollm2_from_its_wheel() -> None:
    """SmolLM2-135M has 355,008 LoRA parameters per unit of rank."""
    shape = model_shape("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert shape.mlp == 30 * 3 * (576 + 1536)
    assert shape.attn == 30 * (2 * (576 + 576) + 2 * (576 + 192))
    assert shape.unembed == 576 + 49152
    assert (shape.published, shape.experts, shape.architecture) == (True, False, "llama")


def test_mixtures_are_told_from_dense_models() -> None:
    """The models whose demand is multiplied by three are the mixtures of the table, and no other."""
    from tinker_officer.plan import cookbook

    dense = {name for name in cookbook.lora_parameters() if not model_shape(name).experts}
    assert {name.split("/")[1] for name in dense} == {
        "Llama-3.1-70B", "Llama-3.1-8B", "Llama-3.1-8B-Instruct", "Llama-3.2-1B", "Llama-3.2-3B",
        "Llama-3.3-70B-Instruct", "Qwen3-32B", "Qwen3-4B-Instruct-2507", "Qwen3-8B", "Qwen3-8B-Base",
        "Qwen3.5-27B", "Qwen3.5-4B", "Qwen3.5-9B", "Qwen3.5-9B-Base", "Qwen3.6-27B", "Qwen3.8-27B",
    }  # fmt: skip


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    """A misspelt name offers the right one and says what else can be passed."""
    with pytest.raises(ModelError, match=r"fix:  LoRAPlan.for_\('Qwen/Qwen3-8B'\)") as caught:
        model_shape("Qwen/Qwen3-8b")
    assert "config.json" in str(caught.value)
    assert "from counts alone" in str(caught.value)


def test_a_model_that_is_nowhere_says_what_to_pass() -> None:
    """Offline, an unlisted name fails in a moment, and the fix is a command or the config itself."""
    with pytest.raises(ModelError, match=r"config=json\.loads") as caught:
        model_shape("nobody/invented-this-1T")
    assert "HF_HUB_OFFLINE" in str(caught.value)


def test_a_config_goes_before_the_table_and_needs_no_files() -> None:
    """A config given by hand, as a dict or as an object, counts a model that is nowhere on this machine."""
    from transformers import LlamaConfig

    sizes = PUBLISHED["meta-llama/Llama-3.2-1B"]
    by_dict = model_shape("nobody/my-llama", sizes | {"num_hidden_layers": 2})
    by_object = model_shape("nobody/my-llama", LlamaConfig(**sizes | {"num_hidden_layers": 2}))
    assert by_dict == by_object
    assert by_dict.mlp == 2 * 3 * (2048 + 8192)
    assert model_shape("meta-llama/Llama-3.2-1B", sizes | {"num_hidden_layers": 2}).mlp == by_dict.mlp


def test_a_mixture_in_a_local_folder_is_counted(tmp_path: Path) -> None:
    """The folder of a mixture of experts is counted by the rules, from its config.json alone."""
    config = PUBLISHED["Qwen/Qwen3-8B"] | {
        "model_type": "qwen3_moe", "num_hidden_layers": 2, "num_experts": 4, "moe_intermediate_size": 768,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = model_shape(str(tmp_path))
    assert shape.mlp == 2 * 3 * (4096 + 4 * 768)
    assert (shape.experts, shape.architecture, shape.published) == (True, "qwen3_moe", False)


def test_a_folder_without_a_config_says_so(tmp_path: Path) -> None:
    """What is missing in a local folder is named, and no other model is offered."""
    with pytest.raises(ModelError, match=r"config\.json"):
        model_shape(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "qwen3", "num_experts": 128}, "num_experts=128"),
        ({"hidden_size": None}, "hidden_size=None"),
        ({"vocab_size": "many"}, "vocab_size='many'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
    ],
)
def test_a_config_that_cannot_be_counted_is_refused(change: dict[str, Any], said: str) -> None:
    """Missing sizes and contradictions are named, not guessed at."""
    with pytest.raises(ModelError, match=said):
        dense_shape(PUBLISHED["Qwen/Qwen3-8B"] | change)


def test_a_folder_is_read_before_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local folder called like a listed model is counted from its own config."""
    folder = tmp_path / "Qwen" / "Qwen3-8B"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(PUBLISHED["Qwen/Qwen3-8B"] | {"num_hidden_layers": 1}))
    monkeypatch.chdir(tmp_path)
    shape = model_shape("Qwen/Qwen3-8B")
    assert shape.mlp == 3 * (4096 + 12288)
    assert not shape.published


def test_a_component_without_parameters_is_refused() -> None:
    """A placement whose feed-forward layers would get nothing says which."""
    empty = ModelShape(
        mlp=0, attn=10, unembed=10, experts=True, architecture="x", published=True, hidden_size=8, source="x"
    )
    with pytest.raises(PlanError, match="the mlp layers of m would have no adapter"):
        capacity.check_components(empty, "m", mlp=True, attn=True, unembed=True)
    capacity.check_components(empty, "m", mlp=False, attn=True, unembed=True)


@pytest.mark.parametrize(
    ("number", "above", "below"), [(0.2, 1, 1), (1, 1, 1), (3, 4, 2), (64, 64, 64), (65, 128, 64)]
)
def test_powers_of_two(number: float, above: int, below: int) -> None:
    """Powers of two are found on both sides, and an exact one is itself."""
    assert capacity.power_of_two_above(number) == above
    assert capacity.power_of_two_below(number) == below


@pytest.mark.parametrize(
    ("ratio", "word"),
    [
        (4.0, "ample"),
        (3.99, "low-regret"),
        (1.0, "low-regret"),
        (0.99, "tight"),
        (0.25, "tight"),
        (0.2, "capacity-limited"),
    ],
)
def test_the_verdict_turns_at_4_1_and_a_quarter(ratio: float, word: str) -> None:
    """Each word begins exactly where the design says."""
    assert capacity.verdict(ratio) == word


def test_regret_falls_with_capacity_and_says_where_it_was_not_measured() -> None:
    """0.38 % at one parameter a token, less above, and an honest range."""
    assert capacity.expected_regret(1.0) == pytest.approx(0.38)
    assert capacity.expected_regret(4.0) == pytest.approx(0.38 * 4**-0.8)
    assert [capacity.extrapolated(ratio) for ratio in (0.06, 0.07, 12, 12.1)] == [True, False, False, True]


@pytest.mark.smollm2
def test_smollm2_counts_what_the_engine_creates() -> None:
    """The plan's parameters are those of the adapter that the embedded engine really makes."""
    from tinker_officer._models import locate
    from tinker_officer.engine.lora import Adapter, LoraSpec
    from tinker_officer.engine.models import load

    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    base, shape = load(name, locate(name)), model_shape(name)
    for mlp, attn, unembed in (
        (True, True, True),
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ):
        spec = LoraSpec(rank=4, seed=0, train_mlp=mlp, train_attn=attn, train_unembed=unembed)
        created = sum(tensor.numel() for tensor in Adapter.create(base, spec).tensors().values())
        assert created == 4 * shape.per_rank(mlp=mlp, attn=attn, unembed=unembed)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_tiny_models_count_what_the_engine_creates(tmp_path: Path, family: Any) -> None:
    """The same holds for both architectures that the tests make."""
    from tinker_officer.engine.lora import Adapter, LoraSpec
    from tinker_officer.engine.models import load
    from tinker_officer.testing import tiny_model

    folder = tiny_model(tmp_path / "tiny", family=family)
    adapter = Adapter.create(load("tiny", folder), LoraSpec(rank=3, seed=0))
    created = sum(tensor.numel() for tensor in adapter.tensors().values())
    assert created == 3 * model_shape(str(folder)).per_rank()
