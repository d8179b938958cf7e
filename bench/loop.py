"""The loop against the cookbook's, and against the server's own pace, on this machine.

    python bench/loop.py [--steps N]

1. `tinker_cookbook.supervised.train` and `Run`, on one LocalEngine, with the same tiny model, rows, batches,
   rate and checkpoints, turn by turn, three times each. Ours has everything on: guard, ledger, checkpoints
   proven finite, TensorBoard. Timed is the whole job, from the call to its return, saving included; the
   median of the three ratios counts.
2. A run of a slower model, whose steps take a fraction of a second, against the SDK alone, which sends
   batches made beforehand far ahead: the pace of the server. What ours takes longer, it waits for the client.
3. The same run behind a wire that adds 200 ms to every request, against the pace of the server without the
   wire, which is the most that any pipeline can reach.

In 2 and 3 the first steps, which fill the pipeline, are left out, and the faster of two rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
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

from tinker_officer import Conversations, LocalEngine, LoRAPlan, Run, sinks
from tinker_officer.testing import tiny_model
from tinker_officer.train.batches import Batches


os.environ.setdefault("TINKER_TELEMETRY", "0")
RATE, BATCH, ROUNDS, LATENCY_S, DEPTH, FILLED = 1e-3, 8, 3, 0.2, 8, 12


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
    plan = LoRAPlan.for_(str(model)).sft(data, epochs=steps * BATCH // len(data), max_length=512)
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
        while made and len(pending) <= DEPTH:
            pending.append((client.forward_backward(made.pop(0), "cross_entropy"), client.optim_step(adam)))
        for future in pending.popleft():
            future.result()
        ended.append(time.monotonic())
    return ended[-1] - ended[FILLED - 1]


def paced(folder: Path) -> float:
    """Return the seconds from step `FILLED` to the last, as the run's own metrics have them."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return float(records[-1]["time/elapsed_s"] - records[FILLED - 1]["time/elapsed_s"])


def wire(url: str) -> Any:
    """Return the tests' proxy, with 200 ms for every request."""
    path = Path(__file__).parents[1] / "tests/train/wire.py"
    spec = importlib.util.spec_from_file_location("wire", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Wire(url, latency_s=LATENCY_S)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--slow-steps", type=int, default=80)
    asked = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # what is known is seen, also when time runs out
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    home = Path(tempfile.mkdtemp(prefix="bench-loop-"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    rows = write_rows(home / "rows.jsonl", 20 * BATCH, 6)
    with LocalEngine(root=home / "engine") as engine:
        steps = asked.steps
        run = make_run(tiny_model(home / "tiny"), rows, steps)
        _ = ours(run, engine, home / "warm")
        pairs = []
        for turn in range(ROUNDS):
            theirs_s = cookbooks(run, rows, engine, home / f"cookbook-{turn}", steps)
            pairs.append((theirs_s, ours(run, engine, home / f"ours-{turn}")))
        for theirs_s, ours_s in pairs:
            print(f"  cookbook {steps / theirs_s:6.1f} steps/s   ours {steps / ours_s:6.1f} steps/s")
        ratio = statistics.median(theirs_s / ours_s for theirs_s, ours_s in pairs)
        print(f"1. tiny model, the whole job: ours does {ratio:.2f} times the cookbook's steps/s")

        slow = asked.slow_steps
        model = tiny_model(home / "slow", hidden=128, layers=4, heads=4, kv_heads=2)
        run = make_run(model, write_rows(home / "long.jsonl", 20 * BATCH, 30), slow)
        run = run.pipeline(depth=DEPTH).checkpoint(every=slow)
        seconds = []
        for turn in range(2):
            alone_s = bare(run, engine.service_client(), slow)
            _ = ours(run, engine, home / f"near-{turn}")
            with wire(engine.base_url) as far:
                service = tinker.ServiceClient(base_url=far.url, api_key=engine.token)
                _ = ours(run, service, home / f"far-{turn}")
            there_s = [paced(home / f"{where}-{turn}") for where in ("near", "far")]
            seconds.append((alone_s, *there_s))
        alone_s, near_s, far_s = (min(one) for one in zip(*seconds, strict=True))
        counted = slow - FILLED
        pace = [f"{counted / one:.2f}" for one in (alone_s, near_s, far_s)]
        print(f"2. slower model, {counted} steps: SDK alone {pace[0]} steps/s, ours {pace[1]},", end=" ")
        print(f"so the server waits {max(0.0, 1 - alone_s / near_s):.1%} of the time")
        print(f"3. with 200 ms on every request: {pace[2]} steps/s,", end=" ")
        print(f"{min(alone_s, near_s) / far_s:.1%} of the bound")


if __name__ == "__main__":
    main()
