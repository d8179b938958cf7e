"""How often a paired comparison comes out, by the very test that the gate uses: exact, or simulated.

The normal approximation of `power` forgets that the verdict's intervals are wider than its own where items
are few: at 25 items it promised 80 % and kept 73, at 150 of which three differ 53. Here the answers that two
models may give are gone through one by one, and NLL differences are drawn, while items are few enough; from
there on the approximation is close.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, stdtrit, xlogy

from tinker_officer.stats.intervals import normal_quantile
from tinker_officer.stats.paired import added
from tinker_officer.stats.power import items_needed, smallest_detectable, smallest_detectable_mean


# So many differing items, and so many conversations, are gone through; more follow the approximation.
_MOST_DIFFERING = 1500
_MOST_DRAWN = 300
_DRAWS = 4000
_WINDOW = 5.2  # standard deviations: all but a millionth
_HALVINGS = 22


def shared(power: float, among: int) -> float:
    """Return the chance that each of `among` decisions needs for all of them to have `power`."""
    return 1 - (1 - power) / among


def passes(
    b: NDArray[np.float64], c: NDArray[np.float64], n: int, margin: float, confidence: float
) -> NDArray[np.bool_]:
    """Return whether `b` regressions and `c` improvements of `n` show a loss of no more than `margin`.

    Both intervals must end within it: Bonett and Price's, and Tango's, whose score is read at the margin
    itself, so that no end is searched for.

    Args:
        b: counts of regressions, any shape.
        c: counts of improvements, the same shape.
        n: all pairs.
        margin: -1 to 1; 0 asks for a gain.
        confidence: of the two-sided intervals.
    """
    z = normal_quantile(confidence)
    p, q = (b + 1) / (n + 2), (c + 1) / (n + 2)
    plain = np.minimum(1, p - q + z * np.sqrt((p + q - (p - q) ** 2) / (n + 2))) <= margin
    if margin >= 1:
        return plain
    linear = (2 * n - b + c) * margin - b - c
    root = np.sqrt(np.maximum(0, linear**2 + 8 * n * c * margin * (1 - margin)))
    rate = np.maximum(max(0.0, -margin), (root - linear) / (4 * n))
    spread = n * (2 * rate + margin * (1 - margin))
    return plain & (spread > 0) & (b - c - n * margin + z * np.sqrt(np.maximum(spread, 0)) <= 0)


def chance(n: int, margin: float, *, loss: float, discordance: float, confidence: float) -> float:
    """Return how often `n` pairs of binary scores show a loss of no more than `margin`.

    Args:
        n: pairs.
        margin: what the whole interval must stay within.
        loss: the true loss; negative for a gain.
        discordance: the share of items on which the models differ, at least the size of the loss.
        confidence: of the two-sided interval.
    """
    b, c, weight = _answers(n, loss, max(discordance, abs(loss)))
    return float(weight[passes(b, c, n, margin, confidence)].sum())


def margin_shown(n: int, discordance: float, *, chance_wanted: float, confidence: float) -> float:
    """Return the smallest margin that an equal model of `n` binary items passes as often as is wanted.

    Returns:
        The margin, a share of at most 1.
    """
    if not n:
        return 1.0
    if n * discordance > _MOST_DIFFERING:
        return smallest_detectable(n, discordance, power=chance_wanted, confidence=confidence)
    b, c, weight = _answers(n, 0.0, discordance)
    return _smallest(lambda margin: weight[passes(b, c, n, margin, confidence)].sum() >= chance_wanted)


def gain_shown(n: int, discordance: float, *, chance_wanted: float, confidence: float) -> float:
    """Return the smallest true gain of `n` binary items that is told from none as often as is wanted.

    Returns:
        The gain, a share of at most 1; where it is above `discordance`, all items that differ are gains.
    """
    if not n:
        return 1.0
    if n * discordance > _MOST_DIFFERING:
        return smallest_detectable(n, discordance, power=chance_wanted, confidence=confidence)
    return _smallest(
        lambda gain: (
            chance(n, 0.0, loss=-gain, discordance=discordance, confidence=confidence) >= chance_wanted
        )
    )


def mean_shown(n: int, deviation: float, *, chance_wanted: float, confidence: float) -> float:
    """Return the margin within which the unbounded scores of an equal model lie as often as is wanted.

    Args:
        n: pairs, at least 3, whose differences are normal.
        deviation: their standard deviation.
        chance_wanted: as a share.
        confidence: of `paired.wary_difference`.
    """
    drawn = min(n, _MOST_DRAWN)
    found = float(np.quantile(_ends(drawn, confidence), chance_wanted, method="higher"))
    if n > drawn:  # what the approximation leaves out shrinks with n
        fewer, more = (
            smallest_detectable_mean(one, 1.0, power=chance_wanted, confidence=confidence)
            for one in (drawn, n)
        )
        found = more + (found - fewer) * drawn / n
    return found * deviation


def items_passing(margin: float, discordance: float, *, chance_wanted: float, confidence: float) -> int:
    """Return how many binary items an equal model needs to pass `margin`, above 0, as often as is wanted.

    Few items more or less may do better or worse by a point, as counts are whole; from here on up they do.
    """
    guess = items_needed(min(margin, 1.0), discordance, power=chance_wanted, confidence=confidence)

    def enough(n: int) -> bool:
        return chance(n, margin, loss=0.0, discordance=discordance, confidence=confidence) >= chance_wanted

    return guess if guess * discordance > _MOST_DIFFERING else _first(enough, guess)


def items_within(
    margin: float, deviation: float, *, chance_wanted: float, confidence: float, fewest: int
) -> int:
    """Return how many unbounded scores, at least `fewest`, an equal model needs to lie within `margin`."""

    def enough(n: int) -> bool:
        return mean_shown(n, deviation, chance_wanted=chance_wanted, confidence=confidence) <= margin

    return fewest if enough(fewest) else _first(enough, fewest)


def _first(enough: Callable[[int], bool], guess: int) -> int:
    """Return the first number, of 1 on, that is enough, if what is above it is."""
    most = guess
    while not enough(most):
        most += 1 + most // 2
    return bisect_left(range(1, most + 1), x=True, key=enough) + 1


def _smallest(enough: Callable[[float], bool]) -> float:
    """Return the smallest of 0 to 1 that is enough, if what is above it is; 1 where nothing smaller is."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _answers(
    n: int, loss: float, discordance: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the counts of regressions and improvements that may be seen, and how likely each pair is."""
    worse, better = (discordance + loss) / 2, (discordance - loss) / 2
    b, c = np.meshgrid(_window(n, worse), _window(n, better), indexing="ij")
    b, c = b[b + c <= n], c[b + c <= n]
    same = n - b - c
    counted = gammaln(n + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(same + 1)
    weight = np.exp(counted + xlogy(b, worse) + xlogy(c, better) + xlogy(same, max(0.0, 1 - discordance)))
    return b, c, weight


def _window(n: int, share: float) -> NDArray[np.float64]:
    """Return the counts of `n` items, each of which happens with the chance `share`, that are likely."""
    wide = _WINDOW * math.sqrt(n * share * (1 - share)) + (_WINDOW**2 / 3 if share else 0)
    return np.arange(
        max(0, math.floor(n * share - wide)), min(n, math.ceil(n * share + wide)) + 1, dtype=np.float64
    )


@lru_cache(maxsize=1)
def _drawn() -> NDArray[np.float64]:
    """Return the same standard normal differences at every n, so that more items never seem to show less."""
    return np.random.default_rng(0).standard_normal((_DRAWS, _MOST_DRAWN))


@lru_cache(maxsize=64)
def _ends(n: int, confidence: float) -> NDArray[np.float64]:
    """Return the upper ends of `paired.wary_difference` over draws of `n` differences."""
    drawn = _drawn()[:, :n]
    farthest = np.repeat(drawn.max(axis=1, keepdims=True), added(n), axis=1)
    return np.maximum(_upper(drawn, confidence), _upper(np.hstack([drawn, farthest]), confidence))


def _upper(drawn_sn: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    """Return the upper end of `intervals.mean_interval` of each row, shape `(S,)`, for equal weights."""
    n = drawn_sn.shape[1]
    mean_s = drawn_sn.mean(axis=1)
    apart_sn = drawn_sn - mean_s[:, None]
    squares_s = (apart_sn**2).mean(axis=1)
    error_s = np.sqrt(squares_s / (n - 1))
    skewness_s = (apart_sn**3).mean(axis=1) / squares_s**1.5 * math.sqrt(n * (n - 1)) / (n - 2)
    t = float(stdtrit(n - 1, 0.5 + confidence / 2))
    down_s = 3 / skewness_s * (np.cbrt(1 - skewness_s * (t / math.sqrt(n) + skewness_s / (6 * n))) - 1)
    upper_s: NDArray[np.float64] = mean_s + error_s * np.maximum(t, -down_s * math.sqrt(n))
    return upper_s
