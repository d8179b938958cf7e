"""What one eval found: a figure with its interval, and every item behind it.

An item that failed stays in the denominator as a wrong answer, with its error; nothing is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import attrs

from tinker_officer._digest import digest
from tinker_officer.errors import EvalError
from tinker_officer.stats import intervals
from tinker_officer.stats.intervals import Estimate


LAYERS = ("nll", "benchmark", "product")
STATUSES = ("completed", "errored", "unscored", "cancelled")
_TOO_MANY_ERRORS = 3


def _floats(scores: Iterable[float]) -> tuple[float, ...]:
    return tuple(scores)


@attrs.frozen
class Item:
    """One question and what the model made of it.

    Attributes:
        id: stable name of the item: two cards are paired by it.
        score: the score; nats per trained token for NLL; the worst there is for an item that failed: 0, or
            1 where less is better.
        weight: what the item counts for in the mean: its trained tokens for NLL, otherwise 1.
        tokens: tokens that the model wrote, or that were scored.
        stop_reason: why the model stopped: `stop`, `length`, ...; `length` means that it was cut off.
        error: what went wrong; empty when nothing did.
        input_digest: of what the model was shown, so that a changed question is noticed.
        cluster: the source of the item, when several items share one.
        status: `completed`; `errored`; `unscored`, when no grade could be had; or `cancelled`, when a
            comparison was decided before the item was asked, and counts for nothing.
        group: what the item is counted under besides the whole, e.g. its language.
        epochs: its score at each sitting, when there were several; `score` is their mean.
        confidence: how sure the model was, 0 to 1, where that was measured.
        correct: whether the answer was right, 0 to 1, where that is not the score itself.
    """

    id: str
    score: float
    weight: float = 1.0
    tokens: int = 0
    stop_reason: str = ""
    error: str = ""
    input_digest: str = ""
    cluster: str = ""
    status: str = attrs.field(
        default=attrs.Factory(lambda self: "errored" if self.error else "completed", takes_self=True)
    )
    group: str = ""
    epochs: tuple[float, ...] = attrs.field(default=(), converter=_floats)
    confidence: float | None = None
    correct: float | None = None


def _items(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(items)


@attrs.frozen
class EvalResult:
    """The outcome of one eval.

    Attributes:
        name: the eval's name in its suite.
        layer: `nll`, `benchmark` or `product`.
        metric: what `value` is: `nll`, `accuracy`, `score`.
        higher_is_better: the direction of progress.
        value: the weighted mean of the items' scores.
        interval: 95 % interval of `value`.
        n: items, those that failed among them.
        items: every one of them.
        settings: what identifies the exam: task, version, item set, grader, sampling.
        settings_digest: of `settings`.
        binary: whether every score is 0 or 1.
        bounds: lowest and highest score that there can be; None when there are none.
        extra: further figures by metric name, e.g. `perplexity`.
        usage: what it took: `input_tokens`, `output_tokens`, `seconds`, and the judge's.
        race: for a comparison that was stopped once decided: against what, and what was decided.
    """

    name: str
    layer: str
    metric: str
    higher_is_better: bool
    value: float
    interval: tuple[float, float]
    n: int
    items: tuple[Item, ...] = attrs.field(default=(), converter=_items, repr=False)
    settings: dict[str, Any] = attrs.field(factory=dict, repr=False)
    settings_digest: str = attrs.field(
        default=attrs.Factory(lambda self: digest(self.settings), takes_self=True), repr=False
    )
    binary: bool = False
    bounds: tuple[float, float] | None = None
    extra: dict[str, float] = attrs.field(factory=dict, repr=False)
    usage: dict[str, float] = attrs.field(factory=dict, repr=False)
    race: dict[str, Any] | None = attrs.field(default=None, repr=False)

    @classmethod
    def from_items(
        cls,
        items: tuple[Item, ...],
        *,
        name: str,
        layer: str,
        metric: str,
        settings: Mapping[str, Any],
        asked: int,
        higher_is_better: bool = True,
        bounds: tuple[float, float] | None = None,
        extra: Mapping[str, float] | None = None,
        usage: Mapping[str, float] | None = None,
        race: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the result that `items` add up to, once every item that was asked is there.

        Args:
            items: every item, in any order; they are sorted by id.
            name: the eval's name.
            layer: `nll`, `benchmark` or `product`.
            metric: what the mean of the scores is called.
            settings: what identifies the exam; a digest of the item set is added.
            asked: how many items there were to be.
            higher_is_better: the direction of progress.
            bounds: lowest and highest possible score.
            extra: further figures.
            usage: what it took.
            race: what a comparison that was stopped once decided has found.

        Raises:
            EvalError: an item is missing, twice there, or has a score that is no number; or all failed.
        """
        _account(name, items, asked, bounds)
        ordered = tuple(sorted(items, key=lambda item: item.id))
        asked_of = [item for item in ordered if item.status != "cancelled"]
        estimate = _estimate(asked_of, bounds)
        binary = bounds == (0.0, 1.0) and all(item.score in {0, 1} for item in asked_of)
        item_set = digest([[item.id, item.input_digest] for item in ordered])
        return cls(
            name=name,
            layer=layer,
            metric=metric,
            higher_is_better=higher_is_better,
            value=estimate.value,
            interval=estimate.interval,
            n=len(ordered),
            items=ordered,
            settings={**settings, "items": len(ordered), "item_set": item_set},
            binary=binary,
            bounds=bounds,
            extra=dict(extra or {}),
            usage=dict(usage or {}),
            race=dict(race) if race is not None else None,
        )

    @property
    def errors(self) -> int:
        """How many items failed; each counts as a wrong answer."""
        return self.statuses()["errored"]

    def statuses(self) -> dict[str, int]:
        """Return how many items completed, errored, were unscored or cancelled; together they are `n`."""
        return {status: sum(item.status == status for item in self.items) for status in STATUSES}

    def by_group(self) -> dict[str, Estimate]:
        """Return the figure of each group of items, with its interval; empty when no item has a group."""
        groups = sorted({item.group for item in self.items if item.group})
        chosen = {name: [item for item in self.items if item.group == name] for name in groups}
        return {
            name: _estimate(items, self.bounds)
            for name, items in chosen.items()
            if any(item.weight and item.status != "cancelled" for item in items)
        }

    @property
    def truncated(self) -> int:
        """How many answers were cut off by `max_tokens` or by the context."""
        return sum(item.stop_reason in {"length", "max_tokens", "model_length"} for item in self.items)

    def notes(self) -> str:
        """Return what a reader of `value` must know: errors, truncation; empty when there is nothing."""
        counts = self.statuses()
        found = (
            (counts["errored"], "error" if counts["errored"] == 1 else "errors"),
            (counts["unscored"], "unscored"),
            (counts["cancelled"], "not asked: decided before"),
            (self.truncated, "cut off"),
        )
        return ", ".join(f"{count} {what}" for count, what in found if count)


def _estimate(items: Sequence[Item], bounds: tuple[float, float] | None) -> Estimate:
    """Return the weighted mean of the scores; Wilson's interval where they are plain successes."""
    of = sample_of(items)
    binary = bounds == (0.0, 1.0) and set(of.scores) <= {0, 1}
    if binary and len(set(of.clusters or ())) == len(items) and len(set(of.weights or ())) == 1:
        return intervals.wilson(sum(of.scores), len(items))
    return intervals.mean(of.scores, weights=of.weights, clusters=of.clusters, bounds=bounds)


def sample_of(items: Iterable[Item]) -> intervals.Sample:
    """Return the scores of `items` with their weights and sources, for statistics."""
    listed = list(items)
    return intervals.Sample(
        [item.score for item in listed],
        [item.weight for item in listed],
        [item.cluster or item.id for item in listed],
    )


def _account(name: str, items: tuple[Item, ...], asked: int, bounds: tuple[float, float] | None) -> None:
    ids = {item.id for item in items}
    failed = [item for item in items if item.status in {"errored", "unscored"}]
    unknown = next((item for item in items if item.status not in STATUSES), None)
    if unknown is not None:
        raise EvalError(
            f"an item of {name!r} has a status that is none",
            got=f"{unknown.status!r} for item {unknown.id!r}",
            need="one of " + ", ".join(STATUSES),
            fix="leave the status out: it follows from the error",
        )
    if len(items) != asked or len(ids) != len(items):
        raise EvalError(
            f"the samples of {name!r} do not add up",
            got=f"{len(items)} results with {len(ids)} different ids, {len(failed)} of them errors",
            need=f"{asked} results: completed + errored + unscored + cancelled = asked",
            fix="run the evaluation again; if it happens again, the task drops or repeats samples",
        )
    if not items:
        raise EvalError(
            f"{name!r} has no items",
            got="0 items",
            need="at least one item",
            fix="give it cases, or remove it from the suite",
        )
    if len(failed) == sum(item.status != "cancelled" for item in items):
        shown = sorted({item.error for item in failed})[:_TOO_MANY_ERRORS]
        raise EvalError(
            f"every sample of {name!r} failed",
            got=f"{len(failed)} of {asked} samples without a score:\n" + "\n".join(shown),
            need="samples that can be answered and scored",
            fix="mend what the first error names, and evaluate again: with at=..., evals that went well are "
            "not asked again",
        )
    strange = next((item for item in items if not _in_bounds(item.score, bounds)), None)
    if strange is not None:
        span = f"a number from {bounds[0]:g} to {bounds[1]:g}" if bounds else "a finite number"
        raise EvalError(
            f"a score of {name!r} is out of range",
            got=f"{strange.score!r} for item {strange.id!r}",
            need=span,
            fix="let the grader return a number in that range",
        )


def _in_bounds(score: float, bounds: tuple[float, float] | None) -> bool:
    return math.isfinite(score) and (bounds is None or bounds[0] <= score <= bounds[1])


def span(interval: tuple[float, float]) -> str:
    """Return an interval as text: `[0.12, 0.31]`."""
    return "[" + ", ".join(f"{end:.3f}" if math.isfinite(end) else "?" for end in interval) + "]"
