"""Exact resume: killed at any moment and started again, a run ends as if it had never stopped."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.records import applied, numbers, saved_files
from tinker_officer import LocalEngine, Run, RunResult


COUNT, KILLS = 22, 10
Digests = Callable[[str], dict[str, str]]


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Run]) -> Run:
    """Twenty-four steps, three epochs of eight, a checkpoint every five: the last of an epoch is small."""
    return make_run(count=COUNT, epochs=4, batch_size=4).checkpoint(every=5)


def reached(folder: Path, step: int) -> bool:
    """Whether the run in `folder` has written so many steps."""
    path = folder / "metrics.jsonl"
    return path.exists() and path.read_bytes().count(b"\n") >= step


@pytest.fixture(scope="module")
def unbroken(
    run: Run, rows: Path, forge: Any, engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, float]:
    """The folder of a run that was never stopped, and how long one takes once all is warm."""
    folder = tmp_path_factory.mktemp("unbroken")
    forge.wait(forge.start(run, rows, COUNT, folder / "first", engine))
    began = time.monotonic()
    forge.wait(forge.start(run, rows, COUNT, folder / "second", engine))
    took_s = time.monotonic() - began
    assert RunResult.open(folder / "first").stopped == "completed"
    return folder / "first", took_s


def same(folder: Path, reference: Path, digests: Digests, expected: Digests) -> None:
    """Assert that two runs ended with the same bits, numbers and order."""
    resumed, unstopped = RunResult.open(folder), RunResult.open(reference)
    assert resumed.stopped == unstopped.stopped == "completed"
    assert digests(resumed.final.state_path) == expected(unstopped.final.state_path)
    assert numbers(folder) == numbers(reference)
    assert applied(folder) == applied(reference)
    assert [one.step for one in resumed.checkpoints] == [one.step for one in unstopped.checkpoints]


def test_two_runs_of_one_spec_are_bit_identical(unbroken: tuple[Path, float], digests: Digests) -> None:
    """Never stopped, a run repeats bit for bit: the same weights, numbers and order."""
    folder, _ = unbroken
    same(folder.parent / "second", folder, digests, digests)
    assert [record["step"] for record in applied(folder)] == list(range(1, 25))
    assert (
        RunResult.open(folder).training_fingerprint
        == RunResult.open(folder.parent / "second").training_fingerprint
    )


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
    with contextlib.suppress(ProcessLookupError):  # it had ended: starting again must change nothing
        os.kill(pid, signal.SIGKILL)
    forge.wait(pid)
    forge.wait(forge.start(run, rows, COUNT, folder, engine))
    same(folder, reference, digests, digests)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["HELD", "SILENT"])
def test_killed_in_the_middle_of_a_checkpoint_it_ends_bit_identical(
    kind: str,
    run: Run,
    rows: Path,
    forge: Any,
    engine: LocalEngine,
    wires: Any,
    digests: Digests,
    unbroken: tuple[Path, float],
    tmp_path: Path,
) -> None:
    """SIGKILL while a save is on its way, or done and not yet known of: the same bits as never stopped."""
    reference, _ = unbroken
    folder = tmp_path / "run"
    aimed = wires.Aimed("/save_weights", getattr(wires, kind))
    with wires.Wire(engine.base_url, schedule=aimed) as wire:
        pid = forge.start(run, rows, COUNT, folder, engine, url=wire.url)
        assert aimed.hit.wait(60)
        while not reached(folder, 4):  # the steps before it come through
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        forge.wait(pid)
    assert not (folder / "checkpoints.jsonl").exists()
    forge.wait(forge.start(run, rows, COUNT, folder, engine))
    same(folder, reference, digests, digests)


@pytest.mark.slow
def test_the_engine_killed_too_it_ends_bit_identical(
    run: Run, rows: Path, forge: Any, digests: Digests, unbroken: tuple[Path, float], tmp_path: Path
) -> None:
    """The engine, or engine and client, killed in the middle: the run says so, and resumes bit for bit."""
    reference, _ = unbroken
    with LocalEngine(root=tmp_path / "engine") as engine:
        for kill, both in enumerate((False, True)):
            folder = tmp_path / f"run-{kill}"
            pid = forge.start(run, rows, COUNT, folder, engine)
            while not reached(folder, random.Random(kill).randint(2, 12)):
                time.sleep(0.002)
            assert engine._process is not None
            os.kill(engine._process.pid, signal.SIGKILL)
            if both and Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
            forge.wait(pid)
            if not both:
                assert "goes on from the last checkpoint" in (tmp_path / f"run-{kill}.failed").read_text()
            forge.wait(forge.start(run, rows, COUNT, folder, engine))
            same(folder, reference, lambda path: saved_files(engine.root, path), digests)
