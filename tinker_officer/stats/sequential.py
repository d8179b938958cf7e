"""A comparison that may be looked at after every pair, and stopped as soon as it is decided.

Looking at a fixed-n interval after every item and stopping when it leaves out zero is wrong about 40 times
in a hundred. Here each pair's difference x, between -1 and 1, is a fair bet under "no difference": the
wealth `mean over lambda of prod(1 + lambda x)`, lambda uniform on (-1, 1), is at least 1 / alpha at *any*
time with probability at most alpha (Ville). On right-or-wrong scores it is the Beta(1, 1) mixture on the
discordant pairs: with b regressions and c improvements, `2^(b+c) B(b+1, c+1)`. The same bets against every
other mean give a confidence sequence: an interval that holds at every look at once.

It takes the pairs in an order that says nothing of their outcome, one source after the other.

Source:
    Robbins 1970 and Ville 1939 for the mixture; Waudby-Smith and Ramdas 2024, "Estimating means of bounded
    random variables by betting" (arXiv 2010.09686), for the confidence sequence.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np


# Gauss-Legendre: any fixed mixture of bets is valid; this one equals the uniform one up to 127 pairs.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_WEIGHTS = _WEIGHTS / 2
_STEPS = 40


def log_e_binary(b: int, c: int) -> float:
    """Return the natural logarithm of the e-value of `b` pairs one way and `c` the other.

    Raises:
        ValueError: a count is negative.
    """
    if min(b, c) < 0:
        raise ValueError(f"counts must not be negative, got {b!r} and {c!r}")
    beta = math.lgamma(b + 1) + math.lgamma(c + 1) - math.lgamma(b + c + 2)
    return (b + c) * math.log(2) + beta


class Sequential:
    """Paired differences as they come in, and what they have decided so far.

    Args:
        alpha: how often a comparison of equals may be called different, over all looks together.

    Raises:
        ValueError: `alpha` is not strictly between 0 and 1.
    """

    def __init__(self, alpha: float = 0.05) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {alpha!r}")
        self.alpha = alpha
        self.n = 0
        self._sum = 0.0
        self._seen: Counter[float] = Counter()
        self._log_wealth = np.zeros(len(_NODES))

    def add(self, difference: float) -> None:
        """Take in one pair's difference, from -1 to 1.

        Raises:
            ValueError: it is outside.
        """
        if not -1 <= difference <= 1:
            raise ValueError(f"a difference must lie between -1 and 1, got {difference!r}")
        self.n += 1
        self._sum += difference
        if difference:
            self._log_wealth += np.log1p(_NODES * difference)
        self._seen[round(difference, 12)] += 1

    @property
    def mean(self) -> float:
        """The mean difference so far; 0 before the first pair."""
        return self._sum / self.n if self.n else 0.0

    @property
    def log_e(self) -> float:
        """Logarithm of the e-value against "no difference": 0 says nothing, `log(1 / alpha)` decides."""
        return _log_mean(self._log_wealth)

    @property
    def decided(self) -> bool:
        """Whether the difference is there, at `alpha`, however often one has looked."""
        return self.log_e >= -math.log(self.alpha)

    def interval(self) -> tuple[float, float]:
        """Return the confidence sequence of the mean difference now: it holds at all looks with 1 - alpha."""
        if not self.n:
            return -1.0, 1.0
        values = np.array(list(self._seen), dtype=np.float64)
        counts = np.array(list(self._seen.values()), dtype=np.float64)

        def rejected(mean: float) -> bool:
            # Bets scaled so that no outcome can lose more than all: 1 + lambda (x - mean) >= 0.
            bets = np.where(_NODES > 0, _NODES / (1 + mean), _NODES / (1 - mean))
            wealth = counts @ np.log1p(bets[None, :] * (values - mean)[:, None])
            return _log_mean(wealth) >= -math.log(self.alpha)

        centre = min(1 - 1e-9, max(-1 + 1e-9, self.mean))
        return _edge(rejected, centre, -1.0), _edge(rejected, centre, 1.0)


def _log_mean(log_wealth: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    top = float(log_wealth.max())
    return top + math.log(float(_WEIGHTS @ np.exp(log_wealth - top)))


def _edge(rejected: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return where, from `inside` towards `outside`, means begin to be rejected."""
    limit = outside * (1 - 1e-9)
    if not rejected(limit):
        return outside
    for _ in range(_STEPS):
        middle = (inside + limit) / 2
        inside, limit = (inside, middle) if rejected(middle) else (middle, limit)
    return limit
