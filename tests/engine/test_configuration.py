"""What config.json says, read without transformers, against what transformers reads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from tinker_officer.engine import models
from tinker_officer.engine.configuration import read_config


FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {},
    "smollm3": {"no_rope_layer_interval": 2},
}


def _facts(config: Any) -> tuple[Any, ...]:
    shape = models._shape(config)
    frequencies, scale = models._rotary(config, shape)
    ids = config.eos_token_id, config.tie_word_embeddings, config.max_position_embeddings
    return shape.widths, shape.layers, shape.norm_eps, shape.rope_layers, frequencies.tolist(), scale, ids


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("older", [False, True], ids=["as saved today", "as saved before"])
def test_a_plain_configuration_is_read_as_transformers_does(
    oracle: Callable[..., Path], tmp_path: Path, family: str, older: bool
) -> None:
    """Shape, rotary frequencies, end of text and tied head are the same, for old and new spellings."""
    folder = oracle(family, **FAMILIES[family])
    given = json.loads((folder / "config.json").read_text())
    if older:
        given["rope_theta"] = given.pop("rope_parameters")["rope_theta"]
        given["rope_scaling"] = None
    (tmp_path / "config.json").write_text(json.dumps(given))

    config = read_config("tiny", tmp_path)

    assert not isinstance(config, transformers.PreTrainedConfig)
    assert _facts(config) == _facts(transformers.AutoConfig.from_pretrained(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"num_key_value_heads": None},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
        {"rope_parameters": None},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    ],
    ids=str,
)
def test_what_is_not_plain_is_left_to_transformers(
    oracle: Callable[..., Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    """A default, a scaled position or another activation is for transformers, which knows them all."""
    given = json.loads((oracle() / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(given))

    assert isinstance(read_config("tiny", tmp_path), transformers.PreTrainedConfig)


def test_a_common_model_is_read_without_transformers(oracle: Callable[..., Path]) -> None:
    """Reading one imports neither transformers nor what it brings: six seconds and 250 MB."""
    code = (
        "import sys, pathlib\n"
        "from tinker_officer.engine import models, sampler, trainer\n"
        "models.load('tiny', pathlib.Path(sys.argv[1]))\n"
        "print(*sorted({'transformers', 'sklearn', 'scipy', 'pandas', 'peft'} & sys.modules.keys()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(oracle())], capture_output=True, text=True, check=True
    )

    assert found.stdout.split() == []
