"""The loop against the cookbook's, and against the server's own pace, on this machine.

    python bench/loop.py [--steps N]

1. `tinker_cookbook.supervised.train` and `Run`, on one LocalEngine, with the same tiny model, rows, batches,
   rate and checkpoints, turn by turn, three times each. Ours has everything on: guard, ledger, checkpoints
   proven finite, TensorBoard. Timed is the whole job, from the call to its return, saving included; the
   median of the three ratios counts.
2. A run of a slower model, seen from the wire in front of the server: the share of the time in which nothing
   was asked of it. Beside that the pace, and that of the SDK alone, which hands in batches made beforehand.
   On one machine the two also share its cores.
3. The same behind a wire that adds 200 ms to every request. For a step that takes less than its round trips
   the bound is what the SDK alone reaches, far ahead, behind the same wire: it hands in one request after
   the other, and so two round trips a step are the least. For a step that takes more, the run is recorded
   once and then asked again of the recording, in which a step takes 600 ms whatever this machine does
   meanwhile: the bound is that pace.

In 2 and 3 the first steps, which fill the pipeline, are left out; the median of the rounds counts. Ours runs
with the depth that a run has by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections import deque
from pathlib import Path
from typing import Any

import attrs
import tinker
from _idle import Watched
from _replayed import Recording, Replay

from tinker_officer import Conversations, LocalEngine, LoRAPlan, Run, sinks
from tinker_officer.testing import tiny_model
from tinker_officer.train.batches import Batches


os.environ.setdefault("TINKER_TELEMETRY", "0")
RATE, BATCH, ROUNDS, LATENCY_S, AHEAD, FILLED, PASS_S = 1e-3, 8, 3, 0.2, 8, 8, 0.3


def write_rows(path: Path, count: int, words: int) -> Path:
    """Write conversations about sums, with answers of about so many words."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {i} plus {i}?"},
                {"role": "assistant", "content": f"It is {2 * i}." + " Yes." * (i % words)},
            ]
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_run(model: Path, rows: Path, steps: int) -> Run:
    """Return a run of so many steps over the rows."""
    data = Conversations.from_jsonl(rows, progress=False)
    epochs, left = divmod(steps * BATCH, len(data))
    assert not left, "whole epochs"
    plan = LoRAPlan.for_(str(model)).sft(data, epochs=epochs, max_length=512)
    pinned = plan.pin(batch_size=BATCH, learning_rate=RATE, rank=16)
    return Run(pinned, name="bench").guard("skip").checkpoint(every=steps // 4)


def ours(run: Run, on: Any, folder: Path) -> float:
    """Return the seconds that the whole run takes."""
    began = time.monotonic()
    result = run.run(on=on, at=folder, progress=False, sinks=[sinks.tensorboard()])
    assert result.stopped == "completed"
    return time.monotonic() - began


def cookbooks(run: Run, rows: Path, engine: LocalEngine, folder: Path, steps: int) -> float:
    """Return the seconds that the cookbook's recipe takes for the same job."""
    from tinker_cookbook.supervised import train
    from tinker_cookbook.supervised.data import FromConversationFileBuilder
    from tinker_cookbook.supervised.types import ChatDatasetBuilderCommonConfig

    name = run.plan.base_model
    common = ChatDatasetBuilderCommonConfig(
        model_name_for_tokenizer=name, renderer_name="qwen3_instruct", max_length=512, batch_size=BATCH
    )
    os.environ["TINKER_API_KEY"] = engine.token
    config = train.Config(
        log_path=str(folder),
        model_name=name,
        recipe_name="bench_sft",
        renderer_name="qwen3_instruct",
        dataset_builder=FromConversationFileBuilder(file_path=str(rows), common_config=common),
        learning_rate=RATE,
        num_epochs=run.plan.epochs,
        lora_rank=16,
        base_url=engine.base_url,
        save_every=steps // 4,
        eval_every=0,
    )
    began = time.monotonic()
    with contextlib.redirect_stdout(None):
        asyncio.run(train.main(config))
    seconds = time.monotonic() - began
    logged = sum("train_mean_nll" in line for line in (folder / "metrics.jsonl").read_text().splitlines())
    assert logged == steps, f"{logged} steps"
    return seconds


def bare(run: Run, on: Any, steps: int) -> float:
    """Return the seconds from step `FILLED` to the last of the SDK alone, far ahead, batches made before."""
    plan = run.plan
    batches = Batches.of(run, "chatml", progress=False)
    made = [list(batches.source.make(step).datums) for step in range(1, steps + 1)]
    client = on.create_lora_training_client(plan.base_model, rank=16, seed=0).result()
    adam = tinker.AdamParams(learning_rate=RATE, **attrs.asdict(run.adam))
    pending: deque[tuple[Any, Any]] = deque()
    ended: list[float] = []
    while len(ended) < steps:
        while made and len(pending) <= AHEAD:
            pending.append((client.forward_backward(made.pop(0), "cross_entropy"), client.optim_step(adam)))
        for future in pending.popleft():
            future.result()
        ended.append(time.monotonic())
    return ended[-1] - ended[FILLED - 1]


def paced(run: Run, on: Any, folder: Path) -> float:
    """Train; return the seconds from step `FILLED` to the last, as the run's own metrics have them."""
    _ = ours(run, on, folder)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return float(records[-1]["time/elapsed_s"] - records[FILLED - 1]["time/elapsed_s"])


class Bench:
    """One engine, and what is measured on it."""

    def __init__(self, engine: LocalEngine, home: Path) -> None:
        self.engine, self.home = engine, home

    def service(self, url: str) -> tinker.ServiceClient:
        """Return a client of the engine at `url`, which may be a wire in front of it."""
        return tinker.ServiceClient(base_url=url, api_key=self.engine.token)

    def slower(self, steps: int, **size: int) -> Run:
        """Return a run of so many steps of a model of that size, without a checkpoint on its way."""
        name = "-".join(map(str, size.values()))
        rows = write_rows(self.home / f"rows-{name}.jsonl", 20 * BATCH, 30)
        run = make_run(tiny_model(self.home / f"model-{name}", kv_heads=2, **size), rows, steps)
        return run.checkpoint(every=steps)

    def against_the_cookbook(self, steps: int) -> None:
        """Time whole jobs of a tiny model, turn by turn."""
        rows = write_rows(self.home / "rows.jsonl", 20 * BATCH, 6)
        run = make_run(tiny_model(self.home / "tiny"), rows, steps)
        _ = ours(run, self.engine, self.home / "warm")
        pairs = []
        for turn in range(ROUNDS):
            theirs_s = cookbooks(run, rows, self.engine, self.home / f"cookbook-{turn}", steps)
            pairs.append((theirs_s, ours(run, self.engine, self.home / f"ours-{turn}")))
        for theirs_s, ours_s in pairs:
            print(f"  cookbook {steps / theirs_s:6.1f} steps/s   ours {steps / ours_s:6.1f} steps/s")
        ratio = statistics.median(theirs_s / ours_s for theirs_s, ours_s in pairs)
        print(f"1. tiny model, the whole job: ours does {ratio:.2f} times the cookbook's steps/s")

    def idle(self, steps: int) -> None:
        """Watch, from the wire, how long the server has nothing to do."""
        run = self.slower(steps, hidden=128, layers=4, heads=4)
        shares, times = [], []
        for turn in range(ROUNDS):
            alone_s = bare(run, self.engine.service_client(), steps)
            times.append((alone_s, paced(run, self.engine, self.home / f"near-{turn}")))
            with Watched(self.engine.base_url) as wire:
                _ = ours(run, self.service(wire.url), self.home / f"watched-{turn}")
                shares.append(wire.idle_share(after=FILLED))
        counted = steps - FILLED
        alone, near = (counted / statistics.median(one) for one in zip(*times, strict=True))
        print(f"2. slower model: the server waits {statistics.median(shares):.2%} of the time;", end=" ")
        print(f"ours {near:.2f} steps/s, the SDK alone {alone:.2f}")

    def far(self, steps: int) -> None:
        """Time a run whose steps take less than their two round trips, behind a slow wire."""
        run = self.slower(steps, hidden=128, layers=4, heads=4)
        times = []
        for turn in range(ROUNDS):
            with Watched(self.engine.base_url, latency_s=LATENCY_S) as wire:
                service = self.service(wire.url)
                bound_s = bare(run, service, steps)
                times.append((bound_s, paced(run, service, self.home / f"far-{turn}")))
        bound, far = ((steps - FILLED) / statistics.median(one) for one in zip(*times, strict=True))
        self.told("short", far, bound, statistics.median(bound_s / far_s for bound_s, far_s in times))

    def far_and_slow(self, steps: int) -> None:
        """Time a run whose steps take more, on a server with processors of its own."""
        rows = write_rows(self.home / "rows-replayed.jsonl", 20 * BATCH, 6)
        run = make_run(tiny_model(self.home / "replayed"), rows, steps).checkpoint(every=steps)
        with Recording(self.engine.base_url) as wire:
            _ = ours(run, self.service(wire.url), self.home / "recorded")
        bound = 1 / (2 * PASS_S)
        paces = []
        for turn in range(ROUNDS):
            with Replay(wire.answers, latency_s=LATENCY_S, pass_s=PASS_S, sample_s=PASS_S) as replay:
                slow_s = paced(run, self.service(replay.url), self.home / f"slow-{turn}")
                paces.append((steps - FILLED) / slow_s)
        far = statistics.median(paces)
        self.told("long", far, bound, far / bound)

    @staticmethod
    def told(what: str, far: float, bound: float, share: float) -> None:
        """Print what was reached behind a slow wire."""
        print(f"3. 200 ms on every request, {what} steps: {far:.2f} steps/s, bound {bound:.2f}: {share:.1%}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", type=int, choices=(1, 2, 3), help="only this one")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--slow-steps", type=int, default=40, help="a multiple of 20")
    asked = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # what is known is seen, also when time runs out
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    home = Path(tempfile.mkdtemp(prefix="bench-loop-"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with LocalEngine(root=home / "engine") as engine:
        bench = Bench(engine, home)
        if asked.part in {None, 1}:
            bench.against_the_cookbook(asked.steps)
        if asked.part in {None, 2}:
            bench.idle(asked.slow_steps)
        if asked.part in {None, 3}:
            bench.far(asked.slow_steps)
            bench.far_and_slow(asked.slow_steps)


if __name__ == "__main__":
    main()
