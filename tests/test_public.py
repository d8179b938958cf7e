"""The front door: what `import tinker_officer` gives, and what it must not load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tinker_officer


HEAVY = {"inspect_ai", "matplotlib", "numpy", "scipy", "sqlalchemy", "tinker", "tinker_cookbook", "torch"}
HEAVY |= {"transformers"}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after `statement`."""
    listing = "import sys, json; print(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    code = f"{statement}\n{listing}"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(out.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`import tinker_officer` leaves torch, transformers, Inspect, the SDK and NumPy on the shelf."""
    assert loaded_by("import tinker_officer").isdisjoint(HEAVY)


def test_importing_every_public_name_loads_no_torch_and_no_inspect() -> None:
    """A script's import lines stay quick; torch belongs to the engine's own process."""
    assert loaded_by("from tinker_officer import *").isdisjoint({"torch", "transformers", "inspect_ai"})


@pytest.mark.parametrize("name", tinker_officer.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    """Each name in __all__ resolves, and says what it is for."""
    assert (getattr(tinker_officer, name).__doc__ or "").strip()


@pytest.mark.parametrize("name", tinker_officer.__all__)
def test_every_public_name_has_a_reference_entry(name: str) -> None:
    """Each name in __all__ stands in docs/reference/api.md, by the place where it lives."""
    reference = Path(__file__).parent.parent / "docs" / "reference" / "api.md"
    entries = [line.rpartition(".")[2] for line in reference.read_text("utf-8").splitlines() if ":: " in line]
    assert name in entries


def test_all_is_sorted_and_dir_shows_it() -> None:
    """Tab completion offers what is public."""
    assert list(tinker_officer.__all__) == sorted(tinker_officer.__all__)
    assert set(tinker_officer.__all__) <= set(dir(tinker_officer))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails as for any module."""
    with pytest.raises(AttributeError, match="no attribute 'LoraPlan'"):
        _ = tinker_officer.LoraPlan
