"""A judge's errors, taken out of its rate: by hand, at its limits, and by simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinker_officer.stats import bias


def test_rogan_gladen_by_hand() -> None:
    """60 of 100 passed, sensitivity 0.9, specificity 0.8: (0.6 + 0.8 - 1) / 0.7."""
    found = bias.rogan_gladen(60, 100, 45, 50, 40, 50)
    assert found.value == pytest.approx(0.4 / 0.7)
    assert found.low < found.value < found.high


def test_a_perfect_judge_changes_nothing_but_the_width() -> None:
    """With thousands of labels and no error seen, the interval is nearly that of the plain rate."""
    found = bias.rogan_gladen(60, 100, 5000, 5000, 5000, 5000)
    assert found.value == pytest.approx(0.6)
    assert found.interval == pytest.approx((0.50, 0.69), abs=0.01)


def test_a_judge_no_better_than_chance_says_nothing() -> None:
    """The rate is not known at all: no figure, and the whole of 0 to 1."""
    found = bias.rogan_gladen(60, 100, 25, 50, 25, 50)
    assert math.isnan(found.value)
    assert found.interval == (0.0, 1.0)


@pytest.mark.parametrize(("n", "labels", "rate"), [(100, 30, 0.5), (300, 100, 0.8), (1000, 200, 0.2)])
def test_rogan_gladen_covers(n: int, labels: int, rate: float) -> None:
    """Sensitivity 0.9 and specificity 0.8, both estimated: at least 93.5 % of 2,000 draws."""
    rng = np.random.default_rng(n)
    passed = rng.binomial(n, rate * 0.9 + (1 - rate) * 0.2, 2000)
    good, bad = rng.binomial(labels, 0.9, 2000), rng.binomial(labels, 0.8, 2000)
    held = 0
    for a, b, c in zip(passed.tolist(), good.tolist(), bad.tolist(), strict=True):
        found = bias.rogan_gladen(a, n, b, labels, c, labels)
        held += found.low <= rate <= found.high
    assert held / 2000 >= 0.935


def test_corrected_mean_by_hand_and_by_coverage() -> None:
    """Mean of the judge plus mean gap; 1,000 draws with a judge 0.1 too kind cover in at least 93 %."""
    found = bias.corrected_mean([0.5, 1.0], [1.0, 0.5], [0.5, 0.5])
    assert found.value == pytest.approx(0.75 - 0.25)
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        truth = rng.beta(2, 2, 180)
        judged = np.clip(truth + 0.1 + rng.normal(0, 0.05, 180), None, 1.2)
        found = bias.corrected_mean(judged[:120], judged[120:], truth[120:])
        held += found.low <= 0.5 <= found.high
    assert held / 1000 >= 0.93
    assert bias.corrected_mean([1, 1], [1, 1], [0.5, 0.5]).interval == (0.5, 0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bias.rogan_gladen(1, 0, 1, 1, 1, 1),
        lambda: bias.rogan_gladen(2, 1, 1, 1, 1, 1),
        lambda: bias.rogan_gladen(1, 1, 0, 0, 1, 1),
        lambda: bias.corrected_mean([1], [1, 1], [1, 1]),
    ],
)
def test_too_little_is_refused(call) -> None:
    """No answers, more passed than there are, or no labels of one kind."""
    with pytest.raises(ValueError, match="need"):
        call()
