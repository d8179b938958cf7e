"""Look for an exam in training data: rows a second against plain Python, and peak memory.

    python bench/contamination.py                  # 100,000 rows of about 1 KB, 1,000 exam items
    python bench/contamination.py --rows 1000000   # is memory flat?

Plain Python is what everybody writes: a line, `json.loads`, `re.findall`, a dictionary of runs of 13 words, a
look-up a run, timed on `--plain` of the same rows; the design of this search has about 10,000 documents a
second for it, and asks for five times as many. Ours also holds each row against the checksum of when it was
checked, and verifies its hits. Each figure is taken in a fresh process; the rows are those of
`bench/measure.py`, one in a hundred with a copied item of 60 words.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import texts


LEAST = 5 * 10_000  # five times the plain-Python figure of the design
TIMES = 5  # that of the same run


def write(folder: Path, rows: int, items: int) -> None:
    """Write the rows and the exam; every hundredth row has an item in it."""
    pick = random.Random(1)
    words = sorted({word for question, _ in texts(200, 1.0, seed=7) for word in question.split()})
    exam = [" ".join(pick.choices(words, k=60)) for _ in range(items)]
    (folder / "exam.json").write_text(json.dumps(exam))
    with (folder / "rows.jsonl").open("w") as file:
        for number, (question, answer) in enumerate(texts(rows, 1.0)):
            said = answer if number % 100 else f"{answer} {pick.choice(exam)}"
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": said}]
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")


def plain(folder: Path, some: int) -> dict[str, Any]:
    """Time the loop that everybody writes."""
    exam = json.loads((folder / "exam.json").read_text())
    runs = {run: number for number, text in enumerate(exam) for run in _runs(text)}
    met: set[tuple[int, int]] = set()
    started, busy = time.perf_counter(), time.process_time()
    with (folder / "rows.jsonl").open() as file:
        for number, line in zip(range(some), file, strict=False):
            for message in json.loads(line)["messages"]:
                met |= {(number, runs[run]) for run in _runs(message["content"]) if run in runs}
    elapsed, busy = time.perf_counter() - started, time.process_time() - busy
    return {"rows_s": some / elapsed, "us": 1e6 * busy / some, "hit": len(met) / some}


def _runs(text: str) -> set[int]:
    words = re.findall(r"\w+", text.lower())
    return {hash(tuple(words[i : i + 13])) for i in range(len(words) - 12)}


def ours(folder: Path, _some: int) -> dict[str, Any]:
    """Time `suite.contamination`, reading and parsing included, checking of the file apart."""
    from tinker_officer import Conversations, EvalSuite, graders

    exam = json.loads((folder / "exam.json").read_text())
    cases = [{"input": text, "output": "x", "id": f"q{n}"} for n, text in enumerate(exam)]
    suite = EvalSuite().product("exam", cases, grader=graders.exact)
    train = Conversations.from_jsonl(folder / "rows.jsonl", progress=False)
    suite.contamination(train.take(2000), progress=False)  # tables are made, code is warm
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, busy = time.perf_counter(), time.process_time()
    found = suite.contamination(train, progress=False)
    elapsed, busy = time.perf_counter() - started, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows_s": len(train) / elapsed,
        "us": 1e6 * busy / len(train),
        "hit": sum(item.rows for item in found.exposed) / len(train),
        "peak_mb": peak / 1024,
        "grown_mb": (peak - loaded) / 1024,
    }


def main() -> None:
    """Print both figures and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--plain", type=int, default=10_000)
    parser.add_argument("--way", choices=("plain", "ours"))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.way:
        print(json.dumps({"plain": plain, "ours": ours}[options.way](options.folder, options.plain)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.rows, options.items)
        figures = {}
        for way in ("plain", "ours"):
            options_ = ["--way", way, "--folder", folder, "--plain", str(options.plain)]
            command = [sys.executable, __file__, *options_]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            figures[way] = json.loads(out.splitlines()[-1])
    for way, name in (("plain", "plain Python:"), ("ours", "tinker_officer:")):
        print(f"{name:<16}{figures[way]['rows_s']:>9,.0f} rows/s, ", end="")
        print(f"{figures[way]['us']:.1f} us of processor time a row")
    times = figures["ours"]["rows_s"] / figures["plain"]["rows_s"]
    print(f"{times:.1f} times as many rows/s")
    print(f"memory: {figures['ours']['peak_mb']:.0f} MB at most, ", end="")
    print(f"{figures['ours']['grown_mb']:+.0f} MB while the rows went by")
    print(f"found: {figures['ours']['hit']:.4f} items a row, plain Python {figures['plain']['hit']:.4f}")
    if figures["ours"]["rows_s"] < LEAST or times < TIMES:
        sys.exit(f"less than {LEAST:,} rows/s, or than {TIMES} times plain Python")


if __name__ == "__main__":
    main()
