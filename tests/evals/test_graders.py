"""Graders: known answers graded right, and each grader identified as a value."""

from __future__ import annotations

from typing import Any

import pytest

from tinker_officer.errors import EvalError
from tinker_officer.evals import graders
from tinker_officer.evals.calls import Call
from tinker_officer.evals.graders import Answer, Grader, as_grader, from_dict


@pytest.mark.parametrize(
    ("grader", "answer", "target", "score"),
    [
        (graders.exact, " yes \n", "yes", 1),
        (graders.exact, "Yes", "yes", 0),
        (graders.exact.options(ignore_case=True), "Yes", "yes", 1),
        (graders.includes, "It is ON its\nway.", "on its way", 1),
        (graders.includes, "blue and red", ["red", "blue"], 1),
        (graders.includes, "blue", ["red", "blue"], 0),
        (graders.regex, "order 1234", r"order \d{4}", 1),
        (graders.regex, "order 12", r"order \d{4}", 0),
        (graders.numeric, "so 3 + 4 = 7.", 7, 1),
        (graders.numeric, "1,234", "the answer is 1234", 1),
        (graders.numeric, "none", 7, 0),
        (graders.numeric.options(tolerance=0.5), "7.4", "7", 1),
        (graders.numeric, "between 3-4", 4, 1),
        (graders.numeric, "it fell to -4.", -4, 1),
        (graders.numeric, "1,2,3", 3, 1),
        (graders.numeric, "$1,234,567.50", 1234567.5, 1),
        (graders.exact, "true", True, 1),
        (graders.exact, '{"a": 1}', {"a": 1}, 1),
        (graders.json_schema, 'So: {"a": 1}', {"type": "object", "required": ["a"]}, 1),
        (graders.json_schema, '{"b": 1}', '{"type": "object", "required": ["a"]}', 0),
        (graders.json_schema, "no json", {"type": "object"}, 0),
        (graders.json_schema.options(schema={"type": "array"}), "[1]", "ignored", 1),
        (graders.json_match, 'Here: {"a": [1, 2.0]}', {"a": [1.0, 2]}, 1),
        (graders.json_match, '{"a": 1}', {"a": True}, 0),
        (graders.json_match, "no json", {"a": True}, 0),
        (graders.json_fields, '{"a": 1, "b": 2, "c": 9}', {"a": 1, "b": 3}, 0.5),
        (graders.json_fields, "[1]", {"a": 1}, 0),
        (graders.function_call, "area(base=3)", "area(base=3)", 1),
        (graders.function_call, "area(base=3)", [{"area": {"base": [3, 4]}}], 1),
        (graders.function_call, "area(base=3)", '[{"area": {"base": [4]}}]', 0),
    ],
)
def test_known_answers(grader: Grader, answer: str, target: Any, score: float) -> None:
    """Each grader gives the score that a person would."""
    assert grader(answer, target) == score


def test_native_tool_calls_are_graded_without_their_text() -> None:
    """Calls that the renderer recognised count, though the text is empty."""
    answer = Answer("", calls=(Call("area", {"base": 3}),))
    assert graders.function_call(answer, "area(base=3)") == 1


def test_a_target_that_cannot_be_graded_raises() -> None:
    """A mistake in the case is an error of that case, never a zero in silence."""
    with pytest.raises(ValueError, match="no number"):
        graders.numeric("7", "seven")
    with pytest.raises(ValueError, match="JSON object"):
        graders.json_fields("{}", "[]")
    for empty in ("", " ", ["red", ""]):
        with pytest.raises(ValueError, match="empty"):
            graders.includes("anything", empty)
    with pytest.raises(Exception, match="is not valid under any"):
        graders.json_schema("{}", {"type": "nonsense"})


def test_a_pattern_that_backtracks_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails its own item after its time; with `re` it would hold the whole process."""
    monkeypatch.setattr(graders, "_REGEX_TIMEOUT_S", 0.1)
    with pytest.raises(TimeoutError):
        graders.regex("a" * 40 + "!", r"(a|a)+$")


def half(answer: str, target: str) -> float:
    return 0.5 if answer == target else 0.0


def long_enough(answer: Answer, _target: str) -> bool:
    return answer.tokens > 3


def test_a_function_becomes_a_grader_identified_by_its_source() -> None:
    """Its name says where it lives, its version changes with its source, and it survives JSON."""
    grader = as_grader(half)
    assert grader("a", "a") == 0.5
    assert grader.name.endswith(":half")
    assert grader.version != as_grader(long_enough).version
    assert as_grader(long_enough)(Answer("x", tokens=4), "") == 1


@pytest.mark.parametrize("score", [2, -1, float("nan"), None, "1"])
def test_a_function_that_returns_no_score_raises(score: Any) -> None:
    """Only a number from 0 to 1 is a score."""
    with pytest.raises(ValueError, match="not a number from 0 to 1"):
        as_grader(lambda _answer, _target: score)("a", "b")


def test_built_in_graders_survive_json_with_their_options() -> None:
    """A grader rebuilt from its record is equal to the first."""
    grader = graders.numeric.options(tolerance=0.01)
    assert from_dict(grader.to_dict()) == grader
    assert from_dict(grader.to_dict())("1.005", "1") == 1


def test_an_importable_function_is_rebuilt_and_a_changed_one_refused() -> None:
    """A record names the module and the version; another version is another grader."""
    import colorsys  # any module with a function written in Python

    record = as_grader(colorsys.rgb_to_hsv).to_dict()
    assert from_dict(record) == as_grader(colorsys.rgb_to_hsv)
    with pytest.raises(EvalError, match="cannot be rebuilt"):
        from_dict({**record, "version": "000"})


@pytest.mark.parametrize(
    "call",
    [
        lambda: graders.exact.options(tolerance=1),
        lambda: graders.json_match.options(x=1),
        lambda: as_grader(3),  # the mistake under test
        lambda: from_dict({"name": "nothing", "version": "1"}),
    ],
)
def test_mistakes_are_explained(call) -> None:
    """Each has the four parts."""
    with pytest.raises(EvalError, match=r"(?s)got:.*need:.*fix:"):
        call()
