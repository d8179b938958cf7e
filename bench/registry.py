"""Measure the registry: durable events a second from 16 processes, and questions at 100,000 versions.

    python bench/registry.py writers                    # half a minute
    python bench/registry.py search                     # current, search and opening; two minutes
    python bench/registry.py verify                     # a minute and a half
    python bench/registry.py                            # all three
    python bench/registry.py writers --at /data/scratch # on the disk that you mean to use

With `--write` a part's table goes into docs/explanation/registry.md too. With `--at` the large registry stays
in that folder, and is used again. It is made by the registry's own code, in a few large transactions; the
scores go straight into the index, as the scorecards that would bring them are not what is measured. Beside
the writers stand as many that do nothing but insert a row a transaction, as durably: what the disk allows.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import _page

from tinker_officer._digest import digest
from tinker_officer.registry import catalogue, writes
from tinker_officer.registry.registry import Registry
from tinker_officer.registry.sqlite import settle
from tinker_officer.registry.values import version_id


WRITERS = 16
SECONDS = 12.0
VERSIONS = 100_000
QUERIES = (
    "base_model = 'Qwen/Qwen3-8B' AND evals.gsm8k.accuracy > 0.6",
    "evals.gsm8k.accuracy > 0.999",
    "name = 'model-7' AND (lora.rank = 64 OR evals.mmlu.accuracy < 0.1)",
    "created > '2020-01-01' AND notes LIKE '%99999%'",
    "NOT evals.gsm8k.accuracy > 0.001",
    "NOT evals.rare.accuracy > 0.001",
)


def move_versions(path: Path, name: str, seconds: float, out: int) -> None:
    """Move two versions in and out of staging until the time is up; tell of every durable event by a byte."""
    registry = Registry.open(path)
    versions = []
    for number in range(2):
        versions.append(registry.register(f"{name}-{number}", name=name))
        os.write(out, b"r")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        versions.reverse()
        registry.promote(versions[0], to="staging", actor=name)
        os.write(out, b"p")


def insert_rows(path: Path, name: str, seconds: float, out: int) -> None:
    """Add a row of an event's size in a transaction of its own, as durably, until the time is up."""
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
        settle(connection)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO bare (body) VALUES (?)", (name.ljust(1000),))
            connection.execute("COMMIT")
            os.write(out, b"i")


def at_once(work: Callable[[Path, str, float, int], None], path: Path) -> tuple[int, float]:
    """Let the processes work on `path` at once; return how many bytes they wrote in all, and a second."""
    read_end, write_end = os.pipe()
    children = []
    begin = time.monotonic()
    for number in range(WRITERS):
        child = os.fork()
        if child == 0:
            os.close(read_end)
            work(path, f"writer{number}", SECONDS, write_end)
            os._exit(0)
        children.append(child)
    os.close(write_end)
    acknowledged = 0
    while block := os.read(read_end, 65536):
        acknowledged += len(block)
    for child in children:
        os.waitpid(child, 0)
    return acknowledged, acknowledged / (time.monotonic() - begin)


def writers(folder: Path) -> str:
    """Let processes write at once, and hold what they were promised against what is there."""
    path, bare = folder / "writers.db", folder / "bare.db"
    Registry.open(path)
    with closing(sqlite3.connect(bare)) as connection:
        connection.execute("CREATE TABLE bare (id INTEGER PRIMARY KEY, body TEXT)")
    acknowledged, rate = at_once(move_versions, path)
    found = Registry.open(path).verify()
    assert found.entries == acknowledged, (found, acknowledged)
    _, floor = at_once(insert_rows, bare)
    rows = [
        (
            f"{WRITERS} processes writing, durable events",
            f"{rate:,.0f}/s, none of {acknowledged:,} lost",
            "300/s",
        ),
        (f"{WRITERS} processes that each insert a row, and do no more", f"{floor:,.0f}/s", ""),
    ]
    return table(rows)


def large(folder: Path) -> Registry:
    """Return a registry of 100,000 versions and as many moves, two events each, made unless it is there."""
    path, draft = folder / "large.db", folder / "draft.db"
    if not path.exists():
        fill(draft, VERSIONS)
        draft.rename(path)
    return Registry.open(path)


def fill(path: Path, versions: int) -> None:
    """Make a registry of `versions` versions and as many moves."""
    registry = Registry.open(path)
    database = registry._database
    for start in range(0, versions, 10_000):
        with database.write() as connection:
            for number in range(start, min(start + 10_000, versions)):
                fields = {
                    "base_model": f"Qwen/Qwen3-{(1, 4, 8, 14)[number % 4]}B",
                    "name": f"model-{number % 50}",
                    "training_fingerprint": digest(number),
                    "spec_digest": "", "step": 100, "state_path": f"tinker://{number}/weights/1",
                    "sampler_path": f"tinker://{number}/sampler_weights/1", "renderer_name": "qwen3",
                    "lora": {"rank": 2 ** (3 + number % 5)}, "data": {"rows": number},
                    "parents": [], "relations": {}, "notes": f"trial {number}",
                }  # fmt: skip
                fields["id"] = version_id(fields)
                version = writes.add_version(connection, fields)
                writes.add_move(
                    connection, version, "staging", "promoted", actor="bench", reason="", previous=None
                )
                place = number + 1
                figures = [
                    (f"evals.{name}.{what}", value)
                    for name, step in (("gsm8k", 7919), ("mmlu", 104729))
                    for what, value in (("accuracy", number * step % 100_000 / 100_000), ("n", 200))
                ]
                if number % 1000 == 0:
                    figures.append(("evals.rare.accuracy", 0.5))
                catalogue._add(connection, place, figures)


def taken(call: Callable[[], object], repeats: int = 40) -> str:
    """Return the median and the worst of `repeats` calls."""
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begin))
    return shown(times)


def shown(times: list[float]) -> str:
    """Return the median and the worst of some times in milliseconds."""
    return f"{statistics.median(times):.1f} ms ({max(times):.1f} ms)"


def opening(path: Path) -> str:
    """Return what opening takes in a fresh process, beside the import."""
    code = (
        "import sys, time; from tinker_officer.registry.registry import Registry\n"
        "import tinker_officer.registry.sqlite\n"
        "begin = time.perf_counter(); Registry.open(sys.argv[1]); print(time.perf_counter() - begin)"
    )
    command = [sys.executable, "-c", code, str(path)]
    times = [1000 * float(subprocess.check_output(command, text=True)) for _ in range(7)]
    return shown(times)


def searches(folder: Path) -> str:
    """Ask what a user asks."""
    registry = large(folder)
    rows = [("`current()`", taken(lambda: registry.current("staging", name="model-7")), "2 ms")]
    rows += [
        (f"`search`: `{query}`", taken(lambda query=query: registry.search(query)), "50 ms")
        for query in QUERIES
    ]
    by_score = "evals.gsm8k.accuracy desc"
    rows.append(
        (f"`search`, ordered: `{by_score}`", taken(lambda: registry.search(order_by=by_score)), "50 ms")
    )
    rows.append(("opening, beside the import", opening(folder / "large.db"), "50 ms"))
    return table(rows)


def verifying(folder: Path) -> str:
    """Verify every entry and row."""
    registry = large(folder)
    entries = registry.verify().entries
    return table([(f"`verify()` of {entries:,} events", taken(registry.verify, 7), "1000 ms")])


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Return what was measured as Markdown, with the machine."""
    machine = f"{_page.machine()}, SQLite {sqlite3.sqlite_version}"
    head = [f"{machine}:", "", "| | median (worst) | wanted |", "| --- | ---: | ---: |"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


PARTS = {"writers": writers, "search": searches, "verify": verifying}


def main() -> None:
    """Measure, print the tables, and write them into the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all, if none is named")
    parser.add_argument("--at", type=Path, default=None, help="the folder to measure in")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.at) as scratch:
        for part in asked.parts or PARTS:
            at = Path(scratch) if part == "writers" or asked.at is None else asked.at
            found = PARTS[part](at)
            print(f"{part}: {found}\n")
            if asked.write:
                _page.write("registry", "registry", found, part=part)


if __name__ == "__main__":
    main()
