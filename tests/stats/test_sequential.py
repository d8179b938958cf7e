"""A comparison that is looked at after every pair is decided by right odds, not by looking often."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinker_officer.stats import multiplicity, paired
from tinker_officer.stats.sequential import Sequential, log_e_binary


def fed(differences: list[float], alpha: float = 0.05) -> Sequential:
    found = Sequential(alpha)
    for difference in differences:
        found.add(difference)
    return found


def test_right_or_wrong_scores_give_the_beta_mixture_on_discordant_pairs() -> None:
    """The bets' average equals 2^(b+c) B(b+1, c+1), whatever the order and however many pairs agree."""
    found = fed([1.0] * 17 + [0.0] * 40 + [-1.0] * 5)
    assert found.log_e == pytest.approx(log_e_binary(5, 17), abs=1e-9)
    grid = np.linspace(0, 1, 200_001)
    by_hand = np.trapezoid((2 * grid) ** 17 * (2 * (1 - grid)) ** 5, grid)
    assert found.log_e == pytest.approx(math.log(by_hand), abs=1e-6)


def test_the_interval_leaves_out_zero_exactly_when_it_is_decided() -> None:
    """The verdict and the interval never contradict each other, and a mean lies in its own interval."""
    for wins in range(4, 30):
        found = fed([1.0] * wins + [-1.0] * 4 + [0.25] * 3)
        low, high = found.interval()
        assert low <= found.mean <= high
        assert found.decided == (low > 0)


def test_nothing_seen_says_nothing() -> None:
    """No pair, or only equal ones: no decision, whatever their number."""
    assert Sequential().interval() == (-1.0, 1.0)
    equal = fed([0.0] * 500)
    assert equal.log_e == pytest.approx(0)
    low, high = equal.interval()
    assert -0.02 < low < 0 < high < 0.02


@pytest.mark.parametrize("discordance", [0.1, 0.4])
def test_equals_are_called_different_in_at_most_alpha_of_all_races(discordance: float) -> None:
    """600 pairs, a look after each: at most 5 % of 1,000 races decide (and a naive z would in over 20 %)."""
    rng = np.random.default_rng(5)
    shares = [discordance / 2, 1 - discordance, discordance / 2]
    draws = rng.choice([-1.0, 0.0, 1.0], p=shares, size=(1000, 600))
    b, c = (draws < 0).cumsum(1), (draws > 0).cumsum(1)
    looked = np.vectorize(log_e_binary)(b[:, 9::10], c[:, 9::10]) >= -math.log(0.05)
    naive = np.abs(c - b)[:, 19:] > 1.96 * np.sqrt(np.maximum(1, b + c))[:, 19:]
    assert looked.any(1).mean() <= 0.05
    assert naive.any(1).mean() > 0.2


def test_the_interval_holds_at_every_look() -> None:
    """Partial scores with a true difference: it is outside at some look in at most 5 % of 100 races."""
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(100):
        race = Sequential()
        outside = False
        for number, draw in enumerate(rng.beta(3, 2, size=60) - rng.beta(2, 3, size=60), start=1):
            race.add(float(draw))
            if number % 30 == 0:
                low, high = race.interval()
                outside = outside or not low <= 0.2 <= high
        missed += outside
    assert missed <= 5


@pytest.mark.parametrize(
    "call", [lambda: Sequential(0), lambda: Sequential().add(1.5), lambda: log_e_binary(-1, 0)]
)
def test_what_cannot_be_bet_on_is_refused(call) -> None:
    """Alpha outside (0, 1), a difference outside [-1, 1], a negative count."""
    with pytest.raises(ValueError, match="got"):
        call()


def test_p_value_agrees_with_the_interval_it_comes_from() -> None:
    """Bonett-Price with z from the counts: the p-value is the normal's."""
    from scipy.special import ndtr

    p = multiplicity.p_value(lambda confidence: paired.bonett_price(30, 12, 200, confidence))
    first, second = 31 / 202, 13 / 202
    z = (first - second) / math.sqrt((first + second - (first - second) ** 2) / 202)
    assert p == pytest.approx(2 * (1 - ndtr(z)), rel=1e-6)
    assert multiplicity.p_value(lambda confidence: paired.bonett_price(5, 5, 50, confidence)) == 1


def test_holm_by_hand() -> None:
    """The smallest times three, the next times two, never falling; and no more than 1."""
    assert multiplicity.holm([0.03, 0.01, 0.5]) == pytest.approx([0.06, 0.03, 0.5])
    assert multiplicity.holm([0.6, 0.7]) == [1.0, 1.0]
    assert multiplicity.holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        multiplicity.holm([1.2])
