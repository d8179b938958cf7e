"""What is read from the cookbook's source is what its functions answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinker_officer.plan import cookbook


def test_every_entry_of_the_table_equals_the_function() -> None:
    """The table read from the source gives the very counts of get_lora_param_count, for every model."""
    from tinker_cookbook.hyperparam_utils import get_lora_param_count

    table = cookbook.lora_parameters()
    assert len(table) > 30
    for name, parts in table.items():
        assert sum(parts.values()) == get_lora_param_count(name, 1)
        assert parts["mlp"] == get_lora_param_count(name, 1, train_attn=False, train_unembed=False)
        assert parts["attn"] == get_lora_param_count(name, 1, train_mlp=False, train_unembed=False)


def test_get_lr_answers_and_refuses_as_the_cookbook_does() -> None:
    """Our get_lr equals the cookbook's on every listed model, and is None where that one raises."""
    from tinker_cookbook import hyperparam_utils
    from tinker_cookbook.exceptions import ConfigurationError

    for name in cookbook.lora_parameters():
        hidden = cookbook.hidden_size(name)
        try:
            expected = hyperparam_utils.get_lr(name)
        except (NotImplementedError, ConfigurationError):  # a family that it has no rate for
            assert cookbook.get_lr(name, hidden) is None
        else:
            assert cookbook.get_lr(name, hidden) == pytest.approx(expected, rel=1e-12)


def test_a_variant_suffix_is_left_out() -> None:
    """Tinker's `:peft:...` suffix names the same model."""
    assert cookbook.bare("zai-org/GLM-5.3:peft:262144") == "zai-org/GLM-5.3"
    assert cookbook.hidden_size("zai-org/GLM-5.3:peft:262144") == 6144


def test_reading_the_tables_loads_no_torch() -> None:
    """Planning from counts, in a fresh interpreter, imports neither torch nor transformers."""
    program = (
        "import sys\n"
        "from tinker_officer import LoRAPlan, TokenCounts\n"
        "plan = LoRAPlan.for_('Qwen/Qwen3-8B').sft(TokenCounts(examples=900, trained=9000, total=9000))\n"
        "plan.explain(); plan.to_json(); plan._repr_html_()\n"
        "print(sorted({'torch', 'transformers', 'inspect_ai'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_cookbook_without_the_tables_is_not_an_accident(tmp_path: Path) -> None:
    """Where a later cookbook has moved its tables, nothing is listed and nothing breaks."""
    package = tmp_path / "tinker_cookbook"
    package.mkdir()
    (package / "__init__.py").touch()
    program = (
        "from tinker_officer.plan import cookbook\n"
        "print(cookbook.lora_parameters(), cookbook.hidden_size('Qwen/Qwen3-8B'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.split() == ["{}", "None"]
