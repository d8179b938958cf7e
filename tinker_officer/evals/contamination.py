"""What of an exam stands, word for word, in the training data; `leaks` looks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from tinker_officer._text import table
from tinker_officer.errors import EvalError
from tinker_officer.evals.results import sample_of
from tinker_officer.stats import intervals


if TYPE_CHECKING:
    from tinker_officer.evals.scorecard import Scorecard
    from tinker_officer.stats.intervals import Estimate

DIRTY = 0.2
_SHOWN = 10


@attrs.frozen
class Exposed:
    """An item that stands in the training data, in part or whole.

    Attributes:
        eval: the eval's name.
        id: the item's.
        overlap: the share of its runs of words that were found, above 0 and at most 1.
        rows: how many training rows hold any of them.
        where: the first of these rows.
    """

    eval: str
    id: str
    overlap: float
    rows: int
    where: tuple[str, ...]


@attrs.frozen
class Halves:
    """What a model scored on the items that stand in the training data, and on the others.

    Attributes:
        eval: the eval's name.
        clean: the score on the items that were not found, or hardly; None when there are none.
        dirty: the score on the others; None when there are none.
        difference: dirty minus clean, with its interval; None when either is missing.
    """

    eval: str
    clean: Estimate | None
    dirty: Estimate | None
    difference: Estimate | None


@attrs.frozen
class Contamination:
    """What of a suite stands in the training data. Printing it shows a table.

    Attributes:
        items: how many items each eval has.
        exposed: the items that were found, the most covered first.
        rows: training rows that were read.
        threshold: the overlap from which an item counts as dirty.
    """

    items: dict[str, int]
    exposed: tuple[Exposed, ...]
    rows: int
    threshold: float = DIRTY

    def dirty(self, name: str) -> set[str]:
        """Return the ids of an eval's items whose overlap is at least the threshold."""
        return {item.id for item in self.exposed if item.eval == name and item.overlap >= self.threshold}

    def __bool__(self) -> bool:
        return any(self.dirty(name) for name in self.items)

    def __repr__(self) -> str:
        found = ", ".join(f"{name}: {len(self.dirty(name))} of {n}" for name, n in self.items.items())
        return f"<Contamination: {found}, in {self.rows:,} rows>"

    def __str__(self) -> str:
        return self.explain()

    def explain(self) -> str:
        """Return what was found, eval by eval, and the items that are covered most."""
        rows = [
            (
                name,
                n,
                sum(item.eval == name for item in self.exposed),
                len(self.dirty(name)),
            )
            for name, n in self.items.items()
        ]
        lines = [
            table(rows, header=("eval", "items", "found in part", f"overlap >= {self.threshold:.0%}")),
            f"\n{self.rows:,} training rows were read. Found is what was copied, not what was rephrased.",
        ]
        if self.exposed:
            shown = [
                (f"{item.eval}/{item.id}", f"{item.overlap:.0%}", item.rows, ", ".join(item.where))
                for item in self.exposed[:_SHOWN]
            ]
            lines.append("\n" + table(shown, header=("item", "overlap", "rows", "where")))
            if len(self.exposed) > _SHOWN:
                lines.append(f"and {len(self.exposed) - _SHOWN} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(self.explain())}</pre>"

    def halves(self, card: Scorecard) -> tuple[Halves, ...]:
        """Return what `card` scored on clean and on dirty items, eval by eval.

        A model that is much better on the dirty half has seen its exam.

        Raises:
            EvalError: the card has none of the evals, or other items.
        """
        shared = [name for name in self.items if name in card]
        if not shared:
            raise EvalError(
                "the card has none of these evals",
                got=", ".join(result.name for result in card.evals) or "no evals",
                need="one of " + ", ".join(self.items),
                fix="suite.contamination(train).halves(suite.evaluate(target, on=engine))",
            )
        return tuple(self._halves(name, card) for name in shared)

    def _halves(self, name: str, card: Scorecard) -> Halves:
        result, dirty = card[name], self.dirty(name)
        if result.n != self.items[name]:
            raise EvalError(
                f"the card has other items of {name!r}",
                got=f"{result.n} items",
                need=f"the {self.items[name]} that were looked for",
                fix="suite.contamination(train).halves(suite.evaluate(target, on=engine))",
            )
        counted = [item for item in result.items if item.weight]
        samples = [
            sample_of(item for item in counted if (item.id in dirty) == wanted) for wanted in (False, True)
        ]
        clean, found = (
            intervals.mean(
                sample.scores, weights=sample.weights, clusters=sample.clusters, bounds=result.bounds
            )
            if sample.scores
            else None
            for sample in samples
        )
        between = (
            intervals.difference_of_means(samples[0], samples[1])
            if clean is not None and found is not None
            else None
        )
        return Halves(name, clean, found, between)
