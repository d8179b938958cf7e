"""What a gate can decide with the items of a suite, to be read before anything is sampled.

Every figure comes from the intervals that the verdict uses, asked of all answers, or of many draws, that two
equal models may give (`stats.chances`).
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

import attrs

from tinker_officer._text import nearest, table
from tinker_officer.errors import RegistryError
from tinker_officer.registry.evidence import FEWEST_UNBOUNDED


if TYPE_CHECKING:
    from tinker_officer.evals.specs import Spec
    from tinker_officer.evals.suite import EvalSuite
    from tinker_officer.registry.gate import Gate

_HEADER = ("eval", "rule", "n", "limit", "can tell", "n needed", "decides", "")


@attrs.frozen(kw_only=True)
class PlanLine:
    """What one rule can decide.

    Attributes:
        rule: "not worse", "better", "at least", "at most" or "required".
        eval: the eval's name in the suite, or the rule's where the suite has none.
        n: items; None while the eval has not been loaded.
        limit: the margin, floor, ceiling or number of items that the rule asks for; None for "better".
        tells: the smallest margin (or gain, or distance from a limit) that `n` items decide; None where
            nothing can be said.
        n_needed: items that the rule's own margin needs.
        decides: whether `n` is enough; None where that is not known.
        why: in words, where figures do not say it.
    """

    rule: str
    eval: str
    n: int | None = None
    limit: float | None = None
    tells: float | None = None
    n_needed: int | None = None
    decides: bool | None = None
    why: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return the line as the cells of a table."""
        return (
            self.eval,
            self.rule,
            "?" if self.n is None else str(self.n),
            "" if self.limit is None else f"{self.limit:g}",
            "" if self.tells is None else f"{self.tells:.4f}",
            "" if self.n_needed is None else str(self.n_needed),
            {True: "yes", False: "no", None: "?"}[self.decides],
            self.why,
        )


@attrs.frozen(kw_only=True)
class GatePlan:
    """What a gate can decide with a suite; prints as a table.

    Attributes:
        lines: one a rule and eval.
        discordance: the share of items on which two models were taken to differ.
        deviation: the standard deviation of NLL differences that was assumed, in nats.
        power: the chance that each decision was to have.
    """

    lines: tuple[PlanLine, ...]
    discordance: float
    deviation: float
    power: float

    @property
    def decides(self) -> bool:
        """Whether every rule can be decided, as far as is known; an empty plan decides nothing."""
        return bool(self.lines) and all(line.decides for line in self.lines)

    def __repr__(self) -> str:
        return (
            f"GatePlan({sum(bool(line.decides) for line in self.lines)} of {len(self.lines)} rules decided)"
        )

    def __str__(self) -> str:
        return self.explain()

    def explain(self) -> str:
        """Return the plan as a table, and what it assumes."""
        if not self.lines:
            return "The gate asks nothing of this suite, so nothing passes."
        return (
            table([line.cells() for line in self.lines], header=_HEADER)
            + f"\n\nFor a model as good as the baseline, with power {self.power:g}, if two models disagree on"
            f" {self.discordance:.0%} of the items\nor their NLL differs by {self.deviation:g} nats (standard"
            " deviation) between conversations. ?: counted when the eval is loaded."
        )

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"


def plan(gate: Gate, suite: EvalSuite, *, discordance: float, deviation: float, power: float) -> GatePlan:
    """Return what `gate` can decide with `suite`; what `Gate.plan` does, which documents it.

    Raises:
        RegistryError: an assumption is out of range.
    """
    if not (0 <= discordance <= 1 and 0 <= deviation < math.inf and 0 < power < 1):
        raise RegistryError(
            "an assumption of the plan is out of range",
            got=f"discordance={discordance!r}, deviation={deviation!r}, power={power!r}",
            need="a discordance from 0 to 1, a deviation of at least 0, a power between 0 and 1",
            fix="gate.plan(suite, discordance=0.2, deviation=0.2, power=0.8)",
        )
    specs = {spec.name: spec for spec in suite.evals}
    margins: dict[str, float | None] = dict.fromkeys(specs, gate.margin)
    absent: list[PlanLine] = []
    for guard in gate.guards:
        if name := _match(guard.eval, specs):
            margins[name] = guard.margin
        else:
            absent.append(_absent("not worse", guard.eval, specs))
    guarded = {name: margin for name, margin in margins.items() if margin is not None}
    reach = _Reach(discordance, deviation, power, gate.confidence)
    among = len(guarded) * (2 if gate.pinned else 1)  # all are held against the anchor too
    lines = [reach.guard(specs[name], margin, among) for name, margin in guarded.items()]
    for wanted in gate.success:
        name = _match(wanted, specs)
        lines.append(
            reach.success(specs[name], len(gate.success)) if name else _absent("better", wanted, specs)
        )
    for limit in gate.limits:
        name = _match(limit.eval, specs)
        lines.append(
            reach.limit(specs[name], limit.eval, limit.rule, limit.value)
            if name
            else _absent(limit.rule, limit.eval, specs)
        )
    for rule in gate.requirements:
        name = _match(rule.eval, specs)
        lines.append(_required(specs[name], rule.n) if name else _absent("required", rule.eval, specs))
    return GatePlan(lines=(*lines, *absent), discordance=discordance, deviation=deviation, power=power)


@attrs.frozen
class _Reach:
    """What n items show, under the plan's assumptions."""

    discordance: float
    deviation: float
    power: float
    confidence: float

    def guard(self, spec: Spec, margin: float, among: int) -> PlanLine:
        needed, n = self._needed(spec, margin, among), spec.size
        tells = None if n is None else self._tells(spec, n, among)
        decides = None if tells is None else tells <= margin
        if needed and n is not None:  # counts are whole, so a few items more may do a little worse
            needed = min(needed, n) if decides else max(needed, n + 1)
        return PlanLine(
            rule="not worse",
            eval=spec.name,
            n=n,
            limit=margin,
            tells=tells,
            n_needed=needed,
            decides=decides,
            why="" if needed else "a margin of 0 is never shown: allow some",
        )

    def success(self, spec: Spec, among: int) -> PlanLine:
        sure = 1 - (1 - self.confidence) / among  # Holm's first step
        tells = None if spec.size is None else self._gain(spec, spec.size, sure)
        return PlanLine(
            rule="better",
            eval=spec.name,
            n=spec.size,
            tells=tells,
            decides=None if tells is None else _binary(spec) is False or tells < 1,
            why="" if tells is None else "a gain of that size is seen; a smaller one may not be",
        )

    def _gain(self, spec: Spec, n: int, confidence: float) -> float:
        from tinker_officer.stats import chances

        if _binary(spec):
            return chances.gain_shown(n, self.discordance, chance_wanted=self.power, confidence=confidence)
        if n < FEWEST_UNBOUNDED:
            return math.inf
        return chances.mean_shown(n, self.deviation, chance_wanted=self.power, confidence=confidence)

    def limit(self, spec: Spec, name: str, rule: str, value: float) -> PlanLine:
        from tinker_officer.stats.intervals import wilson

        blank = PlanLine(rule=rule, eval=name, n=spec.size, limit=value)
        own = name in {spec.name, f"{spec.name}/accuracy", f"{spec.name}/score"}
        if spec.size is None or not _binary(spec) or not own or not 0 <= value <= 1:
            return attrs.evolve(blank, why="how far the figure must lie from the limit is seen afterwards")
        found = wilson(value * spec.size, spec.size, self.confidence)
        tells = value - found.low if rule == "at most" else found.high - value
        why = f"a rate {'above' if rule == 'at least' else 'below'} the limit by that much is seen"
        return attrs.evolve(blank, tells=tells, decides=spec.size > 0, why=why)

    def _tells(self, spec: Spec, n: int, among: int) -> float:
        from tinker_officer.stats import chances

        wanted = chances.shared(self.power, among)
        if _binary(spec):
            return chances.margin_shown(n, self.discordance, chance_wanted=wanted, confidence=self.confidence)
        if n < FEWEST_UNBOUNDED:
            return math.inf
        return chances.mean_shown(n, self.deviation, chance_wanted=wanted, confidence=self.confidence)

    def _needed(self, spec: Spec, margin: float, among: int) -> int | None:
        from tinker_officer.stats import chances

        if margin <= 0:
            return None
        wanted = chances.shared(self.power, among)
        if _binary(spec):
            return chances.items_passing(
                margin, self.discordance, chance_wanted=wanted, confidence=self.confidence
            )
        return chances.items_within(
            margin,
            self.deviation,
            chance_wanted=wanted,
            confidence=self.confidence,
            fewest=FEWEST_UNBOUNDED,
        )


def _binary(spec: Spec) -> bool:
    return spec.layer != "nll"


def _match(name: str, specs: dict[str, Spec]) -> str:
    owner = name.partition("/")[0]
    return owner if owner in specs else ""


def _absent(rule: str, name: str, specs: dict[str, Spec]) -> PlanLine:
    near = nearest(name.partition("/")[0], specs)
    why = "the suite has no such eval" + (f" (did you mean {near}?)" if near else "")
    return PlanLine(rule=rule, eval=name, decides=False, why=why)


def _required(spec: Spec, n: int) -> PlanLine:
    enough = None if spec.size is None else spec.size >= n
    return PlanLine(rule="required", eval=spec.name, n=spec.size, limit=float(n), n_needed=n, decides=enough)
