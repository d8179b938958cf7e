"""Which learning rates a pilot tries, and what their losses say: pure numbers, no service.

The first rates are five, a factor 2 apart around the plan's, the one in the middle twice. While the best is
the lowest or the highest of those that ended, one more is tried beyond it, at most twice: a factor 2
further, or half-way to a rate that diverged.

The losses of the best rate and its two neighbours have a parabola through them, in ln(learning rate); its
lowest point is the answer. How sure that is comes from a bootstrap over two kinds of chance: which
conversations were held out (resampled, the same for every arm) and how a run happens to go (normal, as wide
as the replicates at the centre differ, or as runs of the cookbook's sweep do). The interval is never
narrower than x/÷ 1.25: a parabola is not the true curve, and a short run is not a long one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer._text import significant


Floats = npt.NDArray[np.float64]

SPACING = 2.0
FLOOR = 1.25  # the interval's least half-width, as a factor
RUN_NOISE = 3e-4  # by how much two runs of the sweep differ that should not, as a share of the loss
MOST_EXTENSIONS = 2
_FEWEST = 3
_DRAWS = 2_000
_CONFIDENCE = 0.95
_MOST_FLAT = 0.25  # of the draws
_DIGITS = 4  # of a rate, so that an arm has the same name in every start


def first_rates(centre: float) -> tuple[tuple[float, int], ...]:
    """Return the first arms as pairs of learning rate and replicate: five rates, the centre twice."""
    rates = [significant(centre * SPACING**step, _DIGITS) for step in (-2, -1, 0, 1, 2)]
    return (*((rate, 0) for rate in rates), (rates[2], 1))


def next_rate(losses: Mapping[float, float | None], extensions: int) -> float | None:
    """Return the rate to try next, or None when the best is between two others or enough was tried.

    Args:
        losses: the loss at each rate tried; None where the run was stopped.
        extensions: how many rates were already added.
    """
    ended = sorted(rate for rate, loss in losses.items() if loss is not None)
    if not ended or extensions >= MOST_EXTENSIONS:
        return None
    best = min(ended, key=lambda rate: (losses[rate], rate))
    if best == ended[0]:
        below = [rate for rate in losses if rate < best]
        return significant(math.sqrt(max(below) * best) if below else best / SPACING, _DIGITS)
    if best == ended[-1]:
        above = [rate for rate in losses if rate > best]
        return significant(math.sqrt(min(above) * best) if above else best * SPACING, _DIGITS)
    return None


@attrs.frozen(eq=False)
class Measured:
    """The losses of the arms that ended.

    Attributes:
        rates: the learning rate of each arm; a replicate repeats its rate.
        losses_A_N: the loss of each arm on each held-out conversation, in nats, summed over its tokens.
        tokens_N: the trained tokens of each conversation.
        untrained: the loss before training, nats a token; where all arms are far below it, their own small
            loss is too fine a measure of what is chance.
    """

    rates: tuple[float, ...]
    losses_A_N: Floats  # noqa: N815 - the axes are part of the name (house rule 5)
    tokens_N: Floats  # noqa: N815 - as above
    untrained: float = 0.0


@attrs.frozen
class Answer:
    """What the losses say.

    Attributes:
        learning_rate: the lowest point of the parabola; None when refused.
        interval: where the best rate is expected; None when refused.
        curvature: the parabola's second derivative in ln(rate), nats; None when there is no parabola.
        noise: standard deviation that one run's loss was taken to have, nats.
        lowest: the parabola's lowest loss, nats a token; None when refused.
        refused: why the losses settle nothing, or None.
        doubts: what to know of an answer.
    """

    learning_rate: float | None
    interval: tuple[float, float] | None
    curvature: float | None
    noise: float
    lowest: float | None = None
    refused: str | None = None
    doubts: tuple[str, ...] = ()


def answer(measured: Measured, stopped: Sequence[float] = (), *, seed: int = 0) -> Answer:
    """Return the best learning rate with its interval, or why there is none.

    Args:
        measured: the losses of the arms that ended.
        stopped: the rates of arms that diverged.
        seed: of the bootstrap.

    Source:
        lora_plan.md, "Pilot"; the bootstrap of paired items and the parametric part for a run's chance are
        ours. `bench/pilot_simulation.py` measures how often the interval holds the best rate.
    """
    rates = np.array(sorted(set(measured.rates)))
    member = np.array([[one == rate for one in measured.rates] for rate in rates], dtype=float)
    runs = member.sum(axis=1, keepdims=True) if len(rates) else np.ones((0, 1))
    if len(rates) < _FEWEST:
        return Answer(
            None, None, None, 0.0, refused=f"{len(rates)} rates ended, and a parabola needs {_FEWEST}"
        )
    losses = (member / runs) @ measured.losses_A_N  # rates by conversations
    y = losses.sum(axis=1) / measured.tokens_N.sum()
    noise = _run_noise(measured, member, float(y.min()))
    best = int(y.argmin())
    if best in {0, len(rates) - 1}:
        return Answer(None, None, None, noise, refused=_edge(rates, best, stopped))
    x = np.log(rates)
    lowest, curvature = _parabola(x, y[None, :])
    if curvature[0] <= 0:
        return Answer(
            None, None, float(curvature[0]), noise, refused="the losses have no lowest point between them"
        )
    resampled = _resampled(losses, measured.tokens_N, runs[:, 0], noise, seed)
    draws, _ = _parabola(x, resampled)
    three = slice(best - 1, best + 2)  # the same three each time: would they still bend upwards?
    _, bent = _parabola(x[three], resampled[:, three])
    flat = float(np.mean(bent <= 0))
    if flat > _MOST_FLAT:
        span = f"from {rates[best - 1]:.1e} to {rates[best + 1]:.1e}"
        why = f"{span} the losses differ by no more than chance"
        return Answer(None, None, float(curvature[0]), noise, refused=why)
    at, tail = float(lowest[0]), (1 - _CONFIDENCE) / 2
    low, high = (float(value) for value in np.quantile(draws, (tail, 1 - tail)))
    floor = math.log(FLOOR)
    interval = (math.exp(min(low, at - floor)), math.exp(max(high, at + floor)))
    doubts = []
    if any(rate <= rates[best + 1] * SPACING and rate > rates[best] for rate in stopped):
        doubts.append(f"{min(rate for rate in stopped if rate > rates[best]):.1e} diverged")
    bottom = float(y[best]) - 0.5 * float(curvature[0]) * (float(x[best]) - at) ** 2
    if bottom < 0:
        why = f"the parabola falls to {bottom:.2g} nats, below zero: the losses beside the best are a cliff"
        return Answer(None, None, float(curvature[0]), noise, refused=why)
    return Answer(math.exp(at), interval, float(curvature[0]), noise, lowest=bottom, doubts=tuple(doubts))


def _edge(rates: Floats, best: int, stopped: Sequence[float]) -> str:
    beyond = [rate for rate in stopped if (rate < rates[best] if best == 0 else rate > rates[best])]
    if beyond:
        return f"the best rate, {rates[best]:.1e}, is next to one that diverged"
    return f"the best rate is the {'lowest' if best == 0 else 'highest'} that was tried, {rates[best]:.1e}"


def _run_noise(measured: Measured, member: Floats, loss: float) -> float:
    """Return how far one run's loss is off by chance: as the replicates say, or as the sweep does."""
    totals = measured.losses_A_N.sum(axis=1) / measured.tokens_N.sum()
    within = [totals[row > 0] for row in member]
    freedom = sum(len(group) - 1 for group in within)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in within)
    return max(RUN_NOISE * max(loss, measured.untrained), math.sqrt(squares / freedom) if freedom else 0.0)


def _resampled(losses: Floats, tokens: Floats, runs: Floats, noise: float, seed: int) -> Floats:
    """Return `_DRAWS` losses of each rate: other held-out conversations, other luck."""
    chance = np.random.default_rng(seed)
    count = losses.shape[1]
    weights = chance.multinomial(count, np.full(count, 1 / count), size=_DRAWS).astype(np.float64)
    # Only differences between arms matter to the lowest point, and they are paired by conversation.
    drawn = (weights @ losses.T) / (weights @ tokens)[:, None]
    return np.asarray(drawn + chance.normal(size=drawn.shape) * noise / np.sqrt(runs))


def _parabola(x: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return, for each row of losses, the lowest point by its best rate's parabola, and the curvature.

    Where the best is at an edge or the parabola does not bend upwards, the lowest point is the best rate
    itself; it is never further than the neighbours.
    """
    row = np.arange(len(losses))
    best = losses.argmin(axis=1)
    middle = np.clip(best, 1, len(x) - 2)
    x0, x1, x2 = x[middle - 1], x[middle], x[middle + 1]
    y0, y1, y2 = losses[row, middle - 1], losses[row, middle], losses[row, middle + 1]
    first, second = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    curvature = 2 * (second - first) / (x2 - x0)
    bent = curvature > 0
    slope = (first * (x2 - x1) + second * (x1 - x0)) / (x2 - x0)  # of the parabola at x1
    lowest = np.where(bent, x1 - slope / np.where(bent, curvature, 1.0), x[best])
    return np.clip(lowest, x0, x2), curvature
