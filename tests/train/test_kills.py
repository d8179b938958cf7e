"""SIGKILL at a random moment of every method: started again, a run ends as if it had never stopped."""

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

from tests.train.records import applied, numbers
from tinker_officer import LocalEngine, RunResult
from tinker_officer.testing import tiny_model as make_model


METHODS = ("sft", "guarded", "dpo", "rl", "distill")
Digests = Callable[[str], dict[str, str]]


class Bench:
    """Runs of each method that nobody stopped, to hold killed ones against."""

    def __init__(self, forge: Any, engine: LocalEngine, digests: Digests, folder: Path, **order: str) -> None:
        self.forge, self.engine, self.digests, self.folder, self.order = forge, engine, digests, folder, order
        self._whole: dict[str, tuple[Path, float]] = {}

    def train(self, method: str, folder: Path) -> int:
        """Start a run of `method`; return its process."""
        return int(self.forge.order(folder, self.engine, kind=method, **self.order))

    def whole(self, method: str) -> tuple[Path, float]:
        """Return the folder of a run that was never stopped, and how long it takes."""
        if method not in self._whole:
            folder = self.folder / method
            self.forge.wait(self.train(method, folder), timeout_s=600)
            began = time.monotonic()
            self.forge.wait(self.train(method, self.folder / f"{method}-again"), timeout_s=600)
            self._whole[method] = folder, time.monotonic() - began
            self.same(method, self.folder / f"{method}-again")
            guarded = '"guard":"roll_back"' in (folder / "ledger.jsonl").read_text()
            assert guarded == (method == "guarded")
        return self._whole[method]

    def same(self, method: str, folder: Path) -> None:
        """Assert that a run ended with the bits, numbers and order of the one that was never stopped."""
        reference = self.folder / method
        failed = Path(f"{folder}.failed")
        assert not failed.exists(), failed.read_text()
        ended, expected = RunResult.open(folder), RunResult.open(reference)
        assert ended.stopped == expected.stopped == "completed"
        assert self.digests(ended.final.state_path) == self.digests(expected.final.state_path)
        assert numbers(folder) == numbers(reference)
        assert applied(folder) == applied(reference)

    def kill(self, method: str, seed: int, folder: Path) -> None:
        """Kill a run of `method` at a moment that follows from `seed`, up to three times, then let it end."""
        _, took_s = self.whole(method)
        moments = random.Random(f"{method}-{seed}")
        for _ in range(moments.randint(1, 3)):
            pid = self.train(method, folder)
            time.sleep(moments.uniform(0.0, took_s))
            with contextlib.suppress(ProcessLookupError):  # it had ended: starting again must change nothing
                os.kill(pid, signal.SIGKILL)
            self.forge.wait(pid)
        self.forge.wait(self.train(method, folder), timeout_s=600)
        self.same(method, folder)


@pytest.fixture(scope="module")
def bench(
    forge: Any,
    engine: LocalEngine,
    digests: Digests,
    rows: Path,
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bench:
    """Runs to be killed; the teacher is a model with other weights."""
    folder = tmp_path_factory.mktemp("whole")
    teacher = make_model(folder / "teacher", seed=1)
    return Bench(forge, engine, digests, folder, rows=str(rows), model=str(tiny_model), teacher=str(teacher))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("method", METHODS[1:])
def test_killed_at_a_random_moment_any_method_ends_bit_identical(
    method: str, seed: int, bench: Bench, tmp_path: Path
) -> None:
    """SIGKILL, once to three times: weights, optimizer, metrics and order are those of an unbroken run."""
    bench.kill(method, seed, tmp_path / "run")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 140))
@pytest.mark.parametrize("method", METHODS)
def test_two_hundred_kills_change_nothing(method: str, seed: int, bench: Bench, tmp_path: Path) -> None:
    """Forty more kills a method, mid-checkpoint among them."""
    bench.kill(method, seed, tmp_path / "run")
