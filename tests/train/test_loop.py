"""The loop on a real engine: it learns, measures, evaluates, saves, and stops where it must."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import tinker

from tinker_officer import Conversations, EvalSuite, LocalEngine, LoRAPlan, Run, RunResult, Scorecard
from tinker_officer.data.render import renderer_for, to_datum
from tinker_officer.errors import OfficerError, RunError
from tinker_officer.train.sft import Sft


MakeRun = Callable[..., Run]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def held_out(rows: Path) -> Conversations:
    """Eight conversations, none of which are trained on."""
    data = Conversations.from_jsonl(rows, progress=False)
    return Conversations.from_list([{"messages": data[i].messages} for i in range(42, 50)])


def test_it_learns_and_its_folder_says_everything(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path
) -> None:
    """The loss falls by more than a third; metrics, ledger, checkpoints and result fit together."""
    run = make_run(epochs=6).checkpoint(every=10)
    result = run.run(on=engine, at=tmp_path / "run", progress=False)
    history = result.history()
    first = np.mean([record["train/mean_nll"] for record in history[:6]])
    last = np.mean([record["train/mean_nll"] for record in history[-6:]])
    assert last < 0.66 * first
    assert [record["step"] for record in history] == list(range(1, 37))
    assert [record["train/examples"] for record in history[:6]] == [4, 4, 4, 4, 4, 2]
    assert [one.step for one in result.checkpoints] == [10, 20, 30, 36]
    assert result.best == result.last == result.final
    assert result.final.metrics["train/mean_nll"] == history[-1]["train/mean_nll"]
    rates = [record["train/learning_rate"] for record in history]
    assert rates == pytest.approx([5e-3 * run.decay.multiplier(step, 36) for step in range(1, 37)])
    epochs = [
        sorted(
            row
            for one in lines(tmp_path / "run/ledger.jsonl")
            if one.get("epoch") == epoch
            for row in one["rows"]
        )
        for epoch in range(6)
    ]
    assert epochs == [list(range(22))] * 6
    assert result.spec_digest == run.digest
    assert result.engine["tinker"].startswith("0.38")
    assert "completed" in result.explain()


def test_no_secret_and_no_place_of_the_data_is_written(
    make_run: MakeRun, engine: LocalEngine, rows: Path, tmp_path: Path
) -> None:
    """The folder holds neither the engine's token nor the folder that the data lay in."""
    make_run(count=4, epochs=1).run(on=engine, at=tmp_path / "run", progress=False)
    text = "".join(path.read_text() for path in (tmp_path / "run").glob("*.json*"))
    assert engine.token not in text
    assert str(rows.parent) not in text
    assert rows.name in text


def test_metrics_equal_numpy_over_the_servers_logprobs(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path
) -> None:
    """The first step's NLL, a token and an example, equal NumPy's over a forward pass of the base model."""
    run = make_run(count=5, epochs=1, batch_size=5)
    result = run.run(on=engine, at=tmp_path / "run", progress=False)
    plan = run.plan
    assert plan.data is not None
    client = engine.service_client().create_lora_training_client(plan.base_model, rank=4, seed=0).result()
    renderer = renderer_for(plan.base_model)
    datums = [to_datum(conversation, renderer) for conversation in plan.data]
    output = client.forward(datums, "cross_entropy").result()
    logprobs = [np.array(one["logprobs"].data) for one in output.loss_fn_outputs]
    weights = [np.array(datum.loss_fn_inputs["weights"].data) for datum in datums if datum]
    nll = -np.concatenate(logprobs) @ np.concatenate(weights) / np.concatenate(weights).sum()
    by_example = np.mean([-(one @ of) / of.sum() for one, of in zip(logprobs, weights, strict=True)])
    record = result.history()[0]
    assert record["train/mean_nll"] == pytest.approx(nll, rel=1e-5)
    assert record["train/mean_nll_by_example"] == pytest.approx(by_example, rel=1e-5)
    assert record["train/tokens"] == np.concatenate(weights).sum() == plan.counts.trained


def test_reduction_scales_the_gradient_and_depth_changes_nothing(
    make_run: MakeRun, engine: LocalEngine, digests: Callable[[str], Any], tmp_path: Path
) -> None:
    """A summed loss has the mean's gradient times the tokens; submitting ahead moves no bit."""
    mean = make_run(epochs=1)
    ends = {
        name: run.run(on=engine, at=tmp_path / name, progress=False)
        for name, run in {
            "mean": mean,
            "sum": mean.sft(reduction="sum"),
            "depth-0": mean.pipeline(depth=0),
            "depth-9": mean.pipeline(depth=9),
        }.items()
    }
    first = {name: result.history()[0] for name, result in ends.items()}
    tokens = first["mean"]["train/tokens"]
    assert first["sum"]["train/grad_norm"] == pytest.approx(
        first["mean"]["train/grad_norm"] * tokens, rel=1e-4
    )
    bits = digests(ends["mean"].final.state_path)
    assert digests(ends["depth-0"].final.state_path) == digests(ends["depth-9"].final.state_path) == bits
    assert digests(ends["sum"].final.state_path) != bits


def test_it_evaluates_before_every_n_and_after(
    make_run: MakeRun, engine: LocalEngine, held_out: Conversations, tmp_path: Path
) -> None:
    """The suite is asked at 0, 5, 10 and the last step, of a checkpoint that can be loaded again."""
    suite = EvalSuite().nll(held_out)
    run = make_run(epochs=2).evaluate(suite, every=5)
    with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
        shown = {step.index: step.metrics["held_out/nll"] for step in live if "held_out/nll" in step.metrics}
        result = live.result()
    history = {
        record["step"]: record["held_out/nll"] for record in result.history() if "held_out/nll" in record
    }
    assert sorted(history) == [0, 5, 10, 12]
    assert shown == {step: value for step, value in history.items() if step}
    assert history[12] < history[0]
    by_step = {record["step"]: record for record in result.history()}
    trained = np.mean([by_step[step]["train/mean_nll"] for step in range(1, 11)])
    assert by_step[10]["gap/held_out"] == pytest.approx(history[10] - trained)
    assert "gap/held_out" not in by_step[0]
    assert result.best.step == min(history, key=lambda step: (history[step], step))
    card = Scorecard.load(tmp_path / "run/evals/step-000010.json")
    assert card.metrics()["held_out/nll"] == history[10]
    again = suite.evaluate(
        next(one for one in result.checkpoints if one.step == 10), on=engine, progress=False
    )
    assert again.metrics()["held_out/nll"] == pytest.approx(history[10], rel=1e-5)


def test_an_evaluation_is_not_asked_again_on_resume(
    make_run: MakeRun, engine: LocalEngine, held_out: Conversations, tmp_path: Path
) -> None:
    """Cancelled after an evaluation and started again, the card of that step stays as it was."""
    run = make_run(epochs=2).evaluate(EvalSuite().nll(held_out), every=4)
    with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
        next(step for step in live if step.index == 4)
        live.cancel()
    cards = {path.name: path.read_text() for path in (tmp_path / "run/evals").glob("*.json")}
    result = run.run(on=engine, at=tmp_path / "run", progress=False)
    assert result.stopped == "completed"
    assert {"step-000000.json", "step-000004.json"} <= cards.keys()
    assert {name: (tmp_path / "run/evals" / name).read_text() for name in cards} == cards
    steps = [record["step"] for record in lines(tmp_path / "run/metrics.jsonl") if "held_out/nll" in record]
    assert steps == [0, 4, 8, 12]


def test_it_stops_early_and_keeps_the_best(
    make_run: MakeRun, engine: LocalEngine, held_out: Conversations, tmp_path: Path
) -> None:
    """With a rate that ruins the model the held-out loss rises: the run stops, and the best is the start."""
    suite = EvalSuite().nll(held_out)
    run = (
        make_run(epochs=9, rate=0.9)
        .evaluate(suite, every=2)
        .stop_early(on="held_out/nll", patience=2)
        .checkpoint(every=1, keep=1)
    )
    result = run.run(on=engine, at=tmp_path / "run", progress=False)
    assert result.stopped == "stopped early: held_out/nll has not improved in 2 evaluations"
    assert result.steps == 4
    assert result.best.step == 0
    assert [one.step for one in result.checkpoints] == [0, 4]  # keep=1: the newest, and the best
    service = engine.service_client()
    assert service.create_training_client_from_state(result.best.state_path).result()
    assert run.run(on=engine, at=tmp_path / "run", progress=False) == result


def test_beside_training_the_same_is_found_and_decided(
    make_run: MakeRun,
    engine: LocalEngine,
    held_out: Conversations,
    digests: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    """Evaluated beside training, values and weights are the same, also when stopped between two answers."""
    plain = make_run(epochs=2).checkpoint(every=50, keep=1)
    run = plain.evaluate(EvalSuite().nll(held_out), every=4, beside=True)
    waits = plain.evaluate(EvalSuite().nll(held_out), every=4).run(
        on=engine, at=tmp_path / "waits", progress=False
    )
    whole = run.run(on=engine, at=tmp_path / "whole", progress=False)
    tokens = sum(record["train/total_tokens"] for record in whole.history()[1:7])
    stopped = run.budget(tokens=tokens).run(on=engine, at=tmp_path / "halves", progress=False)
    assert stopped.steps == 6
    halves = run.run(on=engine, at=tmp_path / "halves", progress=False)

    def nlls(name: str) -> list[tuple[int, float]]:
        records = lines(tmp_path / name / "metrics.jsonl")
        return [(one["step"], one["held_out/nll"]) for one in records if "held_out/nll" in one]

    assert nlls("whole") == nlls("halves") == nlls("waits")
    order = [record["step"] for record in lines(tmp_path / "whole/metrics.jsonl")]
    assert order == [1, 2, 3, 4, 0, 5, 6, 7, 8, 4, 9, 10, 11, 12, 8, 12]
    assert [record["step"] for record in lines(tmp_path / "halves/metrics.jsonl")] == order
    assert digests(whole.final.state_path) == digests(halves.final.state_path)
    assert digests(whole.final.state_path) == digests(waits.final.state_path)
    assert whole.best.step == halves.best.step == waits.best.step


def test_beside_training_an_early_stop_comes_one_evaluation_later(
    make_run: MakeRun, engine: LocalEngine, held_out: Conversations, tmp_path: Path
) -> None:
    """The answer of one evaluation counts at the next: two without an improvement stop at the third."""
    suite = EvalSuite().nll(held_out)
    run = make_run(epochs=9, rate=0.9).evaluate(suite, every=2, beside=True)
    result = run.stop_early(on="held_out/nll", patience=2).run(on=engine, at=tmp_path / "run", progress=False)
    assert result.stopped == "stopped early: held_out/nll has not improved in 2 evaluations"
    assert (result.steps, result.best.step) == (6, 0)
    assert "held_out/nll" in result.history()[-1]


def test_only_the_newest_are_kept_on_the_server(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path
) -> None:
    """keep=2 deletes the older checkpoints from the server, and the record says so."""
    result = (
        make_run(epochs=2).checkpoint(every=3, keep=2).run(on=engine, at=tmp_path / "run", progress=False)
    )
    assert [one.step for one in result.checkpoints] == [9, 12]
    gone = [record for record in lines(tmp_path / "run/checkpoints.jsonl") if "withdrawn" in record]
    assert [(record["step"], record["reason"]) for record in gone] == [(3, "pruned"), (6, "pruned")]
    for record in gone:
        with pytest.raises((tinker.NotFoundError, tinker.RequestFailedError)):
            engine.service_client().create_training_client_from_state(record["withdrawn"]).result()


def test_checkpoints_expire_but_for_the_best_and_the_last(
    make_run: MakeRun, engine: LocalEngine, held_out: Conversations, tmp_path: Path
) -> None:
    """With a time to live each save expires in that time; the best and the last are kept for good."""
    run = make_run(epochs=2).checkpoint(every=3, ttl=timedelta(hours=2))
    result = run.evaluate(EvalSuite().nll(held_out)).run(on=engine, at=tmp_path / "run", progress=False)
    rest = engine.service_client()._rest_client()
    for saved in result.checkpoints:
        listed = rest.list_checkpoints(saved.state_path.split("/")[2]).result().checkpoints
        expires = {one.tinker_path: one.expires_at for one in listed}
        paths = [path for path in (saved.state_path, saved.sampler_path) if path]
        left_s = [
            None if expires[path] is None else (expires[path] - datetime.now(UTC)).total_seconds()
            for path in paths
        ]
        if saved.step in {result.best.step, result.last.step}:
            assert left_s == [None] * len(paths)
        else:
            assert all(value is not None and 0 < value <= 7200 for value in left_s)
    assert [one.step for one in result.checkpoints] == [0, 3, 6, 9, 12]
    with pytest.raises(RunError, match="ttl_s is out of range"):
        run.checkpoint(ttl=60)


def test_a_finished_run_returns_its_result_without_training(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path
) -> None:
    """Started again, a finished run needs no server, and its files do not change."""
    run = make_run(count=8, epochs=1)
    result = run.run(on=engine, at=tmp_path / "run", progress=False)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with run.start(on="http://127.0.0.1:1", at=tmp_path / "run", progress=False) as live:
        assert list(live) == []
        assert live.result() == result
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_another_spec_or_other_data_is_refused(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path
) -> None:
    """In the folder of a run another rank, rate or data set is refused, each difference named."""
    make_run(count=8, epochs=1).run(on=engine, at=tmp_path / "run", progress=False)
    with pytest.raises(RunError, match=r"run\.plan\.pins\.rank: 4 -> 8"):
        make_run(count=8, epochs=1, rank=8).start(on=engine, at=tmp_path / "run")
    with pytest.raises(RunError, match=r"run\.schedule\.shape"):
        make_run(count=8, epochs=1).schedule("cosine").start(on=engine, at=tmp_path / "run")
    with pytest.raises(RunError, match="fingerprint"):
        make_run(count=9, epochs=1).start(on=engine, at=tmp_path / "run")


def test_the_same_rows_in_another_order_are_refused(
    make_run: MakeRun, engine: LocalEngine, rows: Path, tmp_path: Path
) -> None:
    """The fingerprint of reordered rows is the same; the order of the data is not."""
    run = make_run(count=8, epochs=1)
    run.run(on=engine, at=tmp_path / "run", progress=False)
    reordered = tmp_path / rows.name
    reordered.write_text("".join(reversed(rows.read_text().splitlines(keepends=True)[:8])))
    data = Conversations.from_jsonl(reordered, progress=False)
    other = Run.from_json(run.to_json(), data=data)
    with pytest.raises(RunError, match=r"data\.order"):
        other.start(on=engine, at=tmp_path / "run")


def test_a_second_start_at_once_is_refused(make_run: MakeRun, engine: LocalEngine, tmp_path: Path) -> None:
    """While a run trains, the same folder cannot be started again; afterwards it can."""
    run = make_run(epochs=4)
    with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
        with pytest.raises(RunError, match="in use"):
            run.start(on=engine, at=tmp_path / "run")
        live.cancel()
    assert run.run(on=engine, at=tmp_path / "run", progress=False).stopped == "completed"


@pytest.mark.parametrize("name", ["metrics.jsonl", "ledger.jsonl", "checkpoints.jsonl"])
def test_a_torn_tail_never_stops_a_resume(
    name: str, make_run: MakeRun, engine: LocalEngine, digests: Callable[[str], Any], tmp_path: Path
) -> None:
    """A file whose last line is cut off, as by a crash, is taken up where it is whole."""
    run = make_run(epochs=2).checkpoint(every=3)
    whole = run.run(on=engine, at=tmp_path / "whole", progress=False)
    with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
        next(step for step in live if step.index == 7)
        live.cancel()
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes() + b'{"step":99,"half')
    resumed = run.run(on=engine, at=tmp_path / "run", progress=False)
    assert resumed.stopped == "completed"
    assert digests(resumed.final.state_path) == digests(whole.final.state_path)
    assert [record["step"] for record in resumed.history()] == list(range(1, 13))


def test_a_lost_checkpoint_is_replaced_by_the_one_before(
    make_run: MakeRun, engine: LocalEngine, digests: Callable[[str], Any], tmp_path: Path
) -> None:
    """The newest state is gone from the server: the run resumes from the one before, to the same bits."""
    run = make_run(epochs=2).checkpoint(every=3)
    whole = run.run(on=engine, at=tmp_path / "whole", progress=False)
    with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
        next(step for step in live if step.index == 7)
        live.cancel()
    saved = RunResult.open(tmp_path / "run")
    rest = engine.service_client()._rest_client()
    rest.delete_checkpoint_from_tinker_path(saved.last.state_path).result()
    resumed = run.run(on=engine, at=tmp_path / "run", progress=False)
    assert digests(resumed.final.state_path) == digests(whole.final.state_path)
    reasons = [record["reason"] for record in lines(tmp_path / "run/checkpoints.jsonl") if "reason" in record]
    assert len(reasons) == 1
    assert reasons[0].startswith("rejected")


def test_a_run_whose_checkpoints_are_all_gone_says_so(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path
) -> None:
    """Nothing can be loaded: an error in four parts, and the folder is left as it was."""
    run = make_run(epochs=2).checkpoint(every=3)
    with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
        next(step for step in live if step.index == 4)
        live.cancel()
    rest = engine.service_client()._rest_client()
    for one in RunResult.open(tmp_path / "run").checkpoints:
        rest.delete_checkpoint_from_tinker_path(one.state_path).result()
    before = (tmp_path / "run/checkpoints.jsonl").read_bytes()
    with pytest.raises(RunError, match="no checkpoint of the run can be loaded"):
        run.run(on=engine, at=tmp_path / "run", progress=False)
    assert (tmp_path / "run/checkpoints.jsonl").read_bytes() == before


def test_a_changed_ledger_is_refused(make_run: MakeRun, engine: LocalEngine, tmp_path: Path) -> None:
    """A ledger that lost a step, or has other rows than the order, does not fit the data."""
    run = make_run(epochs=2).checkpoint(every=3)
    with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
        next(step for step in live if step.index == 4)
        live.cancel()
    path = tmp_path / "run/ledger.jsonl"
    records = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in records if not line.startswith('{"step":2,')))
    with pytest.raises(RunError, match="the ledger does not fit the data"):
        run.run(on=engine, at=tmp_path / "run", progress=False)


def poisoned_model(tiny_model: Path, folder: Path) -> tuple[Path, str]:
    """A copy of the model whose input embedding of one rare character is not a number."""
    import shutil

    from safetensors.numpy import load_file, save_file

    from tinker_officer._models import load_tokenizer

    shutil.copytree(tiny_model, folder)
    tokenizer = load_tokenizer(str(tiny_model))
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    table = tensors["model.embed_tokens.weight"].copy()
    tensors["lm_head.weight"] = table.copy()  # untied, so that only reading the character is poisoned
    for token in tokenizer.encode("~", add_special_tokens=False):
        table[token] = np.nan
    tensors["model.embed_tokens.weight"] = table
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    return folder, "~"


def test_a_number_that_is_not_finite_stops_the_run(
    tiny_model: Path, engine: LocalEngine, rows: Path, tmp_path: Path
) -> None:
    """A row that makes the loss NaN stops the run; it is named, and no later checkpoint is recorded."""
    model, poison = poisoned_model(tiny_model, tmp_path / "poisoned")
    clean = Conversations.from_jsonl(rows, progress=False).take(15)
    bad = {
        "messages": [
            {"role": "user", "content": f"What is {poison}?"},
            {"role": "assistant", "content": "No."},
        ]
    }
    data = Conversations.from_list([*({"messages": one.messages} for one in clean), bad])
    plan = LoRAPlan.for_(str(model)).sft(data, epochs=1).pin(batch_size=2, learning_rate=1e-3, rank=4)
    run = Run(plan, name="poisoned").checkpoint(every=1)
    with pytest.raises(tinker.RequestFailedError, match="not finite") as caught:
        run.run(on=engine, at=tmp_path / "run", progress=False)
    ledger = [record for record in lines(tmp_path / "run/ledger.jsonl") if "step" in record]
    stopped = len(ledger) + 1
    assert f"the batch of step {stopped} is rows list" in "".join(caught.value.__notes__)
    assert all(15 not in record["rows"] for record in ledger)
    kept = json.loads((tmp_path / f"run/stopped-at-step-{stopped:06d}.json").read_text())
    assert any(poison in row["messages"][0]["content"] for row in kept)
    saved = [one.step for one in RunResult.open(tmp_path / "run").checkpoints]
    assert saved == list(range(1, stopped))
    assert RunResult.open(tmp_path / "run").stopped == "unfinished"


class Overflowing(Sft):
    """An objective whose figures overflow at the third step, as on a server that does not check."""

    def measure(self, batch: Any, output: Any) -> dict[str, float]:
        measured = super().measure(batch, output)
        return {**measured, "train/mean_nll": float("inf")} if batch.step == 3 else measured


def test_a_figure_that_is_not_finite_stops_the_run(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path
) -> None:
    """The server answers, and the answer is infinite: no step and no checkpoint after it is recorded."""
    run = attrs.evolve(make_run().checkpoint(every=1), objective=Overflowing())
    with pytest.raises(
        RunError, match="a number is not finite at step 3; the checkpoint of step 2 is good"
    ) as caught:
        run.run(on=engine, at=tmp_path / "run", progress=False)
    assert "train/mean_nll = inf" in caught.value.got
    assert "sums.jsonl:" in caught.value.got
    assert [one.step for one in RunResult.open(tmp_path / "run").checkpoints] == [1, 2]
    assert [record["step"] for record in RunResult.open(tmp_path / "run").history()] == [1, 2]


def test_too_long_rows_are_left_out_before_the_order_is_made(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path
) -> None:
    """Dropped rows are in no batch, and the steps are those of the rows that remain."""
    run = make_run(epochs=1, max_length=40, too_long="drop")
    assert run.plan.counts.dropped
    result = run.run(on=engine, at=tmp_path / "run", progress=False)
    applied = [row for one in lines(tmp_path / "run/ledger.jsonl") if "step" in one for row in one["rows"]]
    assert len(applied) == len(set(applied)) == run.plan.counts.examples
    assert result.steps == run.plan.steps


def test_a_full_disk_stops_with_a_resumable_error(
    make_run: MakeRun,
    engine: LocalEngine,
    rows: Path,
    forge: Any,
    digests: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    """Where a file may grow no further the run stops in four parts; with room again it ends the same."""
    run = make_run(epochs=4).checkpoint(every=5)
    whole = run.run(on=engine, at=tmp_path / "whole", progress=False)
    pid = forge.start(run, rows, 22, tmp_path / "run", engine, file_limit=6000)
    forge.wait(pid)
    failed = (tmp_path / "run.failed").read_text()
    assert "the run folder cannot be written" in failed
    assert "goes on from the last checkpoint" in failed
    resumed = run.run(on=engine, at=tmp_path / "run", progress=False)
    assert digests(resumed.final.state_path) == digests(whole.final.state_path)


def test_a_stall_is_reported_with_what_it_waits_for(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a patience of a millisecond every wait is a stall, and the log says for what."""
    with caplog.at_level(logging.WARNING, logger="tinker_officer.train.waiting"):
        make_run(count=8, epochs=1).pipeline(stall_warning_s=0.001).run(
            on=engine, at=tmp_path / "run", progress=False
        )
    assert {"forward_backward"} <= {record.__dict__["officer.waits_for"] for record in caplog.records}


def test_a_folder_without_a_run_has_no_result(tmp_path: Path) -> None:
    """Opening a folder that is no run's, or a damaged one, is an error in four parts."""
    with pytest.raises(RunError, match="not a run's folder"):
        RunResult.open(tmp_path)
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(OfficerError, match="not a run's spec"):
        RunResult.open(tmp_path)
