"""Several comparisons at once: p-values from intervals, and Holm's correction for their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinker_officer.stats.intervals import Estimate


_HALVINGS = 50


def p_value(estimate_at: Callable[[float], Estimate]) -> float:
    """Return the two-sided p-value of "no difference" that belongs to a family of intervals.

    It is one minus the highest confidence at which the interval still leaves out zero, so that a p-value
    and an interval never contradict each other.

    Args:
        estimate_at: returns the estimate with its interval, given the confidence.
    """

    def leaves_out_zero(confidence: float) -> bool:
        low, high = estimate_at(confidence).interval
        return low > 0 or high < 0

    low, high = 1e-12, 1 - 1e-12
    if not leaves_out_zero(low):
        return 1.0
    if leaves_out_zero(high):
        return 1 - high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if leaves_out_zero(middle) else (low, middle)
    return 1 - low


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number, in the same order.

    Calling different what has an adjusted value of at most alpha errs, over all of them together, in at most
    alpha of all cases, however they depend on each other.

    Raises:
        ValueError: a value is not between 0 and 1.

    Source:
        Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    if any(not 0 <= value <= 1 for value in p_values):
        raise ValueError(f"p-values lie between 0 and 1, got {list(p_values)!r}")
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted
