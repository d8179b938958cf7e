"""The shapes of any decoder that transformers knows, from its config alone, without its weights.

This is the one file outside `engine/` that imports torch, and it does so inside one function: the module
tree of 400 architectures cannot be known without building it, and building it on torch's meta device
allocates nothing. Dense Llama, Mistral, Qwen2 and Qwen3, and every name in the cookbook's table, are
counted without it. No code from a model's repository is ever run.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tinker_officer.errors import ModelError
from tinker_officer.plan.lora_rules import Blueprint, Weight


_LAYER = re.compile(r"^(?:.*?\.)?(?:\d+)(?=\.|$)")
# Where configs of models with vision or audio keep their decoder.
_NESTED = ("text_config", "language_config", "llm_config", "thinker_config")
_LATENT = ("moe_latent_size",)
_NOT_TEXT = re.compile(r"vision|visual|image|audio|speech", re.IGNORECASE)
_EXPERTS = re.compile(r"expert|moe", re.IGNORECASE)


def blueprint(config: Any, *, name: str) -> Blueprint:
    """Return the shapes of the decoder that `config` describes.

    Args:
        config: a transformers config object, or the content of `config.json`.
        name: what to call the model in an error.

    Raises:
        ModelError: transformers does not know the architecture, or cannot build it from this config.
    """
    with _quiet():
        model, text = meta_model(config, name=name)
    head = model.get_output_embeddings()
    return Blueprint(
        model_type=str(text.model_type),
        hidden=int(text.hidden_size),
        latent=next((int(size) for key in _LATENT if (size := getattr(text, key, None))), None),
        vocabulary=int(head.weight.shape[0] if head is not None else text.vocab_size),
        weights=tuple(_weights(model)),
    )


def meta_model(config: Any, *, name: str) -> tuple[Any, Any]:
    """Return the decoder of `config` on torch's meta device, and its text config; nothing is allocated.

    Raises:
        ModelError: transformers does not know the architecture, or cannot build it from this config.
    """
    import torch
    import transformers
    from transformers.initialization import no_init_weights
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

    text = _text_config(config, name)
    known = next(
        (table for table in (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING) if type(text) in table), None
    )
    if known is None or getattr(text, "is_encoder_decoder", False):
        raise _refused(name, text.model_type, "not a decoder of text", transformers.__version__)
    try:
        with torch.device("meta"), no_init_weights():
            return known[type(text)](text), text
    except Exception as error:  # other people's code runs here, and fails in its own ways
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise ModelError(
            f"transformers cannot build {name} from its config",
            got=f"{text.model_type}: {type(error).__name__}: {first}",
            need="a complete config.json, as the model was published with",
            fix="restore config.json from where the model was published",
        ) from error


def _text_config(config: Any, name: str) -> Any:
    """Return a config object of the decoder; the caller's own object is not touched.

    Raises:
        ModelError: the installed transformers has no such architecture.
    """
    if not isinstance(config, Mapping) and not hasattr(config, "get_text_config"):
        raise ModelError(
            f"the config of {name} is not one",
            got=type(config).__name__,
            need="a transformers config object, or the content of config.json as a dict",
            fix='LoRAPlan.for_(name, config=json.loads(Path("config.json").read_text()))',
        )
    made = _parsed(config, name) if isinstance(config, Mapping) else copy.deepcopy(config)
    text = made.get_text_config(decoder=True)
    if not isinstance(getattr(text, "hidden_size", None), int):
        raise ModelError(
            f"the config of {name} lacks a size",
            got=f"hidden_size={getattr(text, 'hidden_size', None)!r} in a {text.model_type!r}",
            need="the config of a decoder",
            fix="pass the config of the language model: LoRAPlan.for_(name, config=config.text_config)",
        )
    return text


def _parsed(body: Mapping[str, Any], name: str) -> Any:
    """Return the config object of a `config.json`: by its type, else by its class, else its nested decoder's.

    Models such as Kimi K2 call an architecture that transformers has by a type of their own.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = str(body.get("model_type", ""))
    if kind in CONFIG_MAPPING:
        return _from_dict(CONFIG_MAPPING[kind], body, name)
    for architecture in body.get("architectures") or ():
        known = getattr(getattr(transformers, str(architecture), None), "config_class", None)
        if known is not None:
            return _from_dict(known, {k: v for k, v in body.items() if k != "model_type"}, name)
    nested = next((body[key] for key in _NESTED if isinstance(body.get(key), Mapping)), None)
    if nested is not None:
        return _parsed(nested, name)
    raise _refused(name, kind, "not known to it", transformers.__version__)


def _from_dict(kind: Any, body: Mapping[str, Any], name: str) -> Any:
    try:
        return kind.from_dict(copy.deepcopy(dict(body)))
    except Exception as error:  # other people's code runs here, and fails in its own ways
        first = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the config of {name} is not one of a {kind.model_type!r}",
            got=f"{type(error).__name__}: {first}",
            need=f"what transformers.{kind.__name__} takes",
            fix="restore config.json from where the model was published",
        ) from error


def _refused(name: str, kind: str, why: str, version: str) -> ModelError:
    return ModelError(
        f"the adapter of {name} cannot be sized from its config",
        got=f"model_type {kind!r}: {why}",
        need=f"a decoder that transformers {version} knows (code from a model's repository is not run), "
        "or a name in the cookbook's table",
        fix="upgrade transformers, or pass the config of the same architecture under a type that it knows: "
        'LoRAPlan.for_(name, config=config | {"model_type": "deepseek_v3"})',
    )


def _weights(model: Any) -> Iterator[Weight]:
    """Yield the matrices of the decoder layers, with the classes around them."""
    modules = dict(model.named_modules())
    for path, module in modules.items():
        if (found := _LAYER.match(path)) is None or _NOT_TEXT.search(found[0]):
            continue
        layer = found[0]
        classes = _classes(modules, layer, path)
        kind = type(module).__name__
        if kind == "Conv1D":  # GPT-2's linear layer, stored inputs first
            yield Weight(path, layer, classes, "linear", tuple(module.weight.shape))
        elif hasattr(module, "in_features") and module.weight.dim() == 2:  # noqa: PLR2004 - not stacked
            shape = (int(module.in_features), int(module.out_features))
            width = _mamba_width(modules.get(path.rpartition(".")[0]))
            inside = path.rpartition(".")[2] in {"in_proj", "x_proj", "dt_proj", "bcdt_proj"}
            yield Weight(path, layer, classes, "linear", shape, width if inside else None)
        elif not type(module).__module__.startswith("torch."):
            yield from _parameters(module, path, layer, classes)


def _parameters(module: Any, path: str, layer: str, classes: tuple[str, ...]) -> Iterator[Weight]:
    """Yield the matrices that a module holds itself: stacked experts, and what is not understood."""
    stacked = bool(_EXPERTS.search(classes[-1]))
    for name, parameter in module.named_parameters(recurse=False):
        shape = tuple(int(side) for side in parameter.shape)
        if min(shape, default=1) == 1:
            continue
        if len(shape) == 3 and stacked:  # noqa: PLR2004 - experts, rows, columns
            yield Weight(f"{path}.{name}", layer, classes, "stack", shape)
        elif len(shape) >= 2:  # noqa: PLR2004 - a matrix
            yield Weight(f"{path}.{name}", layer, classes, "raw", shape)


def _classes(modules: Mapping[str, Any], layer: str, path: str) -> tuple[str, ...]:
    """Return the class names of the modules from the layer down to `path`."""
    parts = path.split(".")
    first = layer.count(".") + 1
    return tuple(type(modules[".".join(parts[:depth])]).__name__ for depth in range(first, len(parts) + 1))


def _mamba_width(owner: Any) -> int | None:
    """Return the width of z and x when `owner` is a Mamba mixer: it has a decay and one input projection."""
    if owner is None or not all(hasattr(owner, part) for part in ("A_log", "in_proj", "out_proj")):
        return None
    return int(owner.out_proj.in_features)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from warning of kernels that only running the model would need."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
