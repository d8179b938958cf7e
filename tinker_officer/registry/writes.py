"""What is added to the tables, each row with the entry of the audit log that vouches for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import sqlalchemy as sa

from tinker_officer._digest import canonical, digest
from tinker_officer.errors import RegistryError
from tinker_officer.registry import audit, catalogue, reads
from tinker_officer.registry.prepared import Prepared
from tinker_officer.registry.schema import keys, moves, scorecards, versions
from tinker_officer.registry.values import Move, Version
from tinker_officer.registry.verdict import Verdict


if TYPE_CHECKING:
    from tinker_officer.evals.scorecard import Scorecard


_LONGEST_KEY = 200
_HIGHEST = {target.name: Prepared(sa.select(sa.func.max(target.c.seq))) for target in (scorecards, moves)}
_KNOWN = Prepared(sa.select(versions.c.id).where(versions.c.id == sa.bindparam("id")))
_HIGHEST_NUMBER = Prepared(
    sa.select(sa.func.max(versions.c.number)).where(versions.c.name == sa.bindparam("name"))
)


def add_version(connection: sa.Connection, fields: dict[str, Any]) -> Version:
    """Return the version that `fields` describe, added unless it is there.

    Raises:
        RegistryError: it is there with other notes or parents.
    """
    if _KNOWN.first(connection, id=fields["id"]) is not None:
        known = reads.find(connection, fields["id"])
        _check_same(known, fields)
        return known
    (highest,) = _HIGHEST_NUMBER.first(connection, name=fields["name"])
    end = audit.end(connection)
    at = clock(end)
    version = Version(**fields, number=(highest or 0) + 1, created=at)
    record = attrs.asdict(version) | {"parents": list(version.parents)}
    columns = {
        "id": version.id,
        "name": version.name,
        "number": version.number,
        "base_model": version.base_model,
        "training_fingerprint": version.training_fingerprint,
        "created": at,
        "record": canonical(record).decode(),
    }
    audit.record(connection, "versions", columns, after=end, action="registered", actor="", at=at)
    catalogue.add_version(connection, record)
    return version


def attach(connection: sa.Connection, version: Version, card: Scorecard) -> None:
    """Add a scorecard to a version, unless it has it.

    Raises:
        RegistryError: the card was recorded for a model of another training fingerprint.
    """
    known = connection.execute(
        sa.select(scorecards.c.version, scorecards.c.training_fingerprint).where(
            scorecards.c.digest == card.digest
        )
    ).all()
    if any(row.version == version.id for row in known):
        return
    if any(row.training_fingerprint != version.training_fingerprint for row in known):
        raise RegistryError(
            "the scorecard is stale: it was recorded for a model that was trained otherwise",
            got=f"a card of {card.target}, made {card.created}",
            need=f"a card made after the training of {version.label}",
            fix="registry.register(result, suite.evaluate(result.best, on=engine))",
        )
    end = audit.end(connection)
    at = clock(end)
    columns = {
        "seq": _next(connection, scorecards),
        "version": version.id,
        "digest": card.digest,
        "suite_digest": card.suite_digest,
        "training_fingerprint": version.training_fingerprint,
        "attached": at,
        "record": card.to_json(),
    }
    audit.record(connection, "scorecards", columns, after=end, action="scored", actor="", at=at)
    catalogue.add_scorecard(connection, version.id, card)


def add_move(
    connection: sa.Connection,
    version: Version,
    channel: str,
    kind: str,
    *,
    actor: str,
    reason: str,
    previous: Version | None = None,
    verdict: Verdict | None = None,
    asked: Asked | None = None,
    detail: dict[str, Any] | None = None,
) -> Move:
    """Add a move of `version` in `channel`, or a refusal, and return it."""
    end = audit.end(connection)
    move = Move(
        seq=_next(connection, moves),
        name=version.name,
        channel=channel,
        kind=kind,
        version=version.id,
        label=version.label,
        previous=previous.id if previous else None,
        actor=actor,
        reason=reason,
        at=clock(end),
        verdict=verdict,
        key=asked.key if asked else "",
        asked=asked.digest if asked else "",
        detail=detail or {},
    )
    record = attrs.asdict(move, recurse=False) | {"verdict": verdict.to_dict() if verdict else None}
    names = ("seq", "name", "channel", "kind", "version", "previous", "at")
    columns = {name: getattr(move, name) for name in names} | {"record": canonical(record).decode()}
    audit.record(connection, "moves", columns, after=end, action=kind, actor=actor, at=move.at)
    if move.key:
        connection.execute(keys.insert().values(key=move.key, move=move.seq))
    return move


@attrs.frozen
class Asked:
    """A change that was asked for with an idempotency key: the key, and a digest of what was asked."""

    key: str
    digest: str

    @classmethod
    def of(cls, key: str, **what: Any) -> Asked | None:
        """Return what was asked for with `key`; None without a key."""
        if not key:
            return None
        if len(key) > _LONGEST_KEY or not key.isprintable():
            raise RegistryError(
                "this cannot be a key",
                got=repr(key[:80]),
                need=f"printable text of at most {_LONGEST_KEY} characters",
                fix='key="deploy-812"',
            )
        return cls(key, digest({name: str(value) for name, value in what.items()}))

    def made(self, connection: sa.Connection) -> Move | None:
        """Return the move that was made for this key already, or None.

        Raises:
            RegistryError: the key was used for something else.
        """
        seq = connection.scalar(sa.select(keys.c.move).where(keys.c.key == self.key))
        found = reads.move(connection, seq) if seq is not None else None
        if found is not None and found.asked != self.digest:
            raise RegistryError(
                "the key was used for another change",
                got=f"key={self.key!r}, with which {found.label} was {found.kind}",
                need="a key of its own for each change; the same change may be asked for again with its key",
                fix="key=str(uuid.uuid4())",
            )
        return found


def _check_same(known: Version, fields: dict[str, Any]) -> None:
    for what in ("notes", "parents", "relations"):
        given, stands = fields[what], getattr(known, what)
        if given and (given != stands if what == "relations" else tuple(given) != tuple(stands)):
            raise RegistryError(
                f"the version is registered already, with other {what}, and a version never changes",
                got=f"{what} {given!r}",
                need=f"{what} {stands!r}, or none given",
                fix=f"registry.get({known.label!r})",
            )


def _next(connection: sa.Connection, target: sa.Table) -> int:
    (highest,) = _HIGHEST[target.name].first(connection)
    return (highest or 0) + 1


def clock(end: audit.End) -> str:
    """Return the time, never before that of the last entry, so that times run as the log does."""
    return max(iso(datetime.now(UTC)), end.at)


def iso(moment: datetime) -> str:
    """Return a time as the registry writes it: UTC, always of the same length, so that text sorts by time."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
