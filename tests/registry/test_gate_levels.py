"""How often the gate is fooled: the small sister of bench/gate.py."""

from __future__ import annotations

import numpy as np

from tinker_officer.registry.evidence import Pairs, binary_loss
from tinker_officer.registry.gate import Gate
from tinker_officer.registry.judge import _holm
from tinker_officer.registry.verdict import Outcome


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


def pairs(better, worse):
    names = tuple(map(str, range(len(better))))
    return Pairs(tuple(better), tuple(worse), (1.0,) * len(better), names, binary=True, bounds=(0, 1))
