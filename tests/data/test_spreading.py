"""Counting on Ray: the same rows as on one machine, whatever happens to workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tinker_officer import Conversations
from tinker_officer.data import counting, render
from tinker_officer.data.spreading import count_on
from tinker_officer.errors import DataError


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ray():
    """A cluster of this machine alone."""
    module = pytest.importorskip("ray")
    module.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield module
    module.shutdown()


@pytest.fixture
def talk(write):
    """Two thousand conversations in a file, many of them copies."""
    path = write([{"input": f"question {i % 700}", "output": "answer " * (i % 7 + 1)} for i in range(2_000)])
    return Conversations.from_jsonl(path)


def kill_one(killed: list[int], until: threading.Event) -> None:
    """Kill the first worker that counts a part."""
    while not until.is_set() and not killed:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                said = entry.read_bytes()
            except OSError:
                continue
            if said.startswith(b"ray::_part"):
                os.kill(int(entry.parent.name), signal.SIGKILL)
                killed.append(int(entry.parent.name))
                break
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="workers are found through /proc")
def test_a_killed_worker_changes_nothing(ray, talk, tiny_model):
    """With a worker killed at work, the rows are those that one machine counts."""
    renderer = render.renderer_for(str(tiny_model))
    expected = counting.count(talk, renderer, limit=30, train_on="last")
    killed: list[int] = []
    done = threading.Event()
    killer = threading.Thread(target=kill_one, args=(killed, done))
    killer.start()
    try:
        rows = count_on(
            ray, talk, str(tiny_model), "chatml", limit=30, train_on="last", part=300, progress=False
        )
    finally:
        done.set()
        killer.join()
    assert killed
    assert np.array_equal(rows, expected)


def test_measure_takes_ray_and_keeps_the_counts(ray, talk, tiny_model, tmp_path, monkeypatch):
    """`measure(..., on=ray)` gives the counts of one machine."""
    counts = talk.measure(str(tiny_model), max_length=29, on=ray, progress=False)
    monkeypatch.setenv("TINKER_OFFICER_HOME", str(tmp_path / "other home"))
    assert talk.measure(str(tiny_model), max_length=29) == counts
    assert counts.duplicates > 0


def test_a_damaged_row_is_our_error_on_ray_too(ray, talk, tiny_model):
    """What a task raises arrives as the error it is, not wrapped in Ray's."""
    path = Path(talk.source)
    path.write_bytes(path.read_bytes().replace(b'"question 650"', b'"Question 650"'))
    with pytest.raises(DataError, match=r"tickets\.jsonl:651: other content"):
        count_on(ray, talk, str(tiny_model), "chatml", limit=None, train_on="last", progress=False)


def test_something_else_than_ray_is_refused(talk, tiny_model):
    """Only Ray has Ray's verbs."""
    with pytest.raises(DataError, match="over Ray only"):
        talk.measure(str(tiny_model), max_length=28, on="ray://head:10001")
