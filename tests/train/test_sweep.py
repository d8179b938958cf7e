"""Sweeps: trials at the same time, halved by resuming, and never begun twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import attrs
import pytest

from tinker_officer import EvalSuite, RunResult, Sweep
from tinker_officer.errors import PlanError, RunError
from tinker_officer.train.folder import RunFolder
from tinker_officer.train.trial import SweepTrial


@pytest.fixture(scope="module")
def base(make_run):
    """A run of 12 steps, asked its held-out NLL at both ends."""
    run = make_run(count=22, epochs=2)
    held_out = make_run(count=50).data.split(0.3)[1]
    return run.evaluate(EvalSuite().nll(held_out))


@pytest.fixture(scope="module")
def swept(base, engine, tmp_path_factory):
    """A sweep of four trials over two rungs, once for the module."""
    folder = tmp_path_factory.mktemp("sweeps") / "rates"
    seen = []
    found = (
        Sweep(base)
        .over(learning_rate=[1e-5, 1e-3, 5e-3], rank=[4])
        .halving(at=(0.5,), keep=0.4)
        .run(engine, folder, on_each=lambda *pair: seen.append(pair), progress=False)
    )
    return found, seen


def test_every_combination_is_a_trial_with_an_id_of_its_own(base):
    """The grid is the product of the values; the id follows from the spec, not from the order or the name."""
    sweep = Sweep(base).over(learning_rate=[1e-4, 1e-3], rank=[4, 8]).over(seed=[0, 1])
    assert len(sweep.trials) == 8
    assert len({trial.id for trial in sweep.trials}) == 8
    assert sweep.trials[0].settings == {"learning_rate": 1e-4, "rank": 4, "seed": 0}
    assert sweep.trials[5].run.plan.rank == 4
    assert sweep.trials[5].run.plan.learning_rate == 1e-3
    assert sweep.trials[5].run.plan.seed == 1
    again = Sweep(attrs.evolve(base, name="other")).over(seed=[1, 0], rank=[8, 4], learning_rate=[1e-3, 1e-4])
    assert {trial.id for trial in again.trials} == {trial.id for trial in sweep.trials}
    assert SweepTrial.of(base.pipeline(depth=0), {}).id == SweepTrial.of(base, {}).id
    assert all(len(trial.run.name) <= 64 for trial in Sweep(attrs.evolve(base, name="x" * 64)).trials)


def test_a_chain_changes_nothing_before_it(base):
    """Every method returns a copy, and says well what will be tried."""
    sweep = Sweep(base).over(rank=[4, 8])
    halved = sweep.halving(at=(0.25, 0.5), keep=0.5)
    assert sweep.rungs == ()
    assert halved.shares == (0.25, 0.5, 1.0)
    assert sweep.over(rank=[4]).axes == (("rank", (4,)),)
    assert repr(halved) == "<Sweep of 'sums': 2 trials over rank, halved 2 times>"
    assert "held_out/nll, the lowest is best" in halved.explain()
    assert "after 25%, 50% of the tokens the best 50% go on" in halved.explain()
    assert Sweep(base, by="train/mean_nll").metric == "train/mean_nll"


def test_a_sweep_is_read_back_as_it_was(base, make_run):
    """The same trials, rungs and rule, from text and the data; another text is refused."""
    sweep = Sweep(base, by="held_out/nll").over(learning_rate=[1e-4, 1e-3], rank=[4]).halving(at=(0.5,))
    held_out = make_run(count=50).data.split(0.3)[1]
    again = Sweep.from_json(sweep.to_json(), data=base.data, held_out=held_out)
    assert again.to_dict() == sweep.to_dict()
    assert [trial.id for trial in again.trials] == [trial.id for trial in sweep.trials]
    for text in ("{}", "nothing", base.to_json()):
        with pytest.raises(RunError, match="this is not a sweep"):
            Sweep.from_json(text)


@pytest.mark.parametrize(
    ("axes", "error", "said"),
    [
        ({"learning_rat": [1]}, RunError, "did you mean 'learning_rate'"),
        ({"rank": []}, RunError, "at least one value"),
        ({"rank": [4, 4]}, RunError, "each of them once"),
        ({"rank": [0]}, PlanError, "rank"),
        ({"learning_rate": [float("nan")]}, PlanError, "learning_rate"),
        ({"epochs": [0]}, PlanError, "epochs"),
        ({"weight_decay": [-1.0]}, RunError, "weight_decay"),
    ],
)
def test_what_cannot_be_swept_is_refused_where_it_is_written(base, axes, error, said):
    """An unknown setting, no value, a value twice or out of range."""
    with pytest.raises(error, match=said):
        Sweep(base).over(**axes)


@pytest.mark.parametrize("wrong", [{"at": (0.5, 0.25)}, {"at": (0.0,)}, {"at": (1.0,)}, {"keep": 0.0}])
def test_rungs_that_do_not_rise_are_refused(base, wrong):
    """Shares of the tokens rise, strictly between nothing and all."""
    with pytest.raises(RunError, match="halving"):
        Sweep(base).halving(**wrong)
    with pytest.raises(RunError, match="a sweep varies a run"):
        Sweep("run")
    with pytest.raises(RunError, match="executor"):
        Sweep(base).run("http://127.0.0.1:1", "nowhere", executor="slurm")


def test_the_better_trials_go_on_and_the_others_stop_at_the_rung(swept):
    """After half of the tokens the best two of three go on; the table and the callbacks tell the same."""
    found, seen = swept
    by_rate = {trial.settings["learning_rate"]: trial for trial in found.trials}
    assert [trial.settings["learning_rate"] for trial in found.ranked][-1] == 1e-5  # learns next to nothing
    assert by_rate[1e-5].last.share == 0.5
    assert by_rate[1e-5].last.step == 6
    assert not by_rate[1e-5].whole
    for rate in (1e-3, 5e-3):
        assert [standing.share for standing in by_rate[rate].standings] == [0.5, 1.0]
        assert by_rate[rate].last.step == 12
        assert by_rate[rate].whole
    assert found.best.score == min(trial.score for trial in found.trials if trial.whole)
    assert len(seen) == 5
    assert {standing.trial for _, standing in seen} == {trial.id for trial in found.trials}
    text = found.explain()
    assert text.splitlines()[2].count("-") > 10
    assert "left behind" in text.splitlines()[-1]
    assert found._repr_html_().count("<tr>") == 4


def test_a_trial_that_was_paused_ends_as_one_that_never_was(swept, base, engine, tmp_path, digests):
    """The winner's weights and optimizer are, bit for bit, those of the run started by itself."""
    found, _ = swept
    plan = base.plan.pin(**found.best.settings)
    alone = attrs.evolve(base, plan=plan).run(engine, tmp_path / "alone", progress=False)
    assert digests(found.best.result.final.state_path) == digests(alone.final.state_path)
    assert found.best.score == pytest.approx(alone.metrics["held_out/nll"], abs=0)


def test_run_again_nothing_is_trained_or_asked_again(swept, base, engine):
    """A sweep that is over answers from its files; one with more values trains those, and nothing again."""
    found, _ = swept
    sweep = Sweep(base).over(learning_rate=[1e-5, 1e-3, 5e-3], rank=[4]).halving(at=(0.5,), keep=0.4)
    before = {path: path.stat().st_mtime_ns for path in found.folder.rglob("ledger.jsonl")}
    again = sweep.run("http://127.0.0.1:9", found.folder, progress=False)  # no service is needed
    assert again == found
    seen = []
    more = sweep.over(learning_rate=[1e-5, 1e-3, 2e-3, 5e-3]).run(
        engine, found.folder, on_each=lambda trial, _: seen.append(trial.settings), progress=False
    )
    assert all(settings["learning_rate"] == 2e-3 for settings in seen)
    assert len(more.trials) == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_sweep_is_drawn(swept, tmp_path):
    """The plot is written as PNG and, the same each time, as SVG."""
    found, _ = swept
    assert found.plot(tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    one = found.plot(tmp_path / "one.svg").read_bytes()
    assert found.plot(tmp_path / "two.svg").read_bytes() == one
    assert b"held_out/nll (lower is better)" in one


def test_what_trains_breaks_down_is_left_behind_and_named(base, engine, tmp_path):
    """A setting that ends in numbers that are not finite comes last; where none holds, that is an error."""
    long = base.optimizer(weight_decay=10.0)  # each step multiplies the weights by 1 - 10 x the rate
    sweep = Sweep(long).over(learning_rate=[1e-3, 1.0], epochs=[8])
    found = sweep.run(engine, tmp_path / "one", progress=False)
    assert found.best.settings == {"learning_rate": 1e-3, "epochs": 8}
    assert found.ranked[-1].last.failed
    assert "not finite" in found.explain()
    assert found.plot(tmp_path / "one.png").exists()
    with pytest.raises(RunError, match="every trial of the sweep broke down"):
        sweep.over(learning_rate=[1.0]).run(engine, tmp_path / "none", progress=False)


def test_without_a_suite_the_training_loss_decides(make_run, engine, tmp_path):
    """A run without a suite is judged by what it trains on, the mean of its last steps."""
    found = (
        Sweep(make_run(count=12, epochs=1))
        .over(learning_rate=[1e-5, 5e-3])
        .run(engine, tmp_path / "sweep", progress=False)
    )
    assert found.metric == "train/mean_nll"
    history = [record["train/mean_nll"] for record in found.best.result.history() if record["step"]]
    assert found.best.score == pytest.approx(sum(history) / len(history))
    with pytest.raises(RunError, match="a metric that its trials do not measure"):
        Sweep(make_run(count=12, epochs=1), by="exam/accuracy").run(engine, tmp_path / "by", progress=False)


def test_an_error_stops_the_others_with_a_checkpoint_and_the_next_start_goes_on(base, engine, tmp_path):
    """What a callback raises stops the sweep; run again, it ends as if nothing had happened."""
    sweep = Sweep(base).over(learning_rate=[1e-3, 5e-3])

    def stop(_trial, _standing):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sweep.run(engine, tmp_path / "sweep", on_each=stop, progress=False)
    found = sweep.run(engine, tmp_path / "sweep", progress=False)
    assert all(trial.whole for trial in found.trials)
    assert all(RunResult.open(trial.folder).steps == 12 for trial in found.trials)


SCRIPT = """
import json, sys
from pathlib import Path
import tinker
from tinker_officer import Conversations, Run, Sweep
order = json.loads(sys.stdin.read())
rows = Conversations.from_jsonl(order["rows"], progress=False)
run = Run.from_json(order["spec"], data=rows.take(22), held_out=rows.split(0.3)[1])
service = tinker.ServiceClient(base_url=order["url"], api_key=order["token"])
sweep = Sweep(run).over(learning_rate=[1e-5, 1e-3, 5e-3], rank=[4]).halving(at=(0.5,), keep=0.4)
sweep.run(service, order["folder"], at_once=2, progress=False)
"""


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_ends_with_the_same_bits(swept, base, engine, rows, tmp_path, digests):
    """Killed at work, a sweep resumes in its folder: the same winner, the same scores, the same weights."""
    found, _ = swept
    folder = tmp_path / "killed"
    order = {"rows": str(rows), "spec": base.to_json(), "folder": str(folder)}
    order |= {"url": engine.base_url, "token": engine.token}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(order))
    process.stdin.close()
    while not any(path.read_bytes() for path in folder.glob("*/ledger.jsonl")):
        assert process.poll() is None, "the sweep ended before it was killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    again = (
        Sweep(base)
        .over(learning_rate=[1e-5, 1e-3, 5e-3], rank=[4])
        .halving(at=(0.5,), keep=0.4)
        .run(engine, folder, progress=False)
    )
    assert [trial.standings for trial in again.trials] == [trial.standings for trial in found.trials]
    for one, other in zip(again.trials, found.trials, strict=True):
        assert digests(one.result.last.state_path) == digests(other.result.last.state_path)


def test_a_folder_is_swept_by_one_process_at_a_time(base, swept):
    """A second sweep in a folder that is in use is refused."""
    found, _ = swept
    with RunFolder(found.folder).owned(), pytest.raises(RunError, match="in use"):
        Sweep(base).over(rank=[4]).run("http://127.0.0.1:9", found.folder, progress=False)


async def _async(sweep, engine, folder):
    return await sweep.run_async(engine, folder, progress=False)


def test_a_sweep_runs_under_a_running_loop(swept, base):
    """From a coroutine it does the same, and leaves the loop alone."""
    found, _ = swept
    sweep = Sweep(base).over(learning_rate=[1e-5, 1e-3, 5e-3], rank=[4]).halving(at=(0.5,), keep=0.4)
    assert asyncio.run(_async(sweep, "http://127.0.0.1:9", found.folder)) == found


@pytest.mark.slow
def test_on_ray_the_trials_are_the_same(swept, base, engine, tmp_path, digests):
    """As Ray tasks, trials end with the scores and the bits that threads end with."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        found, _ = swept
        sweep = Sweep(base).over(learning_rate=[1e-5, 1e-3, 5e-3], rank=[4]).halving(at=(0.5,), keep=0.4)
        again = sweep.run(engine, tmp_path / "ray", executor="ray", at_once=2, progress=False)
    finally:
        ray.shutdown()
    assert [trial.standings for trial in again.trials] == [trial.standings for trial in found.trials]
    assert digests(again.best.result.final.state_path) == digests(found.best.result.final.state_path)


def test_a_client_is_not_sent_to_other_machines(base, engine, tmp_path):
    """On Ray a service is named by its URL: a client of this process is refused, as is no Ray."""
    with pytest.raises(RunError, match=r"pip install|a base URL"):
        Sweep(base).run(engine.service_client(), tmp_path / "ray", executor="ray", progress=False)
