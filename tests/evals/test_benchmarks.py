"""Layer 2 through the real SDK and real Inspect, each trap of silent wrong numbers as a test."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.evals.made import made, sit
from tinker_officer import EvalSuite
from tinker_officer.errors import EvalError
from tinker_officer.evals import bfcl_data, tasks


if TYPE_CHECKING:
    from tinker_officer import LocalEngine

needs_bfcl = pytest.mark.skipif(
    bfcl_data.bfcl_folder() is None, reason="the wheel bfcl-eval is not installed"
)


def test_every_sample_is_scored_and_accounted_for(engine: LocalEngine, tiny_model: Path) -> None:
    """Five samples, three right; the task's version and the settings really used are recorded."""
    result = sit(made(), engine, tiny_model)
    assert (result.value, result.n, result.errors, result.binary) == (0.6, 5, 0, True)
    assert [item.id for item in result.items] == ["q0", "q1", "q2", "q3", "q4"]
    assert all(0 < item.tokens <= 3 for item in result.items)
    assert result.settings["task_version"] == "3"
    (used,) = map(json.loads, result.settings["sampling"])
    assert (used["max_tokens"], used["temperature"]) == (3, 0.0)


def test_an_unscored_sample_stays_in_the_denominator(engine: LocalEngine, tiny_model: Path) -> None:
    """Inspect leaves it out of the mean; here it stays, with its reason."""
    from inspect_ai.scorer import Score, accuracy, scorer

    @scorer(metrics=[accuracy()])
    def even():
        async def score(state, target):
            if target.text == "0":
                return Score.unscored(reason="no grade")
            return Score(value=1)

        return score

    result = sit(made(scorer=even()), engine, tiny_model)
    assert (result.value, result.n, result.statuses()["unscored"]) == (0.8, 5, 1)
    assert "no grade" in result.items[0].error


def test_shuffled_items_without_ids_are_refused() -> None:
    """Nothing would tell which question is which."""
    from inspect_ai import Task
    from inspect_ai.dataset import MemoryDataset, Sample

    dataset = MemoryDataset([Sample(input="a"), Sample(input="b")], shuffled=True)
    missing = EvalSuite().task(Task(dataset=dataset, name="made")).check()
    assert "shuffles items that have no ids" in str(missing["made"])


def test_epochs_are_averaged_per_item(engine: LocalEngine, tiny_model: Path) -> None:
    """Three epochs of five items are five items."""
    result = sit(made(epochs=3), engine, tiny_model)
    assert result.n == 5
    assert result.settings["epochs"] == 3
    assert result.value == 0.6


def test_two_suites_at_once_wait_for_each_other(engine: LocalEngine, tiny_model: Path) -> None:
    """Inspect refuses two evaluations in one process; here the second has its turn."""

    async def both() -> list[float]:
        suite = EvalSuite().task(made(), max_tokens=2)
        cards = await asyncio.gather(
            *(suite.evaluate_async(str(tiny_model), on=engine, progress=False) for _ in range(2))
        )
        return [card["made"].value for card in cards]

    assert asyncio.run(both()) == [0.6, 0.6]


def test_the_users_task_is_left_as_it_was(engine: LocalEngine, tiny_model: Path) -> None:
    """A limit cuts a copy."""
    task = made()
    assert sit(task, engine, tiny_model, limit=2).n == 2
    assert len(task.dataset) == 5


def test_a_task_object_has_no_json() -> None:
    """And says so."""
    with pytest.raises(EvalError, match="cannot be written as JSON"):
        EvalSuite().task(made()).to_json()
    assert "is not an Inspect task" in str(EvalSuite().task(object(), name="x").check()["x"])


def test_an_unknown_task_offers_the_nearest() -> None:
    """Before anything is spent."""
    error = EvalSuite().benchmark("inspect_evals/gsm8").check()["gsm8"]
    assert "no such Inspect task" in str(error)
    assert "inspect_evals/gsm8k" in str(error)


def test_a_task_whose_data_is_missing_says_so() -> None:
    """Without a hub: which data set, and how to get it."""
    error = EvalSuite().benchmark("inspect_evals/truthfulqa", limit=2).check()["truthfulqa"]
    assert "the data set truthfulqa/truthful_qa is not in the cache of this machine" in str(error)


@needs_bfcl
def test_real_bfcl_runs_offline_from_the_wheel(engine: LocalEngine, tiny_model: Path, tmp_path: Path) -> None:
    """The unmodified task, its data seeded, its tools as text; a random model gets none right."""
    suite = EvalSuite().benchmark(
        "inspect_evals/bfcl", categories="simple_python", limit=3, max_tokens=4, tools="text"
    )
    result = suite.evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["bfcl"]
    assert (result.value, result.n, result.errors) == (0.0, 3, 0)
    assert result.settings["task_version"].startswith("8")
    assert result.settings["tools"] == "text-1"
    assert (bfcl_data.seed_bfcl() / "SOURCE").read_text().startswith("bfcl-eval ")
    assert list(tmp_path.glob("*.eval"))


@needs_bfcl
def test_canonical_bfcl_answers_are_scored_right_and_corrupted_ones_wrong() -> None:
    """Ground truth written as our text protocol, read back, and judged by inspect_evals' own scorer."""
    from inspect_evals.bfcl.score.scorer import tool_call_matches_possible_answers

    from tinker_officer.evals import text_tools
    from tinker_officer.evals.calls import Call, parse_calls
    from tinker_officer.evals.graders import Answer
    from tinker_officer.evals.inspect_messages import tool_calls

    suite = EvalSuite().benchmark("inspect_evals/bfcl", categories="simple_python", limit=60)
    sat = suite.evals[0]
    task = tasks.load_task(tasks.Sat("bfcl", sat.task, 60, dict(sat.task_args), tools="text"))
    verdicts = []
    for sample in task.dataset:
        (tool,), (truth,) = sample.metadata["tools"], sample.metadata["parsed_ground_truth"]
        ((name, allowed),) = truth.items()
        right = Call(name, {key: values[0] for key, values in allowed.items() if "" not in values})
        wrong = Call(name, {**right.arguments, "surely_not_a_parameter": 1})
        for call in (right, wrong):
            calls = parse_calls(text_tools.write_calls([call]), parameters=text_tools.parameters_of([tool]))
            (read,) = tool_calls(Answer("", tuple(calls)), {"role": "assistant", "content": ""}, 0)
            verdicts.append(tool_call_matches_possible_answers(read, truth, tool)["valid"])
    assert verdicts == [True, False] * 60


@needs_bfcl
def test_without_the_wheel_the_fix_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache and no wheel: which package to install."""
    import inspect_evals.constants

    monkeypatch.setattr(inspect_evals.constants, "INSPECT_EVALS_CACHE_PATH", tmp_path)
    monkeypatch.setattr(bfcl_data.util, "find_spec", lambda _name: None)
    with pytest.raises(EvalError, match="pip install --no-deps bfcl-eval"):
        bfcl_data.seed_bfcl()
