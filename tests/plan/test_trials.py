"""Runs that differ in their learning rate, and the curve between the rates tried."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from tinker_officer.errors import PlanError
from tinker_officer.plan.trials import Cell, Trial, cells, family_of


def bowl(best: float, *, depth: float = 1.0, width: float = 0.05) -> dict[float, float]:
    """Losses of a parabola in ln(rate) at four rates, as the sweep has them."""
    return {rate: depth + width * math.log(rate / best) ** 2 for rate in (4e-5, 1e-4, 3e-4, 1e-3)}


def rows(losses: dict[float, float], **other: object) -> list[dict[str, object]]:
    return [{"model": "m", "rank": 8, "lr": rate, "test": loss, **other} for rate, loss in losses.items()]


def test_the_curve_finds_a_parabolas_best() -> None:
    """The best of a parabola lies where it was put, to the 1 % that a curve is read at."""
    [cell], skipped = cells(rows(bowl(2e-4)))
    assert cell.best[0] == pytest.approx(2e-4, rel=0.01)
    assert float(cell.regret(4e-4)) == pytest.approx(100 * 0.05 * math.log(2) ** 2, rel=0.02)
    assert (cell.at_edge, skipped) == (False, 0)


def test_the_curve_goes_through_every_loss() -> None:
    """At each rate that was tried, the curve is what was measured."""
    losses = {4e-5: 0.56, 1e-4: 0.552, 3e-4: 0.5438, 1e-3: 0.5405, 3e-3: 0.57}
    [cell], _ = cells(rows(losses))
    assert cell.loss(np.array(cell.rates)) == pytest.approx(list(losses.values()), abs=1e-4)


def test_nothing_is_claimed_beyond_the_rates_tried() -> None:
    """A best beyond the highest rate is not invented: the edge is the best, and is marked."""
    [cell], _ = cells(rows(bowl(5e-3)))
    assert cell.best[0] == pytest.approx(1e-3)
    assert cell.at_edge
    assert float(cell.regret(9e-3)) == float(cell.regret(1e-3)) == 0.0


def test_replicates_are_averaged_and_diverged_runs_left_out() -> None:
    """Two runs at one rate are one point; a NaN is none."""
    tried = [*rows(bowl(2e-4)), *rows({1e-4: bowl(2e-4)[1e-4] + 0.02, 3e-3: math.nan})]
    [cell], _ = cells(tried)
    assert cell.rates == (4e-5, 1e-4, 3e-4, 1e-3)
    assert cell.losses[1] == pytest.approx(bowl(2e-4)[1e-4] + 0.01)


def test_runs_on_other_data_are_not_compared() -> None:
    """Three rates on one dataset and three on another are two cells; two rates are none."""
    first, second = rows(bowl(2e-4), setting="a"), rows(bowl(3e-4, depth=2.0), setting="b")
    few = [Trial("m", 16, 1e-4, 1.0), Trial("m", 16, 2e-4, 1.0)]
    found, skipped = cells([*first, *second, *few])
    assert [round(cell.best[1]) for cell in found] == [1, 2]
    assert skipped == 1


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Qwen/Qwen3-VL-235B-A22B-Instruct", "Qwen3"),
        ("Qwen/Qwen3.6-35B-A3B", "Qwen3.5"),
        ("Qwen/Qwen2.5-7B", None),
        ("meta-llama/Llama-3.3-70B-Instruct", "Llama 3"),
        ("meta-llama/Llama-2-7b", None),
        ("moonshotai/Kimi-K2-Thinking", "Kimi-K2"),
        ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16", "Nemotron 3"),
    ],
)
def test_a_name_tells_the_family(name: str, family: str | None) -> None:
    """Generations are families: Qwen3 and Qwen3.5 want different rates."""
    assert family_of(name) == family


@pytest.mark.parametrize(
    "row",
    [
        {"model": "m", "rank": 8, "lr": 1e-4},
        {"model": "m", "rank": 8, "lr": 0.0, "test": 1.0},
        {"model": "m", "rank": 0, "lr": 1e-4, "test": 1.0},
        {"model": "m", "rank": 8, "lr": math.nan, "test": 1.0},
    ],
)
def test_a_bad_row_is_refused(row: dict[str, object]) -> None:
    """A missing column or an impossible number is an error that shows a good row."""
    with pytest.raises(PlanError, match=r"rates\.fit"):
        cells([row])


def test_a_finished_run_is_a_trial() -> None:
    """A run's plan, data and metrics are all that it takes; runs on other data are told apart."""
    run = SimpleNamespace(
        name="a", base_model="Qwen/Qwen3-8B", data={"fingerprint": "ab12"}, metrics={"held_out/nll": 0.9},
        plan={"computed": {"rank": 16, "learning_rate": 5e-4, "batch_size": 8, "steps": 300}},
    )  # fmt: skip
    trial = Trial.from_run(run)
    assert (trial.rank, trial.learning_rate, trial.nll) == (16, 5e-4, 0.9)
    assert trial.setting == "ab12, 8, 300"
    with pytest.raises(PlanError, match="other/nll"):
        Trial.from_run(run, metric="other/nll")


def test_three_rates_make_a_parabola() -> None:
    """Fewer than four points still have a curve: the parabola through them."""
    cell = Cell("m", "m", 8, (1e-4, 2e-4, 4e-4), (1.01, 1.0, 1.01))
    assert cell.best[0] == pytest.approx(2e-4, rel=0.01)
