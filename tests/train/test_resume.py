"""Exact resume: killed at any moment and started again, a run ends as if it had never stopped."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinker_officer import LocalEngine, Run, RunResult


COUNT, KILLS = 22, 20
Digests = Callable[[str], dict[str, str]]


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Run]) -> Run:
    """Twenty-four steps, three epochs of eight, a checkpoint every five: the last of an epoch is small."""
    return make_run(count=COUNT, epochs=4, batch_size=4).checkpoint(every=5)


def numbers(folder: Path) -> list[dict[str, Any]]:
    """Every record of the metrics but its times, as it stands in the file."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in one.items() if not key.startswith("time/")} for one in records]


def applied(folder: Path) -> list[dict[str, Any]]:
    """What the ledger says of each step, as it stands in the file."""
    records = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return [{**one, "attempt": None} for one in records if "step" in one]


@pytest.fixture(scope="module")
def unbroken(
    run: Run, rows: Path, forge: Any, engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, float]:
    """The folder of a run that was never stopped, and how long it took."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    began = time.monotonic()
    forge.wait(forge.start(run, rows, COUNT, folder, engine))
    assert RunResult.open(folder).stopped == "completed"
    return folder, time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("kill", range(KILLS))
def test_killed_at_a_random_moment_it_ends_bit_identical(
    kill: int,
    run: Run,
    rows: Path,
    forge: Any,
    engine: LocalEngine,
    digests: Digests,
    unbroken: tuple[Path, float],
    tmp_path: Path,
) -> None:
    """SIGKILL at a random moment, start again: weights, optimizer, metrics and data order are identical."""
    reference, took_s = unbroken
    folder = tmp_path / "run"
    pid = forge.start(run, rows, COUNT, folder, engine)
    time.sleep(random.Random(kill).uniform(0.0, took_s))
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the machine was faster this time: it had ended, and starting again must change nothing
    forge.wait(pid)
    forge.wait(forge.start(run, rows, COUNT, folder, engine))
    resumed, expected = RunResult.open(folder), RunResult.open(reference)
    assert resumed.stopped == "completed"
    assert digests(resumed.final.state_path) == digests(expected.final.state_path)
    assert numbers(folder) == numbers(reference)
    assert applied(folder) == applied(reference)
    assert [one.step for one in resumed.checkpoints] == [one.step for one in expected.checkpoints]
