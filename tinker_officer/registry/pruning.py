"""Which checkpoints nothing needs any more, and deleting them; the record stays.

A checkpoint is needed while a channel holds its version or could be rolled back to it, while a hold keeps it,
and while a version that is needed was made from it. The intent is recorded first, in the transaction that
looked: from then on nothing can promote the version. Only then is anything deleted; what could not be is
listed again next time.
"""

from __future__ import annotations

import html
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs
import sqlalchemy as sa

from tinker_officer._service import On, connect
from tinker_officer._text import table
from tinker_officer.errors import RegistryError
from tinker_officer.registry import reads, writes
from tinker_officer.registry.database import Database
from tinker_officer.registry.schema import moves
from tinker_officer.registry.values import Version


if TYPE_CHECKING:
    import tinker

logger = logging.getLogger(__name__)

_PATIENCE_S = 60.0


@attrs.frozen(kw_only=True)
class Pruning:
    """What `Registry.prune` found, and did; prints as a table.

    Attributes:
        versions: those whose checkpoints nothing needs.
        kept: why each of the others keeps its checkpoint, by its label.
        deleted: labels of the versions whose checkpoints were deleted.
        failed: what went wrong, by the label of the version that is left for next time.
    """

    versions: tuple[Version, ...]
    kept: dict[str, str] = attrs.field(factory=dict)
    deleted: tuple[str, ...] = ()
    failed: dict[str, str] = attrs.field(factory=dict)

    def __repr__(self) -> str:
        done = f", {len(self.deleted)} deleted" if self.deleted or self.failed else ""
        return f"Pruning({len(self.versions)} not needed, {len(self.kept)} kept{done})"

    def __str__(self) -> str:
        return self.explain()

    def explain(self) -> str:
        """Return what is not needed, what is kept and why, as a table."""
        rows = [(one.label, self._fate(one), ", ".join(paths(one))) for one in self.versions]
        rows += [(label, f"kept: {why}", "") for label, why in sorted(self.kept.items())]
        return table(rows, header=("version", "checkpoint", "paths")) if rows else "no checkpoints"

    def _fate(self, version: Version) -> str:
        if version.label in self.failed:
            return f"not deleted: {self.failed[version.label]}"
        return "deleted" if version.label in self.deleted else "not needed"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"


def look(connection: sa.Connection, *, fallbacks: int, older_than_days: float) -> Pruning:
    """Return what could be deleted, and why the rest could not."""
    versions = reads.all_versions(connection, None, "")
    by_id = {version.id: version for version in versions}
    done = set(connection.scalars(sa.select(moves.c.version).where(moves.c.kind == "pruned")))
    needed: dict[str, str] = {}
    for (_, channel), stack in sorted(reads.deployed(connection).items()):
        for depth, one in enumerate(reversed(stack[-1 - fallbacks :])):
            if channel != "retired":
                needed.setdefault(one, f"{channel} {'can fall back on it' if depth else 'holds it'}")
    for one in sorted(reads.held(connection)):
        needed.setdefault(one, "it is held")
    youngest = writes.iso(datetime.now(UTC) - timedelta(days=older_than_days))
    for version in versions:
        if version.created > youngest:
            needed.setdefault(version.id, f"it is younger than {older_than_days:g} days")
    for one in list(needed):
        _need_parents(by_id[one], by_id, needed)
    used = {path: by_id[one].label for one in needed for path in paths(by_id[one])}
    for version in versions:
        other = next((used[path] for path in paths(version) if path in used), None)
        if other is not None:
            needed.setdefault(version.id, f"{other} has the same checkpoint")
    left = [version for version in versions if paths(version) and version.id not in done]
    return Pruning(
        versions=tuple(version for version in left if version.id not in needed),
        kept={version.label: needed[version.id] for version in left if version.id in needed},
    )


def prune(
    database: Database, on: On, *, fallbacks: int, older_than_days: float, actor: str, reason: str
) -> Pruning:
    """Delete what nothing needs from the server, and return what was found and done."""
    rest = connect(on)._rest_client()  # noqa: SLF001 - the public create_rest_client() warns and wants a key
    with database.write() as connection:
        found = look(connection, fallbacks=fallbacks, older_than_days=older_than_days)
        begun = set(connection.scalars(sa.select(moves.c.version).where(moves.c.kind == "pruning")))
        for version in found.versions:
            if version.id not in begun:
                detail = {"paths": list(paths(version))}
                writes.add_move(connection, version, "", "pruning", actor=actor, reason=reason, detail=detail)
    deleted: list[str] = []
    failed: dict[str, str] = {}
    for version in found.versions:
        problem = _delete(rest, version)
        if problem:
            failed[version.label] = problem
            continue
        with database.write() as connection:
            writes.add_move(connection, version, "", "pruned", actor=actor, reason=reason)
        deleted.append(version.label)
        logger.info("registry.pruned", extra={"officer.version": version.label})
    return attrs.evolve(found, deleted=tuple(deleted), failed=failed)


def check(*, delete: bool, on: object, fallbacks: int) -> None:
    """Refuse to delete from nowhere, or to keep a number of rollbacks that is none.

    Raises:
        RegistryError: as said.
    """
    if delete and on is None:
        raise RegistryError(
            "there is no service to delete from",
            got="on=None",
            need="the LocalEngine, tinker.ServiceClient or base URL that keeps the checkpoints",
            fix='registry.prune(engine, delete=True, actor="ada", reason="disk")',
        )
    if type(fallbacks) is not int or fallbacks < 0:
        raise RegistryError(
            "fallbacks is out of range",
            got=repr(fallbacks),
            need="an integer of at least 0",
            fix="registry.prune(fallbacks=1)",
        )


def paths(version: Version) -> tuple[str, ...]:
    """Return the checkpoints of a version on the server."""
    return tuple(path for path in (version.state_path, version.sampler_path) if path.startswith("tinker://"))


def _need_parents(version: Version, by_id: dict[str, Version], needed: dict[str, str]) -> None:
    left = [version]
    while left:
        child = left.pop()
        for parent in child.parents:
            if parent in by_id and parent not in needed:
                needed[parent] = f"{child.label} was made from it"
                left.append(by_id[parent])


def _delete(rest: tinker.lib.public_interfaces.RestClient, version: Version) -> str:
    import tinker

    for path in paths(version):
        try:
            rest.delete_checkpoint_from_tinker_path(path).result(timeout=_PATIENCE_S)
        except tinker.NotFoundError:
            # It expired, or we were stopped before its deletion was recorded; or this is another service.
            try:
                rest.get_training_run_by_tinker_path(path).result(timeout=_PATIENCE_S)
            except Exception as error:  # noqa: BLE001 - as below
                return f"{path}: the service knows no such training run ({error})"
        except Exception as error:  # noqa: BLE001 - whatever it was, the rest can still be deleted
            return f"{path}: {error}"
    return ""
