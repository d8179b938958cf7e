"""Inspect leaves out the samples that a decided comparison does not need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, Target, accuracy, scorer
from inspect_ai.solver import TaskState

from tinker_officer import EvalSuite


if TYPE_CHECKING:
    from tinker_officer import LocalEngine

RIGHT = {"now": False}


@scorer(metrics=[accuracy()])
def switched():
    async def score(_state: TaskState, _target: Target) -> Score:
        return Score(value=RIGHT["now"])

    return score


def test_a_benchmark_stops_once_it_is_decided(engine: LocalEngine, tiny_model: Path) -> None:
    """All wrong before, all right now: few of 300 samples are sat, and every one is accounted for."""
    samples = [Sample(input=f"say {i}", target="x", id=i) for i in range(300)]
    suite = EvalSuite().task(Task(dataset=samples, scorer=switched()), name="own", max_tokens=1)
    RIGHT["now"] = False
    before = suite.evaluate(str(tiny_model), on=engine, progress=False)
    RIGHT["now"] = True
    after = suite.evaluate(str(tiny_model), on=engine, progress=False, against=before)
    counts = after["own"].statuses()
    assert counts["completed"] + counts["cancelled"] == 300
    assert counts["cancelled"] >= 150
    assert after["own"].value == 1.0
    row = before.compare(after)["own"]
    assert (row.verdict, row.stopped) == ("better", True)
