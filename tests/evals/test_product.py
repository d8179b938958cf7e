"""Layer 3 through the real SDK: every case accounted for, whatever happens to it."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tinker_officer import Conversations, EvalSuite, Scorecard, graders
from tinker_officer.errors import DataError, EvalError


if TYPE_CHECKING:
    from tinker_officer import LocalEngine

CASES = [{"input": f"say {i}", "output": str(i), "id": f"case-{i}"} for i in range(8)]


def always(_answer: str, _target: str) -> bool:
    return True


def broken_on_three(_answer: str, target: str) -> bool:
    if target == "3":
        raise RuntimeError("no three")
    return True


def broken(_answer: str, _target: str) -> bool:
    raise RuntimeError("never")


async def later(_answer: str, target: str) -> float:
    await asyncio.sleep(0)
    if target == "3":
        raise RuntimeError("no three")
    return 0.5


def exits(_answer: str, target: str) -> bool:
    if target == "3":
        raise SystemExit(1)
    return True


def hangs_on_three(_answer: str, target: str) -> bool:
    if target == "3":
        threading.Event().wait(60)
    return True


def ask(grader, engine: LocalEngine, model: Path | str, **options):
    suite = EvalSuite().product("mine", CASES, grader=grader, max_tokens=4, **options)
    return suite.evaluate(str(model), on=engine, progress=False)


def test_every_case_is_asked_and_graded(engine: LocalEngine, tiny_model: Path) -> None:
    """Eight cases, eight scores, in the order of their ids, with what was used recorded."""
    card = ask(always, engine, tiny_model)
    result = card["mine"]
    assert (result.value, result.n, result.binary, result.errors) == (1.0, 8, True, 0)
    assert [item.id for item in result.items] == sorted(case["id"] for case in CASES)
    assert result.settings["sampling"] == {"max_tokens": 4, "temperature": 0.0, "top_p": 1.0, "seed": 0}
    assert all(0 < item.tokens <= 4 for item in result.items)


def test_the_same_case_gets_the_same_answer_twice(engine: LocalEngine, tiny_model: Path) -> None:
    """At temperature 0 two evaluations agree item by item, and their difference is not clear."""
    seen: list[list[str]] = [[], []]
    for answers in seen:

        def note(answer: str, target: str, into: list[str] = answers) -> bool:
            into.append(f"{target}: {answer}")
            return True

        ask(note, engine, tiny_model)
    assert sorted(seen[0]) == sorted(seen[1])
    first, second = (ask(always, engine, tiny_model) for _ in range(2))
    assert first.compare(second)["mine"].verdict == "no clear difference"


def test_a_grader_that_raises_costs_its_own_item_only(engine: LocalEngine, tiny_model: Path) -> None:
    """The item counts as 0, stays in the denominator, and says why."""
    result = ask(broken_on_three, engine, tiny_model)["mine"]
    assert result.value == pytest.approx(7 / 8)
    assert result.errors == 1
    (item,) = [item for item in result.items if item.error]
    assert item.id == "case-3"
    assert "no three" in item.error
    assert "1 error" in result.notes()


def test_a_coroutine_grades_and_fails_its_own_item_only(engine: LocalEngine, tiny_model: Path) -> None:
    """Its half points count, and its error is that of one item."""
    result = ask(later, engine, tiny_model)["mine"]
    assert result.value == pytest.approx(7 * 0.5 / 8)
    assert result.statuses() == {"completed": 7, "errored": 1, "unscored": 0, "cancelled": 0}


def test_a_grader_that_exits_or_hangs_costs_its_own_item_only(engine: LocalEngine, tiny_model: Path) -> None:
    """`SystemExit` does not end the program, and a function without end is left behind after its time."""
    assert ask(exits, engine, tiny_model)["mine"].value == pytest.approx(7 / 8)
    result = ask(hangs_on_three, engine, tiny_model, timeout_s=2.0)["mine"]
    (item,) = [item for item in result.items if item.error]
    assert (item.id, item.error) == ("case-3", "the grader took longer than 2 s")


def test_a_limit_takes_the_same_cases_for_every_model(engine: LocalEngine, tiny_model: Path) -> None:
    """Three of eight, by a hash of their ids: neither the first nor a random choice."""
    chosen = [{item.id for item in ask(always, engine, tiny_model, limit=3)["mine"].items} for _ in range(2)]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 3


def test_an_interrupted_evaluation_goes_on_without_asking_twice(
    engine: LocalEngine, tiny_model: Path, tmp_path: Path
) -> None:
    """What was graded before the stop is not graded again; what failed is, and another grader asks afresh."""
    asked: list[str] = []

    def counted(_answer: str, target: str) -> bool:
        asked.append(target)
        if target == "3" and len(asked) < 9:
            raise RuntimeError("the first time")
        return True

    suite = EvalSuite().product("mine", CASES, grader=counted, max_tokens=4)
    first = suite.evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["mine"]
    assert (first.errors, len(asked)) == (1, 8)
    (journal,) = (tmp_path / "items").glob("mine-*.jsonl")
    with journal.open("a") as file:
        file.write('{"id": "torn')
    again = suite.evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["mine"]
    assert asked[8:] == ["3"]
    assert (again.value, again.errors) == (1.0, 0)
    ask(always, engine, tiny_model)
    other = EvalSuite().product("mine", CASES, grader=counted, max_tokens=3)
    other.evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)
    assert len(asked) == 9 + 8


def test_a_comparison_stops_once_it_is_decided(engine: LocalEngine, tiny_model: Path) -> None:
    """All wrong before, all right now: a few pairs decide, the rest stand as cancelled, and it says so."""
    rows = [{"input": f"say {i}", "output": str(i), "id": f"{i:03d}"} for i in range(200)]
    state = {"right": False}

    def graded(_answer: str, _target: str) -> bool:
        return state["right"]

    suite = EvalSuite().product("mine", rows, grader=graded, max_tokens=1)
    before = suite.evaluate(str(tiny_model), on=engine, progress=False)
    state["right"] = True
    after = suite.evaluate(str(tiny_model), on=engine, progress=False, against=before)
    result = after["mine"]
    counts = result.statuses()
    assert counts["completed"] + counts["cancelled"] == 200
    assert counts["cancelled"] >= 100
    assert result.value == 1.0
    row = before.compare(after)["mine"]
    assert (row.verdict, row.stopped, row.estimate.n < 20) == ("better", True, True)
    assert "its interval holds at any look" in before.compare(after).explain()
    assert Scorecard.from_json(after.to_json()) == after
    with pytest.raises(EvalError, match="stopped before all of its items were asked"):
        after.compare(before)
    with pytest.raises(EvalError, match="whole card"):
        suite.evaluate(str(tiny_model), on=engine, progress=False, against=after)
    with pytest.raises(EvalError, match="whole card"):
        suite.only("mine").evaluate(
            str(tiny_model),
            on=engine,
            progress=False,
            against=EvalSuite()
            .product("mine", rows[:100], grader=graded, max_tokens=1)
            .evaluate(str(tiny_model), on=engine, progress=False),
        )


def test_all_samples_failing_is_an_error_and_not_a_zero(engine: LocalEngine, tiny_model: Path) -> None:
    """Nothing was measured: there is no card."""
    with pytest.raises(EvalError, match=r"every sample of 'mine' failed[\s\S]*8 of 8[\s\S]*never"):
        ask(broken, engine, tiny_model)


def test_a_slow_function_does_not_hold_up_the_others(engine: LocalEngine, tiny_model: Path) -> None:
    """Eight gradings, none of which ends before all have begun."""
    together = threading.Barrier(len(CASES), timeout=60)

    def waits(_answer: str, _target: str) -> bool:
        together.wait()
        return True

    assert ask(waits, engine, tiny_model)["mine"].value == 1


def test_an_answer_cut_off_says_so(engine: LocalEngine, tiny_model: Path) -> None:
    """Truncation is counted on the card, never taken for an answer that ended."""
    suite = EvalSuite().product("mine", CASES, grader=always, max_tokens=1)
    result = suite.evaluate(str(tiny_model), on=engine, progress=False)["mine"]
    assert result.truncated >= 7
    assert "cut off" in result.notes()


def test_a_prompt_longer_than_the_context_fails_its_own_case(engine: LocalEngine, tiny_model: Path) -> None:
    """The others are answered; the long one is an error that is counted."""
    cases = [*CASES, {"input": "word " * 5000, "output": "x", "id": "long"}]
    suite = EvalSuite().product("mine", cases, grader=always, max_tokens=2)
    result = suite.evaluate(str(tiny_model), on=engine, progress=False)["mine"]
    assert [item.id for item in result.items if item.error] == ["long"]
    assert result.value == pytest.approx(8 / 9)


def test_tools_reach_the_prompt_in_both_ways(engine: LocalEngine, tiny_model: Path) -> None:
    """A case with tools runs natively and as text, and the settings tell the two apart."""
    tools = [
        {"name": "f", "description": "Does it.", "parameters": {"properties": {"x": {"type": "integer"}}}}
    ]
    cases = [{"input": "call f", "output": "f(x=1)", "tools": tools}]
    used = []
    for how in ("auto", "text"):
        suite = EvalSuite().product("mine", cases, grader=graders.function_call, max_tokens=2, tools=how)
        used.append(suite.evaluate(str(tiny_model), on=engine, progress=False)["mine"].settings["tools"])
    assert used == ["native", "text-1"]


def test_cases_may_be_a_file_or_conversations(engine: LocalEngine, tiny_model: Path, tmp_path: Path) -> None:
    """The same questions give the same item set, and pair."""
    rows = [{"input": f"say {i}", "output": str(i)} for i in range(4)]
    path = tmp_path / "eval.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    for cases in (path, Conversations.from_list(rows)):
        suite = EvalSuite().product("mine", cases, grader=always, max_tokens=2)
        assert suite.evaluate(str(tiny_model), on=engine, progress=False)["mine"].n == 4


def test_a_bad_case_file_stops_before_anything_is_sampled(
    engine: LocalEngine, tiny_model: Path, tmp_path: Path
) -> None:
    """The line is named by `check`, and by `evaluate` before it opens the target."""
    path = tmp_path / "eval.jsonl"
    path.write_text('{"input": "a", "output": "b"}\n{"input": "a"}\n')
    suite = EvalSuite().product("mine", str(path), grader=graders.includes)
    assert "eval.jsonl:2" in str(suite.check()["mine"])
    with pytest.raises(DataError, match=r"eval\.jsonl:2"):
        suite.evaluate("no such model", on=engine, progress=False)
    assert suite.product("other", CASES, grader=always).check(layers=("nll",)) == {}


def test_evaluate_works_under_a_running_loop_and_can_be_cancelled(
    engine: LocalEngine, tiny_model: Path
) -> None:
    """The sync form inside a coroutine, the async form, and a cancelled one that leaves the engine usable."""
    suite = EvalSuite().product("mine", CASES, grader=always, max_tokens=2)
    grading, cancelled = threading.Event(), threading.Event()

    def waits(_answer: str, _target: str) -> bool:
        grading.set()
        return cancelled.wait(timeout=60)

    async def notebook() -> float:
        card = suite.evaluate(str(tiny_model), on=engine, progress=False)
        other = await suite.evaluate_async(str(tiny_model), on=engine, progress=False)
        long = EvalSuite().product("mine", CASES, grader=waits, max_tokens=2)
        task = asyncio.create_task(long.evaluate_async(str(tiny_model), on=engine, progress=False))
        assert await asyncio.to_thread(grading.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled.set()
        return card["mine"].value + other["mine"].value

    assert asyncio.run(notebook()) == 2
    assert ask(always, engine, tiny_model)["mine"].value == 1
