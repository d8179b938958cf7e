"""Simulate every interval and the sequential mode: how often does a nominal 95 % hold?

    python bench/coverage.py                # some minutes
    python bench/coverage.py --draws 500    # a glance
    python bench/coverage.py --write        # the tables go into docs/explanation/intervals.md too

A row is one interval at one n: the lowest, mean and highest coverage over a grid of true values. 93 to 97.5
% is as nominal. Above it an interval is wider than it need be, which happens where nearly every draw is the
same (rates near 0 or 1, few discordant pairs); below it would be wrong.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator

import _page
import numpy as np

from tinker_officer.stats import bias, calibration, intervals, paired
from tinker_officer.stats.intervals import Estimate
from tinker_officer.stats.sequential import log_e_binary


Draw = Callable[[np.random.Generator], tuple[Estimate, float]]


def wilson(n: int, rate: float) -> Draw:
    return lambda rng: (intervals.wilson(int(rng.binomial(n, rate)), n), rate)


def paired_binary(way: Callable[[int, int, int], Estimate], n: int, worse: float, better: float) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[Estimate, float]:
        b, c, _ = rng.multinomial(n, [worse, better, 1 - worse - better])
        return way(int(b), int(c), n), worse - better

    return draw


def mean_of_partial(n: int, a: float) -> Draw:
    return lambda rng: (intervals.mean(rng.beta(a, 2, n), bounds=(0, 1)), a / (a + 2))


def mean_of_skewed(n: int, spread: float) -> Draw:
    return lambda rng: (intervals.mean(rng.lognormal(0, spread, n)), math.exp(spread**2 / 2))


def mean_of_clusters(n: int, between: float) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[Estimate, float]:
        names = np.repeat(np.arange(n // 4), 4)
        scores = 2 + rng.normal(0, between, n // 4)[names] + rng.normal(0, 0.5, len(names))
        found = intervals.mean(scores, weights=rng.uniform(20, 80, len(names)), clusters=names.tolist())
        return found, 2.0

    return draw


def paired_scores(n: int, skew: float, *, bca: bool) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[Estimate, float]:
        before = rng.normal(2, 0.5, n)
        after = before + rng.gamma(1 / skew, skew, n) * 0.1
        way = paired.bca_difference if bca else paired.mean_difference
        options = {"resamples": 1000} if bca else {}
        return way(before, after, **options), 0.1

    return draw


def judged(n: int, rate: float) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[Estimate, float]:
        labels = max(20, n // 4)
        passed = rng.binomial(n, rate * 0.9 + (1 - rate) * 0.2)
        good, bad = rng.binomial(labels, 0.9), rng.binomial(labels, 0.8)
        return bias.rogan_gladen(int(passed), n, int(good), labels, int(bad), labels), rate

    return draw


def sure(n: int, shift: float, *, error: bool) -> Draw:
    def answers(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        confidences = rng.beta(4, 2, count)
        return confidences, (rng.random(count) < np.clip(confidences - shift, 0, 1)).astype(float)

    many = answers(np.random.default_rng(1), 200_000)
    gaps = (many[0] - many[1])[np.argsort(many[0])]
    parts = np.array_split(gaps, max(1, min(15, n // 20)))
    truth = math.sqrt(sum(part.mean() ** 2 for part in parts) / len(parts)) if error else float(gaps.mean())
    way = calibration.calibration_error if error else calibration.overconfidence
    return lambda rng: (way(*answers(rng, n)), truth)


def rows() -> Iterator[tuple[str, int, list[Draw]]]:
    """Yield each interval at each n, with the draws of its grid."""
    rates = (0.05, 0.2, 0.5, 0.8, 0.95)
    discordant = ((0.03, 0.03), (0.1, 0.1), (0.05, 0.2), (0.2, 0.3))
    for n in (30, 100, 300, 1000):
        yield "Wilson, right or wrong", n, [wilson(n, rate) for rate in rates]
        for name, way in (("Bonett-Price", paired.bonett_price), ("Tango", paired.tango)):
            yield f"{name}, paired right or wrong", n, [paired_binary(way, n, *pair) for pair in discordant]
        yield "t, partial credit in bounds", n, [mean_of_partial(n, a) for a in (0.5, 1, 2, 5)]
        yield (
            "t and Hall, weighted, clusters of 4",
            n,
            [mean_of_clusters(n, spread) for spread in (0.1, 0.5, 1.0)],
        )
        yield "t and Hall, skewed scores", n, [mean_of_skewed(n, spread) for spread in (0.3, 0.6, 1.0)]
        yield "t and Hall, paired scores", n, [paired_scores(n, skew, bca=False) for skew in (0.1, 0.5, 1.0)]
        yield "Rogan-Gladen, judged", n, [judged(n, rate) for rate in (0.2, 0.5, 0.8)]
        yield "overconfidence", n, [sure(n, shift, error=False) for shift in (0.0, 0.1, 0.2)]
    for n in (300, 1000):
        yield "calibration error", n, [sure(n, shift, error=True) for shift in (0.05, 0.1, 0.2)]
    for n in (30, 100):
        yield "BCa, paired scores", n, [paired_scores(n, skew, bca=True) for skew in (0.1, 1.0)]


def coverage(draw: Draw, draws: int) -> float:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(draws):
        found, truth = draw(rng)
        held += found.low <= truth <= found.high
    return held / draws


def false_alarms(draws: int) -> Iterator[tuple[float, float, float]]:
    """Yield discordance, and how often 2,000 pairs of equals are called different: the e-process, and z."""
    for discordance in (0.05, 0.2, 0.5):
        rng = np.random.default_rng(1)
        shares = [discordance / 2, 1 - discordance, discordance / 2]
        alarms = naive = 0
        for _ in range(draws):
            drawn = rng.choice([-1, 0, 1], p=shares, size=2000)
            b, c = (drawn < 0).cumsum(), (drawn > 0).cumsum()
            looks = zip(b[::5].tolist(), c[::5].tolist(), strict=True)
            alarms += any(log_e_binary(*look) >= -math.log(0.05) for look in looks)
            naive += bool((np.abs(c - b) > 1.96 * np.sqrt(np.maximum(1, b + c)))[20:].any())
        yield discordance, alarms / draws, naive / draws


def tables(draws: int) -> Iterator[str]:
    """Yield the lines of both tables, as Markdown."""
    yield from ("| interval | n | lowest | mean | highest |", "|---|---:|---:|---:|---:|")
    for name, n, grid in rows():
        few = min(draws, 400) if name.startswith("BCa") else draws
        found = [coverage(draw, few) for draw in grid]
        yield f"| {name} | {n} | {min(found):.1%} | {np.mean(found):.1%} | {max(found):.1%} |"
    yield from ("", "| discordant pairs | called different, e-process | looking at z |", "|---:|---:|---:|")
    for discordance, alarms, naive in false_alarms(max(200, draws // 4)):
        yield f"| {discordance:.0%} | {alarms:.1%} | {naive:.1%} |"


def main() -> None:
    """Print the tables, and write them into the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    lines = []
    for line in tables(asked.draws):
        print(line, flush=True)
        lines.append(line)
    if asked.write:
        _page.write("intervals", "coverage", "\n".join(lines))


if __name__ == "__main__":
    main()
