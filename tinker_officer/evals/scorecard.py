"""What one model scored on one suite, as a value: a result for each eval, to be shown, saved and compared.

Two cards can be laid side by side only where they hold the same items sat under the same settings: otherwise
`compare` says what differs, and refuses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer._digest import digest
from tinker_officer._files import write_atomic
from tinker_officer._text import nearest, table
from tinker_officer.errors import EvalError
from tinker_officer.evals.results import EvalResult, Item, sample_of, span
from tinker_officer.stats import intervals
from tinker_officer.stats.intervals import Estimate


if TYPE_CHECKING:
    from tinker_officer.evals.comparison import Comparison

FORMAT = 1


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
        """Return the card as text: what was evaluated, the table, and the first error of each eval."""
        head = f"{self.target}\n  base model {self.base_model}, renderer {self.renderer_name}, {self.created}"
        failed = [
            f"\n{result.name}, item {item.id}: {' '.join(item.error.split())}"
            for result in self.evals
            for item in [item for item in result.items if item.status in {"errored", "unscored"}][:1]
        ]
        return "\n".join([head, "", self.table(), *failed])

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
            samples.append(sample_of(result.items))
        return intervals.difference_of_means(samples[0], samples[1])

    def cost(self, *, prefill: float, sample: float) -> float:
        """Return what the card's tokens cost, in the currency of the prices.

        Items that were known from before cost nothing again; what a judge reads and writes has its own
        prices, and stands in its eval's usage.

        Args:
            prefill: a million tokens read.
            sample: a million tokens written.

        Raises:
            EvalError: an eval did not count its tokens: never a partial sum.

        Example:
            >>> card.cost(prefill=0.13, sample=0.40) > 0
            True
        """
        uncounted = [result.name for result in self.evals if "seconds" not in result.usage]
        if uncounted:
            raise EvalError(
                "the card does not know what it cost",
                got=f"no count of the tokens of {', '.join(map(repr, uncounted))}",
                need="evals that count them: all but the cookbook's evaluators",
                fix=f"suite.without({', '.join(map(repr, uncounted))})",
            )
        read, written = (
            sum(result.usage.get(f"{kind}_tokens", 0) for result in self.evals)
            for kind in ("input", "output")
        )
        return (read * prefill + written * sample) / 1e6

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
