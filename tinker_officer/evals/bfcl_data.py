"""The data of BFCL, from the `bfcl-eval` wheel: `inspect_evals/bfcl` would fetch it with git."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib import metadata, util
from pathlib import Path

from tinker_officer.errors import EvalError


_CANARY = "BFCL_v4_simple_python.json"  # the file by which the task knows that its data is there


def bfcl_folder() -> Path | None:
    """Return the data folder of the installed `bfcl-eval` wheel, without importing it; None without it."""
    try:
        found = util.find_spec("bfcl_eval")
    except (ImportError, ValueError):
        found = None
    for place in (found.submodule_search_locations or ()) if found else ():
        folder = Path(place) / "data"
        if (folder / _CANARY).is_file():
            return folder
    return None


def seed_bfcl() -> Path:
    """Return the folder where `inspect_evals/bfcl` looks for its data, filled from the wheel if it was empty.

    The copy is made beside it and moved into place in one step, so that two processes may do this at once.
    The version of the wheel is written into it. What is there already is left alone.

    Raises:
        EvalError: the data is neither there nor in an installed wheel.
    """
    from inspect_evals.constants import INSPECT_EVALS_CACHE_PATH

    place = Path(INSPECT_EVALS_CACHE_PATH) / "BFCL"
    if (place / _CANARY).is_file():
        return place
    source = bfcl_folder()
    if source is None:
        raise EvalError(
            "the data of BFCL is not on this machine",
            got=f"nothing in {place}, and no wheel bfcl-eval",
            need="the questions and answers that inspect_evals/bfcl reads",
            fix="python -m pip install --no-deps bfcl-eval",
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".BFCL-") as scratch:
        copied = Path(scratch) / "BFCL"
        shutil.copytree(source, copied)
        (copied / "SOURCE").write_text(f"bfcl-eval {metadata.version('bfcl-eval')}\n", encoding="utf-8")
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
        try:
            os.rename(copied, place)  # noqa: PTH104 - must fail, not replace, when another process was first
        except OSError:
            if not (place / _CANARY).is_file():
                raise
    return place
