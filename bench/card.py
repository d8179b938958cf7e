"""How long a scorecard of 5,000 items takes to be read, and how large its file is.

    python bench/card.py

The items have everything that a benchmark's have: ids, digests, tokens, stop reasons, three epochs. The
median of nine readings; a fifth of a second is the most.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from tinker_officer.evals.results import EvalResult, Item
from tinker_officer.evals.scorecard import Scorecard


ITEMS, READINGS, MOST_S = 5000, 9, 0.2


def card() -> Scorecard:
    """Return a card of one benchmark."""
    items = tuple(
        Item(
            f"item-{number}",
            (number % 3) / 2,
            tokens=number % 512,
            stop_reason="length" if number % 50 == 0 else "stop",
            error="" if number % 100 else "the grader raised ValueError",
            input_digest=f"{number:016x}",
            epochs=(0.0, float(number % 2), 1.0),
        )
        for number in range(ITEMS)
    )
    result = EvalResult.from_items(
        items, name="mbpp", layer="benchmark", metric="accuracy", settings={}, asked=ITEMS, bounds=(0.0, 1.0)
    )
    return Scorecard("tinker://run/weights/1", "model", "chatml", "0" * 64, "2026-01-01", (result,))


def main() -> int:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        path = card().save(Path(scratch) / "card.json")
        seconds = []
        for _ in range(READINGS):
            began = time.perf_counter()
            _ = Scorecard.load(path)
            seconds.append(time.perf_counter() - began)
        median = statistics.median(seconds)
        print(f"{ITEMS} items, {path.stat().st_size / 1000:,.0f} KB: read in {median * 1000:.0f} ms", end=" ")
        print(f"(at most {MOST_S * 1000:.0f})")
    return int(median > MOST_S)


if __name__ == "__main__":
    sys.exit(main())
