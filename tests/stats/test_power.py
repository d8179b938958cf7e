"""Power: the plan is right when a simulation finds what it promises."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinker_officer.stats import paired, power


def test_smallest_detectable_by_hand() -> None:
    """With 400 pairs of which a fifth differ: (1.96 + 0.8416) sqrt(0.2 / 400)."""
    wanted = (1.959963984540054 + 0.8416212335729143) * math.sqrt(0.2 / 400)
    assert power.smallest_detectable(400, 0.2) == pytest.approx(wanted, rel=1e-12)
    assert power.smallest_detectable_mean(400, math.sqrt(0.2)) == pytest.approx(wanted, rel=1e-12)


def test_nothing_can_be_seen_without_items() -> None:
    """No items detect no difference, and a difference of rates is at most 1."""
    assert power.smallest_detectable(0, 0.2) == 1
    assert power.smallest_detectable(1, 1.0) == 1
    assert power.smallest_detectable_mean(0, 1.0) == math.inf


def test_items_needed_is_the_inverse() -> None:
    """As many items as are needed for a margin detect that margin."""
    n = power.items_needed(0.05, 0.1)
    assert power.smallest_detectable(n, 0.1) <= 0.05 < power.smallest_detectable(n - 1, 0.1)


def test_more_guardrails_need_more_items() -> None:
    """Sharing the power between five guardrails costs items."""
    assert power.items_needed(0.05, 0.1, guardrails=5) > power.items_needed(0.05, 0.1)


def test_a_simulation_finds_the_promised_power() -> None:
    """At the smallest detectable difference, about 80 % of 2,000 runs leave out zero."""
    n, discordance = 400, 0.2
    gain = power.smallest_detectable(n, discordance)
    better, worse = (discordance + gain) / 2, (discordance - gain) / 2
    draws = np.random.default_rng(2).multinomial(n, [better, worse, 1 - discordance], size=2000)
    seen = sum(paired.bonett_price(int(b), int(c), n).low > 0 for b, c, _ in draws)
    assert 0.76 <= seen / 2000 <= 0.86


@pytest.mark.parametrize(
    "call",
    [
        lambda: power.smallest_detectable(10, 1.5),
        lambda: power.smallest_detectable(-1, 0.5),
        lambda: power.smallest_detectable_mean(10, -1),
        lambda: power.items_needed(0, 0.5),
        lambda: power.items_needed(0.1, 0.5, power=1.0),
        lambda: power.items_needed(0.1, 0.5, guardrails=0),
    ],
)
def test_bad_plans_are_refused(call) -> None:
    """What cannot be a plan is a ValueError."""
    with pytest.raises(ValueError, match=r"must|need"):
        call()
