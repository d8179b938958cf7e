"""What stops a run: a number that is not finite, or a metric that no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def not_finite(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the metrics that are NaN or infinite, sorted."""
    return tuple(
        sorted(
            name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)
        )
    )


def best(values: Sequence[tuple[int, float]], *, higher_is_better: bool) -> int | None:
    """Return the step of the best of `(step, value)`; the earliest of equals, None when there are none."""
    finite = [(step, value) for step, value in values if math.isfinite(value)]
    if not finite:
        return None
    sign = -1.0 if higher_is_better else 1.0
    return min(finite, key=lambda pair: (sign * pair[1], pair[0]))[0]


def stale(values: Sequence[tuple[int, float]], *, higher_is_better: bool) -> int:
    """Return how many evaluations in a row, up to the last, were no better than the best before them.

    An equal value is no improvement, and neither is one that is not finite.
    """
    record = -math.inf
    since = 0
    for _, value in values:
        signed = value if higher_is_better else -value
        if math.isfinite(signed) and signed > record:
            record, since = signed, 0
        else:
            since += 1
    return since
