"""A rate that an imperfect judge gave, corrected by answers that people graded too.

A judge that passes one bad answer in five and fails one good one in ten reports a rate that is not the
rate. From labelled answers it is known how it errs; the correction widens the interval by how little that
is known.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from tinker_officer.stats.intervals import Estimate, normal_quantile


def rogan_gladen(
    passed: int,
    n: int,
    true_passed: int,
    positives: int,
    true_failed: int,
    negatives: int,
    confidence: float = 0.95,
) -> Estimate:
    """Return the rate of good answers behind the `passed` of `n` that a judge let pass.

    Args:
        passed: answers that the judge passed, people's grades unknown.
        n: answers that the judge saw, people's grades unknown.
        true_passed: labelled good answers that the judge passed.
        positives: labelled good answers.
        true_failed: labelled bad answers that the judge failed.
        negatives: labelled bad answers.
        confidence: two-sided.

    Returns:
        The corrected rate, within 0 and 1, with Lang and Reiczigel's interval; the whole of 0 to 1 where
        the judge is not seen to be better than chance.

    Raises:
        ValueError: a count is negative or above its total, or there are no answers or no labels of one kind.

    Source:
        Rogan and Gladen 1978; Lang and Reiczigel 2014, "Confidence limits for prevalence of disease
        adjusted for estimated sensitivity and specificity"; Lee et al. 2025 (arXiv 2511.21140) for judges
        that are models.
    """
    for part, whole in ((passed, n), (true_passed, positives), (true_failed, negatives)):
        if whole < 1 or not 0 <= part <= whole:
            raise ValueError(f"need 0 <= part <= whole and whole >= 1, got {part!r} of {whole!r}")
    youden = true_passed / positives + true_failed / negatives - 1
    if youden <= 0:
        return Estimate(math.nan, 0.0, 1.0, n, confidence)
    value = (passed / n + true_failed / negatives - 1) / youden
    z = normal_quantile(confidence)
    p = (passed + z * z / 2) / (n + z * z)
    se, sp = (true_passed + 1) / (positives + 2), (true_failed + 1) / (negatives + 2)
    spread = se + sp - 1
    rate = (p + sp - 1) / spread
    of_se, of_sp = se * (1 - se) / (positives + 2), sp * (1 - sp) / (negatives + 2)
    shift = 2 * z * z * (rate * of_se - (1 - rate) * of_sp)
    variance = p * (1 - p) / (n + z * z) + rate**2 * of_se + (1 - rate) ** 2 * of_sp
    half = z * math.sqrt(variance) / spread
    low, high = rate + shift - half, rate + shift + half
    return Estimate(_clipped(value), _clipped(low), _clipped(high), n, confidence)


def _clipped(value: float) -> float:
    return min(1.0, max(0.0, value))


def corrected_mean(
    scores: ArrayLike, labelled_scores: ArrayLike, labels: ArrayLike, confidence: float = 0.95
) -> Estimate:
    """Return the mean that people would have given, from a judge's scores and its errors on labelled answers.

    The mean of the judge's scores plus the mean of what people gave beyond the judge, with Welch's interval:
    for partial credit, where there is no sensitivity and specificity.

    Args:
        scores: the judge's, people's grades unknown, shape `(n,)`.
        labelled_scores: the judge's, of the labelled answers, shape `(m,)`.
        labels: people's, of the same answers, shape `(m,)`.
        confidence: two-sided.

    Raises:
        ValueError: fewer than two of either, or the labels are not as many as their scores.

    Source:
        Angelopoulos et al. 2023, "Prediction-powered inference" (arXiv 2301.09633), for a mean.
    """
    from scipy.special import stdtrit

    own = np.asarray(scores, dtype=np.float64)
    gaps = np.asarray(labels, dtype=np.float64) - np.asarray(labelled_scores, dtype=np.float64)
    if min(len(own), len(gaps)) < 2:  # noqa: PLR2004 - one observation has no spread
        raise ValueError(f"need at least two answers of either kind, got {len(own)} and {len(gaps)}")
    parts = own.var(ddof=1) / len(own), gaps.var(ddof=1) / len(gaps)
    value, variance = float(own.mean() + gaps.mean()), float(sum(parts))
    if not variance:
        return Estimate(value, value, value, len(own), confidence)
    freedom = variance**2 / sum(
        float(part) ** 2 / (count - 1) for part, count in zip(parts, (len(own), len(gaps)), strict=True)
    )
    half = float(stdtrit(freedom, 0.5 + confidence / 2)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half, len(own), confidence)
