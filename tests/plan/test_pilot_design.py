"""Which rates a pilot tries, what it makes of their losses, and how often its interval is right."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import attrs
import numpy as np
import pytest

from tinker_officer.plan.pilot_design import Measured, answer, first_rates, next_rate


# Regret in percent at half and at twice the best rate, on the sweep's 57 curves that reach so: the 5, 25,
# 50, 75 and 95 % quantiles (the two go together, with a correlation of 0.94).
SHAPES = ((0.17, 0.18), (0.28, 0.36), (0.44, 0.61), (0.62, 0.91), (0.79, 1.28))


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    path = Path(__file__).parents[2] / "bench/pilot_simulation.py"
    sys.path.append(str(path.parent))  # as when it runs as a script: it imports its neighbour
    spec = importlib.util.spec_from_file_location("pilot_simulation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def measured(losses: dict[float, float], *, items: int = 40, chance: float = 0.0) -> Measured:
    """Arms whose conversations have the given mean losses, a little different from one another."""
    noise = np.random.default_rng(0)
    common = noise.normal(0.0, 0.1, size=items)
    rows = []
    for loss in losses.values():
        own = chance * noise.standard_normal(items)
        rows.append(loss + common - common.mean() + own - own.mean())
    return Measured(tuple(losses), np.array(rows), np.ones(items))


def bowl(best: float, rates: tuple[float, ...], *, bend: float = 0.02) -> dict[float, float]:
    return {rate: 0.6 + bend * math.log(rate / best) ** 2 for rate in rates}


RATES = (1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3)


def test_five_rates_a_factor_two_apart_with_the_centre_twice() -> None:
    """The first arms, by hand."""
    assert first_rates(5e-4) == (
        (1.25e-4, 0), (2.5e-4, 0), (5e-4, 0), (1e-3, 0), (2e-3, 0), (5e-4, 1),
    )  # fmt: skip


def test_the_sweep_is_extended_at_an_edge_at_most_twice() -> None:
    """Beyond the lowest or the highest of the rates while it is the best; never when it is between two."""
    falling = {rate: 1 - rate for rate in RATES}
    rising = {rate: 1 + rate for rate in RATES}
    assert next_rate(falling, 0) == next_rate(falling, 1) == 4e-3
    assert next_rate(falling, 2) is None
    assert next_rate(rising, 0) == 6.25e-5
    assert next_rate(dict(bowl(5e-4, RATES)), 0) is None
    assert next_rate(dict.fromkeys(RATES), 0) is None


def test_a_parabola_below_zero_is_refused() -> None:
    """Between a loss of 0.1 and a cliff of 5 no parabola is the curve: its lowest point would be negative."""
    found = answer(measured({1e-3: 1.0, 2e-3: 0.1, 4e-3: 5.0}))
    assert found.learning_rate is None
    assert "below zero" in str(found.refused)


def test_beside_a_rate_that_diverged_the_sweep_goes_half_way() -> None:
    """Where 2e-3 diverged and 1e-3 is the best, the next is between them."""
    losses: dict[float, float | None] = {**{rate: 1 - rate for rate in RATES}, 2e-3: None}
    assert next_rate(losses, 0) == pytest.approx(math.sqrt(2) * 1e-3, rel=1e-3)


@pytest.mark.parametrize("best", [2e-4, 4.4e-4, 5e-4, 9e-4])
def test_a_parabolas_lowest_point_is_found(best: float) -> None:
    """On losses that are a parabola, the answer is its lowest point, with its curvature."""
    found = answer(measured(bowl(best, RATES)))
    assert found.learning_rate == pytest.approx(best, rel=1e-6)
    assert found.curvature == pytest.approx(2 * 0.02)
    assert found.lowest == pytest.approx(0.6)


def test_the_interval_is_never_narrower_than_its_floor() -> None:
    """With next to no noise, the interval is x/÷ 1.25."""
    found = answer(measured(bowl(5e-4, RATES, bend=2.0)))
    assert found.interval == (pytest.approx(4e-4, rel=1e-3), pytest.approx(6.25e-4, rel=1e-3))


def test_more_chance_makes_a_wider_interval() -> None:
    """The interval grows with what the conversations disagree on, and with what replicates do."""
    calm = answer(measured(bowl(5e-4, RATES)))
    noisy = answer(measured(bowl(5e-4, RATES), chance=0.02))
    first = measured(bowl(5e-4, RATES))
    apart = first.losses_A_N[2] + 0.005
    again = Measured((*first.rates, 5e-4), np.vstack([first.losses_A_N, apart]), first.tokens_N)
    unlike = answer(again)
    assert calm.interval is not None
    for other in (noisy, unlike):
        assert other.interval is not None
        assert other.interval[1] / other.interval[0] > 1.05 * calm.interval[1] / calm.interval[0]
    assert unlike.noise == pytest.approx(0.005 / math.sqrt(2))


@pytest.mark.parametrize(
    ("losses", "stopped", "why"),
    [
        ({rate: 1 - rate for rate in RATES}, (), "highest that was tried"),
        ({rate: 1 + rate for rate in RATES}, (), "lowest that was tried"),
        ({rate: 1 - rate for rate in RATES}, (4e-3,), "next to one that diverged"),
        (dict.fromkeys(RATES, 1.0), (), "lowest that was tried"),
        ({1e-4: 1.0, 2e-4: 0.9}, (4e-4,), "2 rates ended"),
        ({}, (1e-4,), "0 rates ended"),
        (bowl(5e-4, RATES, bend=2e-6), (), "no more than chance"),
    ],
)
def test_a_bad_fit_is_refused(losses: dict[float, float], stopped: tuple[float, ...], why: str) -> None:
    """An edge, a cliff, a flat curve or too few rates settle nothing, and say so."""
    found = answer(measured(losses), stopped)
    assert (found.learning_rate, found.interval) == (None, None)
    assert found.refused is not None
    assert why in found.refused


def test_losses_that_are_all_next_to_nothing_settle_nothing() -> None:
    """Arms that all learned the data by heart differ by less than chance on the scale of what was learned.

    The losses are those of a real pilot, of SmolLM2 on 800 rows made from five templates.
    """
    rates = (1.3e-4, 2.6e-4, 5.2e-4, 1.04e-3, 2.08e-3, 4.16e-3, 8.32e-3)
    losses = dict(zip(rates, (0.3659, 0.0811, 0.0048, 0.0007, 0.00012, 0.0001, 0.0004), strict=True))
    found = answer(attrs.evolve(measured(losses), untrained=2.4891))
    assert found.refused is not None
    assert "no more than chance" in found.refused


def test_an_answer_is_the_same_each_time() -> None:
    """The bootstrap is seeded: the same losses give the same interval."""
    assert answer(measured(bowl(4e-4, RATES))) == answer(measured(bowl(4e-4, RATES)))


def test_the_interval_is_right_as_often_as_it_says(simulation: ModuleType) -> None:
    """On curves as bent and as lopsided as the sweep's, 95 % intervals hold the best at least 90 % of times.

    The quick version of `bench/pilot_simulation.py`, which takes the sweep itself.
    """

    def curve(left: float, right: float, best: float) -> object:
        scale = math.log(2) ** 2

        def loss(x: float) -> float:
            away = x - math.log(best)
            return 0.6 * (1 + (left if away < 0 else right) / 100 * away**2 / scale)

        return simulation.Curve(loss, best)

    curves = [curve(left, right, best) for left, right in SHAPES for best in (2e-4, 4e-4, 8e-4)]
    outcomes = simulation.simulate(curves, noise=3e-4, item_noise=6e-3, start_spread=0.35, repeats=4)
    settled = [one for one in outcomes if not one.refused]
    assert len(settled) >= 0.95 * len(outcomes)
    assert np.mean([one.covered for one in settled]) >= 0.9
    assert np.mean([one.regret for one in outcomes]) <= 0.06
    assert np.mean([one.regret for one in outcomes]) < np.mean([one.start_regret for one in outcomes]) / 3
    assert np.mean([one.runs for one in outcomes]) <= 7
