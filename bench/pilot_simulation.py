"""Simulate pilots on the smoothed curves of the cookbook's sweep: how often is the interval right?

    python bench/pilot_simulation.py sft_sweep_calibration.json

For every model and rank whose best rate lies between two swept ones, pilots begin around that
rate, off by chance as far as the calibrated rule is; their arms have the curve's loss plus a run's noise and
a held-out set's. Printed by noise: runs, refusals, coverage with and without the floor, regret. "True" is
the curve's own best rate; what a short run does not know of a long one is not simulated.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import _sweep
import attrs
import numpy as np

from tinker_officer._text import table
from tinker_officer.plan import pilot_design
from tinker_officer.plan.pilot_design import Measured, answer, first_rates, next_rate
from tinker_officer.plan.trials import Cell, cells


HELD_OUT = 200  # conversations
DIVERGES = 3e-3


@attrs.frozen
class Curve:
    """A smoothed curve: loss at ln(rate), and where its lowest point is."""

    loss: Callable[[float], float]
    best: float


def smoothed(cell: Cell) -> Curve:
    """Return a cell's curve, carried on beyond the swept rates by its slope there."""
    low, high = math.log(cell.rates[0]), math.log(cell.rates[-1])
    step = 0.05

    def loss(x: float) -> float:
        inside = min(max(x, low + step), high - step)
        here, there = (
            float(cell.loss(math.exp(at))) for at in (inside, inside + math.copysign(step, x - inside))
        )
        return here + (there - here) * abs(x - inside) / step if x != inside else here

    return Curve(loss, cell.best[0])


@attrs.frozen
class Outcome:
    """One simulated pilot."""

    runs: int
    refused: bool
    off: float  # |ln(fitted / best)|
    covered: bool
    covered_without_floor: bool
    regret: float  # percent; of the fitted rate, or of the start's where refused
    start_regret: float


def pilot(curve: Curve, centre: float, *, noise: float, item_noise: float, seed: int) -> Outcome:
    """Run one pilot on a curve.

    Args:
        curve: the truth.
        centre: where the pilot begins.
        noise: a run's standard deviation, as a share of the loss.
        item_noise: how much the difference of two arms varies between held-out conversations, likewise.
        seed: of the chance.
    """
    chance = np.random.default_rng(seed)
    bottom = curve.loss(math.log(curve.best))
    common = bottom * np.exp(0.5 * chance.standard_normal(HELD_OUT))  # easy and hard conversations
    common *= bottom / common.mean()
    losses: dict[float, float | None] = {}
    arms: list[tuple[float, np.ndarray]] = []

    def run(rate: float) -> None:
        if rate > DIVERGES:
            losses[rate] = None
            return
        level = curve.loss(math.log(rate)) + noise * bottom * chance.standard_normal()
        items = common + (level - bottom) + item_noise * bottom * chance.standard_normal(HELD_OUT)
        arms.append((rate, items))
        losses[rate] = float(np.mean([each.mean() for at, each in arms if at == rate]))

    for rate, _ in first_rates(centre):
        run(rate)
    extensions = 0
    while (rate := next_rate(losses, extensions)) is not None:
        run(rate)
        extensions += 1
    measured = Measured(
        tuple(rate for rate, _ in arms), np.stack([items for _, items in arms]), np.ones(HELD_OUT)
    )
    stopped = [rate for rate, loss in losses.items() if loss is None]
    found, bare = answer(measured, stopped), _without_floor(measured, stopped)
    taken = found.learning_rate or centre
    return Outcome(
        runs=len(arms) + len(stopped),
        refused=found.refused is not None,
        off=abs(math.log(taken / curve.best)),
        covered=_holds(found.interval, curve.best),
        covered_without_floor=_holds(bare, curve.best),
        regret=100 * (curve.loss(math.log(taken)) / bottom - 1),
        start_regret=100 * (curve.loss(math.log(centre)) / bottom - 1),
    )


def _without_floor(measured: Measured, stopped: Sequence[float]) -> tuple[float, float] | None:
    floor, pilot_design.FLOOR = pilot_design.FLOOR, 1.0
    try:
        return answer(measured, stopped).interval
    finally:
        pilot_design.FLOOR = floor


def _holds(interval: tuple[float, float] | None, rate: float) -> bool:
    return interval is not None and interval[0] <= rate <= interval[1]


def simulate(
    curves: Sequence[Curve],
    *,
    noise: float,
    item_noise: float,
    start_spread: float,
    repeats: int,
    seed: int = 0,
) -> list[Outcome]:
    """Run pilots on each curve, each from a start that is off by a factor e^(normal x `start_spread`)."""
    chance = np.random.default_rng(seed)
    return [
        pilot(
            curve,
            min(curve.best * math.exp(start_spread * chance.standard_normal()), 1e-3),
            noise=noise,
            item_noise=item_noise,
            seed=int(chance.integers(2**31)),
        )
        for curve in curves
        for _ in range(repeats)
    ]


def row(name: str, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Return a line of the table."""
    settled = [one for one in outcomes if not one.refused]
    return (
        name,
        f"{np.mean([one.runs for one in outcomes]):.1f}",
        f"{np.mean([one.refused for one in outcomes]):.1%}",
        f"{np.mean([one.covered for one in settled]):.1%}",
        f"{np.mean([one.covered_without_floor for one in settled]):.1%}",
        f"{np.mean([one.regret for one in outcomes]):.3f}",
        f"{np.quantile([one.regret for one in outcomes], 0.95):.3f}",
        f"{np.mean([one.start_regret for one in outcomes]):.3f}",
    )


HEADER = (
    "a run's noise",
    "runs",
    "refused",
    "coverage",
    "without floor",
    "regret %",
    "95th",
    "at the start %",
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    _sweep.add_argument(parser)
    parser.add_argument("--repeats", type=int, default=20, help="pilots a curve")
    arguments = parser.parse_args()
    found, _ = cells(_sweep.rows(arguments.rows))
    curves = [smoothed(cell) for cell in found if not cell.at_edge]
    lines = []
    for noise in (1e-4, 3e-4, 1e-3):
        outcomes = simulate(
            curves, noise=noise, item_noise=20 * noise, start_spread=0.35, repeats=arguments.repeats
        )
        lines.append(row(f"{noise:.2%}", outcomes))
    print(f"{len(curves)} curves, {arguments.repeats} pilots each\n")
    print(table(lines, header=HEADER))


if __name__ == "__main__":
    main()
