"""How often the gate is fooled: the small sister of bench/gate.py."""

from __future__ import annotations

import numpy as np
import pytest

from tinker_officer.registry.evidence import Pairs, binary_loss
from tinker_officer.registry.gate import Gate
from tinker_officer.registry.judge import _holm
from tinker_officer.registry.verdict import Outcome
from tinker_officer.stats.paired import mean_difference, wary_difference


def test_the_gate_decides_by_that_very_interval(card, binary):
    """For thirty random pairs of models, `decide` says what the interval says."""
    rng = np.random.default_rng(8)
    for _ in range(30):
        n = int(rng.integers(20, 200))
        before, after = rng.integers(0, 2, n), rng.integers(0, 2, n)
        margin = float(rng.uniform(0, 0.5))
        verdict = Gate.not_worse(margin=margin).decide(
            card(binary(after.tolist()), target="b"), card(binary(before.tolist()))
        )
        found = binary_loss(int((before > after).sum()), int((before < after).sum()), n, 0.95)
        outcome = (
            Outcome.PASS
            if found.high <= margin
            else Outcome.BREACH if found.low > margin
            else Outcome.INCONCLUSIVE
        )  # fmt: skip
        assert verdict.outcome is outcome


def test_of_three_success_metrics_that_did_not_improve_one_passes_rarely():
    """Holm keeps the chance that any of three unchanged metrics counts as better near 2.5 %."""
    rng = np.random.default_rng(9)
    wins = 0
    for _ in range(300):
        ready = {name: pairs(*(rng.random((2, 80)) < 0.5).astype(float)) for name in "abc"}
        wins += bool(_holm(ready, 0.95))
    assert wins <= 18  # 300 draws at 2.5 %: 7.5 expected; 19 comes once in 3,000


@pytest.mark.parametrize("n", [20, 50])
def test_skewed_losses_of_the_margin_pass_rarely(n):
    """Of lognormal losses whose mean is the margin, the gate's interval lets few through, also of twenty."""
    rng, zeros, mean = np.random.default_rng(10), np.zeros(n), np.exp(0.5)
    passed = sum(wary_difference(zeros, rng.lognormal(size=n)).high <= mean for _ in range(1200))
    assert passed <= 46  # 3.8 %; bench/gate.py finds 2.4 and 2.6; with one added item 20 pass in 4.9


def test_an_added_item_never_narrows_an_interval():
    """Weighted and clustered, each end lies no nearer than that of the plain interval."""
    rng = np.random.default_rng(11)
    for _ in range(50):
        n = int(rng.integers(20, 60))
        asked = {"weights": rng.integers(1, 9, n), "clusters": rng.integers(0, 15, n).tolist()}
        before, after = rng.lognormal(size=(2, n))
        plain, wary = (way(before, after, **asked) for way in (mean_difference, wary_difference))
        assert wary.value == plain.value
        assert wary.low <= plain.low < plain.high <= wary.high


def pairs(better, worse):
    names = tuple(map(str, range(len(better))))
    return Pairs(tuple(better), tuple(worse), (1.0,) * len(better), names, binary=True, bounds=(0, 1))
