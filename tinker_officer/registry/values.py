"""What the registry hands out: a version, a move, a history. Frozen; they know no database."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import attrs

from tinker_officer._digest import digest
from tinker_officer._text import table
from tinker_officer.registry.verdict import Outcome, Verdict, figure


SHORT = 12


@attrs.frozen(kw_only=True)
class Version:
    """One trained model, or a base model as it came: what it is, and where it lies. It never changes.

    Attributes:
        id: SHA-256 of what the version is; the same content has the same id in every registry.
        name: the model that it is a version of.
        number: 1, 2, 3 ... within the name, in order of registration.
        base_model: what it was trained from, or is.
        renderer_name: how conversations become its tokens.
        step: optimizer steps behind the checkpoint; 0 for a base model.
        state_path: checkpoint to resume from; empty for a base model.
        sampler_path: checkpoint to sample from; empty for a base model.
        lora: rank and trained layers.
        plan: the plan, as JSON.
        spec: the run's specification, as JSON.
        spec_digest: of `spec`.
        data: what it learned from: source, rows, fingerprint.
        metrics: figures of training and of the evaluations during it.
        stopped: why training ended.
        training_fingerprint: of everything that determines the weights.
        engine: the server that trained it.
        packages: library versions where it was registered.
        git: revision of the working tree there, and whether it had changes; empty outside git.
        parents: ids of the versions that it was made from.
        relations: how, by parent's id: "distilled from", "merged from", "resumed from"; where it was said.
        weights: of a model that was trained elsewhere or lies in a folder: path, files with their SHA-256 and
            size, and one digest of them all; empty for a run's checkpoint.
        notes: whatever the registrant said.
        created: when it was registered, ISO 8601 in UTC.
    """

    id: str
    name: str
    number: int
    base_model: str
    renderer_name: str = ""
    step: int = 0
    state_path: str = ""
    sampler_path: str = ""
    lora: dict[str, Any] = attrs.field(factory=dict)
    plan: dict[str, Any] = attrs.field(factory=dict)
    spec: dict[str, Any] = attrs.field(factory=dict)
    spec_digest: str = ""
    data: dict[str, Any] = attrs.field(factory=dict)
    metrics: dict[str, Any] = attrs.field(factory=dict)
    stopped: str = ""
    training_fingerprint: str = ""
    engine: dict[str, Any] = attrs.field(factory=dict)
    packages: dict[str, str] = attrs.field(factory=dict)
    git: dict[str, Any] = attrs.field(factory=dict)
    parents: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    relations: dict[str, str] = attrs.field(factory=dict)
    weights: dict[str, Any] = attrs.field(factory=dict)
    notes: str = ""
    created: str = ""

    @property
    def target(self) -> str:
        """What an evaluation of this version samples from: its checkpoint, its files, or the base model.

        A checkpoint that was never saved for sampling is named by its `state_path`.
        """
        return self.sampler_path or self.state_path or str(self.weights.get("path") or self.base_model)

    @property
    def label(self) -> str:
        """`name@number`, which `Registry.get` takes."""
        return f"{self.name}@{self.number}"

    def __repr__(self) -> str:
        return f"Version({self.label!r}, {self.id[:SHORT]})"

    def __hash__(self) -> int:
        return hash(self.id)

    def explain(self) -> str:
        """Return what the version is, a field a line; what is empty is left out."""
        rows = [
            (label, value)
            for label, value in (
                ("version", f"{self.label}  {self.id[:SHORT]}"),
                ("registered", self.created),
                ("base model", self.base_model),
                ("adapter", pairs(self.lora)),
                ("steps", self.step or ""),
                ("sampler_path", self.sampler_path),
                ("state_path", self.state_path),
                ("renderer", self.renderer_name),
                ("data", pairs(self.data)),
                ("stopped", self.stopped),
                ("fingerprint", self.training_fingerprint[:SHORT]),
                ("parents", parents(self)),
                ("weights", pairs(self.weights)),
                ("git", pairs(self.git)),
                ("notes", self.notes),
            )
            if value != ""
        ]
        rows += [(name, figure(value)) for name, value in sorted(self.metrics.items()) if number(value)]
        return table(rows)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"


def parents(version: Version) -> str:
    """Return the parents of a version on one line, with how it was made from them."""
    said = version.relations
    return ", ".join(f"{said.get(one, '')} {one[:SHORT]}".strip() for one in version.parents)


def number(value: object) -> bool:
    """Return whether `value` is a figure to show."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def pairs(plain: dict[str, Any]) -> str:
    """Return the flat entries of a JSON object on one line; long digests are cut."""
    flat = ((name, value) for name, value in plain.items() if isinstance(value, str | int | float | bool))
    return ", ".join(f"{name} {_short(value)}" for name, value in flat if value != "")


def _short(value: object) -> str:
    text = str(value)
    hexadecimal = len(text) >= 40 and not text.strip("0123456789abcdef")  # noqa: PLR2004 - SHA-1 and up
    return text[:SHORT] if hexadecimal else text


def version_id(plain: dict[str, Any]) -> str:
    """Return the id of the version that the fields `plain` describe: a digest of what it *is*.

    When, where and by which packages it was registered, its notes and its figures are left out: the same
    weights registered again are the same version.
    """
    names = (
        "name",
        "base_model",
        "training_fingerprint",
        "spec_digest",
        "step",
        "state_path",
        "sampler_path",
    )
    weights = plain.get("weights")
    outside = {"weights": weights["digest"]} if weights else {}
    return digest({name: plain[name] for name in names} | outside)


@attrs.frozen(kw_only=True)
class Move:
    """One entry of a model's history: a move, a promotion that was refused, or what else befell a version.

    Attributes:
        seq: its number among all moves of the registry.
        name: the model.
        channel: where; empty for what is no matter of a channel.
        kind: "promoted", "overridden" (whatever the gate said), "rolled back", "refused", "withdrawn" (from
            the channel, since it was retired), "retired", or "reinstated" (from retirement); and, of no
            channel, "held", "released", "exported", "pruning" (its checkpoint is being deleted) or "pruned".
        version: id of the version that it is about; for a rollback, the one that was put back.
        label: that version's `name@number`.
        previous: id of the version that the channel held before.
        actor: who did it.
        reason: why.
        at: when, ISO 8601 in UTC.
        verdict: the gate's, if there was a gate.
        key: the idempotency key that it was asked for with.
        asked: digest of what was asked for with that key.
        detail: what else belongs to it: the files that were exported, the paths that were deleted.
    """

    seq: int
    name: str
    channel: str
    kind: str
    version: str
    label: str = ""
    previous: str | None = None
    actor: str = ""
    reason: str = ""
    at: str = ""
    verdict: Verdict | None = None
    key: str = ""
    asked: str = ""
    detail: dict[str, Any] = attrs.field(factory=dict)

    def __repr__(self) -> str:
        return f"Move({self.label or 'nothing'} {self.kind}{self._where()}, by {self.actor})"

    def _where(self) -> str:
        return f" in {self.channel}" if self.channel else ""

    @property
    def outcome(self) -> Outcome | None:
        """The gate's outcome; None where no gate was asked."""
        return self.verdict.outcome if self.verdict else None

    def explain(self) -> str:
        """Return the move on one line, and the gate's evidence below it."""
        because = f": {self.reason}" if self.reason else ""
        line = f"{self.at}  {self.label or '(none)'} {self.kind}{self._where()} by {self.actor}{because}"
        return f"{line}\n{self.verdict.explain()}" if self.verdict else line

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"


@attrs.frozen
class History:
    """Moves and refusals, oldest first; prints as a table."""

    moves: tuple[Move, ...]

    def __iter__(self) -> Iterator[Move]:
        return iter(self.moves)

    def __len__(self) -> int:
        return len(self.moves)

    def __getitem__(self, place: int) -> Move:
        return self.moves[place]

    def __repr__(self) -> str:
        return f"History({len(self.moves)} moves)"

    def __str__(self) -> str:
        return self.explain()

    def explain(self) -> str:
        """Return the history as a table, a move a line."""
        header = ("when", "channel", "version", "what", "gate", "by", "reason")
        rows = [
            (
                move.at[:19].replace("T", " "),
                move.channel,
                move.label,
                move.kind,
                move.outcome or "",
                move.actor,
                move.reason,
            )
            for move in self.moves
        ]
        return table(rows, header=header) if rows else "no moves"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"
