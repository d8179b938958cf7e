"""attrs validators whose messages have four parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

from tinker_officer._text import nearest
from tinker_officer.errors import OfficerError


Validator = Callable[[Any, Any, Any], None]


def whole(low: int, high: int | None = None, *, error: type[OfficerError], fix: str) -> Validator:
    """Return a validator that takes an `int` (not a `bool`) from `low` to `high`, both included."""
    need = f"an integer from {low} to {high}" if high is not None else f"an integer of at least {low}"

    def check(_instance: Any, attribute: Any, value: Any) -> None:
        inside = isinstance(value, int) and not isinstance(value, bool) and value >= low
        if not inside or (high is not None and value > high):
            raise error(f"{attribute.name} is out of range", got=repr(value), need=need, fix=fix)

    return check


def real(
    low: float, high: float = math.inf, *, error: type[OfficerError], fix: str, open_low: bool = False
) -> Validator:
    """Return a validator that takes a finite number from `low` (left out if `open_low`) to `high`."""
    floor = f"above {low:g}" if open_low else f"of at least {low:g}"
    need = f"a finite number {floor}" + (f" and at most {high:g}" if math.isfinite(high) else "")

    def check(_instance: Any, attribute: Any, value: Any) -> None:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not good or value > high or value < low or (open_low and value == low):
            raise error(f"{attribute.name} is out of range", got=repr(value), need=need, fix=fix)

    return check


def one_of(names: Collection[str], *, error: type[OfficerError], fix: str) -> Validator:
    """Return a validator that takes one of `names`, and offers the nearest for another."""

    def check(_instance: Any, attribute: Any, value: Any) -> None:
        if value not in names:
            near = nearest(str(value), names)
            need = "one of " + ", ".join(map(repr, names)) + (f" (did you mean {near}?)" if near else "")
            raise error(f"{attribute.name} is not known", got=repr(value), need=need, fix=fix)

    return check
