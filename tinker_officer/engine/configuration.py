"""What a base model's config.json says; knows nothing of weights.

transformers takes six seconds and 250 MB to read a configuration: each of its classes imports every model to
write its own docstring. So a configuration of a common family in which nothing is left to defaults is read
here, and only any other by transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tinker_officer.errors import EngineError


SUPPORTED = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "smollm3")
# Where a family of experts keeps them, and what it calls gate, up and down.
EXPERTS = {
    "mixtral": ("block_sparse_moe", ("w1", "w3"), "w2"),
    "qwen3_moe": ("mlp", ("gate_proj", "up_proj"), "down_proj"),
}
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
# What `models.load` and `not_ours` read, where each family has a default of its own.
_SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings"),
)
_STATED = (*_SIZES, "rms_norm_eps", "hidden_act", "tie_word_embeddings", "eos_token_id")
_STATED_BY = {
    "llama": (),
    "mistral": ("sliding_window",),
    "qwen2": ("use_sliding_window",),
    "qwen3": ("use_sliding_window", "head_dim"),
    "smollm3": ("use_sliding_window", "no_rope_layers"),
}
_MAY_BE_NULL = {"eos_token_id", "sliding_window"}


def read_config(name: str, folder: Path) -> Any:
    """Return the configuration of a base model, its fields as attributes.

    Args:
        name: the name that users call it by.
        folder: where its files lie.

    Raises:
        EngineError: it cannot be read, or is of an architecture that is not supported.
    """
    config = _plain(folder) or _from_transformers(name, folder)
    refused = _refused(config)
    if refused:
        from tinker_officer.engine.borrowed import BORROWED

        raise EngineError(
            f"the embedded engine does not know the architecture of {name!r}",
            got=refused,
            need=f"a decoder of text: {', '.join(sorted((*SUPPORTED, *BORROWED)))}",
            fix="choose another base model, or train on Tinker: run.start(on=tinker.ServiceClient())",
        )
    return config


def not_ours(config: Any) -> list[str]:
    """Return what our decoder does not know of a model."""
    if config.model_type not in SUPPORTED:
        return [f"model_type {config.model_type!r}"]
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    rope = config.rope_parameters.get("rope_type", "default")
    found = (
        getattr(config, "hidden_act", "silu") != "silu" and f"hidden_act {config.hidden_act!r}",
        bool(getattr(config, "mlp_bias", False)) and "mlp_bias",
        window is not None and window < config.max_position_embeddings and f"a sliding window of {window}",
        rope not in ROPE_TYPES and f"rope_type {rope!r}",
        config.model_type in EXPERTS and not _only_experts(config) and "layers without experts among others",
    )
    return [part for part in found if part]


def eos_ids(folder: Path, config: Any) -> tuple[int, ...]:
    """Return the tokens that end an answer: those of generation_config.json, else of the configuration."""
    path = folder / "generation_config.json"
    generation = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    ids = generation.get("eos_token_id", config.eos_token_id)
    return tuple(ids) if isinstance(ids, list) else () if ids is None else (ids,)


def _plain(folder: Path) -> SimpleNamespace | None:
    """Return the configuration of a model of ours that leaves nothing to defaults, or None for any other."""
    try:
        given = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(given, dict) or given.get("model_type") not in _STATED_BY:
        return None
    stated = all(
        name in given and (given[name] is not None or name in _MAY_BE_NULL)
        for name in (*_STATED, *_STATED_BY[given["model_type"]])
    )
    if not stated or not all(type(given[name]) is int and given[name] > 0 for name in _SIZES):
        return None
    rope = given.get("rope_parameters") or {"rope_theta": given.get("rope_theta")}
    kind, theta = rope.get("rope_type", "default"), rope.get("rope_theta")
    if given.get("rope_scaling") or len(rope) > 2 or kind != "default" or not isinstance(theta, int | float):  # noqa: PLR2004 - kind and theta
        return None
    plain = SimpleNamespace(**given | {"rope_parameters": {"rope_type": kind, "rope_theta": theta}})
    return None if not_ours(plain) else plain


def _from_transformers(name: str, folder: Path) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise EngineError(
            f"the configuration of {name!r} cannot be read",
            got=f"{folder.name}/config.json: {str(error).splitlines()[0]}",
            need="a folder with config.json and *.safetensors, as save_pretrained() writes it",
            fix=f"download {name!r} again, or name the folder that holds it",
        ) from error


def _refused(config: Any) -> str:
    """Return why neither our decoder nor transformers' own can serve a model, or nothing."""
    from tinker_officer.engine.borrowed import BORROWED

    kind = f"model_type {config.model_type!r}"
    if getattr(config, "quantization_config", None):
        return "quantized weights"
    if getattr(config, "is_encoder_decoder", False):
        return f"{kind}: an encoder and a decoder"
    if getattr(config, "vision_config", None) or getattr(config, "audio_config", None):
        return f"{kind}: it takes images or sound; its text model alone may be served"
    if config.model_type in EXPERTS:
        return ", ".join(not_ours(config))
    return "" if config.model_type in (*SUPPORTED, *BORROWED) else kind


def _only_experts(config: Any) -> bool:
    step = getattr(config, "decoder_sparse_step", None) or 1
    return step == 1 and not getattr(config, "mlp_only_layers", None)
