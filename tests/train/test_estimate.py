"""A run says how long it will take before it starts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tinker_officer import Conversations, LocalEngine, LoRAPlan, Run, TokenCounts
from tinker_officer.errors import RunError


def test_an_estimate_is_of_the_order_of_what_the_run_takes(
    engine: LocalEngine, tiny_model: Path, tmp_path: Path
) -> None:
    """Half to four times the real time: one batch stands for all of them, and latency for a tiny model."""
    rows = [{"input": f"question {i} " * 40, "output": f"answer {i}"} for i in range(64)]
    plan = LoRAPlan.for_(str(tiny_model)).sft(Conversations.from_list(rows)).pin(rank=8, batch_size=8)
    run = Run(plan, name="timed").checkpoint(every=100)
    estimate = run.estimate(on=engine)
    began = time.monotonic()
    with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
        live.result()
    taken = time.monotonic() - began
    assert estimate.steps == plan.steps == 8
    assert estimate.seconds == pytest.approx(plan.counts.total / estimate.tokens_per_second)
    assert taken / 4 - 2 < estimate.seconds < taken * 2
    assert str(estimate).startswith("about ")


def test_a_plan_without_data_cannot_be_timed(engine: LocalEngine) -> None:
    """Counts alone are enough to plan with, not to train or to time."""
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(TokenCounts(examples=100, trained=1_000, total=2_000))
    with pytest.raises(RunError, match="the plan has no data"):
        Run(plan, name="timed").estimate(on=engine)
