"""Numbers, durations and tables as text."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence


def table(rows: Iterable[Sequence[object]], *, header: Sequence[str] = ()) -> str:
    """Return `rows` in aligned columns; a column whose cells all begin like numbers is right-aligned."""
    body = [[str(cell) for cell in row] for row in rows]
    lines = [list(header), *body] if header else body
    if not lines:
        return ""
    columns = range(max(map(len, lines)))
    widths = [max(len(line[i]) if i < len(line) else 0 for line in lines) for i in columns]
    numeric = [all(_numeric(row[i]) for row in body if i < len(row)) for i in columns]

    def shown(line: list[str]) -> str:
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=False)
        )
        return "  ".join(cells).rstrip()

    out = [shown(line) for line in lines]
    if header:
        out.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(out)


def _numeric(cell: str) -> bool:
    return not cell or cell[0] in "+-0123456789.$%" or cell in {"nan", "inf"}


def duration(seconds: float) -> str:
    """Return a duration for people: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 14 min`."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 10:  # noqa: PLR2004 - below ten seconds a decimal still says something
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def count(number: float) -> str:
    """Return a count for people: `950`, `34.1k`, `2.00M`, `9.60B`."""
    for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            scaled = number / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}{suffix}"  # noqa: PLR2004
    return f"{number:g}"


def significant(number: float, digits: int = 2) -> float:
    """Return `number` rounded to `digits` significant digits."""
    if number == 0 or not math.isfinite(number):
        return number
    return round(number, digits - 1 - math.floor(math.log10(abs(number))))


def nearest(name: str, names: Iterable[str]) -> str:
    """Return up to three of `names` that `name` may have meant, as `'a', 'b'`; empty when none is near."""
    return ", ".join(repr(match) for match in difflib.get_close_matches(name, list(names), n=3, cutoff=0.5))
