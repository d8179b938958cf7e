"""Simulate how often a gate passes a model that is exactly as bad as the margin forbids: nominal 2.5 %.

    python bench/gate.py              # 20,000 simulations a cell, three minutes
    python bench/gate.py --write      # the table goes into docs/explanation/gate.md too

Every cell draws models whose true damage equals the margin. For each draw of regressions and improvements,
the interval that the gate uses is asked, once for each different draw, since equal draws have equal verdicts;
`Gate.decide` itself, on scorecards with those answers, is asked for a sample of each cell, and must agree.
Beside it stands Wald's interval, which is what a hand-made gate tends to use.
"""

from __future__ import annotations

import argparse
import math

import _page
import numpy as np
from numpy.typing import NDArray

from tinker_officer.evals.results import EvalResult, Item
from tinker_officer.evals.scorecard import Scorecard
from tinker_officer.registry.evidence import binary_loss
from tinker_officer.registry.gate import Gate
from tinker_officer.registry.verdict import Outcome
from tinker_officer.stats.paired import mean_difference, wary_difference


N = (50, 164, 300, 1000, 2000)
DISCORDANCE = (0.04, 0.1, 0.2, 0.4)
MARGINS = (0.01, 0.02, 0.03, 0.05)
Z = 1.959963984540054
SHAPES = {
    "normal": lambda rng, n: rng.normal(size=n),
    "exponential": lambda rng, n: rng.exponential(size=n) - 1,
    "lognormal, s 0.5": lambda rng, n: rng.lognormal(0, 0.5, n) - math.exp(0.125),
    "lognormal, s 1": lambda rng, n: rng.lognormal(0, 1, n) - math.exp(0.5),
    "t, 4 d.f.": lambda rng, n: rng.standard_t(4, n) / 2,
}


def card(result: EvalResult, target: str) -> Scorecard:
    """Return a scorecard with one eval."""
    return Scorecard(target, "base", "plain", "suite", "2026-01-01T00:00:00+00:00", (result,))


def answers(scores: list[int]) -> EvalResult:
    """Return the result of an exam with these answers."""
    items = tuple(Item(f"q{i}", float(score)) for i, score in enumerate(scores))
    return EvalResult.from_items(
        items, name="exam", layer="product", metric="accuracy", settings={}, asked=len(items), bounds=(0, 1)
    )


def decided(b: int, c: int, n: int, margin: float) -> bool:
    """Return whether the gate passes a candidate with `b` regressions and `c` improvements of `n`."""
    before = answers([1] * b + [0] * c + [1] * (n - b - c))
    after = answers([0] * b + [1] * c + [1] * (n - b - c))
    verdict = Gate.not_worse(margin=margin).decide(card(after, "new"), card(before, "old"))
    return verdict.outcome is Outcome.PASS


def binary_cell(
    n: int, discordance: float, margin: float, *, draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return how often the gate, and Wald's interval, pass a model whose true damage is the margin."""
    worse, better = (discordance + margin) / 2, (discordance - margin) / 2
    counts = rng.multinomial(n, [worse, better, 1 - discordance], size=draws)[:, :2]
    unique, times = np.unique(counts, axis=0, return_counts=True)
    passed = np.array([binary_loss(int(b), int(c), n, 0.95).high <= margin for b, c in unique])
    for place in rng.choice(len(unique), size=min(5, len(unique)), replace=False):
        b, c = map(int, unique[place])
        assert decided(b, c, n, margin) == passed[place], (b, c, n, margin)
    return float(times[passed].sum() / draws), float(times[wald(unique, n) <= margin].sum() / draws)


def wald(counts: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Return the upper end of Wald's interval for the damage."""
    p, q = counts[:, 0] / n, counts[:, 1] / n
    return p - q + Z * np.sqrt((p + q - (p - q) ** 2) / n)


def mean_cell(
    n: int, shape: str, margin: float, *, draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return how often an unbounded score (NLL) passes by the gate's interval, and without the added item."""
    draw = SHAPES[shape]
    zeros, ours, theirs = np.zeros(n), 0, 0
    for _ in range(draws):
        scores = margin + 0.2 * draw(rng, n)
        ours += wary_difference(zeros, scores).high <= margin
        theirs += mean_difference(zeros, scores).high <= margin
    return ours / draws, theirs / draws


def report(draws: int) -> str:
    """Return the tables as Markdown."""
    rng = np.random.default_rng(0)
    rows, worst = [], 0.0
    for n in N:
        for discordance in DISCORDANCE:
            cells = []
            for margin in MARGINS:
                if margin >= discordance:
                    cells.append("")
                    continue
                ours, theirs = binary_cell(n, discordance, margin, draws=draws, rng=rng)
                worst = max(worst, ours)
                cells.append(f"{ours:.2%} ({theirs:.2%})")
            rows.append(f"| {n} | {discordance:g} | " + " | ".join(cells) + " |")
    means = []
    for n in (20, 25, 50, 200):
        found = [mean_cell(n, shape, 0.05, draws=draws, rng=rng) for shape in SHAPES]
        means.append(f"| {n} | " + " | ".join(f"{ours:.2%} ({theirs:.2%})" for ours, theirs in found) + " |")
    title = (
        f"False PASS of the gate, and of Wald's interval in brackets, {draws:,} simulations a cell (nominal"
        f" 2.5 %). The worst cell of the gate has {worst:.2%}."
    )
    head = "| n | discordance | " + " | ".join(f"margin {margin:g}" for margin in MARGINS) + " |"
    return "\n".join(
        [
            title,
            "",
            head,
            "| ---: | ---: |" + " ---: |" * len(MARGINS),
            *rows,
            "",
            "Unbounded scores (NLL) at a true loss of the margin, by the shape of the paired differences:",
            "",
            "| n | " + " | ".join(SHAPES) + " |",
            "| ---: |" + " ---: |" * len(SHAPES),
            *means,
        ]
    )


def main() -> None:
    """Print the tables, and write them into the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    found = report(asked.draws)
    print(found)
    if asked.write:
        _page.write("gate", "gate", found)


if __name__ == "__main__":
    main()
