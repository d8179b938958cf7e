"""The scores of two models on one eval, made into pairs, or the reason why they cannot be.

Nothing passes for want of evidence: an empty eval, an item that errored, other items, other settings, each
gives a reason, never a number. A loss is positive when the candidate is worse, whichever way the metric runs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs


if TYPE_CHECKING:
    from tinker_officer.evals.results import EvalResult
    from tinker_officer.stats.intervals import Estimate


# Fewer pairs of unbounded scores (NLL) than this have an interval only on paper.
FEWEST_UNBOUNDED = 20

# A number of items above this is not advice.
_FARTHEST = 10_000_000


def key(result: EvalResult) -> str:
    """Return the metric's key, `<eval>/<metric>`."""
    return f"{result.name}/{result.metric}"


def flaw(result: EvalResult) -> str:
    """Return why one model's result cannot be used at all; empty when it can."""
    items = result.items
    if not items:
        return "empty: no item was scored"
    if result.n != len(items) or len({item.id for item in items}) != len(items):
        return f"incomplete: {result.n} items counted, {len({item.id for item in items})} recorded"
    errored = [item for item in items if item.error]
    if errored:
        return f"{len(errored)} of {result.n} items errored, first {errored[0].id}: {_clip(errored[0].error)}"
    return _odd_number(result)


def _odd_number(result: EvalResult) -> str:
    if any(not (math.isfinite(item.score) and math.isfinite(item.weight)) for item in result.items):
        return "a score or weight is not finite"
    if min(item.weight for item in result.items) < 0 or not any(item.weight for item in result.items):
        return "weights must not be negative, and one must be above 0"
    if result.bounds and not all(result.bounds[0] <= item.score <= result.bounds[1] for item in result.items):
        return "a score lies outside the metric's bounds"
    return ""


def _clip(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."  # noqa: PLR2004 - one table cell


def own_estimate(result: EvalResult, confidence: float) -> Estimate:
    """Return one model's value on one eval with its interval, from the items."""
    from tinker_officer.stats import intervals

    clusters = [item.cluster or item.id for item in result.items]
    if _plain_binary(result):
        return intervals.wilson(sum(item.score for item in result.items), result.n, confidence)
    return intervals.mean(
        [item.score for item in result.items],
        weights=[item.weight for item in result.items],
        clusters=clusters,
        bounds=result.bounds,
        confidence=confidence,
    )


def figure_estimate(result: EvalResult, figure: str) -> Estimate | None:
    """Return a further figure of a result, with the interval that stands beside it, or as a point.

    Returns:
        The figure; None where it, or an end of its interval, is no finite number, or they are not in order.
    """
    from tinker_officer.stats.intervals import Estimate

    value = result.extra[figure]
    low, high = (result.extra.get(f"{figure}_{end}", value) for end in ("low", "high"))
    sound = all(map(math.isfinite, (low, value, high))) and low <= value <= high
    return Estimate(value, low, high, result.n) if sound else None


def _plain_binary(result: EvalResult) -> bool:
    items = result.items
    return (
        all(item.score in {0, 1} and item.weight == 1 for item in items)
        and len({item.cluster or item.id for item in items}) == len(items)
        and result.bounds == (0, 1)
    )


@attrs.frozen
class Pairs:
    """Two models' scores on the same items of one eval, in the same order.

    Attributes:
        better: the scores of the side that a loss is counted from: the baseline's where more is better,
            the candidate's where less is; the loss is the mean of `better - worse`.
        worse: the other side's.
        weights: what each item counts for.
        clusters: the source of each item.
        binary: whether every score is 0 or 1, unweighted, one item a source.
        bounds: the lowest and highest possible score; None when there are none.
    """

    better: tuple[float, ...]
    worse: tuple[float, ...]
    weights: tuple[float, ...]
    clusters: tuple[str, ...]
    binary: bool
    bounds: tuple[float, float] | None

    @property
    def n(self) -> int:
        """How many pairs there are."""
        return len(self.better)

    @property
    def thin(self) -> str:
        """Why the pairs cannot carry an interval; empty when they can.

        Bounded scores always can: pseudo-pairs at the bounds keep their interval honest.
        """
        if self.bounds is not None:
            return ""
        sources = len(set(self.clusters))
        if sources < FEWEST_UNBOUNDED:
            return f"too few: {sources} independent pairs, need {FEWEST_UNBOUNDED}"
        if len({first - second for first, second in zip(self.better, self.worse, strict=True)}) == 1:
            return "every pair differs by the same amount, which carries no interval"
        return ""

    def loss(self, confidence: float) -> Estimate:
        """Return what the candidate lost (negative: gained), with its interval, in the metric's unit.

        Source:
            For plain binary pairs whichever end lies farther out, Bonett and Price's (2012) or Tango's
            (1998): alone the first passes up to 6 % of forbidden models at a nominal 2.5 %, the second 3.1 %,
            both together 2.6 % (bench/gate.py). Else a cluster-robust t (Miller 2411.00640), widened
            where differences are skewed (Hall 1992; `stats.intervals.mean_interval`); without bounds, with
            one more item at each end as extreme as the most extreme.
        """
        from tinker_officer.stats import paired

        if self.binary:
            return binary_loss(*paired.discordant(self.better, self.worse), confidence)
        if self.bounds is None:
            return paired.wary_difference(
                self.worse,
                self.better,
                weights=self.weights,
                clusters=self.clusters,
                confidence=confidence,
            )
        return paired.mean_difference(
            self.worse,
            self.better,
            weights=self.weights,
            clusters=self.clusters,
            bounds=self.bounds,
            confidence=confidence,
        )

    def n_to_decide(self, seen: Estimate, limit: float) -> int | None:
        """Return how many pairs would put the whole interval on one side of `limit`, at the rates seen.

        Args:
            seen: the loss.
            limit: what it is held against.

        Returns:
            The number, or None when the loss seen lies so near the limit that no number is likely to do.
        """
        if not self.binary:
            return scaled_n(self.n, (seen.high - seen.low) / 2, abs(seen.value - limit))
        from tinker_officer.stats import paired

        losses, gains, _ = paired.discordant(self.better, self.worse)

        def decided(n: int) -> bool:
            b, c = math.ceil(losses * n / self.n), math.ceil(gains * n / self.n)
            found = binary_loss(min(b, n - c), c, n, seen.confidence)
            return found.high <= limit or found.low > limit

        high = self.n
        while not decided(high):
            high *= 2
            if high > _FARTHEST:
                return None
        low = high // 2
        while high - low > max(1, low // 100):
            middle = (low + high) // 2
            low, high = (low, middle) if decided(middle) else (middle, high)
        return high


def binary_loss(b: int, c: int, n: int, confidence: float) -> Estimate:
    """Return `(b - c) / n` with the wider of two intervals at each end: Bonett and Price's, and Tango's."""
    from tinker_officer.stats import paired

    one, other = paired.bonett_price(b, c, n, confidence), paired.tango(b, c, n, confidence)
    return attrs.evolve(one, low=min(one.low, other.low), high=max(one.high, other.high))


def scaled_n(n: int, half: float, distance: float) -> int | None:
    """Return the n at which an interval of half-width `half` at `n` has shrunk to `distance`."""
    if not distance or not math.isfinite(half):
        return None
    needed = math.ceil(n * (half / distance) ** 2)
    return max(needed, n + 1) if needed <= _FARTHEST else None


def pair(before: EvalResult, after: EvalResult) -> Pairs | str:
    """Return the pairs of two results of one eval, or the reason why there are none.

    Args:
        before: the baseline's result.
        after: the candidate's.

    Returns:
        The pairs; or, as text, what keeps the two from being compared.
    """
    for who, result in (("baseline", before), ("candidate", after)):
        problem = flaw(result)
        if problem:
            return f"{who}: {problem}"
    problem = _unlike(before, after)
    if problem:
        return problem
    old = {item.id: item for item in before.items}
    new = {item.id: item for item in after.items}
    order = sorted(old)
    scores = (tuple(old[name].score for name in order), tuple(new[name].score for name in order))
    better, worse = scores if before.higher_is_better else reversed(scores)
    return Pairs(
        better=better,
        worse=worse,
        weights=tuple(old[name].weight for name in order),
        clusters=tuple(old[name].cluster or name for name in order),
        binary=_plain_binary(before) and _plain_binary(after),
        bounds=before.bounds,
    )


def _unlike(before: EvalResult, after: EvalResult) -> str:
    if before.settings_digest != after.settings_digest:
        keys = before.settings.keys() | after.settings.keys()
        changed = sorted(name for name in keys if before.settings.get(name) != after.settings.get(name))
        return "stale: sat under other settings" + (f" ({', '.join(changed)})" if changed else "")
    for field in ("metric", "higher_is_better", "bounds"):
        if getattr(before, field) != getattr(after, field):
            return f"stale: {field} is {getattr(before, field)!r} and {getattr(after, field)!r}"
    old = {item.id: item for item in before.items}
    new = {item.id: item for item in after.items}
    unshared = old.keys() ^ new.keys()
    if unshared:
        return f"unpaired: {len(unshared)} items are on one card only, such as {min(unshared)}"
    for name, item in old.items():
        other = new[name]
        if item.input_digest != other.input_digest:
            return f"unpaired: item {name} was not the same question"
        if (item.weight, item.cluster) != (other.weight, other.cluster):
            return f"unpaired: item {name} does not weigh the same on both cards"
    return ""
