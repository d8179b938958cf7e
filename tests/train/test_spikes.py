"""The loss-spike guard: what is a spike, what is done about it, and that a resumed run does the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import tinker
from scipy import stats

from tests.train.records import numbers
from tinker_officer import Conversations, LocalEngine, LoRAPlan, Run, RunResult
from tinker_officer.errors import RunError
from tinker_officer.train.batches import Batches
from tinker_officer.train.order import Order
from tinker_officer.train.spikes import SpikeGuard, robust_z


Digests = Callable[[str], dict[str, str]]
BAD_STEP = 14


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def poisoned(tiny_model: Path, rows: Path) -> Run:
    """Twenty-four steps of two rows; the two rows of step 14 are noise."""
    clean = [{"messages": one.messages} for one in Conversations.from_jsonl(rows, progress=False).take(46)]
    noise = [
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": text}]}
        for text in ("]{^~|%@Z#Q&*" * 2, "}`XJ@!K$<~>Q" * 2)
    ]
    plan = LoRAPlan.for_(str(tiny_model))

    def build(data: list[dict[str, Any]]) -> Run:
        planned = plan.sft(Conversations.from_list(data), epochs=1)
        pinned = planned.pin(batch_size=2, learning_rate=2e-2, rank=4)
        return Run(pinned, name="spiky").checkpoint(every=5).schedule("constant", warmup=0.0)

    order = Order(np.arange(48), batch_size=2, epochs=1, seed=build([*clean, *noise]).order_seed)
    rows_of_step = order.batch(BAD_STEP)
    data = iter(clean)
    put = dict(zip(rows_of_step, noise, strict=True))
    return build([put.get(index) or next(data) for index in range(48)])


def guarded(run: Run, action: str, **more: Any) -> Run:
    return run.guard(action, window=10, z=6.0, **more)


def test_the_robust_z_is_scipys() -> None:
    """The score equals SciPy's median and scaled absolute deviation; constant losses have a floor."""
    rng = np.random.default_rng(0)
    before = rng.normal(2.0, 0.3, size=40)
    expected = (5.0 - np.median(before)) / stats.median_abs_deviation(before, scale="normal")
    assert robust_z(5.0, before) == pytest.approx(expected, rel=1e-4)
    assert robust_z(2.1, [2.0] * 20) == pytest.approx(5.0)
    assert robust_z(0.0, [0.0] * 20) == 0.0
    assert robust_z(1e-9, [0.0] * 20) == np.inf


def test_ordinary_losses_are_no_spikes() -> None:
    """Of 4,000 losses from one normal law, each judged by the 16 before it, three at most are spikes."""
    losses = np.random.default_rng(1).normal(2.0, 0.3, size=(4_000, 17))
    rule = SpikeGuard()
    spikes = sum(robust_z(row[-1], row[:-1]) > rule.z for row in losses)
    assert spikes <= 3


def test_a_skipped_batch_leaves_no_trace_in_the_weights(
    poisoned: Run, engine: LocalEngine, digests: Digests, tmp_path: Path
) -> None:
    """`skip` ends with the bits of a loop that leaves that batch out; the ledger says what was done."""
    result = guarded(poisoned, "skip").run(on=engine, at=tmp_path / "run", progress=False)
    assert result.stopped == "completed"
    ledger = lines(tmp_path / "run/ledger.jsonl")
    assert [(one["guard"], one["at"]) for one in ledger if "guard" in one] == [("skip", BAD_STEP)]
    assert [one["step"] for one in ledger if one.get("skipped")] == [BAD_STEP]
    assert [one["step"] for one in ledger if "step" in one] == list(range(1, 25))
    record = result.history()[BAD_STEP - 1]
    assert record["guard/z"] > 6
    assert record["train/learning_rate"] == 0.0
    assert digests(result.final.state_path) == by_hand(poisoned, engine, digests, leave_out=BAD_STEP)


def by_hand(run: Run, engine: LocalEngine, digests: Digests, *, leave_out: int) -> dict[str, str]:
    """Train with the SDK alone, step by step, without one of the batches; return the digests."""
    plan = run.plan
    client = engine.service_client().create_lora_training_client(plan.base_model, rank=4, seed=0).result()
    batches = Batches.of(run, "chatml", progress=False)
    for step in range(1, batches.steps + 1):
        if step != leave_out:
            client.forward_backward(list(batches.source.make(step).datums), "cross_entropy").result()
            client.optim_step(
                tinker.AdamParams(learning_rate=plan.learning_rate, **attrs.asdict(run.adam))
            ).result()
    return digests(client.save_state("by-hand").result().path)


def test_rolling_back_lowers_the_learning_rate_from_the_checkpoint_on(
    poisoned: Run, engine: LocalEngine, tmp_path: Path
) -> None:
    """A batch that spikes twice leaves a quarter of the rate after the checkpoint, then stops the run."""
    run = guarded(poisoned, "roll_back", lower=0.5, most=2)
    with pytest.raises(RunError, match="the loss spiked at step 14") as caught:
        run.run(on=engine, at=tmp_path / "run", progress=False)
    assert "step 14: roll_back; step 14: roll_back" in caught.value.got
    assert (tmp_path / "run/stopped-at-step-000014.json").exists()
    made = [one for one in lines(tmp_path / "run/ledger.jsonl") if "guard" in one]
    assert [(one["at"], one["back_to"]) for one in made] == [(14, 10), (14, 10)]
    rates = {one["step"]: one["train/learning_rate"] for one in lines(tmp_path / "run/metrics.jsonl")}
    assert [rates[step] for step in (1, 10, 11, 13)] == pytest.approx([2e-2, 2e-2, 5e-3, 5e-3])


def test_a_spike_that_is_to_stop_the_run_names_its_rows(
    poisoned: Run, engine: LocalEngine, tmp_path: Path
) -> None:
    """`stop` is an error with the rows and their text; the checkpoint before it stands."""
    with pytest.raises(RunError, match="the loss spiked at step 14, and the run was to stop"):
        guarded(poisoned, "stop").run(on=engine, at=tmp_path / "run", progress=False)
    kept = json.loads((tmp_path / "run/stopped-at-step-000014.json").read_text())
    assert any("]{^~" in row["messages"][1]["content"] for row in kept)
    assert RunResult.open(tmp_path / "run").last.step == 10


@pytest.mark.parametrize("action", ["skip", "roll_back"])
def test_a_guarded_run_resumes_to_the_same_numbers(
    action: str,
    poisoned: Run,
    make_run: Callable[..., Run],
    engine: LocalEngine,
    digests: Digests,
    tmp_path: Path,
) -> None:
    """Cancelled before and after the spike, a run ends with the bits and numbers of one that never was.

    One run meets a batch of noise, and leaves it out; the other warms up until it diverges, and comes back
    with a tenth of the rate.
    """
    run = guarded(poisoned, "skip")
    if action == "roll_back":
        diverging = make_run(count=44, epochs=3, rate=0.1).schedule("linear", warmup=0.89)
        run = guarded(diverging.checkpoint(every=5), "roll_back", lower=0.1)
    whole = run.run(on=engine, at=tmp_path / "whole", progress=False)
    for stop_at in (8, 13, 17):
        with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
            next(step for step in live if step.index >= stop_at)
            live.cancel()
    resumed = run.run(on=engine, at=tmp_path / "run", progress=False)
    assert resumed.stopped == whole.stopped == "completed"
    made = [one for one in lines(tmp_path / "run/ledger.jsonl") if "guard" in one]
    assert {one["guard"] for one in made} == {action}
    assert digests(resumed.final.state_path) == digests(whole.final.state_path)
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")


@pytest.mark.parametrize(
    "change",
    [{"action": "jump"}, {"z": 0.5}, {"window": 2}, {"lower": 1.0}, {"most": 0}, {"z": float("nan")}],
)
def test_a_rule_out_of_range_is_refused(change: dict[str, Any], poisoned: Run) -> None:
    """Each setting is checked where it is written."""
    with pytest.raises(RunError):
        poisoned.guard(**change)


def test_a_guarded_run_survives_json(poisoned: Run) -> None:
    """Guard and budget are part of the spec, and come back from it; the budget is no part of the identity."""
    run = guarded(poisoned, "roll_back", lower=0.3).budget(tokens=1000, hours=2.5)
    again = Run.from_json(run.to_json(), data=poisoned.data)
    assert (again.spikes, again.limits) == (run.spikes, run.limits)
    assert run.digest == run.budget().digest != poisoned.digest
    assert "loss spikes" in run.explain()
    assert "1.00k tokens, 2.5 hours" in run.explain()
