"""What the installed tinker-cookbook knows of each model, read without importing it.

Importing `tinker_cookbook.hyperparam_utils` loads transformers and torch (four seconds) for two
literal tables. They are read from its source instead, so that a plan follows the installed version and
still costs milliseconds. `tests/plan/test_cookbook.py` holds the answers equal to the functions' own.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any


_COUNTS = "_LORA_PARAMS_PER_RANK_BY_COMPONENT"
_HIDDEN = "_KNOWN_HIDDEN_SIZES"

# `get_lr` is 5e-4 x (2000 / hidden)^exponent, for two families that it finds by a word in the name.
_GET_LR_BASE = 5e-4
_GET_LR_HIDDEN = 2000
_GET_LR_EXPONENT = {"llama": 0.781, "qwen": 0.0775}


@cache
def version() -> str:
    """Return `tinker-cookbook` and the installed version, to name as a source."""
    return f"tinker-cookbook {importlib.metadata.version('tinker-cookbook')}"


def bare(base_model: str) -> str:
    """Return the name without Tinker's variant suffix: `zai-org/GLM-5.3:peft:262144` is `zai-org/GLM-5.3`."""
    return base_model.split(":", 1)[0]


def lora_parameters() -> dict[str, dict[str, int]]:
    """Return LoRA parameters per unit of rank by model and component (`mlp`, `attn`, `unembed`)."""
    counts: dict[str, dict[str, int]] = _tables().get(_COUNTS, {})
    return counts


def hidden_size(base_model: str) -> int | None:
    """Return the width that the cookbook lists for `base_model`, or None."""
    size: int | None = _tables().get(_HIDDEN, {}).get(bare(base_model))
    return size


def get_lr(base_model: str, hidden: int | None) -> float | None:
    """Return what the cookbook's `get_lr(base_model)` answers, without its network look-ups.

    Args:
        base_model: a model's name.
        hidden: the model's width, if known.

    Returns:
        The learning rate, or None where `get_lr` raises (a family that it does not know).

    Source:
        tinker_cookbook.hyperparam_utils.get_lr.
    """
    name = bare(base_model).lower()
    family = next((word for word in _GET_LR_EXPONENT if word in name), None)
    return None if family is None or hidden is None else family_lr(family, hidden)


def family_lr(family: str, hidden: int) -> float:
    """Return `get_lr`'s formula for `family` (`llama` or `qwen`) at width `hidden`."""
    return float(_GET_LR_BASE * (_GET_LR_HIDDEN / hidden) ** _GET_LR_EXPONENT[family])


@cache
def _tables() -> dict[str, Any]:
    """Return the module's literal tables by name; one that moved in a later version is left out."""
    spec = importlib.util.find_spec("tinker_cookbook")
    source = Path(spec.origin).with_name("hyperparam_utils.py") if spec and spec.origin else None
    if source is None or not source.is_file():
        return {}
    return {
        node.target.id: ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.target.id in {_COUNTS, _HIDDEN}
        and node.value is not None
    }
