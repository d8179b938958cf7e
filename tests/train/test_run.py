"""Run as a value: validated where it is written, and the same again from JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from tinker_officer import Conversations, EvalSuite, LoRAPlan, Run, TokenCounts, graders
from tinker_officer.errors import EngineError, PlanError, RunError


MakeRun = Callable[..., Run]


def test_a_method_returns_a_changed_copy(make_run: MakeRun) -> None:
    """A run is a value: methods leave the old one as it was."""
    run = make_run()
    changed = run.schedule("cosine", warmup=0.1).optimizer(grad_clip_norm=1.0).seed(7).pipeline(depth=0)
    assert (run.decay.shape, run.adam.grad_clip_norm, run.data_seed, run.submission.depth) == (
        "linear",
        0.0,
        None,
        2,
    )
    assert (changed.decay.shape, changed.adam.grad_clip_norm, changed.data_seed) == ("cosine", 1.0, 7)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        run.name = "other"  # that it cannot be done is the point


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: attrs.evolve(run, name="a b"), "the run's name"),
        (lambda run: attrs.evolve(run, name=""), "the run's name"),
        (lambda run: run.schedule("exponential"), "shape is not known"),
        (lambda run: run.schedule(warmup=-0.1), "warmup is out of range"),
        (lambda run: run.optimizer(beta1=1.0), "beta1 is out of range"),
        (lambda run: run.optimizer(eps=float("nan")), "eps is out of range"),
        (lambda run: run.optimizer(grad_clip_norm=-1.0), "grad_clip_norm is out of range"),
        (lambda run: run.checkpoint(every=0), "every is out of range"),
        (lambda run: run.checkpoint(keep=True), "keep is out of range"),
        (lambda run: run.evaluate(EvalSuite(), every=0), "every is out of range"),
        (lambda run: run.evaluate(EvalSuite(), layers=("nil",)), "did you mean 'nll'"),
        (lambda run: run.stop_early(on="a/nll", patience=0), "patience is out of range"),
        (lambda run: run.pipeline(depth=-1), "depth is out of range"),
        (lambda run: run.seed(-1), "data_seed is out of range"),
        (lambda run: run.sft(reduction="mean"), "reduction is not known"),
    ],
)
def test_a_mistake_is_reported_where_it_was_written(
    make_run: MakeRun, change: Callable[[Run], Run], message: str
) -> None:
    """Each setting out of range raises a four-part RunError when it is set."""
    with pytest.raises(RunError, match=message) as caught:
        change(make_run())
    assert caught.value.fix


def test_a_run_is_the_same_again_from_json(make_run: MakeRun, rows: Path) -> None:
    """Plan, suite and every setting survive JSON; so does the digest."""
    held_out = Conversations.from_jsonl(rows, progress=False)
    run = (
        make_run()
        .sft(reduction="example")
        .schedule("cosine", warmup=0.2)
        .optimizer(weight_decay=0.1, grad_clip_norm=1.0)
        .checkpoint(every=3, keep=2, best="held_out/nll")
        .evaluate(EvalSuite().nll(held_out), every=5)
        .stop_early(on="held_out/nll", patience=2)
        .pipeline(depth=4)
        .seed(3)
    )
    again = Run.from_json(run.to_json(), data=run.plan.data, held_out=held_out)
    assert again == run
    assert again.to_json() == run.to_json()
    assert again.digest == run.digest == run.pipeline(depth=0).digest
    assert run.seed(4).digest != run.digest


def test_a_run_without_its_data_can_be_read_but_not_started(make_run: MakeRun, tmp_path: Path) -> None:
    """From JSON alone a run explains itself; to start, it says what it needs."""
    run = Run.from_json(make_run().to_json())
    assert "steps" in run.explain()
    with pytest.raises(RunError, match="the plan has no data"):
        run.start(on="http://127.0.0.1:1", at=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"kind": "tinker_officer.Run", "format": 99}',
        '{"kind": "tinker_officer.Run", "format": 1}',
    ],
)
def test_other_json_is_not_a_run(text: str) -> None:
    """Text that is not a run's JSON is refused in four parts."""
    with pytest.raises(RunError, match="this is not a run"):
        Run.from_json(text)


def test_a_plan_without_an_objective_is_no_plan_for_a_run(tiny_model: Path) -> None:
    """A plan that was given no data is refused when the run is written."""
    with pytest.raises(PlanError, match="no data yet"):
        Run(LoRAPlan.for_(str(tiny_model)), name="empty")
    with pytest.raises(RunError, match="a run needs a plan"):
        Run("plan", name="text")  # that it cannot be done is the point


def test_a_metric_that_the_suite_does_not_measure_is_refused(make_run: MakeRun, rows: Path) -> None:
    """Early stopping on a metric of another eval, or of a layer that is not asked, is refused."""
    suite = EvalSuite().nll(Conversations.from_jsonl(rows, progress=False))
    with pytest.raises(RunError, match="held_out/nll"):
        make_run().evaluate(suite).stop_early(on="heldout/nll")
    with pytest.raises(RunError, match=r"checkpoint\(best=...\)"):
        make_run().checkpoint(best="bfcl/accuracy").evaluate(suite)
    with pytest.raises(RunError, match="held_out/accuracy"):
        make_run().evaluate(suite).stop_early(on="held_out/accuracy")
    cases = suite.product("sums", [{"input": "1 + 1?", "output": "2"}], grader=graders.includes)
    with pytest.raises(RunError, match=r"'sums/score'"):
        make_run().evaluate(cases, layers=("nll", "product")).stop_early(on="sums/accuracy")
    assert make_run().evaluate(suite).stop_early(on="held_out/perplexity").early_stop is not None
    with pytest.raises(RunError, match="nothing to ask"):
        make_run().evaluate(suite, layers=("benchmark",))


def test_what_is_no_suite_is_refused_where_it_is_given(make_run: MakeRun) -> None:
    """A run is evaluated by an EvalSuite, and anything else is an error in four parts."""
    with pytest.raises(RunError, match="evaluated by a suite"):
        make_run().evaluate("mmlu")


def test_a_seed_has_64_bits(make_run: MakeRun) -> None:
    """The largest seed that the generator takes is taken, and the next one is refused."""
    assert make_run().seed(2**64 - 1).order_seed == 2**64 - 1
    with pytest.raises(RunError, match="data_seed is out of range"):
        make_run().seed(2**64)


def test_early_stopping_without_a_suite_is_refused_at_start(make_run: MakeRun, tmp_path: Path) -> None:
    """A metric is named and no suite is given: start says so, before anything is written."""
    with pytest.raises(RunError, match="not measured while training"):
        make_run().stop_early(on="held_out/nll").start(on="http://127.0.0.1:1", at=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_on_must_be_a_service(make_run: MakeRun, tmp_path: Path) -> None:
    """Something that is no Tinker service is refused by start itself, and the folder is free again."""
    with pytest.raises(EngineError, match="not a Tinker service"):
        make_run().start(on="localhost", at=tmp_path / "run")
    with pytest.raises(EngineError, match="not a Tinker service"):
        make_run().start(on="localhost", at=tmp_path / "run")


def test_counts_alone_make_a_run_that_prints(tiny_model: Path) -> None:
    """A plan from token counts can be declared and explained; repr is one line."""
    counts = TokenCounts(examples=1000, trained=50_000, total=90_000)
    run = Run(LoRAPlan.for_(str(tiny_model)).sft(counts), name="counted")
    assert "counted" in repr(run)
    assert "\n" not in repr(run)
    assert run._repr_html_().startswith("<pre>")
