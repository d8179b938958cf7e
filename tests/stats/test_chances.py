"""What a plan promises, held against the intervals that decide: one by one, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from tinker_officer.registry.evidence import binary_loss
from tinker_officer.stats import chances
from tinker_officer.stats.paired import wary_difference


@pytest.mark.parametrize("n", [1, 7, 23])
@pytest.mark.parametrize("margin", [0.0, 0.05, 0.3, 1.0])
def test_a_plan_asks_the_very_test_that_the_gate_uses(n, margin):
    """All that so many pairs can show passes a margin, or does not, by the interval as by the score at it."""
    b, c = np.array([(b, c) for b in range(n + 1) for c in range(n + 1 - b)], dtype=float).T
    found = chances.passes(b, c, n, margin, 0.95)
    pairs = zip(b, c, strict=True)
    assert found.tolist() == [binary_loss(int(one), int(two), n, 0.95).high <= margin for one, two in pairs]


@pytest.mark.parametrize("n", [20, 60])
def test_the_simulated_ends_are_those_of_the_interval(n):
    """The rows that are drawn at once have the ends that `wary_difference` gives each of them."""
    ends = chances._ends(n, 0.95)[:50]
    rows = chances._drawn()[:50, :n]
    assert ends == pytest.approx([wary_difference(np.zeros(n), row).high for row in rows], rel=1e-9)


@pytest.mark.parametrize(("n", "discordance"), [(0, 0.2), (5, 0.0), (40, 1.0), (10_000, 0.4)])
def test_the_ends_of_what_can_be_asked_are_met(n, discordance):
    """No items, no differing item, nothing but those, and more than are gone through: a share each."""
    asked = {"chance_wanted": 0.8, "confidence": 0.95}
    margin = chances.margin_shown(n, discordance, **asked)
    gain = chances.gain_shown(n, discordance, **asked)
    assert 0 < margin <= 1
    assert 0 < gain <= 1
    assert (margin, gain) == (1, 1) if n == 0 else margin < 1


def test_where_the_approximation_takes_over_it_agrees():
    """At the number of differing items from which on it is used, it is off by less than half a percent."""
    asked = {"chance_wanted": 0.9, "confidence": 0.95}
    n = int(chances._MOST_DIFFERING / 0.2)
    exact, approximate = (chances.margin_shown(one, 0.2, **asked) for one in (n, n + 1))
    assert approximate == pytest.approx(exact, rel=5e-3)
    assert chances.mean_shown(300, 1.0, **asked) > chances.mean_shown(301, 1.0, **asked)
