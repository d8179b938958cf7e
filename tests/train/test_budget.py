"""Budgets: a run stops cleanly when one is used up, says so, and goes on when it is raised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from tinker_officer import LocalEngine, Run, RunResult
from tinker_officer.errors import RunError


MakeRun = Callable[..., Run]
Digests = Callable[[str], dict[str, str]]


def test_a_token_budget_stops_with_a_checkpoint_and_is_raised_to_the_same_bits(
    make_run: MakeRun, engine: LocalEngine, digests: Digests, tmp_path: Path
) -> None:
    """The step that reaches it is the last, at any depth; raised, the run ends as one without a budget."""
    run = make_run(epochs=2).checkpoint(every=50)
    whole = run.run(on=engine, at=tmp_path / "whole", progress=False)
    tokens = [record["train/total_tokens"] for record in whole.history()]
    budget = sum(tokens[:5]) - 1  # reached within the fifth step
    for depth in (0, 4):
        folder = tmp_path / f"depth-{depth}"
        stopped = run.budget(tokens=budget).pipeline(depth=depth).run(on=engine, at=folder, progress=False)
        assert stopped.stopped == f"budget used up: {sum(tokens[:5]):,} of {budget:,} tokens"
        assert stopped.steps == stopped.last.step == 5
        assert RunResult.open(folder).stopped == stopped.stopped
        again = run.budget(tokens=budget).run(on=engine, at=folder, progress=False)
        assert (again.steps, again.stopped) == (5, stopped.stopped)
        raised = run.budget(tokens=10 * budget).run(on=engine, at=folder, progress=False)
        assert raised.stopped == RunResult.open(folder).stopped == "completed"
        assert raised.spec["budget"]["tokens"] == 10 * budget
        assert raised.spec_digest == whole.spec_digest
        assert digests(raised.final.state_path) == digests(whole.final.state_path)


def test_a_budget_in_money_counts_what_was_lost(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path
) -> None:
    """A run that was aborted pays for the steps that it has to repeat, and its metrics say what counts."""
    base = make_run(epochs=2).checkpoint(every=50)
    run = attrs.evolve(base, plan=base.plan.price(train=2.0))
    with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
        next(step for step in live if step.index == 4)
        live._aborted.set()
    trained = [record["train/total_tokens"] for record in _records(tmp_path / "run")]
    assert len(trained) >= 4
    money = (sum(trained) + sum(trained[:4])) * 2.0 / 1e6  # those lost, and the first four again
    result = run.budget(money=money).run(on=engine, at=tmp_path / "run", progress=False)
    assert result.stopped.startswith("budget used up: ")
    assert result.steps == 4
    assert result.history()[3]["cost/train"] == pytest.approx(sum(trained[:4]) * 2.0 / 1e6)


def _records(folder: Path) -> list[dict[str, float]]:
    from tinker_officer.train.folder import RunFolder

    return list(RunFolder(folder).metrics)


def test_hours_count_over_all_attempts(make_run: MakeRun, engine: LocalEngine, tmp_path: Path) -> None:
    """A budget that is used up at once trains no step; raised, the run ends, and its clock only went on."""
    run = make_run(epochs=2).pipeline(depth=0)
    first = run.budget(hours=1e-9).run(on=engine, at=tmp_path / "run", progress=False)
    assert first.steps == 0
    assert first.stopped.endswith("of 1e-09 hours")
    result = run.budget(hours=1.0).run(on=engine, at=tmp_path / "run", progress=False)
    assert result.stopped == "completed"
    elapsed = [record["time/elapsed_s"] for record in result.history()]
    assert elapsed == sorted(elapsed)


@pytest.mark.parametrize("change", [{"tokens": 0}, {"money": 0}, {"hours": -1}, {"tokens": 1.5}])
def test_a_budget_out_of_range_is_refused(change: dict[str, float], make_run: MakeRun) -> None:
    """Nothing, less than nothing and half a token are no budgets."""
    with pytest.raises(RunError):
        make_run(count=4).budget(**change)


def test_money_needs_a_price(make_run: MakeRun) -> None:
    """A budget that could never be reached is refused where it is written."""
    with pytest.raises(RunError, match="a budget in money needs a price"):
        make_run(count=4).budget(money=5)
