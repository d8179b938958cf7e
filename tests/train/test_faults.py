"""Faults on the wire: refusals, resets, lost, late and repeated answers, a silent server.

However the wire behaves, a run ends with the same bits as without it, or stops with an error that says how
to go on, and then ends with them: no optimizer step is applied twice, and none is lost.
"""

from __future__ import annotations

import logging
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tinker

from tests.train.records import applied, numbers, saved_files
from tinker_officer import LocalEngine, Run, RunResult


Digests = Callable[[str], dict[str, str]]
STEPS = 8


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Run]) -> Run:
    """Eight steps, a checkpoint every three: some sixty requests."""
    return make_run(count=16, epochs=2).checkpoint(every=3)


@pytest.fixture(scope="module")
def whole(run: Run, engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The result of the run on a wire without faults."""
    return run.run(on=engine, at=tmp_path_factory.mktemp("whole") / "run", progress=False)


class Weather:
    """Runs under one schedule of faults after the other, and compares what comes of it."""

    def __init__(self, run: Run, whole: RunResult, engine: LocalEngine, wires: Any, digests: Digests) -> None:
        self.run, self.whole, self.engine, self.wires, self.digests = run, whole, engine, wires, digests
        self.bits = digests(whole.final.state_path)
        self.faults: Counter[str] = Counter()
        self.stopped: list[str] = []

    def survive(self, schedule: Any, folder: Path) -> None:
        """Train under a schedule; where that stops, go on without faults; end with the same bits."""
        with self.wires.Wire(self.engine.base_url) as wire:
            service = tinker.ServiceClient(base_url=wire.url, api_key=self.engine.token)
            wire.schedule = schedule
            try:
                result = self.run.run(on=service, at=folder, progress=False)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must say how to go on
                said = "\n".join([str(error), *getattr(error, "__notes__", ())])
                assert "goes on from the last checkpoint" in said, said
                self.stopped.append(said)
                result = self.run.run(on=self.engine, at=folder, progress=False)
            finally:
                service.holder.close()
                self.faults.update(schedule.done)
        assert result.stopped == "completed"
        assert self.digests(result.final.state_path) == self.bits
        assert numbers(folder) == numbers(self.whole.folder)
        assert applied(folder) == applied(self.whole.folder)
        assert [one["step"] for one in applied(folder)] == list(range(1, STEPS + 1))

    def through(self, seeds: range, folder: Path, *, at_once: int = 6) -> None:
        """Survive one schedule a seed, a few at a time: most of the time passes in the SDK's back-off."""
        with ThreadPoolExecutor(at_once) as pool:
            jobs = [
                pool.submit(self.survive, self.wires.Schedule(seed), folder / f"seed-{seed}")
                for seed in seeds
            ]
            for seed, job in zip(seeds, jobs, strict=True):
                try:
                    job.result(timeout=600)  # a hang is a failure too
                except Exception as error:
                    error.add_note(f"under the schedule of seed {seed}")
                    raise


@pytest.fixture
def weather(run: Run, whole: RunResult, engine: LocalEngine, wires: Any, digests: Digests) -> Weather:
    """Runs under schedules of faults."""
    return Weather(run, whole, engine, wires, digests)


@pytest.mark.slow
def test_twenty_bad_wires_change_nothing(weather: Weather, wires: Any, tmp_path: Path) -> None:
    """Twenty seeded schedules, with every kind of fault among them: the same bits, numbers and order."""
    weather.through(range(20), tmp_path)
    assert set(weather.faults) == set(wires.FAULTS)


@pytest.mark.soak
@pytest.mark.parametrize("hundred", range(20))
def test_two_thousand_bad_wires_change_nothing(weather: Weather, hundred: int, tmp_path: Path) -> None:
    """A hundred more seeded schedules: no optimizer step is applied twice, none is lost, no hang."""
    weather.through(range(1000 + 100 * hundred, 1100 + 100 * hundred), tmp_path)
    assert weather.faults.total() > 200


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_a_silent_server_is_reported_until_the_client_asks_again(
    seed: int, run: Run, weather: Weather, wires: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing comes for a minute: the log says what is waited for, and the run ends the same."""
    weather.run = run.pipeline(stall_warning_s=2.0)
    with caplog.at_level(logging.WARNING, logger="tinker_officer.train.waiting"):
        weather.survive(wires.Schedule(seed, rate=0.2, most=1, faults=(wires.SILENT,)), tmp_path / "run")
    waits = [record.__dict__["officer.waited_s"] for record in caplog.records]
    assert weather.faults == {wires.SILENT: 1}
    assert max(waits) > 20


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_a_restarted_server_stops_the_run_resumably(
    seed: int, run: Run, weather: Weather, tmp_path: Path
) -> None:
    """The engine is killed at a random step and comes back: the run says so, and goes on to the same bits."""
    with LocalEngine(root=tmp_path / "engine") as engine:
        live = run.start(on=engine, at=tmp_path / "run", progress=False)
        at = random.Random(seed).randint(1, STEPS - 1)
        next(step for step in live if step.index == at)
        assert engine._process is not None
        os.kill(engine._process.pid, signal.SIGKILL)
        with pytest.raises(Exception, match=r"\S") as caught:
            live.result()
        assert "goes on from the last checkpoint" in "\n".join(caught.value.__notes__)
        result = run.run(on=engine, at=tmp_path / "run", progress=False)
        assert saved_files(tmp_path / "engine", result.final.state_path) == weather.bits
    assert numbers(tmp_path / "run") == numbers(weather.whole.folder)
