"""The public sweep that two benches are about: it is not in this repository, so it is passed by path."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


WHERE = """\
{script}: nothing was run, because the sweep is not in this repository.
  need: JSON, {{"rows": [{{"model": ..., "lr": ..., "rank": ..., "test": ...}}, ...]}}, a row a trained model,
        from the table in tinker-cookbook's recipes/chat_sl/results/sft_sweep.md (test is the NLL in nats)
  fix:  python {script} sft_sweep_calibration.json"""


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Let the sweep be passed by path."""
    parser.add_argument("rows", type=Path, nargs="?", help="the sweep, as JSON; nothing is run without it")


def rows(path: Path | None) -> list[dict[str, Any]]:
    """Return the sweep's rows; leave, and say what to pass, when there is no path or no such file."""
    if path is None or not path.is_file():
        print(WHERE.format(script=sys.argv[0]), file=sys.stderr)
        if path is not None:
            print(f"  got:  {path}, which is no file", file=sys.stderr)
        raise SystemExit(0 if path is None else 2)
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["rows"]
    return found
