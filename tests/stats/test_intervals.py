"""Intervals of one sample, against closed forms, scipy, and simulations of their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as reference

from tinker_officer.stats import intervals


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (34, 100), (1, 1)])
def test_wilson_equals_scipy(successes: int, n: int) -> None:
    """Wilson's interval is the one that scipy computes."""
    found = intervals.wilson(successes, n)
    wanted = reference.binomtest(successes, n).proportion_ci(method="wilson")
    assert found.interval == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert found.value == successes / n


def test_wilson_of_nothing_is_everything() -> None:
    """Without items the interval is 0 to 1."""
    found = intervals.wilson(0, 0)
    assert math.isnan(found.value)
    assert found.interval == (0, 1)


def test_mean_equals_student() -> None:
    """With equal weights, no clusters and no skewness the interval is Student's."""
    scores = [1.0, 4.0, 2.0, 7.0, 6.0]
    found = intervals.mean(scores)
    wanted = reference.t.interval(0.95, 4, np.mean(scores), reference.sem(scores))
    assert found.interval == pytest.approx(wanted, rel=1e-12)


def test_clusters_count_as_one_observation() -> None:
    """Repeating every score five times under its cluster's name leaves the interval as it was."""
    scores = [1.0, 4.0, 2.0, 8.0]
    once = intervals.mean(scores)
    repeated = intervals.mean(np.repeat(scores, 5), clusters=list(np.repeat(list("abcd"), 5)))
    assert repeated.interval == pytest.approx(once.interval, rel=1e-12)
    assert repeated.n == 20


def test_weights_make_a_ratio_of_sums() -> None:
    """The weighted mean is sum(w s) / sum(w), and an item without weight changes nothing."""
    found = intervals.mean([1.0, 2.0, 99.0], weights=[3, 1, 0])
    assert found.value == pytest.approx(5 / 4)
    assert found.interval == pytest.approx(intervals.mean([1.0, 2.0], weights=[3, 1]).interval)


def test_jackknife_is_leave_one_out_by_hand() -> None:
    """The standard error is the spread of the three leave-one-out ratios."""
    scores, weights = np.array([1.0, 3.0, 2.0]), np.array([1.0, 2.0, 5.0])
    value = (scores * weights).sum() / weights.sum()
    left = [(scores[keep] * weights[keep]).sum() / weights[keep].sum() for keep in ([1, 2], [0, 2], [0, 1])]
    error = math.sqrt(2 / 3 * sum((one - value) ** 2 for one in left))
    half = reference.t.ppf(0.975, 2) * error
    found = intervals.t_interval(scores * weights, weights, 0.95)
    assert found == pytest.approx((value - half, value + half))


def test_skewed_scores_widen_the_end_towards_the_tail() -> None:
    """At Hall's end his transformed statistic is the t quantile; the other end stays Student's."""
    scores = np.array([0.1, 0.2, 0.2, 0.3, 0.5, 0.9, 3.0])
    found, student = (
        intervals.mean(scores),
        reference.t.interval(0.95, 6, scores.mean(), reference.sem(scores)),
    )
    assert found.low == pytest.approx(student[0])
    skewness, n = reference.skew(scores, bias=False), len(scores)
    w = (scores.mean() - found.high) / scores.std(ddof=1)
    transformed = w + skewness * w**2 / 3 + skewness**2 * w**3 / 27 + skewness / (6 * n)
    assert transformed * math.sqrt(n) == pytest.approx(-reference.t.ppf(0.975, n - 1))
    mirrored = intervals.mean(-scores)
    assert mirrored.interval == pytest.approx((-found.high, -found.low))


def test_coverage_of_the_mean_of_skewed_scores() -> None:
    """Of 30 exponential scores it holds in 93 to 97.5 %; Student's does not."""
    rng = np.random.default_rng(3)
    draws = [rng.exponential(1, 30) for _ in range(3000)]
    ends = [intervals.mean(draw).interval for draw in draws]
    students = [intervals.t_interval(draw, np.ones(30), 0.95) for draw in draws]
    assert 0.93 <= np.mean([low <= 1 <= high for low, high in ends]) <= 0.975
    assert np.mean([low <= 1 <= high for low, high in students]) < 0.93


def test_bounded_scores_never_claim_certainty() -> None:
    """Ten equal scores leave an interval with room, inside the bounds; one cluster leaves no end open."""
    found = intervals.mean([1.0] * 10, bounds=(0, 1))
    assert found.value == 1
    assert found.low < 0.9
    assert found.high == 1
    assert intervals.mean([0.5], bounds=(0, 1)).low == pytest.approx(0, abs=0.2)


def test_one_cluster_bounds_nothing() -> None:
    """A single observation has an infinite interval."""
    assert intervals.mean([3.0]).interval == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: intervals.wilson(3, 2), "successes"),
        (lambda: intervals.mean([]), "at least one"),
        (lambda: intervals.mean([math.nan]), "finite"),
        (lambda: intervals.mean([1.0], weights=[-1]), "negative"),
        (lambda: intervals.mean([1.0], weights=[1, 2]), "alike"),
        (lambda: intervals.mean([1.0], clusters=["a", "b"]), "clusters"),
        (lambda: intervals.mean([1.0, 2.0], confidence=1.0), "confidence"),
    ],
)
def test_bad_numbers_are_refused(call, said) -> None:
    """What cannot be meant is a ValueError that says why."""
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("clusters", [15, 40])
@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_coverage_of_the_weighted_mean(clusters: int, spread: float) -> None:
    """The nominal 95 % interval of a token-weighted mean holds the truth in 92.5 to 97.5 % of 2,000 draws."""
    rng = np.random.default_rng(clusters)
    held = 0
    for _ in range(2000):
        weights = np.round(np.exp(rng.normal(3, spread, clusters))) + 1
        found = intervals.mean(rng.normal(2, 1, clusters), weights=weights)
        held += found.low <= 2 <= found.high
    assert 0.925 <= held / 2000 <= 0.975


def test_coverage_with_clusters_holds_where_ignoring_them_fails() -> None:
    """Five items a source: clustered intervals cover 95 %, unclustered ones far less."""
    rng = np.random.default_rng(5)
    names = list(np.repeat(np.arange(15), 5))
    held = np.zeros(2)
    for _ in range(1000):
        scores = np.repeat(rng.normal(0, 1, 15), 5) + rng.normal(0, 0.3, 75)
        for index, clusters in enumerate((names, None)):
            found = intervals.mean(scores, clusters=clusters)
            held[index] += found.low <= 0 <= found.high
    assert 0.93 <= held[0] / 1000 <= 0.97
    assert held[1] / 1000 < 0.75


def test_difference_of_means_is_welchs() -> None:
    """Equal weights and no clusters: SciPy's unequal-variance t interval, the other way round."""
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(4)
    first, second = rng.normal(0, 1, 12), rng.normal(0.5, 3, 30)
    found = intervals.difference_of_means(intervals.Sample(first), intervals.Sample(second))
    wanted = ttest_ind(second, first, equal_var=False).confidence_interval()
    assert found.value == pytest.approx(second.mean() - first.mean())
    assert found.interval == pytest.approx((wanted.low, wanted.high))


def test_difference_of_means_covers_with_weights_and_clusters() -> None:
    """Twelve and fifteen clusters of four items of different weight: at least 93 % of 1,000 draws."""
    rng = np.random.default_rng(9)
    held = 0
    for _ in range(1000):
        samples = []
        for clusters in (12, 15):
            shift = np.repeat(rng.normal(0, 0.5, clusters), 4)
            scores = shift + rng.normal(0, 0.5, 4 * clusters)
            names = np.repeat(np.arange(clusters), 4).tolist()
            samples.append(intervals.Sample(scores, rng.uniform(5, 50, 4 * clusters), names))
        found = intervals.difference_of_means(*samples)
        held += found.low <= 0 <= found.high
    assert held / 1000 >= 0.93


def test_difference_of_means_without_spread() -> None:
    """One cluster bounds nothing; equal scores are a point."""
    one, two = intervals.Sample([1.0]), intervals.Sample([2.0, 2.0])
    assert intervals.difference_of_means(one, two).interval == (-math.inf, math.inf)
    assert intervals.difference_of_means(two, two).interval == (0.0, 0.0)
