"""The SFT loss: what is averaged, against a few lines of NumPy and the server's own sum."""

from __future__ import annotations

import numpy as np
import pytest

from tinker_officer.errors import RunError
from tinker_officer.train.sft import Sft, mean_nlls, scale


WEIGHTS = [np.array([0.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0, 0.5, 1.0])]
LOGPROBS = [np.array([-9.0, -1.0, -2.0]), np.array([-9.0, -9.0, -3.0, -4.0, -5.0])]


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("token", (1 + 2 + 3 + 0.5 * 4 + 5) / 4.5),
        ("example", ((1 + 2) / 2 + (3 + 0.5 * 4 + 5) / 2.5) / 2),
        ("sum", 1 + 2 + 3 + 0.5 * 4 + 5),
    ],
)
def test_a_reduction_is_what_the_scaled_weights_sum_to(reduction: str, expected: float) -> None:
    """Tinker's weighted sum over the scaled weights equals the mean that the reduction names."""
    scaled = scale(WEIGHTS, reduction)
    summed = sum(float(-(one @ of)) for one, of in zip(LOGPROBS, scaled, strict=True))
    assert summed == pytest.approx(expected, rel=1e-12)


def test_both_means_are_reported_each_named_right() -> None:
    """The NLL a token weighs long answers more; the NLL by example does not."""
    assert mean_nlls(LOGPROBS, WEIGHTS) == pytest.approx(
        {
            "train/mean_nll": (1 + 2 + 3 + 0.5 * 4 + 5) / 4.5,
            "train/mean_nll_by_example": ((1 + 2) / 2 + (3 + 0.5 * 4 + 5) / 2.5) / 2,
        }
    )


def test_an_unknown_reduction_is_refused() -> None:
    """A misspelt reduction names the nearest one."""
    with pytest.raises(RunError, match="did you mean 'token'"):
        Sft("tokens")
