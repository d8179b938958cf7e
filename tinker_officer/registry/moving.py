"""How a version moves: each change in one transaction, with what it was decided on."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, TypeAlias

import sqlalchemy as sa

from tinker_officer.errors import RegistryError
from tinker_officer.registry import reads, writes
from tinker_officer.registry.channels import CHANNELS, UNGATED, check_channel
from tinker_officer.registry.values import Move, Version
from tinker_officer.registry.verdict import Verdict
from tinker_officer.registry.writes import Asked


if TYPE_CHECKING:
    from tinker_officer.registry.gate import Gate


class Whatever(enum.Enum):
    """What stands for "whatever the channel holds when the decision is made"."""

    CURRENT = "whatever is current"


Expected: TypeAlias = "Version | str | Whatever | None"


def promote(
    connection: sa.Connection,
    version: Version | str,
    to: str,
    gate: Gate | None,
    *,
    actor: str,
    reason: str,
    expected: Expected,
    override: bool,
    new_channel: bool,
    key: str,
) -> Move:
    """Move a version into a channel if the gate lets it, and return the move or the refusal."""
    if to not in CHANNELS:
        check_channel(to, reads.used_channels(connection), new=new_channel)
    candidate = reads.find(connection, version)
    rule = gate.to_json() if gate else ""
    what = {"version": candidate.id, "to": to, "gate": rule, "override": override, "actor": actor}
    asked = Asked.of(key, verb="promote", reason=reason, **what)
    if asked and (made := asked.made(connection)):
        return made
    held = reads.holder(connection, candidate.name, to)
    if held == candidate.id:
        return _last_move(connection, candidate, to)
    now = reads.find(connection, held) if held else None
    _check_expected(connection, to, now, expected)
    pruned, retired = reads.fate(connection, candidate)
    if pruned:
        raise _pruned(candidate)
    if retired and not override:
        raise _retired(candidate)
    verdict = _judged(connection, gate, candidate, now) if gate else None
    passed = verdict is None or verdict.passed
    kind = "overridden" if override else "promoted" if passed else "refused"
    if retired:
        writes.add_move(connection, candidate, "retired", "reinstated", actor=actor, reason=reason)
    return writes.add_move(
        connection,
        candidate,
        to,
        kind,
        previous=now,
        actor=actor,
        reason=reason,
        verdict=verdict,
        asked=asked,
    )


def check_promotion(to: str, gate: Gate | None, *, override: bool) -> None:
    """Refuse what no registry would do, before one is asked.

    Raises:
        RegistryError: the channel is "retired", or needs a gate and there is none, or what is given is none.
    """
    if gate is not None and not hasattr(gate, "decide"):
        raise RegistryError(
            "this is not a gate",
            got=f"gate={gate!r}",
            need="a Gate",
            fix="gate=Gate.not_worse(margin=0.02)",
        )
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


def rollback(
    connection: sa.Connection,
    channel: str,
    name: str | None,
    *,
    actor: str,
    reason: str,
    expected: Expected,
    key: str,
) -> Move:
    """Put back the version that the channel held before its current one, and return the move."""
    if channel == "retired":
        raise RegistryError(
            "what is retired is not rolled back",
            got="channel='retired'",
            need="a channel in which versions are deployed, or an override that puts a retired one there",
            fix='registry.promote(version, to=..., actor="ada", reason="...", override=True)',
        )
    asked = Asked.of(key, verb="rollback", channel=channel, name=name, actor=actor, reason=reason)
    if asked and (made := asked.made(connection)):
        return made
    now = reads.current(connection, channel, name)
    _check_expected(connection, channel, now, expected)
    stack = reads.stack(connection, now.name, channel) if now else []
    if now is None or len(stack) < 2:  # noqa: PLR2004 - the current one and one before it
        raise RegistryError(
            "there is nothing to roll back to",
            got=f"{channel!r} holds {now.label if now else 'nothing'}, and held nothing before",
            need="a channel with an earlier version that was neither retired nor pruned",
            fix="print(registry.history())",
        )
    before = reads.find(connection, stack[-2])
    return writes.add_move(
        connection, before, channel, "rolled back", previous=now, actor=actor, reason=reason, asked=asked
    )


def retire(connection: sa.Connection, version: Version | str, *, actor: str, reason: str) -> Version:
    """Take a version out of every channel, for good, and return it."""
    found = reads.find(connection, version)
    _, retired = reads.fate(connection, found)
    if retired:
        return found
    for channel in reads.holders(connection, found.name, found.id):
        writes.add_move(connection, found, channel, "withdrawn", previous=found, actor=actor, reason=reason)
    writes.add_move(connection, found, "retired", "retired", actor=actor, reason=reason)
    return found


def hold(connection: sa.Connection, version: Version | str, *, on: bool, actor: str, reason: str) -> Version:
    """Keep a version's checkpoint, or no longer, and return the version."""
    found = reads.find(connection, version)
    pruned, _ = reads.fate(connection, found)
    if on and pruned:
        raise _pruned(found)
    if on != (found.id in reads.held(connection, found.name)):
        writes.add_move(connection, found, "", "held" if on else "released", actor=actor, reason=reason)
    return found


def check_actor(actor: str, reason: str, *, override: bool) -> None:
    """Refuse a change by nobody, one that needs a reason and has none, and what is no text.

    Raises:
        RegistryError: as said.
    """
    check_text(actor=actor, reason=reason)
    for what, value in (("actor", actor), ("reason", reason if override else "not needed")):
        if not value.strip():
            raise RegistryError(
                f"this needs {'an' if what == 'actor' else 'a'} {what}",
                got=f"{what}={value!r}",
                need=f"who does it (actor){' and why (reason)' if override else ''}, for the record",
                fix='actor="ada"' + (', reason="customer outage, see ticket 812"' if override else ""),
            )


def check_text(**given: object) -> None:
    """Refuse what is no text where the record needs some: None would stand in it for good.

    Raises:
        RegistryError: as said.
    """
    for what, value in given.items():
        if not isinstance(value, str):
            raise RegistryError(
                f"{what} is not text",
                got=f"{what}={value!r}",
                need="a str; empty, or left out, where there is nothing to say",
                fix=f'{what}="..."',
            )


def _judged(connection: sa.Connection, gate: Gate, candidate: Version, now: Version | None) -> Verdict:
    card = reads.card_for(connection, candidate.id)
    against = reads.card_for(connection, now.id, card.suite_digest if card else "") if now else None
    pinned = reads.find(connection, gate.pinned) if gate.pinned else None
    anchor = reads.card_for(connection, pinned.id, card.suite_digest if card else "") if pinned else None
    return gate.decide(card, against, anchor=anchor, first=now is None)


def _last_move(connection: sa.Connection, version: Version, channel: str) -> Move:
    made = reads.all_moves(connection, name=version.name, channel=channel)
    return next(move for move in reversed(made) if move.kind != "refused")


def _check_expected(connection: sa.Connection, channel: str, now: Version | None, expected: Expected) -> None:
    if isinstance(expected, Whatever):
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


def _pruned(version: Version) -> RegistryError:
    return RegistryError(
        "the version's checkpoint was deleted, so nothing can serve it",
        got=version.label,
        need="a version that was not pruned",
        fix=f"print(registry.history({version.name!r}))",
    )
