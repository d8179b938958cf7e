"""Differences between two models that sat the same items.

Two checkpoints are compared item by item: what both get right, or both wrong, says nothing. For binary
scores the interval is Bonett and Price's, which holds its level at the n of an eval and does not collapse
to nothing when no pair differs. For other scores it is a cluster-robust t, widened where the differences are
skewed, with a BCa bootstrap to lay beside it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from tinker_officer.stats.intervals import Estimate, clustered, mean_interval, normal_quantile, t_interval


# From so many observations on, one more at each end is enough.
_SURE = 50


def bonett_price(b: int, c: int, n: int, confidence: float = 0.95) -> Estimate:
    """Return `(b - c) / n` with its interval, for `n` pairs of binary scores.

    With b = regressions (right before, wrong after) and c = improvements, this is the *damage*, and its
    `high` is what a gate holds against a margin. Exchange b and c for the *gain*.

    Args:
        b: pairs that count for the difference.
        c: pairs that count against it.
        n: all pairs, those that agree among them.
        confidence: two-sided; each end alone errs with `(1 - confidence) / 2`.

    Raises:
        ValueError: a count is negative, or `b + c` is more than `n`, or `n` is 0.

    Source:
        Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions
        based on paired data".
    """
    if min(b, c) < 0 or b + c > n or n == 0:
        raise ValueError(f"need b, c >= 0 and b + c <= n with n > 0, got b={b!r}, c={c!r}, n={n!r}")
    p, q = (b + 1) / (n + 2), (c + 1) / (n + 2)
    half = normal_quantile(confidence) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return Estimate((b - c) / n, max(-1.0, p - q - half), min(1.0, p - q + half), n, confidence)


def tango(b: int, c: int, n: int, confidence: float = 0.95) -> Estimate:
    """Return the same difference as `bonett_price` with Tango's score interval.

    Where nearly all of few discordant pairs point one way, Bonett and Price's end lies too near (its true
    error is up to 6 % at a nominal 2.5 %); the score interval keeps its level there.

    Args:
        b: pairs that count for the difference.
        c: pairs that count against it.
        n: all pairs, those that agree among them.
        confidence: two-sided; each end alone errs with `(1 - confidence) / 2`.

    Raises:
        ValueError: as for `bonett_price`.

    Source:
        Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
        paired-sample design".
    """
    if min(b, c) < 0 or b + c > n or n == 0:
        raise ValueError(f"need b, c >= 0 and b + c <= n with n > 0, got b={b!r}, c={c!r}, n={n!r}")
    z = normal_quantile(confidence)
    low, high = -_tango_end(c, b, n, z), _tango_end(b, c, n, z)
    return Estimate((b - c) / n, low, high, n, confidence)


def _tango_end(b: int, c: int, n: int, z: float) -> float:
    """Return the difference above `(b - c) / n` at which the score statistic falls to `-z`."""
    from scipy.optimize import brentq

    def score(difference: float) -> float:
        """Return Tango's statistic plus z; the nuisance rate is its maximum-likelihood value."""
        linear = (2 * n - b + c) * difference - b - c
        root = math.sqrt(linear**2 + 8 * n * c * difference * (1 - difference))
        rate = max(0.0, -difference, (root - linear) / (4 * n))
        spread = n * (2 * rate + difference * (1 - difference))
        return (b - c - n * difference) / math.sqrt(spread) + z if spread > 0 else z

    top = 1 - 1e-12
    if b == n or score(top) > 0:
        return 1.0
    return float(brentq(score, (b - c) / n, top, xtol=1e-12))


def discordant(before: ArrayLike, after: ArrayLike) -> tuple[int, int, int]:
    """Return `(regressions, improvements, n)` of binary scores, paired by position.

    Raises:
        ValueError: the lengths differ, or a score is neither 0 nor 1.
    """
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if old.shape != new.shape or old.ndim != 1:
        raise ValueError(f"pairs must be flat and alike: {old.shape}, {new.shape}")
    if not (np.isin(old, (0, 1)).all() and np.isin(new, (0, 1)).all()):
        raise ValueError("binary scores are 0 or 1")
    return int(((old == 1) & (new == 0)).sum()), int(((old == 0) & (new == 1)).sum()), len(old)


def mean_difference(
    before: ArrayLike,
    after: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    clusters: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Return the (weighted) mean of `after - before`, paired by position, with a cluster-robust interval.

    Args:
        before: the first model's scores, shape `(n,)`.
        after: the second model's, same items in the same order.
        weights: of the items, e.g. trained tokens for NLL; equal when left out.
        clusters: the source of each item; items of one source count as one observation.
        bounds: the lowest and highest score that there can be. One pseudo-pair is then added at each
            extreme, which for scores of 0 and 1 is the adjustment of Bonett and Price.
        confidence: two-sided.

    Returns:
        The difference; infinite ends when there are fewer than two clusters and no bounds. Without bounds
        the interval of pairs that are *all* equal is a point: the scores give no other information.

    Raises:
        ValueError: lengths differ, a number is not finite, a weight is negative, or all weights are zero.

    Source:
        Miller 2024 (arXiv 2411.00640), section 4; the jackknife of a ratio, Cochran 1977; for skewed
        differences Hall 1992 (`intervals.mean_interval`).
    """
    difference_n = _differences(before, after)
    _, weight_n, sums_g, masses_g = clustered(difference_n, weights, clusters)
    value = float(sums_g.sum() / masses_g.sum())
    if bounds is not None:
        span, typical = bounds[1] - bounds[0], float(weight_n.mean())
        sums_g = np.append(sums_g, [typical * span, -typical * span])
        masses_g = np.append(masses_g, [typical, typical])
    way = mean_interval if bounds is None else t_interval
    return Estimate(value, *way(sums_g, masses_g, confidence), len(difference_n), confidence)


def wary_difference(
    before: ArrayLike,
    after: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Return the same difference as `mean_difference` with an interval that does not trust a thin tail.

    Where few items lose much, most samples hold too few of them, and an interval ends too near. Each end here
    is that of the sample with one more observation, as extreme as the most extreme that was seen; with
    `added(n)`, two or three, where there are fewer than 50.

    Args:
        before: the first model's scores, without bounds, such as NLL.
        after: the second model's, same items in the same order.
        weights: of the items; equal when left out.
        clusters: the source of each item; items of one source count as one observation.
        confidence: two-sided.

    Raises:
        ValueError: as for `mean_difference`.

    Source:
        Ours; bench/gate.py simulates how often it errs. Bounded scores get such observations at their bounds.
    """
    found = mean_difference(before, after, weights=weights, clusters=clusters, confidence=confidence)
    _, _, sums_g, masses_g = clustered(_differences(before, after), weights, clusters)
    typical, shares_g = np.full(added(len(sums_g)), masses_g.mean()), sums_g / masses_g
    low, high = (
        mean_interval(np.append(sums_g, typical * end), np.append(masses_g, typical), confidence)[place]
        for place, end in enumerate((shares_g.min(), shares_g.max()))
    )
    return Estimate(found.value, min(found.low, low), max(found.high, high), found.n, confidence)


def added(n: int) -> int:
    """Return how many observations `wary_difference` adds at each end to `n` of them.

    With one, nearly 5 % of the worst of 20 skewed losses in bench/gate.py passed at a nominal 2.5 %.
    """
    return math.ceil(_SURE / n)


def bca_difference(
    before: ArrayLike,
    after: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 5000,
    seed: int = 0,
) -> Estimate:
    """Return the same difference as `mean_difference` with a BCa bootstrap interval over clusters.

    Below some fifty clusters it is too narrow (at 30 it holds in 91 to 94 %), so it stands beside that
    interval and does not replace it.

    Args:
        before: the first model's scores.
        after: the second model's, same items in the same order.
        weights: of the items; equal when left out.
        clusters: the source of each item.
        confidence: two-sided.
        resamples: bootstrap samples.
        seed: of the resampling: the same call gives the same interval.

    Raises:
        ValueError: as for `mean_difference`.

    Source:
        Efron 1987; `scipy.stats.bootstrap`.
    """
    difference_n = _differences(before, after)
    _, _, sums_g, masses_g = clustered(difference_n, weights, clusters)
    value = float(sums_g.sum() / masses_g.sum())
    n = len(difference_n)
    if len(sums_g) < 2:  # noqa: PLR2004 - one observation has no spread
        return Estimate(value, -math.inf, math.inf, n, confidence)
    if np.ptp(sums_g / masses_g) == 0:  # every resample is the same: there is nothing to bootstrap
        return Estimate(value, value, value, n, confidence)
    from scipy.stats import bootstrap

    found = bootstrap(
        (sums_g, masses_g),
        lambda sums, masses, axis=-1: sums.sum(axis=axis) / masses.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // len(sums_g)),
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    low, high = (float(end) for end in found.confidence_interval)
    return Estimate(value, low, high, n, confidence)


def _differences(before: ArrayLike, after: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if old.shape != new.shape or old.ndim != 1:
        raise ValueError(f"pairs must be flat and alike: {old.shape}, {new.shape}")
    return new - old
