"""What a gate found: a line of evidence for each rule, and an outcome. How it is found stands in `judge`."""

from __future__ import annotations

import html
import json
import math
from enum import StrEnum
from typing import Any, Self

import attrs

from tinker_officer._text import count, nearest, table
from tinker_officer.errors import RegistryError


class Outcome(StrEnum):
    """What the evidence says about one rule, or about all of them."""

    PASS = "PASS"  # noqa: S105 - an outcome, not a password
    BREACH = "BREACH"
    INCONCLUSIVE = "INCONCLUSIVE"


@attrs.frozen(kw_only=True)
class Line:
    """The evidence for one rule on one eval.

    Attributes:
        rule: "not worse", "better", "at least", "at most", "required" or "recorded".
        eval: the metric's key, `<eval>/<metric>`, or the name that the rule used when no card has it.
        outcome: what the evidence says.
        why: why it cannot pass, in words; empty when the numbers speak for themselves.
        n: items (pairs, when two models are compared) behind the figures.
        baseline: the baseline's value on the paired items; None when there is none.
        candidate: the candidate's.
        low: the best plausible loss: the lower end of its interval, in the metric's unit. For "at least"
            and "at most", the lower end of the candidate's own value.
        high: the worst plausible loss: the upper end.
        limit: what the interval is held against: the margin, 0 for "better", or the floor or ceiling.
        n_needed: items that would decide, if the rates stay as they were seen; None when no n is likely
            to, or when it is decided.
        against: "anchor" where the pinned anchor is the baseline; empty for the version in the channel.
        by_value: whether the figure has no interval, and was held against the limit by its value.
    """

    rule: str
    eval: str
    outcome: Outcome
    why: str = ""
    n: int = 0
    baseline: float | None = None
    candidate: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    n_needed: int | None = None
    against: str = ""
    by_value: bool = False

    def cells(self) -> tuple[str, ...]:
        """Return the line as the cells of `HEADER`."""
        compares = self.rule in {"not worse", "better"}
        return (
            self.eval,
            f"{self.rule} ({self.against})" if self.against else self.rule,
            str(self.n) if self.n else "",
            figure(self.baseline),
            figure(self.candidate),
            figure(self.high, signed=True) if compares else "",
            figure(self.limit),
            self.outcome,
            self.remark(),
        )

    def remark(self) -> str:
        """Return the words beside the outcome: why it cannot pass, or the n that would decide."""
        if self.why:
            return self.why
        parts = ["by its value: the card gives no interval"] if self.by_value else []
        if self.rule in {"at least", "at most"} and self.low is not None and self.high is not None:
            parts.append(f"candidate lies in {figure(self.low)} to {figure(self.high)}")
        if self.outcome is Outcome.INCONCLUSIVE:
            parts.append(
                f"about {count(self.n_needed)} items would decide"
                if self.n_needed
                else "no number of items is likely to decide"
            )
        return "; ".join(parts)


_SMALL, _LARGE = 0.001, 1000
HEADER = ("eval", "rule", "n", "baseline", "candidate", "worst loss", "limit", "outcome", "")


def figure(value: float | None, *, signed: bool = False) -> str:
    """Return a score or a difference of scores for people; nothing for None."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "unbounded" if math.isinf(value) else "not a number"
    sign = "+" if signed else ""
    if 0 < abs(value) < _SMALL:
        return f"{value:{sign}.2e}"
    return f"{value:{sign}.4f}" if abs(value) < _LARGE else f"{value:{sign}.5g}"


@attrs.frozen(kw_only=True)
class Verdict:
    """A gate's decision on one candidate against one baseline, with its evidence.

    Attributes:
        outcome: PASS only if every rule is met; BREACH if one is broken for certain; else INCONCLUSIVE.
        lines: the evidence, one line a rule and eval.
        notes: what a reader must know besides: nothing to compare with, no scorecard, another suite.
        candidate: the checkpoint or base model that was judged.
        baseline: the one that it was judged against; empty when there was none.
        candidate_card: digest of the candidate's scorecard.
        baseline_card: digest of the baseline's.
        anchor: the pinned version's checkpoint or base model; empty when none was asked for.
        anchor_card: digest of its scorecard.
        suite_digest: the suite that the candidate sat.
        gate: the gate, as JSON.
    """

    outcome: Outcome
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()
    candidate: str = ""
    baseline: str = ""
    candidate_card: str = ""
    baseline_card: str = ""
    anchor: str = ""
    anchor_card: str = ""
    suite_digest: str = ""
    gate: dict[str, Any] = attrs.field(factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the candidate may move."""
        return self.outcome is Outcome.PASS

    def __repr__(self) -> str:
        met = sum(line.outcome is Outcome.PASS for line in self.lines)
        return f"Verdict({self.outcome}, {met} of {len(self.lines)} rules met)"

    def explain(self) -> str:
        """Return the decision and its evidence as a table."""
        others = [self.baseline, f"the anchor {self.anchor}" if self.anchor else ""]
        against = f" against {' and '.join(filter(None, others))}" if any(others) else ""
        parts = [f"{self.outcome}: {self.candidate or 'no candidate'}{against}"]
        parts.extend(f"  {note}" for note in self.notes)
        if self.lines:
            parts.extend(("", table([line.cells() for line in self.lines], header=HEADER)))
        if any(line.rule in {"not worse", "better"} and line.high is not None for line in self.lines):
            sure = (1 + float(self.gate.get("confidence", 0.95))) / 2
            parts.append(
                f"worst loss: the most that the candidate may have lost, with {sure:.1%} confidence, in the"
                " metric's own unit"
            )
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"

    def to_json(self) -> str:
        """Return the verdict as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, sort_keys=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON values; an unbounded figure becomes the text "inf" or "-inf"."""
        plain = attrs.asdict(self)
        for line in plain["lines"]:
            line.update({name: str(line[name]) for name in _FIGURES if _infinite(line[name])})
        return {**plain, "lines": list(plain["lines"]), "notes": list(plain["notes"])}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the verdict that `to_json` wrote.

        Raises:
            RegistryError: `text` is not such a verdict.
        """
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, TypeError, AttributeError) as error:
            raise RegistryError(
                "this is not a verdict",
                got=f"{text[:80]} ({error})",
                need="JSON that Verdict.to_json wrote",
                fix="gate.decide(candidate_card, baseline_card).to_json()",
            ) from error

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Return the verdict that `to_dict` took apart."""
        lines = tuple(_line(line) for line in plain.get("lines", ()))
        rest = {name: value for name, value in plain.items() if name not in {"lines", "notes", "outcome"}}
        return cls(
            outcome=Outcome(plain["outcome"]), lines=lines, notes=tuple(plain.get("notes", ())), **rest
        )


_FIGURES = frozenset({"baseline", "candidate", "low", "high", "limit"})


def _line(plain: dict[str, Any]) -> Line:
    fields: dict[str, Any] = {
        name: _number(value) if name in _FIGURES else value for name, value in plain.items()
    }
    fields["outcome"] = Outcome(plain["outcome"])
    return Line(**fields)


def _infinite(value: float | None) -> bool:
    return value is not None and math.isinf(value)


def _number(value: float | str | None) -> float | None:
    return None if value is None else float(value)


def missing(name: str, where: str, names: list[str]) -> str:
    """Return why a rule about `name` cannot be judged: the card in question lacks it."""
    near = nearest(name, names)
    return f"missing: {where} has no such eval" + (f" (did you mean {near}?)" if near else "")
