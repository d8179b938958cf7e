"""Calibration figures: by hand, at their limits, and by simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest

from tinker_officer.stats import calibration


def draws(n: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    sure = rng.beta(4, 2, n)
    return sure, (rng.random(n) < np.clip(sure - shift, 0, 1)).astype(float)


def test_the_parts_add_up_to_the_brier_score() -> None:
    """Reliability less resolution plus uncertainty plus what bins leave over."""
    sure, right = draws(500, 1, shift=0.1)
    parts = calibration.decompose(sure, right)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within
    assert total == pytest.approx(((sure - right) ** 2).mean())
    assert parts.uncertainty == pytest.approx(right.var(ddof=1))


def test_two_levels_of_confidence_by_hand() -> None:
    """40 answers: 20 at 0.9 of which 10 are right, 20 at 0.5 of which 10 are right."""
    sure = np.repeat([0.9, 0.5], 20)
    right = np.tile([1.0, 0.0], 20)
    parts = calibration.decompose(sure, right)
    chance = 0.25 / 19
    assert parts.reliability == pytest.approx(0.5 * 0.4**2 - chance)
    assert parts.resolution == pytest.approx(-chance + 0.25 / 39)
    assert parts.within == pytest.approx(0)
    found = calibration.overconfidence(sure, right)
    assert found.value == pytest.approx(0.2)
    assert found.low > 0


def test_a_calibrated_model_has_an_error_near_0_and_the_plain_one_has_not() -> None:
    """At n = 200 the plain binned error is above 0.05 on average; ours includes 0 in its interval."""
    plain, zero = [], 0
    for seed in range(300):
        sure, right = draws(200, seed)
        gaps = [abs(float((sure - right)[part].mean())) for part in calibration.bins(sure)]
        plain.append(np.mean(gaps))
        zero += calibration.calibration_error(sure, right).low == 0
    assert np.mean(plain) > 0.05
    assert zero / 300 >= 0.95


@pytest.mark.parametrize(("n", "shift"), [(300, 0.1), (1000, 0.05), (1000, 0.2)])
def test_the_interval_of_the_error_covers(n: int, shift: float) -> None:
    """The true error is that of 200,000 draws in as many bins; at least 92.5 % of 600 intervals hold it."""
    sure, right = draws(200_000, 99, shift)
    size = min(15, n // 20)
    gaps = np.array_split((sure - right)[np.argsort(sure)], size)
    truth = float(np.sqrt(np.mean([part.mean() ** 2 for part in gaps])))
    held = 0
    for seed in range(600):
        found = calibration.calibration_error(*draws(n, seed, shift))
        held += found.low <= truth <= found.high
    assert held / 600 >= 0.925


def test_risk_and_coverage_by_hand() -> None:
    """The most confident first; equals together."""
    coverage, risk = calibration.risk_coverage([0.9, 0.8, 0.8, 0.1], [1, 1, 0, 0])
    assert coverage.tolist() == [0.25, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 1 / 3, 0.5])
    area = calibration.area_under_risk_coverage([0.9, 0.8, 0.8, 0.1], [1, 1, 0, 0])
    assert area == pytest.approx(0.5 / 3 + 0.25 * 0.5)
    assert calibration.area_under_risk_coverage([0.5] * 4, [1, 1, 0, 0]) == 0.5


@pytest.mark.parametrize(("sure", "right"), [([0.5], [1]), ([0.5, 1.2], [1, 0]), ([0.5, 0.5], [1, 0.5])])
def test_what_is_no_confidence_is_refused(sure: list[float], right: list[float]) -> None:
    """One item, a confidence above 1, a half-right answer."""
    with pytest.raises(ValueError, match=r"need|lie"):
        calibration.decompose(sure, right)
