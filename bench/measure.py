"""Measure `measure`: speed against the obvious loop and the tokenizer alone, and peak memory.

    python bench/measure.py                     # 200,000 conversations of about 1 KB
    python bench/measure.py --write             # and into docs/explanation/planning-speed.md
    python bench/measure.py --rows 2000000 --only "measure, extra fast"  # is memory flat?

Memory follows the rows, not their length, so `--size 0.1` shows it sooner. With `--file` the conversations
are kept in a file, or taken from there, so that parts of the bench can be run one after the other. Each
figure is taken in a fresh process; ratios compare processes of one run, in conversations per second of wall
time. The obvious loop (`renderer.build_supervised_example` a row) is timed on `--obvious` of the rows,
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

import _page


MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
LETTERS = (
    "abcdefghijklmnopqrstuvwxyz",
    "0123456789",
    "abcdef0123456789",
    "абвгдежзиклмнопрст",
    "的一是不了人我在有他这",
)


def texts(rows: int, size: float, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield a question of about 300 letters and an answer of about 600, a row, times `size`."""
    pick = random.Random(seed)
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    files = [file for file in files if "site-packages" not in file.parts]
    source = "".join(file.read_text(errors="ignore") for file in files if "test" not in file.parts)

    def some(about: float) -> str:
        letters = int(about) + 1
        start = pick.randrange(len(source) - letters)
        words = source[start : start + letters].split(" ")
        for _ in range(max(1, letters // 180)):
            alphabet = LETTERS[pick.choices(range(5), (8, 3, 2, 1, 1))[0]]
            words[pick.randrange(len(words))] = "".join(pick.choices(alphabet, k=pick.randint(2, 12)))
        return " ".join(words).strip() or "?"

    for _ in range(rows):
        yield some(size * pick.lognormvariate(5.6, 0.4)), some(size * pick.lognormvariate(6.3, 0.4))


def write(path: Path, rows: int, size: float) -> None:
    """Write the conversations, and print what they are like."""
    words: set[str] = set()
    count = 0
    with path.open("w") as file:
        for number, (question, answer) in enumerate(texts(rows, size)):
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
    result["each"] = result["cpu"] / result["rows"] * 1e6
    memory = f"{result['peak']:.0f} MB ({result['before']:.0f} before)" if "peak" in result else ""
    print(f"{what:26s} {result['rate']:9,.0f}/s  {result['each']:7.0f} us of CPU each  {memory}", flush=True)
    return result


def table(got: dict[str, dict[str, Any]], rows: int) -> str:
    """Return what was measured as Markdown, with the ratios that are promised."""
    lines = [
        f"{rows:,} conversations of about 1 KB, the tokenizer of `{MODEL}`, on {_page.machine()}:",
        "",
        "| | conversations a second | processor time each | peak memory |",
        "|---|---:|---:|---:|",
    ]
    for what, result in got.items():
        memory = f"{result['peak']:.0f} MB" if "peak" in result else ""
        lines.append(f"| {what} | {result['rate']:,.0f} | {result['each']:.0f} µs | {memory} |")
    rate = {what: result["rate"] for what, result in got.items()}
    each = {what: result["each"] for what, result in got.items()}
    loop, plain, fast = "obvious loop", "measure", "measure, extra fast"
    text = f"""
- Of what the obvious loop does in the same time: {rate[fast] / rate[loop]:.1f} times as many with the extra
  (wanted: 15), {rate[plain] / rate[loop]:.1f} times without it (wanted: 3).
- Of what `fastokens` does alone: {rate[fast] / rate["fastokens alone, all cores"]:.2f} (wanted: 0.5).
- In processor time: {each[loop] / each[fast]:.1f} and {each[loop] / each[plain]:.1f} times less each."""
    return "\n".join(lines) + "\n" + text


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--size", type=float, default=1.0, help="of a conversation, in KB")
    parser.add_argument("--obvious", type=int, default=10_000, help="rows that the obvious loop is timed on")
    parser.add_argument("--only", help="one of the measurements", default=None)
    parser.add_argument("--file", type=Path, help="where the conversations are, or are to be kept")
    parser.add_argument("--write", action="store_true", help="into docs/explanation/planning-speed.md")
    parser.add_argument("--child")
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
        path = arguments.file or Path(folder) / "conversations.jsonl"
        if not path.exists():
            write(path, arguments.rows, arguments.size)
        got = {what: _child(what, arguments, path) for what in ways if arguments.only in {None, what}}
    if len(got) == len(ways):
        text = table(got, arguments.rows)
        print(f"\n{text}")
        if arguments.write:
            _page.write("planning-speed", "measure", text)


if __name__ == "__main__":
    main()
