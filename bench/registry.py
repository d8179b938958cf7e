"""Measure the registry: durable events a second from 16 processes, and questions at 100,000 versions.

    python bench/registry.py                          # SQLite, about four minutes
    python bench/registry.py --writers-only           # half a minute
    python bench/registry.py --scratch /data/scratch  # on the disk that you mean to use

The large registry is made by the registry's own code, in a few large transactions. The scores go straight
into the index, as the scorecards that would bring them are not what is measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tinker_officer._digest import digest
from tinker_officer.registry import catalogue, reads, writes
from tinker_officer.registry.registry import Registry
from tinker_officer.registry.values import version_id


WRITERS = 16
SECONDS = 12.0
VERSIONS = 100_000
QUERIES = (
    "base_model = 'Qwen/Qwen3-8B' AND evals.gsm8k.accuracy > 0.6",
    "evals.gsm8k.accuracy > 0.999",
    "NOT evals.gsm8k.accuracy > 0.001",
    "name = 'model-7' AND (lora.rank = 64 OR evals.mmlu.accuracy < 0.1)",
    "created > '2020-01-01' AND notes LIKE '%99999%'",
)


def write_for(path: Path, name: str, seconds: float, out: int) -> None:
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


def writers(folder: Path, count: int, seconds: float) -> None:
    """Let `count` processes write at once, and hold what they were promised against what is there."""
    path = folder / "writers.db"
    Registry.open(path)
    read_end, write_end = os.pipe()
    children = []
    begin = time.monotonic()
    for number in range(count):
        child = os.fork()
        if child == 0:
            os.close(read_end)
            write_for(path, f"writer{number}", seconds, write_end)
            os._exit(0)
        children.append(child)
    os.close(write_end)
    acknowledged = 0
    while block := os.read(read_end, 65536):
        acknowledged += len(block)
    for child in children:
        os.waitpid(child, 0)
    taken = time.monotonic() - begin
    found = Registry.open(path).verify()
    lost = acknowledged - found.entries
    rate = f"{acknowledged / taken:,.0f} durable events/s"
    print(f"{count} writers: {rate}, {found.entries:,} events, {lost} lost")


def fill(path: Path, versions: int) -> Registry:
    """Make a registry of `versions` versions and as many moves: two events each."""
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
                catalogue._add(connection, place, figures)
    return registry


def median_ms(call: Callable[[], object], repeats: int = 40) -> str:
    """Return the median and the worst of `repeats` calls, in milliseconds."""
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begin))
    return f"median {statistics.median(times):.2f} ms, worst {max(times):.2f} ms"


def opening(path: Path) -> str:
    """Return what opening takes in a fresh process, beside the import."""
    code = (
        "import sys, time; from tinker_officer.registry.registry import Registry\n"
        "import tinker_officer.registry.sqlite\n"
        "begin = time.perf_counter(); Registry.open(sys.argv[1]); print(time.perf_counter() - begin)"
    )
    command = [sys.executable, "-c", code, str(path)]
    times = [1000 * float(subprocess.check_output(command, text=True)) for _ in range(7)]
    return f"median {statistics.median(times):.1f} ms, worst {max(times):.1f} ms"


def main() -> None:
    """Measure, and print a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, default=None)
    parser.add_argument("--writers-only", action="store_true")
    parser.add_argument("--versions", type=int, default=VERSIONS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.scratch) as scratch:
        folder = Path(scratch)
        writers(folder, WRITERS, SECONDS)
        if asked.writers_only:
            return
        begin = time.monotonic()
        registry = fill(folder / "large.db", asked.versions)
        size = (folder / "large.db").stat().st_size
        print(f"{asked.versions:,} versions made in {time.monotonic() - begin:.0f} s, {size / 1e6:.0f} MB")
        print(f"current(): {median_ms(lambda: registry.current('staging', name='model-7'))}")
        for query in QUERIES:
            print(f"search {query}: {median_ms(lambda query=query: registry.search(query))}")
        by_score = "evals.gsm8k.accuracy desc"
        print(f"search, ordered by a score: {median_ms(lambda: registry.search(order_by=by_score))}")
        print(f"verify() of {registry.verify().entries:,} events: {median_ms(registry.verify, 5)}")
        print(f"open: {opening(folder / 'large.db')}")
        with registry._database.read() as connection:
            assert reads.current(connection, "staging", "model-7") is not None


if __name__ == "__main__":
    main()
