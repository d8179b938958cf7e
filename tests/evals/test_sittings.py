"""A benchmark that was interrupted goes on where it stopped, and asks nothing twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.evals.made import learn, made
from tinker_officer import Conversations, EvalSuite
from tinker_officer._journal import Journal
from tinker_officer.evals.sittings import Ended, Sittings


if TYPE_CHECKING:
    from inspect_ai import Task

    from tinker_officer import LocalEngine


ROWS = [{"input": f"say {i}", "output": f"it is {i}"} for i in range(2)]
CHOICES = [{"input": f"Which is {i}?", "choices": ["0", "1", "2"], "target": i} for i in range(3)]


class Exam:
    """A task that notes which items it is asked, and may break on some of them."""

    def __init__(self, n: int = 6, **options: Any) -> None:
        self.asked: list[str] = []
        self.breaks: set[str] = set()
        self.slow: set[str] = set()
        self.n, self.options = n, options

    def task(self) -> Task:
        from inspect_ai.solver import generate, solver

        @solver
        def noting():
            async def solve(state, generate):
                self.asked.append(str(state.sample_id))
                if state.sample_id in self.slow:
                    await asyncio.sleep(3600)
                if state.sample_id in self.breaks:
                    raise RuntimeError("the line is down")
                return state

            return solve

        return made(self.n, solver=[noting(), generate()], **self.options)

    def suite(self, **options: Any) -> EvalSuite:
        return EvalSuite().task(self.task(), **{"max_tokens": 2} | options)


def test_what_is_known_is_not_asked_again(engine: LocalEngine, tiny_model: Path, tmp_path: Path) -> None:
    """The second time nothing is asked and the card is the same; more items, and only those are asked."""
    exam = Exam()
    first = exam.suite(limit=4).evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["made"]
    assert len(exam.asked) == 4
    again = exam.suite(limit=4).evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["made"]
    assert len(exam.asked) == 4
    assert (again.items, again.settings) == (first.items, first.settings)
    more = exam.suite().evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["made"]
    assert sorted(exam.asked) == [f"q{i}" for i in range(6)]
    assert more.n == 6
    exam.suite(max_tokens=3).evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)
    assert len(exam.asked) == 12  # asked in another way: another exam


def test_errors_are_asked_again_and_the_rest_is_not(
    engine: LocalEngine, tiny_model: Path, tmp_path: Path
) -> None:
    """A sample that failed was never answered."""
    exam = Exam()
    exam.breaks = {"q1", "q4"}
    broken = exam.suite().evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["made"]
    assert broken.statuses()["errored"] == 2
    exam.asked.clear()
    exam.breaks = set()
    whole = exam.suite().evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["made"]
    assert sorted(exam.asked) == ["q1", "q4"]
    assert (whole.errors, whole.value, whole.n) == (0, 0.5, 6)


def ended(folder: Path) -> int:
    """How many samples have been kept."""
    return sum('"id"' in line for path in folder.glob("items/*") for line in path.open())


def test_an_interrupted_evaluation_goes_on(engine: LocalEngine, tiny_model: Path, tmp_path: Path) -> None:
    """Cancelled half way, as by Ctrl-C: what had ended is kept, only the rest is asked."""
    exam = Exam()
    exam.slow = {"q2", "q5"}

    async def cancelled() -> None:
        work = asyncio.create_task(
            exam.suite().evaluate_async(str(tiny_model), on=engine, at=tmp_path, progress=False)
        )
        while ended(tmp_path) < 4:  # noqa: ASYNC110 - what is waited for is on the disk
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(cancelled())
    exam.asked.clear()
    exam.slow = set()
    result = exam.suite().evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["made"]
    assert sorted(exam.asked) == ["q2", "q5"]
    assert (result.value, result.n, result.errors) == (0.5, 6, 0)


def test_ctrl_c_half_way_is_an_interrupt_and_goes_on(
    engine: LocalEngine, tiny_model: Path, tmp_path: Path
) -> None:
    """A real SIGINT, in a plain script's call: it ends at once, and the next call asks only the rest."""
    exam = Exam()
    exam.slow = {"q2", "q5"}

    def press() -> None:
        while ended(tmp_path) < 4:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        exam.suite().evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)
    assert not list(tmp_path.glob("scorecard-*"))
    exam.asked.clear()
    exam.slow = set()
    result = exam.suite().evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["made"]
    assert sorted(exam.asked) == ["q2", "q5"]
    assert (result.value, result.n, result.errors) == (0.5, 6, 0)


_KILLED = """
import sys, tinker
from tests.evals.test_sittings import Exam
url, token, model, folder = sys.argv[1:]
exam = Exam()
exam.slow = {"q2", "q5"}
exam.suite().evaluate(model, on=tinker.ServiceClient(base_url=url, api_key=token), at=folder, progress=False)
"""


def test_a_killed_process_loses_only_what_was_under_way(
    engine: LocalEngine, tiny_model: Path, tmp_path: Path
) -> None:
    """SIGKILL while two of six samples are asked: another process asks these two, and nothing else."""
    said = [engine.base_url, engine.token, str(tiny_model), str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-c", _KILLED, *said])
    try:
        while ended(tmp_path) < 4:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    exam = Exam()
    result = exam.suite().evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["made"]
    assert sorted(exam.asked) == ["q2", "q5"]
    assert (result.value, result.n, result.errors) == (0.5, 6, 0)


def test_missing_epochs_alone_are_sat(engine: LocalEngine, tiny_model: Path, tmp_path: Path) -> None:
    """Of three sittings an item one may be known and two not: two are sat, of that item."""
    exam = Exam(3, epochs=3)
    whole = exam.suite().evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["made"]
    (journal,) = tmp_path.glob("items/*.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    drop = [number for number, line in enumerate(lines) if '"id":"q1"' in line][1:]
    journal.write_text("".join(line for number, line in enumerate(lines) if number not in drop))
    exam.asked.clear()
    again = exam.suite().evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["made"]
    assert Counter(exam.asked) == {"q1": 2}
    assert (again.items, again.settings) == (whole.items, whole.settings)


def test_a_path_that_was_saved_over_is_asked_again(
    engine: LocalEngine, tiny_model: Path, tmp_path: Path
) -> None:
    """Tinker lets a name be used twice: the path is the same, the weights are not, and no layer is fooled."""
    client = engine.service_client().create_lora_training_client(str(tiny_model), rank=8, seed=0).result()
    path = client.save_weights_for_sampler(name="same").result().path
    exam, graded = Exam(2), []

    def right(answer: str, _target: str) -> bool:
        graded.append(answer)
        return True

    suite = exam.suite().nll(Conversations.from_list(ROWS)).product("mine", ROWS, grader=right, max_tokens=4)
    suite = suite.calibration("sure", CHOICES)
    first = suite.evaluate(path, on=engine, at=tmp_path, progress=False)
    assert (len(exam.asked), len(graded)) == (2, 2)
    again = suite.evaluate(path, on=engine, at=tmp_path, progress=False)
    assert (len(exam.asked), len(graded)) == (2, 2)
    assert again.metrics() == first.metrics()
    learn(client, 2)
    assert client.save_weights_for_sampler(name="same").result().path == path
    other = suite.evaluate(path, on=engine, at=tmp_path, progress=False)
    assert (len(exam.asked), len(graded)) == (4, 4)
    fresh = suite.evaluate(path, on=engine, progress=False)
    for name in ("held_out", "sure"):
        assert abs(other[name].value - first[name].value) > 0.01
        assert other[name].value == pytest.approx(fresh[name].value, abs=1e-4)


def test_a_torn_line_and_a_changed_question_do_not_count(tmp_path: Path) -> None:
    """What a killed process left half-written is asked again, and so is a question that reads otherwise."""
    shown = {"a": "1", "b": "2", "c": "3"}
    file = tmp_path / "exam.jsonl"
    kept = Sittings(Journal(file), shown)
    for name, digest in shown.items():
        kept.add(Ended(name, digest, scores={"s": "C"}), {"warm"})
    text = file.read_text()
    assert json.loads(text.splitlines()[0]) == {"used": "warm"}
    file.write_text(text[:-10])
    again = Sittings(Journal(file), shown | {"a": "other"})
    assert again.missing() == {"a": 1, "c": 1}
    assert again.used == {"warm"}
