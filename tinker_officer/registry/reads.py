"""What is asked of the tables: versions, cards and moves, up to a moment if one is given."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tinker_officer._text import nearest
from tinker_officer.errors import RegistryError
from tinker_officer.registry.channels import CHANNELS, check_channel, standing
from tinker_officer.registry.prepared import Prepared
from tinker_officer.registry.schema import moves, scorecards, versions
from tinker_officer.registry.values import Move, Version
from tinker_officer.registry.verdict import Verdict


if TYPE_CHECKING:
    from tinker_officer.evals.scorecard import Scorecard

SHORTEST_ID = 6
_FOREVER = "9999"  # later than every time that is recorded

_NAME: sa.BindParameter[str] = sa.bindparam("name")
_UNTIL: sa.BindParameter[str] = sa.bindparam("until")
_FOUND = sa.select(versions.c.record).where(versions.c.created <= _UNTIL).limit(2)
_BY_LABEL = Prepared(_FOUND.where(versions.c.name == _NAME, versions.c.number == sa.bindparam("number")))
_BY_ID = Prepared(_FOUND.where(versions.c.id >= sa.bindparam("low"), versions.c.id < sa.bindparam("high")))
_STEPS = sa.select(moves.c.kind, moves.c.version).where(
    moves.c.name == _NAME,
    moves.c.channel == sa.bindparam("channel"),
    moves.c.kind != "refused",
    moves.c.at <= _UNTIL,
)
_ALL_STEPS = Prepared(_STEPS.order_by(moves.c.seq))
_LAST_STEP = Prepared(_STEPS.order_by(moves.c.seq.desc()).limit(1))
_FATE = Prepared(
    sa.select(moves.c.kind)
    .where(
        moves.c.name == _NAME,
        sa.or_(moves.c.channel == "", moves.c.channel == "retired"),
        moves.c.version == sa.bindparam("version"),
    )
    .order_by(moves.c.seq)
)


def all_versions(connection: sa.Connection, name: str | None, until: str) -> tuple[Version, ...]:
    """Return the versions of `name`, or of all names, oldest first."""
    query = sa.select(versions.c.record).order_by(versions.c.name, versions.c.number)
    query = query.where(versions.c.name == name) if name is not None else query
    query = query.where(versions.c.created <= until) if until else query
    return tuple(_version(record) for record in connection.scalars(query))


def by_ids(connection: sa.Connection, ids: Sequence[str]) -> tuple[Version, ...]:
    """Return the versions with these ids, in that order."""
    query = sa.select(versions.c.id, versions.c.record).where(versions.c.id.in_(ids))
    found = {one: _version(record) for one, record in connection.execute(query)}
    return tuple(found[one] for one in ids if one in found)


def find(connection: sa.Connection, ref: Version | str, until: str = "") -> Version:
    """Return the version that `ref` names: a Version, an id or its first digits, or `name@number`.

    Raises:
        RegistryError: there is none, or more than one.
    """
    text = ref.id if isinstance(ref, Version) else str(ref)
    name, _, number = text.rpartition("@")
    when = {"until": until or _FOREVER}
    found: list[Any] = []
    if name and number.isdecimal():
        found = _BY_LABEL.rows(connection, name=name, number=int(number[:18]), **when)
    elif re.fullmatch(rf"[0-9a-f]{{{SHORTEST_ID},64}}", text):
        # A range, since an index serves no LIKE.
        found = _BY_ID.rows(connection, low=text, high=text + "g", **when)
    if len(found) == 1:
        return _version(found[0][0])
    labels = [f"{row.name}@{row.number}" for row in connection.execute(_labels(name))]
    near = nearest(text, labels) or ", ".join(map(repr, labels[-3:]))
    such = f"; there is {near}" if near else ""
    raise RegistryError(
        "more than one version begins so" if found else "there is no such version in this registry",
        got=repr(ref),
        need=f"name@number, or at least {SHORTEST_ID} digits of an id{such}",
        fix="registry.versions()",
    )


def _labels(name: str) -> sa.Select[tuple[str, int]]:
    query = sa.select(versions.c.name, versions.c.number).order_by(versions.c.number.desc()).limit(200)
    known = sa.select(versions.c.name).where(versions.c.name == name).exists()
    return query.where(sa.or_(versions.c.name == name, sa.not_(known)))


def cards(connection: sa.Connection, version: str, until: str = "") -> tuple[Scorecard, ...]:
    """Return the scorecards of a version, oldest first."""
    from tinker_officer.evals.scorecard import Scorecard

    query = sa.select(scorecards.c.record).where(scorecards.c.version == version).order_by(scorecards.c.seq)
    query = query.where(scorecards.c.attached <= until) if until else query
    return tuple(Scorecard.from_json(record) for record in connection.scalars(query))


def card_for(connection: sa.Connection, version: str, suite_digest: str = "") -> Scorecard | None:
    """Return the newest scorecard of a version on a suite, or the newest of all if there is none on it."""
    from tinker_officer.evals.scorecard import Scorecard

    same = sa.case((scorecards.c.suite_digest == suite_digest, 0), else_=1)
    query = sa.select(scorecards.c.record).where(scorecards.c.version == version)
    record = connection.scalar(query.order_by(same, scorecards.c.seq.desc()).limit(1))
    return Scorecard.from_json(record) if record else None


def all_moves(
    connection: sa.Connection, *, name: str | None = None, channel: str | None = None, until: str = ""
) -> tuple[Move, ...]:
    """Return moves and refusals, oldest first."""
    query = sa.select(moves.c.record).order_by(moves.c.seq)
    query = query.where(moves.c.name == name) if name is not None else query
    query = query.where(moves.c.channel == channel) if channel is not None else query
    query = query.where(moves.c.at <= until) if until else query
    return tuple(_move(record) for record in connection.scalars(query))


def stack(connection: sa.Connection, name: str, channel: str, until: str = "") -> list[str]:
    """Return the versions that the channel of a model can fall back on, the current one last."""
    found = _ALL_STEPS.rows(connection, name=name, channel=channel, until=until or _FOREVER)
    steps = [_Row(*row) for row in found]
    return standing(steps, gone(connection, name, until))


def fate(connection: sa.Connection, version: Version) -> tuple[bool, bool]:
    """Return whether a version's checkpoint was deleted or is being deleted, and whether it is retired."""
    kinds = [kind for (kind,) in _FATE.rows(connection, name=version.name, version=version.id)]
    last = next((kind for kind in reversed(kinds) if kind in {"retired", "reinstated"}), "")
    return "pruning" in kinds, last == "retired"


def gone(connection: sa.Connection, name: str, until: str = "") -> set[str]:
    """Return the versions of a model whose checkpoints were deleted, or are being deleted."""
    query = sa.select(moves.c.version).where(moves.c.name == name, moves.c.channel == "")
    query = query.where(moves.c.kind == "pruning")
    query = query.where(moves.c.at <= until) if until else query
    return set(connection.scalars(query))


def held(connection: sa.Connection, name: str | None = None) -> set[str]:
    """Return the versions that a hold keeps."""
    query = sa.select(moves.c.version, moves.c.kind).where(moves.c.kind.in_(("held", "released")))
    query = query.where(moves.c.name == name) if name is not None else query
    found = set[str]()
    for version, kind in connection.execute(query.order_by(moves.c.seq)):
        (found.add if kind == "held" else found.discard)(version)
    return found


def deployed(connection: sa.Connection, until: str = "") -> dict[tuple[str, str], list[str]]:
    """Return, by model and channel, the versions that it can fall back on, the current one last."""
    query = sa.select(moves.c.name, moves.c.channel, moves.c.kind, moves.c.version)
    query = query.where(moves.c.kind != "refused").order_by(moves.c.seq)
    query = query.where(moves.c.at <= until) if until else query
    steps: dict[tuple[str, str], list[_Row]] = {}
    lost: dict[str, set[str]] = {}
    for name, channel, kind, version in connection.execute(query):
        if channel:
            steps.setdefault((name, channel), []).append(_Row(kind, version))
        elif kind == "pruning":
            lost.setdefault(name, set()).add(version)
    return {place: standing(made, lost.get(place[0], ())) for place, made in steps.items()}


def holder(connection: sa.Connection, name: str, channel: str, until: str = "") -> str | None:
    """Return the id of the version that the channel of a model holds, or None."""
    last = _LAST_STEP.first(connection, name=name, channel=channel, until=until or _FOREVER)
    kind, version = last or ("", None)
    if kind not in {"withdrawn", "reinstated"}:
        return version
    return next(reversed(stack(connection, name, channel, until)), None)


class _Row:
    def __init__(self, kind: str, version: str) -> None:
        self.kind, self.version = kind, version


def current(connection: sa.Connection, channel: str, name: str | None, until: str = "") -> Version | None:
    """Return the version that a channel holds, or None.

    Raises:
        RegistryError: the channel looks like a slip, or several models were in it and none was named.
    """
    if channel not in CHANNELS:
        check_channel(channel, used_channels(connection), new=False)
    if name is None:
        name = _only_name(connection, channel)
    if name is None:
        return None
    found = holder(connection, name, channel, until)
    return find(connection, found) if found else None


def _only_name(connection: sa.Connection, channel: str) -> str | None:
    query = sa.select(moves.c.name).where(moves.c.channel == channel, moves.c.kind != "refused").distinct()
    names = sorted(connection.scalars(query))
    if len(names) > 1:
        raise RegistryError(
            "several models have been in this channel",
            got=f"{channel!r} without a name",
            need=f"the name of one: {', '.join(map(repr, names[:8]))}",
            fix=f"name={names[0]!r}",
        )
    return names[0] if names else None


def used_channels(connection: sa.Connection) -> tuple[str, ...]:
    """Return every channel that there is: those that each registry has, and those that moves named."""
    seen = connection.scalars(sa.select(moves.c.channel).where(moves.c.channel != "").distinct())
    return tuple(dict.fromkeys((*CHANNELS, *seen)))


def holders(connection: sa.Connection, name: str, version: str) -> Iterable[str]:
    """Return the channels of a model that a version stands in, or that could fall back on it."""
    query = sa.select(moves.c.channel).where(moves.c.name == name, moves.c.version == version).distinct()
    channels = [channel for channel in connection.scalars(query) if channel not in {"retired", ""}]
    return [channel for channel in channels if version in stack(connection, name, channel)]


def move(connection: sa.Connection, seq: int) -> Move:
    """Return the move of that number."""
    return _move(connection.scalars(sa.select(moves.c.record).where(moves.c.seq == seq)).one())


def _version(record: str) -> Version:
    return Version(**json.loads(record))


def _move(record: str) -> Move:
    plain: dict[str, Any] = json.loads(record)
    verdict = plain.pop("verdict")
    return Move(**plain, verdict=Verdict.from_dict(verdict) if verdict else None)
