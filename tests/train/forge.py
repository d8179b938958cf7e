"""Start runs in forked processes, on order: one JSON line in, one process id out.

The parent imports everything once and keeps no thread, so a child trains a few milliseconds after it was
asked for, and can be killed at any moment of its life.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import groups
import tinker

from tinker_officer import Conversations, EpisodeCounts, LoRAPlan, Pairs, Run
from tinker_officer.data.measure import renderer_identity
from tinker_officer.data.render import renderer_for, to_datum
from tinker_officer.train import live as _live  # noqa: F401 - imported for the children


def _pinned(plan: LoRAPlan, name: str, rate: float, batch_size: int = 4) -> Run:
    return Run(plan.pin(batch_size=batch_size, learning_rate=rate, rank=4), name=name).checkpoint(every=3)


def sft(order: dict[str, Any]) -> Run:
    """Supervised fine-tuning, twelve steps."""
    data = Conversations.from_jsonl(order["rows"], progress=False).take(22)
    return _pinned(LoRAPlan.for_(order["model"]).sft(data, epochs=2), "sft", 5e-3)


def guarded(order: dict[str, Any]) -> Run:
    """A rate that warms up until the loss diverges, and a guard that goes back and lowers it."""
    data = Conversations.from_jsonl(order["rows"], progress=False).take(44)
    run = _pinned(LoRAPlan.for_(order["model"]).sft(data, epochs=3), "guarded", 0.1).checkpoint(every=5)
    return run.schedule("linear", warmup=0.89).guard("roll_back", window=10, z=6.0, lower=0.1)


def dpo(order: dict[str, Any]) -> Run:
    """Preference, eight steps."""
    rows = [
        {"prompt": f"What is {i} plus {i}?", "chosen": f"It is {2 * i}.", "rejected": f"Who knows {i}?"}
        for i in range(16)
    ]
    plan = LoRAPlan.for_(order["model"]).dpo(Pairs.from_list(rows), epochs=2, dpo_beta=0.5)
    return _pinned(plan, "dpo", 2e-3)


def rl(order: dict[str, Any]) -> Run:
    """Rewards, eight steps, with samples that are a step old."""
    plan = LoRAPlan.for_(order["model"]).rl(8 * 4 * 4, group_size=4)
    return _pinned(plan, "rl", 1e-2).rl(groups.evens(size=4), max_tokens=6, max_steps_off_policy=1)


def distill(order: dict[str, Any]) -> Run:
    """A teacher's opinion of the student's samples, eight steps."""
    counts = EpisodeCounts(episodes=8 * 3 * 4, group_size=4, sampled_tokens=6)
    run = _pinned(LoRAPlan.for_(order["model"]).distill(counts), "distill", 1e-2, batch_size=3)
    return run.distill(groups.evens(size=4), teacher=order["teacher"], max_tokens=6)


KINDS: dict[str, Callable[[dict[str, Any]], Run]] = {
    "sft": sft, "guarded": guarded, "dpo": dpo, "rl": rl, "distill": distill
}  # fmt: skip


def train(order: dict[str, Any]) -> None:
    """Run what was ordered, and write how it ended beside the folder."""
    if "file_limit" in order:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond it fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], order["file_limit"]))
    if "kind" in order:
        run = KINDS[order["kind"]](order)
    else:
        data = Conversations.from_jsonl(order["rows"], progress=False).take(order["count"])
        run = Run.from_json(order["spec"], data=data)
    service = tinker.ServiceClient(base_url=order["url"], api_key=order["token"])
    with run.start(on=service, at=order["folder"], progress=False) as live:
        live.result()


def warm(order: dict[str, Any]) -> None:
    """Import, load and render once what every child would."""
    if "kind" in order:
        run = sft(order)
        renderer_identity(run.plan.base_model, "chatml")
        to_datum(run.data[0], renderer_for(run.plan.base_model))
        return
    data = Conversations.from_jsonl(order["rows"], progress=False).take(order["count"])
    run = Run.from_json(order["spec"], data=data)
    renderer_identity(run.plan.base_model, "chatml")
    to_datum(data[0], renderer_for(run.plan.base_model))


def main() -> None:
    """Fork a child for every line."""
    warmed = False
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended children vanish by themselves
    for line in sys.stdin:
        order = json.loads(line)
        if not warmed:
            warm(order)
            warmed = True
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                train(order)
            except BaseException:  # noqa: BLE001 - the parent reads what it was
                Path(order["folder"] + ".failed").write_text(traceback.format_exc())
                os._exit(1)
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
