"""Time `import tinker_officer` in fresh interpreters, against importing what it spares the user.

    python bench/import_time.py

Prints the median of 9 runs each, in seconds beside an empty interpreter, and the ratio.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(statement: str, runs: int = 9) -> float:
    """Return the median wall time of `python -c statement`, in seconds."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    empty = seconds("pass")
    ours = seconds("import tinker_officer") - empty
    print(f"import tinker_officer                   {ours:7.3f} s (budget 0.15 s)")
    for other in ("tinker", "tinker_cookbook.supervised.train"):
        theirs = seconds(f"import {other}", runs=3) - empty
        print(f"import {other:32s} {theirs:7.3f} s ({theirs / ours:.0f} times)")
    if ours > 0.15:
        sys.exit("import tinker_officer is over its budget of 0.15 s")


if __name__ == "__main__":
    main()
