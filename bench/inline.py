"""What a training loop loses to evals that run beside it, before a server that is 200 ms away.

    python bench/inline.py

The run of `bench/loop.py`'s tiny model behind the wire of the tests, which adds 200 ms to every request,
with a checkpoint every 20 steps; then the same with a suite asked beside it at each of them: held-out
likelihood of 32 conversations, and 16 cases. Hosted Tinker computes elsewhere, and LocalEngine does not: here
it shares the cores with the loop, and the wire is what leaves them idle, as a far server would. Turn by turn,
three rounds; steps per second from the eighth step on, where the pipeline is full, to the last; the median
of the ratios counts.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

import tinker
from _idle import Watched
from loop import FILLED, LATENCY_S, make_run, write_rows

from tinker_officer import Conversations, EvalSuite, LocalEngine, graders
from tinker_officer.testing import tiny_model


EVERY, ROUNDS, MOST = 20, 3, 0.03


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


def main() -> int:
    """Print the pace with and without, and what is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=80)
    steps = parser.parse_args().steps
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    home = Path(tempfile.mkdtemp(prefix="bench-inline-"))
    with LocalEngine(root=home / "engine") as engine, Watched(engine.base_url, latency_s=LATENCY_S) as far:
        rows = write_rows(home / "rows.jsonl", 160, 6)
        alone = make_run(tiny_model(home / "tiny"), rows, steps).checkpoint(every=EVERY)
        asked = alone.evaluate(suite(home), every=EVERY, layers=("nll", "product"), beside=True)
        service = tinker.ServiceClient(base_url=far.url, api_key=engine.token)
        _ = asked.run(on=engine, at=home / "warm", progress=False)
        lost = []
        for turn in range(ROUNDS):
            found = []
            for name, run in (("alone", alone), ("asked", asked)):
                folder = home / f"{name}-{turn}"
                result = run.run(on=service, at=folder, progress=False)
                assert result.stopped == "completed"
                found.append(pace(folder))
            print(f"  alone {found[0]:.2f} steps/s, with evals beside it {found[1]:.2f}", flush=True)
            lost.append(1 - found[1] / found[0])
    median = statistics.median(lost)
    print(f"lost: {median:.1%} (at most {MOST:.0%})")
    return int(median > MOST)


if __name__ == "__main__":
    sys.exit(main())
