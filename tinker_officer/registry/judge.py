"""Hold two scorecards against a gate: a line of evidence for each rule, then one outcome.

A candidate passes when no guardrail may have worsened by more than its margin and, where success was asked
for, at least one success metric has surely improved. What is missing, stale, errored, unpaired or empty never
passes. Guardrails need no correction for their number, since all must hold; success metrics get Holm's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

from tinker_officer.registry.evidence import Pairs, flaw, key, own_estimate, pair, scaled_n
from tinker_officer.registry.verdict import Line, Outcome, Verdict, missing


if TYPE_CHECKING:
    from tinker_officer.evals.scorecard import EvalResult, Scorecard
    from tinker_officer.registry.gate import Gate, Limit, Requirement


def decide(gate: Gate, candidate: Scorecard | None, baseline: Scorecard | None, *, first: bool) -> Verdict:
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
        suite_digest=candidate.suite_digest if candidate else "",
        gate=json.loads(gate.to_json()),
    )


def _compared(gate: Gate, before: dict[str, EvalResult], after: dict[str, EvalResult]) -> list[Line]:
    margins = dict.fromkeys(before, gate.margin)
    lines = []
    for guard in gate.guards:
        if name := _match(guard.eval, before):
            margins[name] = guard.margin
        else:
            lines.append(_absent(guard.eval, before, where="the baseline's card"))
    for name, margin in margins.items():
        if margin is not None:
            lines.append(_guarded(gate, name, before[name], after.get(name), margin, list(after)))
    return lines + _successes(gate, before, after)


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
    return _measured(gate, blank, pairs, before, after, outcome, margin)


def _usable(before: EvalResult, after: EvalResult) -> Pairs | str:
    pairs = pair(before, after)
    return pairs if isinstance(pairs, str) else pairs.thin or pairs


def _measured(
    gate: Gate,
    blank: Line,
    pairs: Pairs,
    before: EvalResult,
    after: EvalResult,
    outcome: Outcome,
    limit: float,
) -> Line:
    loss = pairs.loss(gate.confidence)
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
        n_needed=pairs.n_to_decide(limit, gate.confidence) if open_ else None,
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
            outcome = _side(line.eval in better, pairs.loss(gate.confidence).low > 0)
            lines[wanted] = _measured(gate, line, pairs, before[line.eval], after[line.eval], outcome, 0.0)
    return list(lines.values())


def _limit(gate: Gate, limit: Limit, name: str, found: dict[str, EvalResult]) -> Line:
    blank = Line(rule=limit.rule, eval=name or limit.eval, outcome=Outcome.INCONCLUSIVE, limit=limit.value)
    if not name:
        return attrs.evolve(blank, why=missing(limit.eval, "the candidate's card", list(found)))
    result = found[name]
    problem = flaw(result)
    if problem:
        return attrs.evolve(blank, why=f"candidate: {problem}")
    own = own_estimate(result, gate.confidence)
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
    )


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


def _incomparable(candidate: Scorecard | None, baseline: Scorecard | None) -> str:
    if candidate is None or baseline is None:
        return ""
    if candidate.suite_digest != baseline.suite_digest:
        return "Stale: the suite changed since the baseline sat it. Evaluate the baseline on this suite."
    same_model = candidate.base_model == baseline.base_model
    if same_model and candidate.renderer_name != baseline.renderer_name:
        return (
            f"Stale: the prompts were rendered by {baseline.renderer_name} for the baseline and by"
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
