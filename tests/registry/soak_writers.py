"""Many writers, killed again and again: `python soak_writers.py models.db WRITERS KILLS`; prints what it saw.

Each writer registers versions and puts them into production by override, against the version that it read
before. A writer tells of a change through a pipe after the registry returned it. The parent kills writers
at random moments and starts others in their place; at the end it holds what it was told against what is
there.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sqlite3
import sys
import time
from contextlib import closing

from tinker_officer.errors import RegistryError
from tinker_officer.registry.registry import Registry


def work(path, name, out):
    """Register and promote for ever."""
    registry = Registry.open(path, timeout_s=120)
    number = 0
    while True:
        version = registry.register(f"{name}-{number}", name="shared")
        os.write(out, f"v {version.id}\n".encode())
        for _ in range(4):
            now = registry.current("production", name="shared")
            ask = {"actor": name, "reason": "soak", "override": True, "expected_current": now}
            try:
                move = registry.promote(version, to="production", **ask)
            except RegistryError as error:
                if "does not hold what was expected" not in str(error):
                    raise
                continue
            os.write(out, f"m {move.seq} {move.version}\n".encode())
            break
        number += 1


def spawn(path, name, out):
    """Start a writer by a fork: nothing of the parent's is open."""
    child = os.fork()
    if child == 0:
        try:
            work(path, name, out)
        finally:
            os._exit(1)
    return child


def main(path, count, kills):
    """Run the soak, check the registry, and print the figures."""
    Registry.open(path)
    chance = random.Random(0)
    read_end, write_end = os.pipe()
    alive = [spawn(path, f"w{number}", write_end) for number in range(count)]
    told, began, died = bytearray(), time.monotonic(), 0

    def listen(seconds):
        until = time.monotonic() + seconds
        while select.select([read_end], [], [], max(0.0, until - time.monotonic()))[0]:
            told.extend(os.read(read_end, 65536))

    listen(3.0)
    while died < kills:
        place = chance.randrange(count)
        os.kill(alive[place], signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(alive[place], 0)[1]), "a writer ended by itself"
        died += 1
        alive[place] = spawn(path, f"k{died}", write_end)
        listen(chance.uniform(0.02, 0.2))
    for child in alive:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(write_end)
    while block := os.read(read_end, 65536):
        told.extend(block)
    taken = time.monotonic() - began
    check(path, bytes(told).decode(), count, died + count, taken)


def check(path, told, count, killed, taken):
    """Hold what was acknowledged against what is there."""
    registry = Registry.open(path)
    entries = registry.verify().entries
    versions = {version.id: version.number for version in registry.versions("shared")}
    moves = registry.history("shared").moves
    lines = [line.split() for line in told.splitlines()]
    by_seq = {move.seq: move.version for move in moves}
    lost = sum(
        line[1] not in versions if line[0] == "v" else by_seq.get(int(line[1])) != line[2] for line in lines
    )
    gaps = sorted(versions.values()) != list(range(1, len(versions) + 1))
    gaps = gaps or [move.seq for move in moves] != list(range(1, len(moves) + 1))
    holder, forks = None, 0
    for move in moves:  # two at once in production would show as a move that replaced another than the last
        forks += move.previous != holder
        holder = move.version
    with closing(sqlite3.connect(path)) as connection:
        intact = connection.execute("PRAGMA integrity_check").fetchone()[0]
    found = {
        "writers": count, "kills": killed, "seconds": round(taken), "acknowledged": len(lines),
        "events": entries, "lost": lost, "gaps": int(gaps), "two in production": forks, "integrity": intact,
    }  # fmt: skip
    print(json.dumps(found))
    assert lines
    assert not lost
    assert not gaps
    assert not forks
    assert intact == "ok"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
