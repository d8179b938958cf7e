"""Two scorecards side by side, paired item by item."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from tinker_officer._text import table
from tinker_officer.errors import EvalError
from tinker_officer.evals.results import EvalResult, span
from tinker_officer.evals.scorecard import Scorecard
from tinker_officer.stats import multiplicity, paired
from tinker_officer.stats.intervals import Estimate


_SHOWN = 6


@attrs.frozen
class Difference:
    """How one eval changed.

    Attributes:
        name: the eval.
        before: its result on the first card.
        after: its result on the second.
        estimate: `after - before`, paired, with its 95 % interval.
        p: the two-sided p-value that belongs to the interval; of one stopped early, valid at every look.
        p_holm: the same, adjusted for the number of evals that are compared.
        stopped: whether it was compared while it was asked, and its interval holds at every look.
    """

    name: str
    before: EvalResult
    after: EvalResult
    estimate: Estimate
    p: float
    p_holm: float
    stopped: bool = False

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no clear difference`: the side of zero, where the interval leaves it out.

        Where several evals are compared, only what Holm's correction leaves standing is called different.
        """
        if self.estimate.low <= 0 <= self.estimate.high or self.p_holm > 1 - self.estimate.confidence:
            return "no clear difference"
        return "better" if (self.estimate.low > 0) == self.before.higher_is_better else "worse"


@attrs.frozen
class Comparison:
    """How `after` differs from `before`, eval by eval; printing it shows a table.

    Attributes:
        before: the first card's target.
        after: the second card's target.
        rows: one difference for each eval that both cards hold.
        only_before: evals of the first card alone.
        only_after: evals of the second card alone.
    """

    before: str
    after: str
    rows: tuple[Difference, ...]
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Difference:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __repr__(self) -> str:
        found = ", ".join(f"{row.name}: {row.verdict}" for row in self.rows)
        return f"Comparison({found})"

    def __str__(self) -> str:
        return self.explain()

    def explain(self) -> str:
        """Return the side-by-side table, with what each column is."""
        header = ("eval", "n", "before [95 %]", "after [95 %]", "difference [95 %]", "")
        rows = [
            (
                f"{row.name}/{row.before.metric}",
                row.before.n,
                f"{row.before.value:.3f} {span(row.before.interval)}",
                f"{row.after.value:.3f} {span(row.after.interval)}",
                f"{row.estimate.value:+.3f} {span(row.estimate.interval)}",
                row.verdict,
            )
            for row in self.rows
        ]
        lines = [f"before: {self.before}", f"after:  {self.after}", "", table(rows, header=header)]
        down = [f"{row.name}/{row.before.metric}" for row in self.rows if not row.before.higher_is_better]
        if down:
            lines.append(f"lower is better: {', '.join(down)}")
        if len(self.rows) > 1:
            lines.append(
                f"verdicts hold for the {len(self.rows)} evals together (Holm); each interval for itself"
            )
        for row in self.rows:
            if row.stopped:
                lines.append(
                    f"{row.name}: {row.estimate.n} pairs, compared after each; its interval holds at any look"
                )
            for when, result in (("before", row.before), ("after", row.after)):
                if result.notes():
                    lines.append(f"{row.name}, {when}: {result.notes()}")
        for when, names in (("before", self.only_before), ("after", self.only_after)):
            if names:
                lines.append(f"only {when}: {', '.join(names)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(self.explain())}</pre>"


def compare(before: Scorecard, after: Scorecard) -> Comparison:
    """Return the paired differences of every eval that both cards hold.

    Raises:
        EvalError: no eval is in both, one was sat under other settings or with other items, or the two
            cards rendered one base model in two ways.
    """
    old = {result.name: result for result in before.evals}
    new = {result.name: result for result in after.evals}
    shared = [name for name in old if name in new]
    if not shared:
        raise EvalError(
            "the two scorecards have no eval in common",
            got=f"{sorted(old)} and {sorted(new)}",
            need="at least one eval of the same name",
            fix="before.compare(suite.evaluate(other, on=engine))  # the same suite for both",
        )
    if before.base_model == after.base_model and before.renderer_name != after.renderer_name:
        raise EvalError(
            "the two scorecards rendered the same base model in two ways",
            got=f"{before.renderer_name!r} and {after.renderer_name!r}",
            need="one renderer, or the difference may be the prompt's and not the model's",
            fix="evaluate both targets with the same renderer_name",
        )
    found = [_difference(before, old[name], new[name]) for name in shared]
    adjusted = multiplicity.holm([row.p for row in found])
    return Comparison(
        before=before.target,
        after=after.target,
        rows=tuple(attrs.evolve(row, p_holm=p) for row, p in zip(found, adjusted, strict=True)),
        only_before=tuple(name for name in old if name not in new),
        only_after=tuple(name for name in new if name not in old),
    )


def _difference(card: Scorecard, before: EvalResult, after: EvalResult) -> Difference:
    """Return how one eval changed; by the race that was run while it was asked, where there was one."""
    race = after.race
    if race is not None and race["card"] == card.digest:
        _same_exam(before, after)
        estimate = Estimate(race["difference"], race["low"], race["high"], race["pairs"], 1 - race["alpha"])
        p = min(1.0, math.exp(-race["log_e"]))
        return Difference(before.name, before, after, estimate, p, p, stopped=True)
    cut = next((result for result in (before, after) if result.statuses()["cancelled"]), None)
    if cut is not None:
        raise EvalError(
            f"{before.name!r} was stopped before all of its items were asked",
            got=f"{cut.statuses()['cancelled']} of {cut.n} items not asked"
            + (f"; decided against {cut.race['against']!r}" if cut.race else ""),
            need="whole cards, or the card that it was compared with while it was asked",
            fix="suite.evaluate(target, on=engine)  # without against=",
        )
    estimate_at = _estimator(before, after)
    p = multiplicity.p_value(estimate_at)
    return Difference(before.name, before, after, estimate_at(0.95), p, p)


def difference(before: EvalResult, after: EvalResult, confidence: float = 0.95) -> Estimate:
    """Return `after - before` of one eval, paired by item id, with its interval.

    Binary scores get Bonett and Price's interval, others a cluster-robust t over the items' weights.

    Raises:
        EvalError: the settings or the items differ; the message names what.
    """
    return _estimator(before, after)(confidence)


def _estimator(before: EvalResult, after: EvalResult) -> Callable[[float], Estimate]:
    """Return what gives the difference and its interval, by the confidence; the pairs are made once."""
    _same_exam(before, after)
    old = {item.id: item for item in before.items}
    new = {item.id: item for item in after.items}
    first, second = [old[key].score for key in old], [new[key].score for key in old]
    clusters = [item.cluster or key for key, item in old.items()]
    if before.binary and after.binary and len(set(clusters)) == len(old):
        worse, better, n = paired.discordant(first, second)
        return lambda confidence: paired.bonett_price(better, worse, n, confidence)
    weights = [item.weight for item in old.values()]
    return lambda confidence: paired.mean_difference(
        first, second, weights=weights, clusters=clusters, bounds=before.bounds, confidence=confidence
    )


def _same_exam(before: EvalResult, after: EvalResult) -> None:
    """Refuse two results that were not sat under the same settings and with the same items."""
    if before.settings_digest != after.settings_digest:
        changed = changes(before.settings, after.settings)
        raise EvalError(
            f"{before.name!r} was sat under two settings",
            got="\n".join(changed) or "settings that differ only in their digest",
            need="equal settings and items: otherwise the difference is not the model's",
            fix="before.compare(suite.evaluate(other, on=engine))  # the same suite for both",
        )
    old = {item.id: item for item in before.items}
    new = {item.id: item for item in after.items}
    changed = sorted(
        (old.keys() ^ new.keys())
        | {key for key in old.keys() & new.keys() if old[key].input_digest != new[key].input_digest}
    )
    if changed or not old:
        raise EvalError(
            f"the items of {before.name!r} cannot be paired",
            got=f"{len(changed)} items that are not the same in both: {', '.join(changed[:_SHOWN])}"
            if old
            else "no items",
            need="the same items, with the same inputs, on both cards",
            fix="before.compare(suite.evaluate(other, on=engine))  # the same suite for both",
        )


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return one line for each setting that differs: `max_tokens: 64 and 128`."""
    keys = sorted(before.keys() | after.keys())
    return [
        f"{key}: {before.get(key, 'not set')!r} and {after.get(key, 'not set')!r}"
        for key in keys
        if before.get(key) != after.get(key)
    ]
