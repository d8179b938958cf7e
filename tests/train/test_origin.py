"""Runs that start from another run's checkpoint: SFT on SFT, and DPO whose reference is the SFT model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinker_officer import Conversations, EvalSuite, LocalEngine, LoRAPlan, Pairs, Run, RunResult
from tinker_officer.errors import RunError
from tinker_officer.train.checkpoints import CheckpointLog
from tinker_officer.train.folder import RunFolder


MakeRun = Callable[..., Run]
Digests = Callable[[str], dict[str, str]]


@pytest.fixture(scope="module")
def suite(rows: Path) -> EvalSuite:
    """The likelihood of conversations that no run trains on."""
    return EvalSuite().nll(Conversations.from_jsonl(rows, progress=False)[40:46])


@pytest.fixture(scope="module")
def first(
    make_run: MakeRun, suite: EvalSuite, engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory
) -> RunResult:
    """A run of three steps."""
    run = make_run(count=12, epochs=1).evaluate(suite)
    result: RunResult = run.run(engine, tmp_path_factory.mktemp("first") / "run", progress=False)
    return result


def test_a_run_begins_with_the_weights_it_is_told(
    make_run: MakeRun, first: RunResult, suite: EvalSuite, engine: LocalEngine, tmp_path: Path
) -> None:
    """Before its first step it scores what the first run scored after its last, to the bit."""
    run = make_run(count=4, epochs=1).start_from(first.final).evaluate(suite)
    assert first.final.state_path in run.explain()
    before, *_ = run.run(engine, tmp_path / "second", progress=False).history()
    assert before["held_out/nll"] == first.metrics["held_out/nll"] < first.history()[0]["held_out/nll"]


def test_a_stopped_run_goes_on_from_its_own_checkpoint_not_from_where_it_began(
    make_run: MakeRun, first: RunResult, engine: LocalEngine, digests: Digests, tmp_path: Path
) -> None:
    """Cancelled and begun again, it ends with the bits of one that never stopped."""
    run = make_run(count=12, epochs=2).start_from(first.final.state_path).checkpoint(every=2)
    whole = run.run(engine, tmp_path / "whole", progress=False)
    with run.start(on=engine, at=tmp_path / "halves", progress=False) as live:
        for step in live:
            if step.index == 2:
                live.cancel()
                break
    assert CheckpointLog(RunFolder(tmp_path / "halves").checkpoints).all()[-1].step < 6
    halves = run.run(engine, tmp_path / "halves", progress=False)
    assert digests(halves.final.state_path) == digests(whole.final.state_path)
    with pytest.raises(RunError, match="start_from: "):
        make_run(count=12, epochs=2).checkpoint(every=2).run(engine, tmp_path / "whole", progress=False)
    assert Run.from_json(run.to_json(), data=run.data) == run
    assert Run.from_json(run.to_json()).digest == run.digest


def test_the_reference_of_dpo_is_the_model_that_it_starts_from(
    tiny_model: Path, first: RunResult, engine: LocalEngine, tmp_path: Path
) -> None:
    """The first loss is ln 2 only where policy and reference are the same, also behind SFT."""
    pairs = Pairs.from_list(
        [
            {"prompt": f"What is {i} plus {i}?", "chosen": f"It is {2 * i}.", "rejected": f"Who knows {i}?"}
            for i in range(8)
        ]
    )
    plan = LoRAPlan.for_(str(tiny_model)).dpo(pairs, epochs=1).pin(batch_size=4, learning_rate=1e-3, rank=4)
    result = Run(plan, name="dpo").start_from(first.best).run(engine, tmp_path / "dpo", progress=False)
    assert result.history()[0]["train/dpo_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert result.history()[0]["train/chosen_reward"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "wrong",
    ["runs/sums", "tinker://x/sampler_weights/000003", None, 3],
    ids=["a folder", "a sampler's weights", "a result", "a number"],
)
def test_what_is_no_saved_state_is_refused_when_it_is_said(
    make_run: MakeRun, first: RunResult, wrong: Any
) -> None:
    """A folder, weights for sampling only, a whole result."""
    with pytest.raises(RunError, match=r"start_from\(first\.best\)"):
        _ = make_run().start_from(first if wrong is None else wrong)


def test_another_adapter_and_a_lost_checkpoint_are_refused_by_name(
    make_run: MakeRun, first: RunResult, engine: LocalEngine, tmp_path: Path
) -> None:
    """The server would train the rank that is there, whatever the plan says."""
    with pytest.raises(RunError, match=r"lora_rank 4 .*\n.*lora_rank 8\n.*plan\.pin\(rank=4\)"):
        make_run(rank=8).start_from(first.best).run(engine, tmp_path / "rank", progress=False)
    gone = first.best.state_path.replace("/weights/", "/weights/not-")
    with pytest.raises(RunError, match="cannot be read"):
        make_run().start_from(gone).run(engine, tmp_path / "gone", progress=False)
