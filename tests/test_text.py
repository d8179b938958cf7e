"""Numbers, durations and tables read as people write them."""

from __future__ import annotations

import math

import attrs
import pytest

from tinker_officer import _fields, _text
from tinker_officer._digest import canonical, digest
from tinker_officer.errors import PlanError


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.42, "0.4 s"), (12.4, "12 s"), (185, "3 min 5 s"), (8040, "2 h 14 min"), (math.inf, "unknown")],
)
def test_a_duration_is_short_and_has_units(seconds: float, shown: str) -> None:
    """Seconds, minutes or hours, as fits."""
    assert _text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(950, "950"), (34_120, "34.1k"), (2_000_000, "2.00M"), (9.6e9, "9.60B"), (340_000, "340k")],
)
def test_a_count_has_three_digits(number: float, shown: str) -> None:
    """Thousands, millions and billions are said with their letter."""
    assert _text.count(number) == shown


@pytest.mark.parametrize(
    ("number", "digits", "rounded"),
    [(4.657e-4, 2, 4.7e-4), (0.0, 2, 0.0), (1234.0, 2, 1200.0), (math.inf, 2, math.inf)],
)
def test_significant_digits_are_kept(number: float, digits: int, rounded: float) -> None:
    """Rounding counts from the first digit that is not zero."""
    assert _text.significant(number, digits) == pytest.approx(rounded)


def test_a_table_aligns_words_left_and_numbers_right() -> None:
    """Columns line up; a ragged row is allowed; an empty table is empty text."""
    shown = _text.table([("nll", 1.5), ("accuracy", 12)], header=("eval", "value"))
    assert shown == "eval      value\n--------  -----\nnll         1.5\naccuracy     12"
    assert _text.table([("a",), ("bb", "c")]) == "a\nbb  c"
    assert _text.table([]) == ""


def test_the_nearest_names_are_offered() -> None:
    """A misspelt name brings up what it may have meant; a strange one brings nothing."""
    assert _text.nearest("prodution", ["production", "staging"]) == "'production'"
    assert _text.nearest("zzz", ["production", "staging"]) == ""


def test_canonical_json_ignores_key_order_and_refuses_nan() -> None:
    """Two dicts that are equal have one digest; NaN has none."""
    assert digest({"b": 1, "a": "ü"}) == digest({"a": "ü", "b": 1})
    assert canonical({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(math.nan)


@attrs.frozen
class Knobs:
    """Something to validate."""

    rank: int = attrs.field(default=1, validator=_fields.whole(1, 512, error=PlanError, fix="rank=32"))
    rate: float = attrs.field(
        default=0.1, validator=_fields.real(0, 1, open_low=True, error=PlanError, fix="")
    )
    mode: str = attrs.field(
        default="last", validator=_fields.one_of(("last", "all"), error=PlanError, fix="")
    )
    every: int = attrs.field(default=1, validator=_fields.whole(1, error=PlanError, fix=""))


@pytest.mark.parametrize(
    ("field", "value", "need"),
    [
        ("rank", 0, "an integer from 1 to 512"),
        ("rank", 513, "an integer from 1 to 512"),
        ("rank", True, "an integer from 1 to 512"),
        ("rank", 2.0, "an integer from 1 to 512"),
        ("every", 0, "an integer of at least 1"),
        ("rate", 0.0, "a finite number above 0 and at most 1"),
        ("rate", math.nan, "a finite number above 0 and at most 1"),
        ("rate", "0.1", "a finite number above 0 and at most 1"),
        ("mode", "lats", "one of 'last', 'all' (did you mean 'last'?)"),
    ],
)
def test_a_field_out_of_range_says_what_is_needed(field: str, value: object, need: str) -> None:
    """The mistake is named where it was written, with the range that would do."""
    with pytest.raises(PlanError) as caught:
        Knobs(**{field: value})  # the wrong type is what is tested
    assert caught.value.need == need
    assert caught.value.problem.startswith(field)
