"""Tiny models for tests: random weights, a real tokenizer, made in well under a second, without torch.

    from tinker_officer.testing import tiny_model

    folder = tiny_model(tmp_path / "tiny")  # a base-model name may be a folder everywhere

What comes out is a Hugging Face folder that `transformers` loads like any other. It has learned nothing:
it shows that the machinery is right, not that a model is good.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import attrs

from tinker_officer._fields import one_of, whole
from tinker_officer.errors import ModelError


CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

# What the merges are learned from: enough to make words of several tokens and tokens of several letters.
_TEXT = (
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "user asks the assistant a question; the assistant answers the question in a sentence.",
    "You are a helpful assistant. Please say what the price is, and when the order will arrive.",
    "system user assistant tool function name arguments string number true false null",
)
_FIX = 'tiny_model("models/tiny", family="llama", hidden=64, heads=4, kv_heads=2)'
_BYTES = 256


@attrs.frozen(kw_only=True)
class _Shape:
    """The sizes of a tiny model; each is checked where it is written."""

    family: str = attrs.field(validator=one_of(("llama", "qwen3"), error=ModelError, fix=_FIX))
    vocab: int = attrs.field(
        validator=whole(_BYTES + len(SPECIAL_TOKENS), 100_000, error=ModelError, fix=_FIX)
    )
    hidden: int = attrs.field(validator=whole(2, error=ModelError, fix=_FIX))
    layers: int = attrs.field(validator=whole(1, error=ModelError, fix=_FIX))
    heads: int = attrs.field(validator=whole(1, error=ModelError, fix=_FIX))
    kv_heads: int = attrs.field(validator=whole(1, error=ModelError, fix=_FIX))
    context: int = attrs.field(validator=whole(8, error=ModelError, fix=_FIX))

    def __attrs_post_init__(self) -> None:
        if self.hidden % (2 * self.heads) or self.heads % self.kv_heads:
            raise ModelError(
                "the heads do not fit the model",
                got=f"hidden={self.hidden}, heads={self.heads}, kv_heads={self.kv_heads}",
                need="hidden a multiple of 2 x heads (rotary embeddings turn pairs), heads of kv_heads",
                fix=_FIX,
            )

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def intermediate(self) -> int:
        return 2 * self.hidden


def tiny_model(
    folder: str | Path,
    *,
    family: Literal["llama", "qwen3"] = "llama",
    tied: bool = True,
    seed: int = 0,
    vocab: int = 384,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    context: int = 1024,
) -> Path:
    """Make a Hugging Face model folder with random weights and a ChatML tokenizer, and return it.

    The same arguments give the same files, byte for byte.

    Args:
        folder: where to put it; made when it is not there, overwritten file by file when it is.
        family: the architecture: `llama`, or `qwen3` (which normalises queries and keys).
        tied: use the embedding as the output matrix, as small models do.
        seed: of the weights.
        vocab: rows of the embedding; the tokenizer has at most as many entries.
        hidden: width of the residual stream.
        layers: number of transformer blocks.
        heads: attention heads; `hidden` is a multiple of twice as many.
        kv_heads: key-value heads; `heads` is a multiple of it.
        context: longest sequence, in tokens.

    Raises:
        ModelError: a size is out of range, or the heads do not fit the width.
    """
    shape = _Shape(
        family=family,
        vocab=vocab,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        context=context,
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder, shape)
    _write_json(folder / "config.json", _config(shape, tied=tied))
    _write_json(folder / "generation_config.json", {"eos_token_id": SPECIAL_TOKENS.index("<|im_end|>")})
    _write_weights(folder, shape, tied=tied, seed=seed)
    return folder


def _config(shape: _Shape, *, tied: bool) -> dict[str, Any]:
    config = {
        "architectures": ["LlamaForCausalLM" if shape.family == "llama" else "Qwen3ForCausalLM"],
        "model_type": shape.family,
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": SPECIAL_TOKENS.index("<|im_end|>"),
        "pad_token_id": SPECIAL_TOKENS.index("<|endoftext|>"),
        "dtype": "float32",
    }
    if shape.family == "llama":
        config["mlp_bias"] = False
    return config


def _parameters(shape: _Shape, *, tied: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield each parameter's name and shape, `(out, in)` for matrices."""
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield "model.embed_tokens.weight", (shape.vocab, shape.hidden)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.self_attn.q_proj.weight", (wide, shape.hidden)
        yield f"{prefix}.self_attn.k_proj.weight", (narrow, shape.hidden)
        yield f"{prefix}.self_attn.v_proj.weight", (narrow, shape.hidden)
        yield f"{prefix}.self_attn.o_proj.weight", (shape.hidden, wide)
        if shape.family == "qwen3":
            yield f"{prefix}.self_attn.q_norm.weight", (shape.head_dim,)
            yield f"{prefix}.self_attn.k_norm.weight", (shape.head_dim,)
        yield f"{prefix}.mlp.gate_proj.weight", (shape.intermediate, shape.hidden)
        yield f"{prefix}.mlp.up_proj.weight", (shape.intermediate, shape.hidden)
        yield f"{prefix}.mlp.down_proj.weight", (shape.hidden, shape.intermediate)
        yield f"{prefix}.input_layernorm.weight", (shape.hidden,)
        yield f"{prefix}.post_attention_layernorm.weight", (shape.hidden,)
    yield "model.norm.weight", (shape.hidden,)
    if not tied:
        yield "lm_head.weight", (shape.vocab, shape.hidden)


def _write_weights(folder: Path, shape: _Shape, *, tied: bool, seed: int) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    random = np.random.default_rng(seed)
    # 1 / sqrt(in) keeps activations at unit size, so that logits differ and gradients are not all alike.
    tensors = {
        name: (random.standard_normal(size) / np.sqrt(size[-1])).astype(np.float32)
        if len(size) > 1
        else np.ones(size, np.float32)
        for name, size in _parameters(shape, tied=tied)
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(folder: Path, shape: _Shape) -> None:
    """Train a byte-level BPE on a few sentences: every text has tokens, and comes back from them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocab,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
            "model_max_length": shape.context,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHATML,
        },
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
