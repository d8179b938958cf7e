"""Measure `measure`: speed against the obvious loop and the tokenizer alone, and peak memory.

    python bench/measure.py                     # 200,000 conversations of about 1 KB
    python bench/measure.py --rows 2000000      # is memory flat?

Each figure is taken in a fresh process; ratios compare processes of one run, in conversations per second of
wall time. The obvious loop (`renderer.build_supervised_example` a row) is timed on `--obvious` of the rows,
spread over the file, because all of them would take many minutes.

The text is windows of the standard library's source and documentation strings (prose, code, numbers), cut
at random places, with one word in about thirty replaced by one that is made up on the spot (a name, a
number, an identifier, a word in another script). A cache of words that an encoder keeps therefore goes on
missing as it does in real corpora; the share of distinct words is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
LETTERS = (
    "abcdefghijklmnopqrstuvwxyz",
    "0123456789",
    "abcdef0123456789",
    "абвгдежзиклмнопрст",
    "的一是不了人我在有他这",
)


def texts(rows: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield a question of about 300 letters and an answer of about 600, a row."""
    pick = random.Random(seed)
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    files = [file for file in files if "site-packages" not in file.parts]
    source = "".join(file.read_text(errors="ignore") for file in files if "test" not in file.parts)

    def window(letters: int) -> str:
        start = pick.randrange(len(source) - letters)
        words = source[start : start + letters].split(" ")
        for _ in range(max(1, letters // 180)):
            alphabet = LETTERS[pick.choices(range(5), (8, 3, 2, 1, 1))[0]]
            words[pick.randrange(len(words))] = "".join(pick.choices(alphabet, k=pick.randint(2, 12)))
        return " ".join(words).strip() or "?"

    for _ in range(rows):
        yield window(int(pick.lognormvariate(5.6, 0.4))), window(int(pick.lognormvariate(6.3, 0.4)))


def write(path: Path, rows: int) -> None:
    """Write the conversations, and print what they are like."""
    words: set[str] = set()
    count = 0
    with path.open("w") as file:
        for number, (question, answer) in enumerate(texts(rows)):
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
            if number < 20_000:
                found = f"{question} {answer}".split()
                count += len(found)
                words.update(found)
    print(f"{rows:,} conversations, {path.stat().st_size / rows:.0f} bytes each; ", end="")
    print(f"{len(words) / count:.1%} of the first {count:,} words are distinct")


def obvious(path: Path, rows: int, some: int) -> dict[str, float]:
    """Time the loop that everybody writes, on every so-manieth row."""
    from tinker_cookbook.renderers import TrainOnWhat

    from tinker_officer import _models
    from tinker_officer.data import chatml

    renderer = chatml.smollm2(_models.load_tokenizer(MODEL))
    every = max(1, rows // some)
    with path.open("rb") as file:
        lines = [line for number, line in enumerate(file) if number % every == 0]
    started, cpu = time.perf_counter(), time.process_time()
    trained = total = 0
    for line in lines:
        messages = json.loads(line)["messages"]
        tokens, weights = renderer.build_supervised_example(messages, TrainOnWhat.LAST_ASSISTANT_TURN)
        trained += int((weights > 0).sum())
        total += tokens.length
    return _took(len(lines), started, cpu)


def ours(path: Path, *, fast: bool) -> dict[str, float]:
    """Time `measure`, nothing cached."""
    if not fast:
        sys.modules["fastokens"] = None  # as if the extra were not installed
    from tinker_officer import Conversations
    from tinker_officer.data.render import renderer_for

    os.environ["TINKER_OFFICER_HOME"], home = tempfile.mkdtemp(), os.environ["TINKER_OFFICER_HOME"]
    (Path(os.environ["TINKER_OFFICER_HOME"]) / "models").symlink_to(Path(home) / "models")
    renderer_for(MODEL)
    before = _peak_mb()
    data = Conversations.from_jsonl(path, progress=False)
    loaded = _peak_mb()
    started, cpu = time.perf_counter(), time.process_time()
    counts = data.measure(MODEL, progress=False)
    took = _took(len(data), started, cpu)
    return {**took, "before": before, "loaded": loaded, "peak": _peak_mb(), "tokens": counts.total}


def alone(path: Path) -> dict[str, float]:
    """Time the fast tokenizer on the same texts, on all cores; reading is not timed."""
    from concurrent.futures import ThreadPoolExecutor

    import fastokens

    from tinker_officer import _models

    tokenizer = fastokens.Tokenizer.from_json_str(_models.load_tokenizer(MODEL).backend_tokenizer.to_str())
    rows, wall, cpu = 0, 0.0, 0.0
    cores = len(os.sched_getaffinity(0))
    with path.open("rb") as file, ThreadPoolExecutor(cores) as pool:
        while lines := file.readlines(64 << 20):
            said = [turn["content"] for line in lines for turn in json.loads(line)["messages"]]
            blocks = [said[i : i + 512] for i in range(0, len(said), 512)]
            started, used = time.perf_counter(), time.process_time()
            list(pool.map(tokenizer.encode_batch_flat, blocks))
            wall += time.perf_counter() - started
            cpu += time.process_time() - used
            rows += len(lines)
    return {"rows": rows, "wall": wall, "cpu": cpu}


def _took(rows: int, started: float, cpu: float) -> dict[str, float]:
    return {"rows": rows, "wall": time.perf_counter() - started, "cpu": time.process_time() - cpu}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _child(what: str, arguments: argparse.Namespace, path: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", what, "--file", str(path), "--rows", str(arguments.rows)]
    command += ["--obvious", str(arguments.obvious)]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    result["rate"] = result["rows"] / result["wall"]
    each = result["cpu"] / result["rows"] * 1e6
    print(f"{what:28s} {result['rate']:9,.0f} conversations/s  {each:7.0f} us of CPU each", flush=True)
    return result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--obvious", type=int, default=10_000, help="rows that the obvious loop is timed on")
    parser.add_argument("--only", help="one of the measurements", default=None)
    parser.add_argument("--child")
    parser.add_argument("--file", type=Path)
    arguments = parser.parse_args()
    ways = {
        "obvious loop": lambda path: obvious(path, arguments.rows, arguments.obvious),
        "measure": lambda path: ours(path, fast=False),
        "measure, extra fast": lambda path: ours(path, fast=True),
        "fastokens alone, all cores": alone,
    }
    if arguments.child:
        json.dump(ways[arguments.child](arguments.file), sys.stdout)
        return
    from tinker_officer._files import home

    os.environ["TINKER_OFFICER_HOME"] = str(home())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "conversations.jsonl"
        write(path, arguments.rows)
        got = {what: _child(what, arguments, path) for what in ways if arguments.only in {None, what}}
    for what in ("measure", "measure, extra fast"):
        if what in got:
            memory = got[what]
            print(
                f"{what}: peak {memory['peak']:.0f} MB; {memory['before']:.0f} MB before the first row, ",
                end="",
            )
            print(f"{memory['loaded']:.0f} MB when all are checked")
    if len(got) < len(ways):
        return
    plain, fast, base = (
        got["measure"]["rate"],
        got["measure, extra fast"]["rate"],
        got["obvious loop"]["rate"],
    )
    each = {what: result["cpu"] / result["rows"] for what, result in got.items()}
    slow = each["obvious loop"]
    print(
        f"CPU time a conversation, on one core: {slow / each['measure']:.1f} x less without the extra, "
        f"{slow / each['measure, extra fast']:.1f} x less with it"
    )
    print(f"without the extra {plain / base:.1f} x the obvious loop (target 3)")
    print(f"with the extra {fast / base:.1f} x the obvious loop (target 15)")
    print(f"{fast / got['fastokens alone, all cores']['rate']:.2f} of what fastokens does alone (target 0.5)")


if __name__ == "__main__":
    main()
