"""Base models: what is read, what is refused, and that our decoder is transformers'."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinker_officer.engine.decoder import hidden_states, packed_attention
from tinker_officer.engine.kernels import linear
from tinker_officer.engine.models import BaseModel, load
from tinker_officer.engine.projections import bare
from tinker_officer.errors import EngineError


def _logits(base: BaseModel, tokens: torch.Tensor) -> torch.Tensor:
    length = tokens.numel()
    hidden = hidden_states(base, bare(base), tokens, torch.arange(length), packed_attention((length,)))
    return linear(hidden, base.head).float()


YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", {}),
        ("llama", {"tied": False, "attention_bias": True}),
        ("llama", {"num_key_value_heads": 4, "rope_parameters": YARN}),
        ("llama", {"rope_parameters": LLAMA3}),
        ("qwen2", {}),
        ("qwen3", {"tied": False}),
        ("mistral", {"sliding_window": None}),
        ("smollm3", {"num_hidden_layers": 4}),
        ("mixtral", {"num_local_experts": 4}),
        (
            "qwen3_moe",
            {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20, "tied": False},
        ),
        (
            "qwen3_moe",
            {"num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 20, "norm_topk_prob": True},
        ),
    ],
)
def test_logits_are_those_of_transformers(
    oracle: Callable[..., Path], family: str, config: dict[str, Any]
) -> None:
    """Every supported family gives transformers' own logits, with each kind of rotary positions."""
    import transformers

    folder = oracle(family, **config)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(0, 97, (60,), generator=torch.Generator().manual_seed(5))

    with torch.no_grad():
        expected = reference(input_ids=tokens[None]).logits[0]

    torch.testing.assert_close(_logits(load("tiny", folder), tokens), expected, rtol=1e-4, atol=2e-5)


def test_bfloat16_is_near_float32(oracle: Callable[..., Path]) -> None:
    """In bfloat16 the logits differ by rounding only."""
    tokens = torch.arange(40)
    exact, rounded = (
        _logits(load("tiny", oracle("qwen3"), dtype=name), tokens) for name in ("float32", "bfloat16")
    )

    assert 0 < (exact - rounded).abs().mean() < 0.05 * exact.abs().mean()


def test_facts_of_a_model(oracle: Callable[..., Path]) -> None:
    """A base model tells its vocabulary, its context, its end tokens, and a tied head counted once."""
    tied, untied = load("tiny", oracle(tied=True)), load("tiny", oracle(tied=False))

    assert (tied.vocab_size, tied.max_context, tied.eos_ids) == (97, 256, (2,))
    assert untied.parameters - tied.parameters == 97 * 32
    assert "'tiny'" in repr(tied)


def test_several_weight_files(oracle: Callable[..., Path], tmp_path: Path) -> None:
    """Weights may lie in several files."""
    shutil.copytree(oracle(), tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    for index, part in enumerate((names[:7], names[7:])):
        save_file(
            {name: tensors[name] for name in part}, tmp_path / f"model-0000{index}-of-00002.safetensors"
        )

    assert torch.equal(load("tiny", tmp_path).embed, load("tiny", oracle()).embed)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"model_type": "mamba"}, "'mamba'"),
        ({"model_type": "t5"}, "an encoder and a decoder"),
        ({"model_type": "gemma3"}, "images"),
        ({"model_type": "qwen3_next"}, "'qwen3_next'"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantized"),
        ({"model_type": "qwen3_moe", "decoder_sparse_step": 2}, "layers without experts"),
        ({"model_type": "gpt2"}, "transformer.h.0"),
        ({"mlp_bias": True}, "mlp.down_proj.bias"),
        ({"vocab_size": 98}, "(97, 32)"),
        ({"num_hidden_layers": 3}, "no model.layers.2"),
        ({"hidden_size": "32"}, "'hidden_size'"),
        ({"model_type": "no-such-model"}, "config.json"),
    ],
)
def test_other_architectures_are_refused(
    oracle: Callable[..., Path], tmp_path: Path, change: dict[str, Any], part: str
) -> None:
    """What the decoder does not know is refused with its name, never run wrongly."""
    shutil.copytree(oracle(), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))

    with pytest.raises(EngineError) as caught:
        load("tiny", tmp_path)

    assert part in str(caught.value.got)
    assert "fix:" in str(caught.value)


def test_damaged_files_are_refused(oracle: Callable[..., Path], tmp_path: Path) -> None:
    """A truncated weight file, a missing configuration and an unknown dtype each say what to do."""
    shutil.copytree(oracle(), tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])

    with pytest.raises(EngineError, match="damaged"):
        load("tiny", tmp_path)
    with pytest.raises(EngineError, match="configuration"):
        load("tiny", tmp_path / "nowhere")
    with pytest.raises(EngineError, match="dtype"):
        load("tiny", oracle(), dtype="float16")
