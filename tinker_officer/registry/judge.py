"""Hold two scorecards against a gate: a line of evidence for each rule, then one outcome.

A candidate passes when no guardrail may have worsened by more than its margin and, where success was asked
for, at least one success metric has surely improved. What is missing, stale, errored, unpaired or empty never
passes. Guardrails need no correction for their number, since all must hold; success metrics get Holm's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

from tinker_officer.registry.evidence import (
    Pairs,
    figure_estimate,
    flaw,
    key,
    own_estimate,
    pair,
    scaled_n,
)
from tinker_officer.registry.verdict import Line, Outcome, Verdict, missing


if TYPE_CHECKING:
    from tinker_officer.evals.results import EvalResult
    from tinker_officer.evals.scorecard import Scorecard
    from tinker_officer.registry.gate import Gate, Limit, Requirement
    from tinker_officer.stats.intervals import Estimate


def decide(
    gate: Gate,
    candidate: Scorecard | None,
    baseline: Scorecard | None,
    *,
    anchor: Scorecard | None,
    first: bool,
) -> Verdict:
    """Return the verdict of `gate` on `candidate`; what `Gate.decide` does, which documents it."""
    notes = _notes(candidate, baseline, first=first)
    blocked = candidate is None or gate.empty or (baseline is None and not first)
    blocked = blocked or bool(_incomparable(candidate, baseline))
    lines: list[Line] = []
    if candidate is not None:
        found = {key(result): result for result in candidate.evals}
        if first:
            lines += _recorded(found)
            named = dict.fromkeys((*(guard.eval for guard in gate.guards), *gate.success))
            lines += [_absent(name, found) for name in named if not _match(name, found)]
        elif baseline is not None:
            lines += _compared(gate, {key(result): result for result in baseline.evals}, found)
        pinned, problem = _anchored(gate, candidate, anchor)
        lines, notes, blocked = lines + pinned, notes + [problem] * bool(problem), blocked or bool(problem)
        lines += [_limit(gate, limit, _match(limit.eval, found), found) for limit in gate.limits]
        lines += [_required(rule, _match(rule.eval, found), found) for rule in gate.requirements]
    if gate.empty or not lines:
        notes.append("There was nothing to judge, and that never passes.")
    return Verdict(
        outcome=Outcome.INCONCLUSIVE if blocked and not _broken(lines) else _overall(lines),
        lines=tuple(lines),
        notes=tuple(notes),
        candidate=candidate.target if candidate else "",
        baseline=baseline.target if baseline else "",
        candidate_card=_digest(candidate),
        baseline_card=_digest(baseline),
        anchor=anchor.target if anchor and gate.pinned else gate.pinned,
        anchor_card=_digest(anchor) if gate.pinned else "",
        suite_digest=candidate.suite_digest if candidate else "",
        gate=json.loads(gate.to_json()),
    )


def _anchored(gate: Gate, candidate: Scorecard, anchor: Scorecard | None) -> tuple[list[Line], str]:
    """Return the guardrails against the anchor, and what keeps it from being compared with."""
    if not gate.pinned:
        return [], ""
    if anchor is None:
        return [], f"The anchor {gate.pinned} has no scorecard: evaluate it, and register the card with it."
    problem = _incomparable(candidate, anchor, who="anchor")
    if problem or _digest(anchor) == _digest(candidate):
        return [], problem
    before, after = ({key(result): result for result in card.evals} for card in (anchor, candidate))
    lines = _guards(gate, before, after, where="the anchor's card")
    if not lines:
        return [], "The anchor is pinned, but no eval of its card has a margin."
    return [attrs.evolve(line, against="anchor") for line in lines], ""


def _compared(gate: Gate, before: dict[str, EvalResult], after: dict[str, EvalResult]) -> list[Line]:
    return [
        *_guards(gate, before, after, where="the baseline's card"),
        *_successes(gate, before, after),
    ]


def _guards(
    gate: Gate, before: dict[str, EvalResult], after: dict[str, EvalResult], *, where: str
) -> list[Line]:
    margins = dict.fromkeys(before, gate.margin)
    lines = []
    for guard in gate.guards:
        if name := _match(guard.eval, before):
            margins[name] = guard.margin
        else:
            lines.append(_absent(guard.eval, before, where=where))
    for name, margin in margins.items():
        if margin is not None:
            lines.append(_guarded(gate, name, before[name], after.get(name), margin, list(after)))
    return lines


def _guarded(
    gate: Gate, name: str, before: EvalResult, after: EvalResult | None, margin: float, names: list[str]
) -> Line:
    blank = Line(rule="not worse", eval=name, outcome=Outcome.INCONCLUSIVE, limit=margin)
    if after is None:
        return attrs.evolve(blank, why=missing(name, "the candidate's card", names))
    pairs = _usable(before, after)
    if isinstance(pairs, str):
        return attrs.evolve(blank, why=pairs)
    loss = pairs.loss(gate.confidence)
    outcome = _side(loss.high <= margin, loss.low > margin)
    return _measured(blank, pairs, loss, before, after, outcome, margin)


def _usable(before: EvalResult, after: EvalResult) -> Pairs | str:
    pairs = pair(before, after)
    return pairs if isinstance(pairs, str) else pairs.thin or pairs


def _measured(
    blank: Line,
    pairs: Pairs,
    loss: Estimate,
    before: EvalResult,
    after: EvalResult,
    outcome: Outcome,
    limit: float,
) -> Line:
    open_ = outcome is Outcome.INCONCLUSIVE
    return attrs.evolve(
        blank,
        outcome=outcome,
        n=pairs.n,
        baseline=before.value,
        candidate=after.value,
        low=loss.low,
        high=loss.high,
        limit=limit,
        n_needed=pairs.n_to_decide(loss, limit) if open_ else None,
    )


def _successes(gate: Gate, before: dict[str, EvalResult], after: dict[str, EvalResult]) -> list[Line]:
    lines: dict[str, Line] = {}
    ready: dict[str, Pairs] = {}
    for wanted in gate.success:
        blank = Line(rule="better", eval=wanted, outcome=Outcome.INCONCLUSIVE, limit=0.0)
        name = _match(wanted, before)
        if not name or name not in after:
            where = "the candidate's card" if name else "the baseline's card"
            why = missing(wanted, where, list(after if name else before))
            lines[wanted] = attrs.evolve(blank, why=why)
            continue
        pairs = _usable(before[name], after[name])
        if isinstance(pairs, str):
            lines[wanted] = attrs.evolve(blank, eval=name, why=pairs)
            continue
        ready[name] = pairs
        lines[wanted] = attrs.evolve(blank, eval=name)
    better = _holm(ready, gate.confidence)
    for wanted, line in lines.items():
        if line.eval in ready:
            pairs = ready[line.eval]
            loss = pairs.loss(gate.confidence)
            outcome = _side(line.eval in better, loss.low > 0)
            lines[wanted] = _measured(line, pairs, loss, before[line.eval], after[line.eval], outcome, 0.0)
    return list(lines.values())


def _limit(gate: Gate, limit: Limit, name: str, found: dict[str, EvalResult]) -> Line:
    blank = Line(rule=limit.rule, eval=name or limit.eval, outcome=Outcome.INCONCLUSIVE, limit=limit.value)
    figure = "" if name else limit.eval.rpartition("/")[2]
    result = found.get(name) or _with_figure(limit.eval, found)
    if result is None:
        known = [*found, *(f"{r.name}/{extra}" for r in found.values() for extra in r.extra)]
        return attrs.evolve(blank, why=missing(limit.eval, "the candidate's card", known))
    problem = flaw(result)
    if problem:
        return attrs.evolve(blank, why=f"candidate: {problem}")
    own = figure_estimate(result, figure) if figure else own_estimate(result, gate.confidence)
    if own is None:
        return attrs.evolve(blank, why=f"candidate: {figure} is not a finite number")
    above, below = own.low >= limit.value, own.high <= limit.value
    if limit.rule == "at least":
        outcome = _side(above, own.high < limit.value)
    else:
        outcome = _side(below, own.low > limit.value)
    needed = scaled_n(own.n, (own.high - own.low) / 2, abs(own.value - limit.value))
    return attrs.evolve(
        blank,
        outcome=outcome,
        n=own.n,
        candidate=own.value,
        low=own.low,
        high=own.high,
        n_needed=needed if outcome is Outcome.INCONCLUSIVE else None,
        by_value=bool(figure) and own.low == own.high,
    )


def _with_figure(name: str, found: dict[str, EvalResult]) -> EvalResult | None:
    """Return the eval that has the further figure `<eval>/<figure>`, such as a calibration error."""
    owner, _, figure = name.rpartition("/")
    return next((one for one in found.values() if one.name == owner and figure in one.extra), None)


def _side(met: bool, broken: bool) -> Outcome:
    if met:
        return Outcome.PASS
    return Outcome.BREACH if broken else Outcome.INCONCLUSIVE


def _holm(ready: dict[str, Pairs], confidence: float) -> set[str]:
    """Return the evals that are better by Holm's step-down: k left share the error of one."""
    better: set[str] = set()
    while left := ready.keys() - better:
        shared = 1 - (1 - confidence) / len(left)
        found = {name for name in left if ready[name].loss(shared).high < 0}
        if not found:
            break
        better |= found
    return better


def _match(name: str, found: dict[str, EvalResult]) -> str:
    """Return the key of the eval that `name` means, by key or by name; empty when there is none."""
    if name in found:
        return name
    return next((known for known, result in found.items() if result.name == name), "")


def _absent(name: str, found: dict[str, EvalResult], *, where: str = "the candidate's card") -> Line:
    return Line(
        rule="required",
        eval=name,
        outcome=Outcome.INCONCLUSIVE,
        why=missing(name, where, [result.name for result in found.values()]),
    )


def _recorded(found: dict[str, EvalResult]) -> list[Line]:
    lines = []
    for name, result in found.items():
        problem = flaw(result)
        lines.append(
            Line(
                rule="recorded",
                eval=name,
                outcome=Outcome.INCONCLUSIVE if problem else Outcome.PASS,
                why=problem or "nothing to compare with",
                n=result.n,
                candidate=None if problem else result.value,
            )
        )
    return lines


def _required(rule: Requirement, name: str, found: dict[str, EvalResult]) -> Line:
    blank = Line(rule="required", eval=name or rule.eval, outcome=Outcome.INCONCLUSIVE, limit=float(rule.n))
    if not name:
        return attrs.evolve(blank, why=missing(rule.eval, "the candidate's card", list(found)))
    result = found[name]
    problem = flaw(result)
    if problem:
        return attrs.evolve(blank, why=problem)
    if result.n < rule.n:
        return attrs.evolve(blank, n=result.n, why=f"{result.n} items, need {rule.n}")
    return attrs.evolve(blank, n=result.n, candidate=result.value, outcome=Outcome.PASS)


def _notes(candidate: Scorecard | None, baseline: Scorecard | None, *, first: bool) -> list[str]:
    if candidate is None:
        return ["The candidate has no scorecard, so nothing is known of it."]
    if first:
        return ["Nothing to compare with: this is the first version. Floors and required evals were judged."]
    if baseline is None:
        return ["The baseline has no scorecard: evaluate it, and register the card with it."]
    problem = _incomparable(candidate, baseline)
    return [problem] if problem else []


def _incomparable(candidate: Scorecard | None, other: Scorecard | None, *, who: str = "baseline") -> str:
    if candidate is None or other is None:
        return ""
    if candidate.suite_digest != other.suite_digest:
        return f"Stale: the suite changed since the {who} sat it. Evaluate the {who} on this suite."
    same_model = candidate.base_model == other.base_model
    if same_model and candidate.renderer_name != other.renderer_name:
        return (
            f"Stale: the prompts were rendered by {other.renderer_name} for the {who} and by"
            f" {candidate.renderer_name} for the candidate."
        )
    return ""


def _digest(card: Scorecard | None) -> str:
    try:
        return card.digest if card else ""
    except ValueError:  # it holds a number that is not finite, which a line of the verdict says
        return ""


def _broken(lines: list[Line]) -> bool:
    return any(line.outcome is Outcome.BREACH and line.rule in {"at least", "at most"} for line in lines)


def _overall(lines: list[Line]) -> Outcome:
    hard = [line for line in lines if line.rule != "better"]
    success = [line for line in lines if line.rule == "better"]
    won = any(line.outcome is Outcome.PASS for line in success)
    lost = bool(success) and all(line.outcome is Outcome.BREACH for line in success)
    if lost or any(line.outcome is Outcome.BREACH for line in hard):
        return Outcome.BREACH
    unknown = any(line.why and line.outcome is not Outcome.PASS for line in success)
    met = bool(lines) and all(line.outcome is Outcome.PASS for line in hard)
    return Outcome.PASS if met and not unknown and (won or not success) else Outcome.INCONCLUSIVE
