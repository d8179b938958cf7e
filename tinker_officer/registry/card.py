"""The model card of a version, as Markdown. All text in it is escaped: a name cannot become markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tinker_officer._text import count
from tinker_officer.registry.audit import Audit
from tinker_officer.registry.values import SHORT, Move, Version, number, pairs
from tinker_officer.registry.verdict import HEADER, Verdict, figure


if TYPE_CHECKING:
    from tinker_officer.evals.results import EvalResult
    from tinker_officer.evals.scorecard import Scorecard

# What Markdown (GitHub's too) could take for markup within a line; HTML's own characters become entities.
_MARKUP = re.compile(r"([\\`*_\[\]#!|~@]|:(?=//)|(?<=www)\.)")


def escaped(value: object) -> str:
    """Return `value` as Markdown that shows just that text, on one line, also inside a table."""
    text = "".join(character if character.isprintable() else " " for character in str(value))
    return _MARKUP.sub(r"\\\1", html.escape(text, quote=False))


def code(value: object) -> str:
    """Return `value` in the type of code; whatever could end it there is escaped as text instead."""
    text = str(value)
    plain = text.isprintable() and not set(text) & set("`|<>&\\")
    return f"`{text}`" if plain and text.strip() else escaped(text)


def markdown(version: Version, cards: Sequence[Scorecard], moves: Sequence[Move], head: Audit) -> str:
    """Return the card.

    Args:
        version: whose card it is.
        cards: its scorecards, oldest first; the newest is shown in full.
        moves: where it was moved, refused and overridden, oldest first.
        head: of the audit log, so that a later reader can `verify` against it.
    """
    blocks = [
        f"# {escaped(version.name)}, version {version.number}",
        _facts(version),
        *_overrides(moves),
        *_scores(cards),
        *_training(version),
        *_history(moves),
        _audit(head),
    ]
    return "\n\n".join(blocks) + "\n"


def _audit(head: Audit) -> str:
    return (
        f"## Audit\n\nThe registry's log had {head.entries} entries when this card was printed."
        f" Its head was\n{code(head.head)}.\nTo check that nothing before it was changed since:"
        f' `registry.verify(known_head="{head.head[:16]}")`.'
    )


def grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _facts(version: Version) -> str:
    facts = (
        ("id", code(version.id)),
        ("registered", escaped(version.created)),
        ("base model", code(version.base_model)),
        ("adapter", escaped(pairs(version.lora)) or "none: the base model as it came"),
        ("renderer", code(version.renderer_name) if version.renderer_name else ""),
        ("sampler\\_path", code(version.sampler_path) if version.sampler_path else ""),
        ("state\\_path", code(version.state_path) if version.state_path else ""),
        ("made from", ", ".join(_parent(version, parent) for parent in version.parents)),
        ("weights", escaped(pairs(version.weights))),
        ("notes", escaped(version.notes)),
    )
    return grid(("", ""), [(name, value) for name, value in facts if value])


def _parent(version: Version, parent: str) -> str:
    return f"{escaped(version.relations.get(parent, ''))} {code(parent[:SHORT])}".strip()


def _overrides(moves: Sequence[Move]) -> list[str]:
    found = [move for move in moves if move.kind == "overridden"]
    lines = [
        f"> **Overridden.** {escaped(move.actor)} moved this version into {escaped(move.channel)} on"
        f" {escaped(move.at[:19].replace('T', ' '))} by override"
        f" ({f'the gate said {move.outcome}' if move.outcome else 'no gate was asked'})."
        f" Reason: {escaped(move.reason)}"
        for move in found
    ]
    return ["\n>\n".join(lines)] if lines else []


def _scores(cards: Sequence[Scorecard]) -> list[str]:
    if not cards:
        return ["## Scores\n\nNo scorecard was registered: nothing is known of this version's quality."]
    newest = cards[-1]
    rows = [_score(result) for result in newest.evals]
    earlier = f" {len(cards) - 1} earlier scorecards are in the registry." if len(cards) > 1 else ""
    return [
        "## Scores\n\n"
        + grid(("eval", "metric", "n", "value", "95 % interval", "better", "notes"), rows)
        + f"\n\nMeasured {escaped(newest.created)}, suite {code(newest.suite_digest[:SHORT])},"
        f" scorecard {code(newest.digest[:SHORT])}.{earlier}"
    ]


def _score(result: EvalResult) -> tuple[str, ...]:
    low, high = result.interval
    return (
        escaped(result.name),
        escaped(result.metric),
        str(result.n),
        figure(result.value),
        f"{figure(low)} to {figure(high)}",
        "higher" if result.higher_is_better else "lower",
        escaped(result.notes()),
    )


def _training(version: Version) -> list[str]:
    if not version.sampler_path and not version.state_path:
        return []
    computed = {
        key: value for key, value in (version.plan.get("computed") or {}).items() if value is not None
    }
    rows = [
        ("steps", str(version.step)),
        ("ended", escaped(version.stopped)),
        ("data", escaped(pairs(version.data))),
        ("plan", escaped(pairs(computed))),
        ("training fingerprint", code(version.training_fingerprint)),
        ("server", escaped(pairs(version.engine))),
        ("packages", escaped(pairs(version.packages))),
        ("git", escaped(pairs(version.git))),
    ]
    figures = [
        (escaped(name), _metric(value)) for name, value in sorted(version.metrics.items()) if number(value)
    ]
    blocks = ["## Training\n\n" + grid(("", ""), [(name, value) for name, value in rows if value])]
    return [*blocks, grid(("metric", "last value"), figures)] if figures else blocks


def _metric(value: float) -> str:
    return count(value) if isinstance(value, int) else figure(value)


def _history(moves: Sequence[Move]) -> list[str]:
    if not moves:
        return ["## History\n\nThis version was never moved."]
    rows = [
        tuple(
            escaped(cell)
            for cell in (
                move.at[:19].replace("T", " "),
                move.channel,
                move.kind,
                move.outcome or "none",
                move.actor,
                move.reason,
            )
        )
        for move in moves
    ]
    blocks = ["## History\n\n" + grid(("when", "channel", "what", "gate", "by", "reason"), rows)]
    blocks += [_evidence(move, move.verdict) for move in moves if move.verdict is not None]
    return blocks


def _evidence(move: Move, verdict: Verdict) -> str:
    head = f"### {verdict.outcome} for {escaped(move.channel)}, {escaped(move.at[:19].replace('T', ' '))}"
    notes = [f"- {escaped(note)}" for note in verdict.notes]
    others = [code(verdict.baseline)] if verdict.baseline else []
    others += [f"the anchor {code(verdict.anchor)}"] if verdict.anchor else []
    against = f"Against {' and '.join(others) or 'nothing'}."
    rows = [tuple(escaped(cell) for cell in line.cells()) for line in verdict.lines]
    lines = [grid(HEADER, rows)] if rows else []
    return "\n\n".join([head, against, *(["\n".join(notes)] if notes else []), *lines])
