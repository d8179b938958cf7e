"""What stops a run, as pure functions."""

from __future__ import annotations

import math

from tinker_officer.train import guards


def test_a_metric_that_is_not_finite_is_named() -> None:
    """NaN and both infinities are found; integers, text and finite floats are not."""
    metrics = {"b": math.nan, "a": math.inf, "c": -math.inf, "fine": 1.0, "tokens": 3, "note": "nan"}
    assert guards.not_finite(metrics) == ("a", "b", "c")


def test_the_best_is_the_earliest_of_equals() -> None:
    """Of two equal values the earlier step wins, and NaN never does."""
    values = [(0, 3.0), (5, 1.0), (10, 1.0), (15, math.nan)]
    assert guards.best(values, higher_is_better=False) == 5
    assert guards.best(values, higher_is_better=True) == 0
    assert guards.best([], higher_is_better=True) is None
    assert guards.best([(0, math.nan)], higher_is_better=True) is None


def test_stale_counts_evaluations_since_the_record() -> None:
    """An improvement resets the count; an equal value or a NaN does not."""
    values = [(0, 3.0), (1, 2.0), (2, 2.0), (3, math.nan), (4, 2.5)]
    assert guards.stale(values, higher_is_better=False) == 3
    assert guards.stale([*values, (5, 1.9)], higher_is_better=False) == 0
    assert guards.stale([(0, 0.1), (1, 0.2)], higher_is_better=True) == 0
