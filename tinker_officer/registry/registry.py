"""Registry: the record of what was trained, how it scored, and where it is deployed."""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import sqlalchemy as sa

from tinker_officer.errors import RegistryError
from tinker_officer.registry import audit, reads, sources, writes
from tinker_officer.registry.channels import CHANNELS, UNGATED, check_channel
from tinker_officer.registry.database import open_database
from tinker_officer.registry.refusal import PromotionRefused
from tinker_officer.registry.snapshot import Snapshot
from tinker_officer.registry.values import Move, Version, version_id
from tinker_officer.registry.verdict import Verdict


if TYPE_CHECKING:
    from tinker_officer.evals.scorecard import Scorecard
    from tinker_officer.registry.gate import Gate
    from tinker_officer.train.result import RunResult

logger = logging.getLogger(__name__)


class _Whatever(enum.Enum):
    """What stands for "whatever the channel holds when the decision is made"."""

    CURRENT = "whatever is current"


class Registry(Snapshot):
    """The record of versions, their scorecards, and their moves between channels. Safe among processes.

    Example:
        >>> with Registry.open("models.db") as registry:
        ...     version = registry.register(result, card)
        ...     gate = Gate.not_worse(margin=0.02)
        ...     move = registry.promote(version, to="production", gate=gate, actor="ci")
    """

    @classmethod
    def open(cls, where: str | Path, *, timeout_s: float = 30.0) -> Self:
        """Return the registry at `where`; a new one is made there if there is no file (and folder) yet.

        Args:
            where: path of an SQLite file, or `sqlite:///models.db`.
            timeout_s: how long a change waits for those of other processes.

        Raises:
            RegistryError: the file is not a registry, or of a later version; it is left untouched.
        """
        return cls(open_database(where, timeout_s=timeout_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file. No connection outlives a call, so this only ends a `with` well."""

    def register(
        self,
        source: RunResult | str | Path,
        card: Scorecard | None = None,
        *,
        name: str | None = None,
        parents: Sequence[Version | str] = (),
        notes: str = "",
    ) -> Version:
        """Record a trained model, or a base model as it came, and return its version.

        The same source again gives the same version; a card that it did not have yet is attached to it.

        Args:
            source: the result of a run, or the name or folder of a base model.
            card: its scorecard. Of a run's checkpoints, the one that the card was made on is registered;
                without a card, the best.
            name: of what it is a version; the run's name, or the last part of the base model's, if left out.
            parents: versions that it was made from.
            notes: whatever should stand on its card.

        Raises:
            RegistryError: the card is of another model, or was recorded for one that was trained otherwise;
                a parent is unknown; or the version is there already with other notes or parents.
        """
        fields = sources.describe(source, card, name)
        fields["id"] = version_id(fields)
        with self._database.write() as connection:
            found = [reads.find(connection, parent).id for parent in parents]
            version = writes.add_version(connection, {**fields, "parents": found, "notes": notes})
            if card is not None:
                writes.attach(connection, version, card)
        logger.info("registry.registered", extra={"officer.version": version.label})
        return version

    def promote(
        self,
        version: Version | str,
        *,
        to: str,
        gate: Gate | None = None,
        actor: str,
        reason: str = "",
        expected_current: Version | str | _Whatever | None = _Whatever.CURRENT,
        override: bool = False,
        new_channel: bool = False,
    ) -> Move:
        """Move a version into a channel if the gate lets it, and return the move.

        What the gate compares with is the version that is replaced: both are read, and the move is written,
        in one transaction. A version that the channel holds already stays, and its move is returned.

        Args:
            version: what is to move.
            to: the channel: "candidate", "staging", "production", or one of your own.
            gate: the policy; only "candidate" and "staging" can be entered without one.
            actor: who moves it.
            reason: why.
            expected_current: the version that the channel must hold now (None: none), or the move is
                refused; whatever it holds, if left out.
            override: move it whatever the gate says; it takes a reason, and stays on the card for good.
            new_channel: whether `to` is meant to be new, although it looks like a channel that there is.

        Raises:
            PromotionRefused: the verdict is not PASS; the refusal is recorded, and `verdict` holds it.
            RegistryError: there is no gate where there must be one, the channel does not hold what was
                expected, or the version was retired.
        """
        _check_actor(actor, reason, override=override)
        if to == "retired":
            raise RegistryError(
                "a version is retired, not promoted, to 'retired'",
                got="to='retired'",
                need="retire, which takes the version out of every channel",
                fix='registry.retire(version, actor="ada", reason="...")',
            )
        if gate is None and not override and to not in UNGATED:
            raise RegistryError(
                f"nothing enters {to!r} without a gate",
                got="gate=None",
                need="a gate, or an override with a reason",
                fix=f'registry.promote(version, to={to!r}, gate=Gate.not_worse(margin=0.02), actor="ci")',
            )
        with self._database.write() as connection:
            if to not in CHANNELS:
                check_channel(to, reads.used_channels(connection), new=new_channel)
            candidate = reads.find(connection, version)
            held = reads.holder(connection, candidate.name, to)
            if held == candidate.id:
                return _last_move(connection, candidate, to)
            now = reads.find(connection, held) if held else None
            _check_expected(connection, to, now, expected_current)
            retired = candidate.id in reads.stack(connection, candidate.name, "retired")
            if retired and not override:
                raise _retired(candidate)
            verdict = _judged(connection, gate, candidate, now) if gate else None
            passed = verdict is None or verdict.passed
            kind = "overridden" if override else "promoted" if passed else "refused"
            if retired:
                writes.add_move(
                    connection, candidate, "retired", "reinstated", previous=None, actor=actor, reason=reason
                )
            move = writes.add_move(
                connection, candidate, to, kind, previous=now, actor=actor, reason=reason, verdict=verdict
            )
        logger.info("registry.%s", kind, extra={"officer.version": candidate.label, "officer.channel": to})
        if kind == "refused":
            raise PromotionRefused(move)
        return move

    def rollback(
        self,
        channel: str,
        *,
        name: str | None = None,
        actor: str,
        reason: str,
        expected_current: Version | str | _Whatever | None = _Whatever.CURRENT,
    ) -> Move:
        """Put back the version that the channel held before its current one, and return the move.

        Args:
            channel: which.
            name: the model; it may be left out while only one model was ever in the channel.
            actor: who.
            reason: why; a rollback needs no gate, but it needs a reason.
            expected_current: the version that the channel must hold now.

        Raises:
            RegistryError: the channel holds nothing, or held nothing before.
        """
        _check_actor(actor, reason, override=True)
        with self._database.write() as connection:
            now = reads.current(connection, channel, name)
            _check_expected(connection, channel, now, expected_current)
            stack = reads.stack(connection, now.name, channel) if now else []
            if now is None or len(stack) < 2:  # noqa: PLR2004 - the current one and one before it
                raise RegistryError(
                    "there is nothing to roll back to",
                    got=f"{channel!r} holds {now.label if now else 'nothing'}, and held nothing before",
                    need="a channel with an earlier version that was not retired",
                    fix="print(registry.history())",
                )
            before = reads.find(connection, stack[-2])
            return writes.add_move(
                connection, before, channel, "rolled back", previous=now, actor=actor, reason=reason
            )

    def retire(self, version: Version | str, *, actor: str, reason: str) -> Version:
        """Take a version out of every channel, for good, and return it.

        A channel that held it falls back on the version before it, or is empty; it never does so again.

        Args:
            version: which.
            actor: who.
            reason: why.

        Raises:
            RegistryError: there is no such version, or actor or reason is missing.
        """
        _check_actor(actor, reason, override=True)
        with self._database.write() as connection:
            found = reads.find(connection, version)
            if found.id in reads.stack(connection, found.name, "retired"):
                return found
            for channel in reads.holders(connection, found.name, found.id):
                writes.add_move(
                    connection, found, channel, "withdrawn", previous=found, actor=actor, reason=reason
                )
            writes.add_move(
                connection, found, "retired", "retired", previous=None, actor=actor, reason=reason
            )
        return found

    def as_of(self, moment: str | datetime) -> Snapshot:
        """Return the registry as it stood at `moment`: a datetime, or ISO 8601 text, UTC if it says no zone.

        Raises:
            RegistryError: the text is not a time.
        """
        try:
            when = moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)
        except (TypeError, ValueError) as error:
            raise RegistryError(
                "this is not a time",
                got=repr(moment),
                need="a datetime, or ISO 8601 text",
                fix='registry.as_of("2026-10-01").current("production")',
            ) from error
        return Snapshot(self._database, writes.iso(when if when.tzinfo else when.replace(tzinfo=UTC)))

    def verify(self, *, known_head: str = "") -> audit.Audit:
        """Check every entry of the audit log and every row against it; return their number and the head.

        Args:
            known_head: a head from an earlier card, or its first digits; it must still be in the log.

        Raises:
            RegistryError: names the first entry or row that is not as it was written.
        """
        with self._database.read() as connection:
            return audit.verify(connection, known_head=known_head)

    def card(self, version: Version | str) -> str:
        """Return the model card of a version, as Markdown: what it is, how it scored, where it stood."""
        from tinker_officer.registry.card import markdown

        with self._database.read() as connection:
            found = reads.find(connection, version)
            return markdown(
                found,
                reads.cards(connection, found.id),
                [move for move in reads.all_moves(connection, name=found.name) if move.version == found.id],
                audit.head(connection),
            )


def _judged(connection: sa.Connection, gate: Gate, candidate: Version, now: Version | None) -> Verdict:
    card = reads.card_for(connection, candidate.id)
    against = reads.card_for(connection, now.id, card.suite_digest if card else "") if now else None
    pinned = reads.find(connection, gate.pinned) if gate.pinned else None
    anchor = reads.card_for(connection, pinned.id, card.suite_digest if card else "") if pinned else None
    return gate.decide(card, against, anchor=anchor, first=now is None)


def _check_actor(actor: str, reason: str, *, override: bool) -> None:
    for what, value in (("actor", actor), ("reason", reason if override else "not needed")):
        if not value.strip():
            raise RegistryError(
                f"this needs {'an' if what == 'actor' else 'a'} {what}",
                got=f"{what}={value!r}",
                need=f"who does it (actor){' and why (reason)' if override else ''}, for the record",
                fix='actor="ada"' + (', reason="customer outage, see ticket 812"' if override else ""),
            )


def _last_move(connection: sa.Connection, version: Version, channel: str) -> Move:
    made = reads.all_moves(connection, name=version.name, channel=channel)
    return next(move for move in reversed(made) if move.kind != "refused")


def _check_expected(
    connection: sa.Connection,
    channel: str,
    now: Version | None,
    expected: Version | str | _Whatever | None,
) -> None:
    if isinstance(expected, _Whatever):
        return
    wanted = reads.find(connection, expected) if expected is not None else None
    if (wanted.id if wanted else None) != (now.id if now else None):
        raise RegistryError(
            f"{channel!r} does not hold what was expected",
            got=now.label if now else "nothing",
            need=wanted.label if wanted else "nothing",
            fix=f"print(registry.history(channel={channel!r}))  # then decide again",
        )


def _retired(version: Version) -> RegistryError:
    return RegistryError(
        "the version was retired",
        got=version.label,
        need="a version that was not, or an override with a reason",
        fix='registry.promote(version, to=..., gate=gate, actor="ada", reason="...", override=True)',
    )
