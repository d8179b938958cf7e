"""Function calls as text: read, and held against what is allowed."""

from __future__ import annotations

import pytest

from tinker_officer.evals.calls import Call, allowed_calls, calls_match, parse_calls


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("area(base=3, height=4)", [Call("area", {"base": 3, "height": 4})]),
        ("math.hypot(x=-4.5, y=[1, 2])", [Call("math.hypot", {"x": -4.5, "y": [1, 2]})]),
        ("[a(x=1), b(y='k(')]", [Call("a", {"x": 1}), Call("b", {"y": "k("})]),
        ("a(x=1)\nb(y=2)\n", [Call("a", {"x": 1}), Call("b", {"y": 2})]),
        ("a(x=1)\nThis finds it.", [Call("a", {"x": 1})]),
        ("a(\n  x=1,\n  y='two'\n)", [Call("a", {"x": 1, "y": "two"})]),
        ("```python\na(x=true, y={'k': null})\n```\nDone.", [Call("a", {"x": True, "y": {"k": None}})]),
        ("a(x=paris, y=2 * 3)", [Call("a", {"x": "paris", "y": "2 * 3"})]),
        ('{"name": "a", "arguments": {"x": 1}}', [Call("a", {"x": 1})]),
        ('{"name": "a", "parameters": {"x": 1}}', [Call("a", {"x": 1})]),
        ('[{"function": {"name": "a", "arguments": "{\\"x\\": 1}"}}]', [Call("a", {"x": 1})]),
        ('{"a": {"x": 1}}', [Call("a", {"x": 1})]),
        (
            '<tool_call>\n{"name": "a", "arguments": {"x": 1}}\n</tool_call>\n<tool_call>{"name": "b"}',
            [Call("a", {"x": 1}), Call("b", {})],
        ),
    ],
)
def test_every_way_of_writing_a_call_is_read(text: str, calls: list[Call]) -> None:
    """Python, JSON and tagged calls, alone or several, become the same calls."""
    assert parse_calls(text) == calls


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I will call a(x=1)",
        "a(x=1",
        "a",
        "[1, 2]",
        '{"x": 1}',
        "a(x=)",
        '{"name": 3}',
        "f(g(",
        "'a(x=1)'",
    ],
)
def test_text_that_does_not_begin_with_a_call_makes_none(text: str) -> None:
    """A mention, a torn call, and data that is no call are not calls."""
    assert parse_calls(text) == []


def test_positional_arguments_get_their_names() -> None:
    """With the parameters known, a positional argument is named; without, it is numbered."""
    assert parse_calls("a(1, y=2)", parameters={"a": ["x", "y"]}) == [Call("a", {"x": 1, "y": 2})]
    assert parse_calls("a(1)") == [Call("a", {"0": 1})]


def test_a_call_reads_back_from_its_own_text() -> None:
    """Writing a call and reading it gives the same call."""
    call = Call("a.b", {"x": "it's", "y": [1, {"k": None}], "z": True})
    assert parse_calls(str(call)) == [call]


BFCL = [{"area": {"base": [3], "unit": ["cm", ""], "place": ["New York, NY"]}}]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("area(base=3, place='new york ny')", True),
        ("area(base=3.0, unit='CM', place='New York, NY')", True),
        ("area(base=4, place='New York, NY')", False),
        ("area(base=3)", False),
        ("area(base=3, place='New York, NY', colour='red')", False),
        ("area(base=True, place='New York, NY')", False),
        ("volume(base=3, place='New York, NY')", False),
        ("area(base=3, place='New York, NY')\narea(base=3, place='New York, NY')", False),
    ],
)
def test_matching_follows_bfcl(text: str, right: bool) -> None:
    """Allowed values, arguments that may be left out, and strings without regard to case and punctuation."""
    assert calls_match(parse_calls(text), allowed_calls(BFCL)) is right


def test_strict_matching_compares_strings_and_dots_exactly() -> None:
    """What BFCL forgives, strict does not."""
    allowed = allowed_calls("math.sin(unit='Degree')")
    assert calls_match(parse_calls("math_sin(unit='degree')"), allowed)
    assert not calls_match(parse_calls("math_sin(unit='Degree')"), allowed, strict=True)
    assert not calls_match(parse_calls("math.sin(unit='degree')"), allowed, strict=True)
    assert calls_match(parse_calls("math.sin(unit='Degree')"), allowed, strict=True)


def test_parallel_calls_match_in_any_order_but_each_once() -> None:
    """Two calls may come in either order; the same one twice is not both."""
    allowed = allowed_calls(["a(x=1)", "a(x=2)"])
    assert calls_match(parse_calls("[a(x=2), a(x=1)]"), allowed)
    assert not calls_match(parse_calls("[a(x=1), a(x=1)]"), allowed)


def test_nested_values_may_be_alternatives() -> None:
    """A dictionary argument whose values are lists of what is allowed, as BFCL writes it."""
    allowed = [{"find": {"where": [{"city": ["Paris", "Lyon"], "zip": ["", 75]}]}}]
    assert calls_match(parse_calls("find(where={'city': 'lyon'})"), allowed)
    assert not calls_match(parse_calls("find(where={'city': 'Nice'})"), allowed)


@pytest.mark.parametrize("target", ["no call", 3, {"a": 1, "b": 2}, [None]])
def test_a_target_that_is_no_call_is_refused(target: object) -> None:
    """The mistake is found in the target, not counted against the model."""
    with pytest.raises(ValueError, match="not a function call"):
        allowed_calls(target)
