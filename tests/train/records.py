"""What a run has left behind, to hold against what another has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def numbers(folder: Path) -> list[dict[str, Any]]:
    """Every record of the metrics but its times, as it stands in the file."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in one.items() if not key.startswith("time/")} for one in records]


def applied(folder: Path) -> list[dict[str, Any]]:
    """What the ledger says of each step, as it stands in the file."""
    records = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return [{**one, "attempt": None} for one in records if "step" in one]


def saved_files(root: Path, state_path: str) -> dict[str, str]:
    """Return the digests of a checkpoint's files in an engine's folder, weights and optimizer."""
    run, kind, name = state_path.removeprefix("tinker://").split("/")
    meta = json.loads((root / "runs" / run.replace(":", "+") / kind / name / "meta.json").read_text())
    return {file: described["sha256"] for file, described in meta["files"].items() if "safetensors" in file}
