"""What an evaluation found: one figure an eval with its interval, and every item behind it.

An item that failed stays in the denominator with a score of 0 and its error; nothing is dropped. Two cards
can be laid side by side only where they hold the same items sat under the same settings: otherwise
`compare` says what differs, and refuses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer._digest import digest
from tinker_officer._files import write_atomic
from tinker_officer._text import nearest, table
from tinker_officer.errors import EvalError
from tinker_officer.stats import intervals
from tinker_officer.stats.intervals import Estimate


if TYPE_CHECKING:
    from tinker_officer.evals.comparison import Comparison

FORMAT = 1
STATUSES = ("completed", "errored", "unscored", "cancelled")
_TOO_MANY_ERRORS = 3


@attrs.frozen
class Item:
    """One question and what the model made of it.

    Attributes:
        id: stable name of the item: two cards are paired by it.
        score: the score; nats per trained token for NLL; 0 for an item that failed.
        weight: what the item counts for in the mean: its trained tokens for NLL, otherwise 1.
        tokens: tokens that the model wrote, or that were scored.
        stop_reason: why the model stopped: `stop`, `length`, ...; `length` means that it was cut off.
        error: what went wrong; empty when nothing did.
        input_digest: of what the model was shown, so that a changed question is noticed.
        cluster: the source of the item, when several items share one.
        status: `completed`; `errored`; `unscored`, when no grade could be had; or `cancelled`, when a
            comparison was decided before the item was asked. The last two have no score: it stands at 0.
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
    epochs: tuple[float, ...] = attrs.field(default=(), converter=tuple)
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
        """How many items failed; each counts with a score of 0."""
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
            (counts["errored"], "errors"),
            (counts["unscored"], "unscored"),
            (counts["cancelled"], "not asked: decided before"),
            (self.truncated, "cut off"),
        )
        return ", ".join(f"{count} {what}" for count, what in found if count)


def _estimate(items: Sequence[Item], bounds: tuple[float, float] | None) -> Estimate:
    """Return the weighted mean of the scores; Wilson's interval where they are plain successes."""
    clusters = [item.cluster or item.id for item in items]
    binary = bounds == (0.0, 1.0) and all(item.score in {0, 1} for item in items)
    if binary and len(set(clusters)) == len(items) and len({item.weight for item in items}) == 1:
        return intervals.wilson(sum(item.score for item in items), len(items))
    return intervals.mean(
        [item.score for item in items],
        weights=[item.weight for item in items],
        clusters=clusters,
        bounds=bounds,
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
            got="\n".join(shown),
            need="samples that can be answered and scored",
            fix=f"suite.only({name!r}).check() after mending the first error above",
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


def _results(results: Iterable[EvalResult]) -> tuple[EvalResult, ...]:
    return tuple(results)


@attrs.frozen
class Scorecard:
    """What one model scored on one suite.

    Attributes:
        target: the `sampler_path` that was evaluated, or the base model's name.
        base_model: the base model under it.
        renderer_name: the renderer that built the prompts.
        suite_digest: of the suite that was asked.
        created: when, ISO 8601 in UTC.
        evals: one result an eval, in the suite's order.
        versions: of the libraries that took part.
        checkpoint_digest: of what identifies the weights.
        seconds: how long the evaluation took.

    Example:
        >>> Scorecard.load(card.save("card.json")) == card
        True
    """

    target: str
    base_model: str
    renderer_name: str
    suite_digest: str
    created: str
    evals: tuple[EvalResult, ...] = attrs.field(converter=_results)
    versions: dict[str, str] = attrs.field(factory=dict)
    checkpoint_digest: str = ""
    seconds: float = 0.0

    def __getitem__(self, name: str) -> EvalResult:
        for result in self.evals:
            if result.name == name:
                return result
        names = [result.name for result in self.evals]
        raise EvalError(
            "the scorecard has no such eval",
            got=repr(name),
            need="one of " + ", ".join(map(repr, names)),
            fix=f"card[{nearest(name, names).partition(',')[0] or repr(names[0] if names else '...')}]",
        )

    def __contains__(self, name: object) -> bool:
        return any(result.name == name for result in self.evals)

    def __repr__(self) -> str:
        figures = ", ".join(f"{key}={value:.4g}" for key, value in self.metrics().items())
        return f"Scorecard({self.target!r}: {figures})"

    def __str__(self) -> str:
        return self.explain()

    def metrics(self) -> dict[str, float]:
        """Return every figure by `<eval>/<metric>`, e.g. `held_out/nll`."""
        figures: dict[str, float] = {}
        for result in self.evals:
            figures[f"{result.name}/{result.metric}"] = result.value
            figures |= {f"{result.name}/{metric}": value for metric, value in result.extra.items()}
        return figures

    def table(self, other: Scorecard | None = None) -> str:
        """Return the card as a text table; with `other`, both side by side, `other` as the later one."""
        if other is not None:
            return str(self.compare(other))
        rows: list[tuple[object, ...]] = []
        for result in self.evals:
            figure = (f"{result.value:.4f}", span(result.interval), result.notes())
            rows.append((result.name, result.metric, result.n, *figure))
            rows += [
                (f"  {name}", result.metric, part.n, f"{part.value:.4f}", span(part.interval), "")
                for name, part in result.by_group().items()
            ]
        return table(rows, header=("eval", "metric", "n", "value", "95 % interval", "notes"))

    def explain(self) -> str:
        """Return the card as text: what was evaluated, and the table."""
        head = f"{self.target}\n  base model {self.base_model}, renderer {self.renderer_name}, {self.created}"
        return f"{head}\n\n{self.table()}"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(self.explain())}</pre>"

    def compare(self, other: Scorecard) -> Comparison:
        """Return how `other` (after) differs from this card (before), item by item.

        Raises:
            EvalError: no eval is in both, or one was sat under other settings or with other items.
        """
        from tinker_officer.evals.comparison import compare

        return compare(self, other)

    def gap(self, *, train: str = "train", held_out: str = "held_out") -> Estimate:
        """Return by how much NLL is higher on held-out data than on trained-on data, in nats a token.

        A gap whose interval lies above zero, and that grows from card to card, is overfitting::

            suite = EvalSuite().nll(held_out).nll(train.take(500), name="train")
            print(suite.evaluate(checkpoint, on=engine).gap())

        Args:
            train: the eval of trained-on conversations.
            held_out: the eval of held-out ones.

        Raises:
            EvalError: the card has no such eval, or it does not measure NLL.
        """
        samples = []
        for name in (train, held_out):
            result = self[name]
            if result.layer != "nll":
                raise EvalError(
                    "a gap is between two likelihoods",
                    got=f"{name!r} measures {result.metric}",
                    need="two evals of conversations",
                    fix='EvalSuite().nll(held_out).nll(train.take(500), name="train")',
                )
            items = result.items
            samples.append(
                intervals.Sample(
                    [item.score for item in items],
                    [item.weight for item in items],
                    [item.cluster or item.id for item in items],
                )
            )
        return intervals.difference_of_means(samples[0], samples[1])

    @property
    def digest(self) -> str:
        """Of the whole card, items and settings among them."""
        return digest(json.loads(self.to_json()))

    def to_json(self) -> str:
        """Return the card as JSON; items are stored column by column."""
        record = attrs.asdict(self, filter=lambda field, _: field.name != "evals")
        record["format"] = FORMAT
        record["evals"] = [_pack(result) for result in self.evals]
        return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the card that `to_json` wrote.

        Raises:
            EvalError: the text is not a scorecard, or one of a later format.
        """
        problem = f"another format than {FORMAT}"
        try:
            record = json.loads(text)
            if record.pop("format") == FORMAT:
                return cls(evals=tuple(_unpack(entry) for entry in record.pop("evals")), **record)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problem = repr(error)
        raise EvalError(
            "this is not a scorecard",
            got=f"{text[:60]!r} ({problem})",
            need=f"JSON that Scorecard.to_json wrote (format {FORMAT})",
            fix="card = suite.evaluate(target, on=engine); card.save('card.json')",
        )

    def save(self, path: str | Path) -> Path:
        """Write the card to `path` in one step, and return the path."""
        write_atomic(Path(path), self.to_json())
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the card at `path`.

        Raises:
            EvalError: the file is missing or is not a scorecard.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EvalError(
                "the scorecard cannot be read",
                got=f"{path}: {error}",
                need="a file that Scorecard.save wrote",
                fix="card = suite.evaluate(target, on=engine); card.save('card.json')",
            ) from None
        try:
            return cls.from_json(text)
        except EvalError as error:
            error.add_note(f"while reading {path}")
            raise


def _pack(result: EvalResult) -> dict[str, Any]:
    record = attrs.asdict(result, recurse=False, filter=lambda field, _: field.name != "items")
    record["interval"] = [end if math.isfinite(end) else None for end in result.interval]
    columns = {
        field.name: [getattr(item, field.name) for item in result.items] for field in attrs.fields(Item)
    }
    plain = [Item(item.id, item.score, error=item.error) for item in result.items]
    record["items"] = {  # columns that say nothing are left out: the file stays small
        name: values
        for name, values in columns.items()
        if name in {"id", "score"}
        or values != [getattr(item, name) for item in plain]
        or (name == "error" and any(values))
    }
    return record


def _unpack(record: dict[str, Any]) -> EvalResult:
    columns = record.pop("items")
    low, high = record.pop("interval")
    ends = (-math.inf if low is None else low, math.inf if high is None else high)
    bounds = record.pop("bounds")
    names = list(columns)
    items = tuple(Item(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True))
    return EvalResult(**record, interval=ends, items=items, bounds=tuple(bounds) if bounds else None)


def span(interval: tuple[float, float]) -> str:
    """Return an interval as text: `[0.12, 0.31]`."""
    return "[" + ", ".join(f"{end:.3f}" if math.isfinite(end) else "?" for end in interval) + "]"
