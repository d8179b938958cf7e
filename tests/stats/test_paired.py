"""Paired differences: Bonett-Price, cluster-robust t, BCa."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinker_officer.stats import paired


def test_bonett_price_by_hand() -> None:
    """3 regressions, 9 improvements, 50 pairs: the formula, worked out on paper."""
    p, q = 4 / 52, 10 / 52
    half = 1.959963984540054 * math.sqrt((p + q - (p - q) ** 2) / 52)
    found = paired.bonett_price(3, 9, 50)
    assert found.value == (3 - 9) / 50
    assert found.interval == pytest.approx((p - q - half, p - q + half), rel=1e-12)


def test_exchanging_the_counts_turns_damage_into_gain() -> None:
    """The interval of the gain is that of the damage, mirrored."""
    damage, gain = paired.bonett_price(2, 7, 30), paired.bonett_price(7, 2, 30)
    assert gain.interval == pytest.approx((-damage.high, -damage.low))


def test_ten_identical_pairs_prove_nothing() -> None:
    """Where Wald says [0, 0] and a gate would pass, the interval stays wide."""
    found = paired.bonett_price(0, 0, 10)
    assert found.low < -0.2
    assert found.high > 0.2
    assert paired.mean_difference([1.0] * 10, [1.0] * 10, bounds=(0, 1)).high > 0.2


def test_bounded_difference_of_binary_scores_is_bonett_price_with_t() -> None:
    """One pseudo-pair at each extreme is Bonett and Price's adjustment: same centre, a little wider."""
    before, after = [1] * 3 + [0] * 17, [0] * 3 + [1] * 5 + [0] * 12
    damage, gain, n = paired.discordant(before, after)
    exact = paired.bonett_price(gain, damage, n)
    general = paired.mean_difference(before, after, bounds=(0, 1))
    assert (damage, gain, n) == (3, 5, 20)
    assert sum(general.interval) == pytest.approx(sum(exact.interval), abs=1e-12)
    assert exact.high < general.high < exact.high + 0.05


def test_mean_difference_of_weighted_pairs_is_the_difference_of_weighted_means() -> None:
    """With one set of weights, the mean of differences is the difference of means."""
    before, after, weights = [2.0, 3.0, 2.5], [1.5, 2.9, 2.0], [10, 40, 5]
    found = paired.mean_difference(before, after, weights=weights)
    wanted = np.average(after, weights=weights) - np.average(before, weights=weights)
    assert found.value == pytest.approx(wanted)


def test_bca_agrees_with_t_on_many_symmetric_pairs() -> None:
    """On 200 normal differences both intervals are nearly the same; the seed makes it repeatable."""
    rng = np.random.default_rng(1)
    before = rng.normal(0, 1, 200)
    after = before + rng.normal(0.1, 0.5, 200)
    t = paired.mean_difference(before, after)
    bca = paired.bca_difference(before, after, resamples=3000)
    assert bca.value == t.value
    assert bca.interval == pytest.approx(t.interval, abs=0.02)
    assert bca == paired.bca_difference(before, after, resamples=3000)


def test_bca_of_equal_differences_is_a_point_and_of_one_cluster_unbounded() -> None:
    """The bootstrap invents no spread, and needs two clusters."""
    assert paired.bca_difference([1.0, 2.0], [2.0, 3.0]).interval == (1.0, 1.0)
    assert paired.bca_difference([1.0], [2.0]).interval == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: paired.bonett_price(3, 3, 5), "b"),
        (lambda: paired.bonett_price(0, 0, 0), "n > 0"),
        (lambda: paired.discordant([0.5], [1]), "0 or 1"),
        (lambda: paired.discordant([1], [1, 0]), "alike"),
        (lambda: paired.mean_difference([1.0], [1.0, 2.0]), "alike"),
    ],
)
def test_bad_pairs_are_refused(call, said) -> None:
    """What cannot be a set of pairs is a ValueError."""
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("n", [20, 50, 164])
@pytest.mark.parametrize(("worse", "better"), [(0.02, 0.02), (0.1, 0.1), (0.05, 0.2)])
def test_bonett_price_covers_at_small_n(n: int, worse: float, better: float) -> None:
    """The nominal 95 % interval holds the true difference in at least 94 % of 3,000 draws."""
    rng = np.random.default_rng(n)
    draws = rng.multinomial(n, [worse, better, 1 - worse - better], size=3000)
    held = 0
    for b, c, _ in draws:
        found = paired.bonett_price(int(b), int(c), n)
        held += found.low <= worse - better <= found.high
    assert held / 3000 >= 0.94


@pytest.mark.parametrize(("n", "discordance", "margin"), [(50, 0.04, 0.03), (164, 0.1, 0.05)])
def test_damage_at_the_margin_rarely_passes(n: int, discordance: float, margin: float) -> None:
    """At a true damage equal to the margin, `high <= margin` happens in at most 3.2 % (nominal 2.5 %)."""
    rng = np.random.default_rng(7)
    worse, better = (discordance + margin) / 2, (discordance - margin) / 2
    draws = rng.multinomial(n, [worse, better, 1 - discordance], size=4000)
    passed = sum(paired.bonett_price(int(b), int(c), n).high <= margin for b, c, _ in draws)
    assert passed / 4000 <= 0.032


def test_bounded_difference_covers_partial_credit_at_small_n() -> None:
    """Ten pairs of partial scores that rarely change: the interval holds zero in at least 95 % of draws."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(1000):
        before = rng.beta(0.4, 0.4, 10).round(1)
        after = np.where(rng.random(10) < 0.1, rng.permutation(before), before)
        found = paired.mean_difference(before, after, bounds=(0, 1))
        held += found.low <= 0 <= found.high
    assert held / 1000 >= 0.95


def test_tango_solves_the_score_equation_with_the_likeliest_rate() -> None:
    """At each end the score statistic is z, with the nuisance rate found by brute-force likelihood."""
    for b, c, n in ((1, 0, 44), (16, 3, 50), (0, 7, 30), (5, 5, 20), (0, 0, 10)):
        found = paired.tango(b, c, n)
        for end, sign in ((found.low, 1), (found.high, -1)):
            rates = np.linspace(max(0, -end), min(1, (1 - end) / 1), 400_001)
            first, agree = rates + end, 1 - 2 * rates - end
            inside = (first >= 0) & (agree >= 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                terms = [
                    np.where(k > 0, k * np.log(p), 0.0)
                    for k, p in ((b, first), (c, rates), (n - b - c, agree))
                ]
            likelihood = np.where(inside, sum(terms), -np.inf)
            rate = rates[np.argmax(likelihood)]
            spread = n * (2 * rate + end * (1 - end))
            assert (b - c - n * end) / math.sqrt(spread) == pytest.approx(sign * 1.959964, abs=2e-3)


def test_tango_mirrors_and_keeps_its_bounds() -> None:
    """Exchanging the counts mirrors the interval; nothing leaves -1 to 1; the value lies inside."""
    for b, c, n in ((0, 0, 1), (1, 0, 1), (30, 0, 30), (2, 7, 30), (0, 1, 1000)):
        damage, gain = paired.tango(b, c, n), paired.tango(c, b, n)
        assert gain.interval == pytest.approx((-damage.high, -damage.low))
        assert -1 <= damage.low <= damage.value <= damage.high <= 1
    assert paired.tango(0, 0, 10).high == pytest.approx(1.959964**2 / (10 + 1.959964**2))
    with pytest.raises(ValueError, match="b, c >= 0"):
        paired.tango(2, 2, 3)
