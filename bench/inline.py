"""What a training loop loses to evals that run beside it, before a server that is 200 ms away.

    python bench/inline.py             # 1. a server with processors of its own, as hosted Tinker's
    python bench/inline.py --shared    # 2. LocalEngine on the cores of the loop

The run of `bench/loop.py`'s tiny model with a checkpoint every 20 steps; then the same with a suite asked
beside it at each of them: held-out likelihood of 32 conversations, and 16 cases. The wire of the tests adds
200 ms to every request. Turn by turn, three rounds; steps per second from the eighth step on, where the
pipeline is full, to the last; the median of the ratios counts.

1. Each run is recorded once on LocalEngine, and then asked again of the recording: a training pass takes
   150 ms, one after the other, an answer 500 ms beside them, whatever this machine does meanwhile. What is
   lost is what the evals take from the loop in its own process.
2. LocalEngine answers, and samples on the cores that it trains on: what is lost is also what the evals
   themselves compute.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tinker
from _idle import Watched
from _replayed import Recording, Replay
from loop import FILLED, LATENCY_S, make_run, write_rows

from tinker_officer import Conversations, EvalSuite, LocalEngine, Run, graders
from tinker_officer.testing import tiny_model


EVERY, ROUNDS, MOST, PASS_S, SAMPLE_S = 20, 3, 0.03, 0.15, 0.5


def suite(home: Path) -> EvalSuite:
    """Return what is asked beside the loop."""
    held_out = Conversations.from_jsonl(write_rows(home / "held_out.jsonl", 32, 6), progress=False)
    cases = [{"input": f"What is {n} plus {n}?", "output": str(2 * n)} for n in range(16)]
    return EvalSuite().nll(held_out).product("sums", cases, grader=graders.includes, max_tokens=16)


def pace(folder: Path) -> float:
    """Return the steps per second once the pipeline is full, as the run's own metrics have them."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    ended = [record["time/elapsed_s"] for record in records if "time/elapsed_s" in record]
    return (len(ended) - FILLED) / float(ended[-1] - ended[FILLED - 1])


def measured(runs: dict[str, Run], service: Callable[[str], Any], home: Path) -> float:
    """Print the paces of the runs, turn by turn; return the median of what is lost."""
    lost = []
    for turn in range(ROUNDS):
        found = []
        for name, run in runs.items():
            folder = home / str(turn) / name
            with service(name) as far:
                result = run.run(on=far, at=folder, progress=False)
            assert result.stopped == "completed"
            found.append(pace(folder))
        print(f"  alone {found[0]:.2f} steps/s, with evals beside it {found[1]:.2f}", flush=True)
        lost.append(1 - found[1] / found[0])
    return statistics.median(lost)


def main() -> int:
    """Print the pace with and without, and what is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--shared", action="store_true", help="LocalEngine on the same cores")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    home = Path(tempfile.mkdtemp(prefix="bench-inline-"))
    with LocalEngine(root=home / "engine") as engine:
        rows = write_rows(home / "rows.jsonl", 160, 6)
        alone = make_run(tiny_model(home / "tiny"), rows, asked.steps).checkpoint(every=EVERY)
        beside = alone.evaluate(suite(home), every=EVERY, layers=("nll", "product"), beside=True)
        runs = {"alone": alone, "beside": beside}

        @contextmanager
        def behind(wire: Any) -> Iterator[Any]:
            with wire:
                yield tinker.ServiceClient(base_url=wire.url, api_key=engine.token)

        recorded: dict[str, Any] = {}
        for name, run in runs.items():
            wire = Recording(engine.base_url)
            with behind(wire) as near:
                _ = run.run(on=near, at=home / "recorded" / name, progress=False)
            recorded[name] = wire.answers
        if asked.shared:
            median = measured(runs, lambda _: behind(Watched(engine.base_url, latency_s=LATENCY_S)), home)
            print(f"lost on shared cores: {median:.1%}")
            return 0
        times = {"latency_s": LATENCY_S, "pass_s": PASS_S, "sample_s": SAMPLE_S}
        median = measured(runs, lambda name: behind(Replay(recorded[name], **times)), home)
    print(f"lost before a server of its own: {median:.1%} (at most {MOST:.0%})")
    return int(median > MOST)


if __name__ == "__main__":
    sys.exit(main())
