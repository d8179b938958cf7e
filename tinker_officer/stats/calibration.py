"""Whether a model knows what it knows: confidences against what came of them.

The binned calibration error of a *perfectly* calibrated model is not 0. What chance adds is taken off here,
and the interval includes 0 when the data allow it.
"""

from __future__ import annotations

import math

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinker_officer.stats import paired
from tinker_officer.stats.intervals import Estimate, normal_quantile


_A_BIN = 20  # items: enough that a bin's mean is nearly normal
_BINS = 15


@attrs.frozen
class Decomposition:
    """A Brier score in its parts: `reliability - resolution + uncertainty + within`.

    Attributes:
        reliability: how far confidences are from what came of them, squared; 0 is best.
        resolution: how far what came of them differs between confidences; more is better.
        uncertainty: the variance of what came of them; not the model's doing.
        within: what the bins leave over, because confidences within one are not equal.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within: float


def _checked(confidences: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sure = np.asarray(confidences, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if sure.shape != right.shape or sure.ndim != 1 or len(sure) < 2:  # noqa: PLR2004 - one item has no spread
        raise ValueError(f"need at least two pairs, flat and alike: {sure.shape}, {right.shape}")
    if not (((sure >= 0) & (sure <= 1)).all() and np.isin(right, (0, 1)).all()):
        raise ValueError("confidences lie between 0 and 1, and an answer is right (1) or wrong (0)")
    return sure, right


def bins(confidences: ArrayLike) -> list[NDArray[np.intp]]:
    """Return the items of each bin, by rising confidence: at most 15 bins, of 20 items or more each."""
    order = np.argsort(np.asarray(confidences), kind="stable")
    return [part for part in np.array_split(order, max(1, min(_BINS, len(order) // _A_BIN))) if len(part)]


def decompose(confidences: ArrayLike, correct: ArrayLike) -> Decomposition:
    """Return the parts of the Brier score, each without what chance adds to it.

    Args:
        confidences: how sure the model was of each answer, 0 to 1.
        correct: whether it was right, 0 or 1.

    Raises:
        ValueError: fewer than two, not alike, or out of range.

    Source:
        Murphy 1973; Stephenson et al. 2008 for what bins leave over; Ferro and Fricker 2012 for the
        corrections.
    """
    sure, right = _checked(confidences, correct)
    n, overall = len(sure), float(right.mean())
    reliability = resolution = 0.0
    for part in bins(sure):
        share, rate = len(part) / n, float(right[part].mean())
        chance = rate * (1 - rate) / (len(part) - 1) if len(part) > 1 else 0.0
        reliability += share * ((rate - sure[part].mean()) ** 2 - chance)
        resolution += share * ((rate - overall) ** 2 - chance)
    chance = overall * (1 - overall) / (n - 1)
    resolution, uncertainty = float(resolution) + chance, overall * (1 - overall) + chance
    brier = float(((sure - right) ** 2).mean())
    within = brier - (float(reliability) - resolution + uncertainty)
    return Decomposition(float(reliability), resolution, uncertainty, within)


def calibration_error(confidences: ArrayLike, correct: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return the expected calibration error, root mean square over bins, without what chance adds.

    Args:
        confidences: how sure the model was of each answer, 0 to 1.
        correct: whether it was right, 0 or 1.
        confidence: two-sided.

    Returns:
        The error, at least 0. Its interval inverts a noncentral chi-square test: n times the mean squared
        gap of the bins, over the variance of a gap, has one, and its noncentrality is the error squared.

    Raises:
        ValueError: fewer than two, not alike, or out of range.

    Source:
        Kumar, Liang and Ma 2019, "Verified uncertainty calibration", for the debiased error.
    """
    from scipy.special import chndtr, chndtrinc

    sure, right = _checked(confidences, correct)
    normal_quantile(confidence)
    gaps, n = sure - right, len(sure)
    parts = [part for part in bins(sure) if len(part) > 1]
    variances = np.array([gaps[part].var(ddof=1) for part in parts])
    squared = sum(len(part) / n * float(gaps[part].mean()) ** 2 for part in parts)
    variance = float(variances.mean())
    if not variance:
        return Estimate(math.sqrt(squared), 0.0, 1.0, n, confidence)
    value = math.sqrt(max(0.0, squared - len(parts) * variance / n))
    statistic, tail = n * squared / variance, (1 - confidence) / 2

    def end(probability: float) -> float:
        if chndtr(statistic, len(parts), 0) <= probability:
            return 0.0
        return math.sqrt(float(chndtrinc(statistic, len(parts), probability)) * variance / n)

    return Estimate(value, min(1.0, end(1 - tail)), min(1.0, max(value, end(tail))), n, confidence)


def overconfidence(confidences: ArrayLike, correct: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return the mean confidence less the share that was right; below 0 is underconfidence.

    Raises:
        ValueError: fewer than two, not alike, or out of range.
    """
    sure, right = _checked(confidences, correct)
    return paired.mean_difference(right, sure, bounds=(0, 1), confidence=confidence)


def risk_coverage(
    confidences: ArrayLike, correct: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `(coverage, risk)`: the share of wrong answers among the most confident part of each size.

    Answers of equal confidence enter together: which of them comes first says nothing.

    Raises:
        ValueError: fewer than two, not alike, or out of range.

    Source:
        Geifman and El-Yaniv 2017, "Selective classification for deep neural networks".
    """
    sure, right = _checked(confidences, correct)
    order = np.argsort(-sure, kind="stable")
    wrong = np.cumsum(1 - right[order])
    last = np.flatnonzero(np.append(np.diff(sure[order]) != 0, True))
    return (last + 1) / len(sure), wrong[last] / (last + 1)


def area_under_risk_coverage(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return the mean risk over all coverages; lower is better, and the error rate is that of a blind guess.

    Raises:
        ValueError: fewer than two, not alike, or out of range.
    """
    coverage, risk = risk_coverage(confidences, correct)
    return float((np.diff(coverage, prepend=0.0) * risk).sum())
