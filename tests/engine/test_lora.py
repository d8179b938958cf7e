"""LoRA weights: how they begin, what they are called, and that PEFT reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import save_file

from tinker_officer.engine.lora import Adapter, LoraSpec
from tinker_officer.engine.models import BaseModel, load
from tinker_officer.engine.projections import bare, merged, with_lora
from tinker_officer.errors import EngineError


def test_start_follows_peft(base: BaseModel) -> None:
    """A is uniform within 1 / sqrt(inputs), as PEFT's; B is zero, so the model begins as the base."""
    tensors = Adapter.create(base, LoraSpec(rank=64, seed=0)).tensors()
    a = tensors["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"]
    bound = 1 / math.sqrt(48)

    assert a.shape == (64, 48)
    assert a.abs().max() <= bound
    assert abs(float(a.std()) / (bound / math.sqrt(3)) - 1) < 0.05
    assert all(not tensor.any() for name, tensor in tensors.items() if "lora_B" in name)


def test_start_depends_on_seed_and_name_only(base: BaseModel) -> None:
    """The same seed gives the same weight, whichever other layers are trained; another seed gives another."""
    spec = LoraSpec(rank=4, seed=7)
    whole = Adapter.create(base, spec).tensors()
    part = Adapter.create(base, attrs.evolve(spec, train_attn=False, train_unembed=False)).tensors()
    other = Adapter.create(base, attrs.evolve(spec, seed=8)).tensors()

    assert part.keys() < whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in part.items())
    assert all(not torch.equal(other[name], whole[name]) for name in whole if "lora_A" in name)


def test_without_a_seed_one_is_drawn_and_kept(base: BaseModel) -> None:
    """An adapter made without a seed says which one it got, and that seed makes it again."""
    adapter = Adapter.create(base, LoraSpec(rank=2))

    assert adapter.spec.seed is not None
    assert torch.equal(Adapter.create(base, adapter.spec).flat, adapter.flat)


@pytest.mark.parametrize(
    ("off", "targets"),
    [
        ({}, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"}),
        ({"train_unembed": False, "train_mlp": False}, {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ({"train_unembed": False, "train_attn": False}, {"gate_proj", "up_proj", "down_proj"}),
        ({"train_mlp": False, "train_attn": False}, {"lm_head"}),
    ],
)
def test_exactly_the_layers_asked_for(base: BaseModel, off: dict[str, bool], targets: set[str]) -> None:
    """Only the layers asked for have weights, and the count says so."""
    adapter = Adapter.create(base, LoraSpec(rank=3, seed=0, **off))
    tensors = adapter.tensors()

    assert {name.split(".")[-3] for name in tensors} == targets
    assert set(adapter.peft_config("x")["target_modules"]) == targets
    assert adapter.parameters == sum(tensor.numel() for tensor in tensors.values())


@pytest.mark.parametrize(
    ("family", "tied"), [("llama", True), ("llama", False), ("qwen3", True), ("qwen3", False)]
)
def test_exported_adapters_load_in_peft(
    oracle: Callable[..., Path], stirred: Callable[..., Adapter], tmp_path: Path, family: str, *, tied: bool
) -> None:
    """Files written from an adapter load in PEFT, with nothing left over, and give the same logits."""
    import peft
    import transformers

    base = load("tiny", oracle(family, tied=tied))
    adapter = stirred(base, LoraSpec(rank=4, seed=1))
    save_file(adapter.tensors(), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter.peft_config("tiny")))
    model = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    loaded = peft.PeftModel.from_pretrained(model, tmp_path).eval()
    tokens = torch.arange(30)

    with torch.no_grad():
        expected = loaded(input_ids=tokens[None]).logits[0]

    for projections in (with_lora(base, adapter), merged(base, adapter)):
        torch.testing.assert_close(_logits(base, projections, tokens), expected, rtol=1e-4, atol=3e-5)


def test_decoding_in_bfloat16_gives_the_numbers_of_training(
    oracle: Callable[..., Path], stirred: Callable[..., Adapter]
) -> None:
    """Laid out for decoding, a bfloat16 model gives the same logits, of few tokens and of many."""
    base = load("tiny", oracle("qwen2"), dtype="bfloat16")
    if base.activations != torch.float32:
        pytest.skip("this processor multiplies bfloat16 itself")
    for adapter in (stirred(base, LoraSpec(rank=4, seed=1)), None):
        beside = bare(base) if adapter is None else with_lora(base, adapter)
        for tokens in (torch.arange(5), torch.arange(50)):
            torch.testing.assert_close(
                _logits(base, merged(base, adapter), tokens),
                _logits(base, beside, tokens),
                rtol=1e-5,
                atol=1e-5,
            )


def _logits(base: BaseModel, projections: Any, tokens: torch.Tensor) -> torch.Tensor:
    from tinker_officer.engine.decoder import hidden_states, packed_attention

    length = tokens.numel()
    with torch.no_grad():
        hidden = hidden_states(base, projections, tokens, torch.arange(length), packed_attention((length,)))
        logits: torch.Tensor = projections.head(hidden)
    return logits


def test_a_snapshot_does_not_follow(trained: Adapter) -> None:
    """A snapshot keeps its weights when the adapter goes on."""
    snapshot = trained.snapshot()
    before = snapshot.flat.clone()
    trained.flat += 1

    assert torch.equal(snapshot.flat, before)


def test_tensors_come_back_by_name(base: BaseModel, trained: Adapter) -> None:
    """Saved tensors make the same adapter in whatever order they come."""
    tensors = trained.tensors()
    again = Adapter.from_tensors(base, trained.spec, dict(reversed(tensors.items())))

    assert torch.equal(again.flat, trained.flat)


@pytest.mark.parametrize("fault", ["missing", "unknown", "misshapen", "not finite"])
def test_tensors_that_do_not_fit_are_refused(base: BaseModel, trained: Adapter, fault: str) -> None:
    """A missing, unknown, misshapen or infinite tensor is refused and named."""
    tensors = trained.tensors()
    name = next(iter(tensors))
    if fault == "missing":
        del tensors[name]
    elif fault == "unknown":
        name = "extra"
        tensors[name] = torch.zeros(1)
    elif fault == "misshapen":
        tensors[name] = tensors[name].t()
    else:
        tensors[name] = torch.full_like(tensors[name], float("inf"))

    with pytest.raises(EngineError) as caught:
        Adapter.from_tensors(base, trained.spec, tensors)

    assert name in str(caught.value)


@pytest.mark.parametrize("rank", [0, -1, 513, 2.5, True])
def test_ranks_out_of_range_are_refused(rank: Any) -> None:
    """A rank of 0 is refused where it is written."""
    with pytest.raises(EngineError, match="rank is out of range"):
        LoraSpec(rank=rank)


def test_training_nothing_is_refused() -> None:
    """A LoRA on no layer is refused."""
    with pytest.raises(EngineError, match="no layer"):
        LoraSpec(rank=4, train_mlp=False, train_attn=False, train_unembed=False)
