"""How small a difference a suite can see, and how many items a decision needs. To be read *before* a run.

Every figure here is a plan, not a verdict: it uses the normal approximation, and assumptions about how
often two models disagree. The verdict uses the intervals of `paired`.
"""

from __future__ import annotations

import math

from tinker_officer.stats.intervals import normal_quantile


def _reach(confidence: float, power: float, guardrails: int) -> float:
    if not 0 < power < 1:
        raise ValueError(f"power must lie between 0 and 1, got {power!r}")
    if guardrails < 1:
        raise ValueError(f"guardrails must be at least 1, got {guardrails!r}")
    from scipy.special import ndtri

    return normal_quantile(confidence) + float(ndtri(1 - (1 - power) / guardrails))


def smallest_detectable(
    n: int, discordance: float, *, power: float = 0.8, confidence: float = 0.95, guardrails: int = 1
) -> float:
    """Return the smallest difference of two rates that `n` pairs of binary scores show with `power`.

    Args:
        n: items that both models sit.
        discordance: the share of items on which the two models are expected to differ, 0 to 1.
        power: the chance to see the difference when it is there.
        confidence: of the two-sided interval that must leave out zero (or the margin).
        guardrails: how many such evals must all come out; the power is shared between them.

    Returns:
        The difference as a share, at most 1; 1 when `n` is 0: nothing smaller can be seen.

    Raises:
        ValueError: an argument is out of range.

    Source:
        n = (z_alpha + z_(beta/K))^2 d / margin^2, Spotify (arXiv 2402.11609), solved for the margin.
    """
    if n < 0 or not 0 <= discordance <= 1:
        raise ValueError(f"need n >= 0 and a discordance from 0 to 1, got {n!r} and {discordance!r}")
    reach = _reach(confidence, power, guardrails)
    return min(1.0, reach * math.sqrt(discordance / n)) if n else 1.0


def smallest_detectable_mean(
    n: int, deviation: float, *, power: float = 0.8, confidence: float = 0.95, guardrails: int = 1
) -> float:
    """Return the smallest mean difference that `n` pairs show, given the spread of the paired differences.

    Args:
        n: items that both models sit.
        deviation: standard deviation of `after - before` over items, in the score's unit.
        power: the chance to see the difference when it is there.
        confidence: of the two-sided interval.
        guardrails: how many such evals must all come out.

    Returns:
        The difference in the score's unit; infinite when `n` is 0.

    Raises:
        ValueError: an argument is out of range.
    """
    if n < 0 or deviation < 0:
        raise ValueError(f"need n >= 0 and a deviation of at least 0, got {n!r} and {deviation!r}")
    return _reach(confidence, power, guardrails) * deviation / math.sqrt(n) if n else math.inf


def items_needed(
    margin: float, discordance: float, *, power: float = 0.8, confidence: float = 0.95, guardrails: int = 1
) -> int:
    """Return how many paired binary items are needed to tell a difference of `margin` from none.

    Args:
        margin: the difference to be told, a share above 0.
        discordance: the share of items on which the two models are expected to differ, 0 to 1.
        power: the chance to see it.
        confidence: of the two-sided interval.
        guardrails: how many such evals must all come out.

    Raises:
        ValueError: an argument is out of range.

    Source:
        As for `smallest_detectable`.
    """
    if not 0 < margin <= 1 or not 0 <= discordance <= 1:
        raise ValueError(
            f"need a margin above 0 and a discordance from 0 to 1, got {margin!r}, {discordance!r}"
        )
    return max(1, math.ceil((_reach(confidence, power, guardrails) / margin) ** 2 * discordance))
