"""Two versions side by side: what went into them, and how their scores differ, pair by pair."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer._text import table
from tinker_officer.errors import EvalError
from tinker_officer.registry.values import Version


if TYPE_CHECKING:
    from tinker_officer.evals.comparison import Comparison
    from tinker_officer.evals.scorecard import Scorecard

_FIELDS = ("base_model", "renderer_name", "step", "stopped", "training_fingerprint", "parents", "notes")
_OBJECTS = ("lora", "data", "metrics", "engine", "packages", "git", "weights")


@attrs.frozen(kw_only=True)
class Change:
    """One fact that differs: its field, and its value in both versions; None where it is missing."""

    field: str
    before: Any
    after: Any


@attrs.frozen(kw_only=True)
class VersionComparison:
    """How `after` differs from `before`; prints as tables.

    Attributes:
        before: label of the first version.
        after: label of the second.
        changes: what differs in what they are, how they were trained and what was measured meanwhile.
        scores: their evals, paired; None where they cannot be compared.
        why: why not.
    """

    before: str
    after: str
    changes: tuple[Change, ...]
    scores: Comparison | None = None
    why: str = ""

    def __repr__(self) -> str:
        return f"VersionComparison({self.before} and {self.after}: {len(self.changes)} changes)"

    def __str__(self) -> str:
        return self.explain()

    def explain(self) -> str:
        """Return the differences as text."""
        rows = [(one.field, _shown(one.before), _shown(one.after)) for one in self.changes]
        what = table(rows, header=("what", self.before, self.after)) if rows else "They do not differ."
        scores = self.scores.explain() if self.scores is not None else f"No scores compared: {self.why}"
        return f"{what}\n\n{scores}"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"


def compare(
    before: Version, after: Version, old: Scorecard | None, new: Scorecard | None
) -> VersionComparison:
    """Return how `after` differs from `before`, whose newest cards are `old` and `new`."""
    one, other = dict(_facts(before)), dict(_facts(after))
    changes = tuple(
        Change(field=field, before=one.get(field), after=other.get(field))
        for field in dict.fromkeys((*one, *other))
        if one.get(field) != other.get(field)
    )
    scores, why = None, ""
    if old is None or new is None:
        why = (
            " and ".join(v.label for v, c in ((before, old), (after, new)) if c is None) + " has no scorecard"
        )
    else:
        try:
            scores = old.compare(new)
        except EvalError as error:
            why = f"{error.problem} ({error.got})"
    return VersionComparison(before=before.label, after=after.label, changes=changes, scores=scores, why=why)


def _facts(version: Version) -> Iterator[tuple[str, Any]]:
    for field in _FIELDS:
        value = getattr(version, field)
        if value not in {"", 0, ()}:
            yield field, value
    for field in _OBJECTS:
        yield from _flat(field, getattr(version, field))
    yield from _flat("plan", version.plan.get("computed") or {})


def _flat(prefix: str, entries: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in entries.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", value


def _shown(value: Any) -> str:
    if value is None:
        return "(none)"
    text = f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004 - one cell of a table
