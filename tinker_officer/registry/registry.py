"""Registry: the record of what was trained, how it scored, and where it is deployed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tinker_officer.registry import hooks, moving, pruning, sources, writes
from tinker_officer.registry.database import Database, open_database
from tinker_officer.registry.hooks import Hook
from tinker_officer.registry.moving import Expected, Whatever
from tinker_officer.registry.records import Records
from tinker_officer.registry.refusal import PromotionRefused
from tinker_officer.registry.values import Move, Version, version_id


if TYPE_CHECKING:
    import sqlalchemy as sa

    from tinker_officer._service import On
    from tinker_officer.evals.scorecard import Scorecard
    from tinker_officer.registry.gate import Gate
    from tinker_officer.registry.pruning import Pruning
    from tinker_officer.train.result import RunResult

logger = logging.getLogger(__name__)


class Registry(Records):
    """The record of versions, their scorecards, and their moves between channels. Safe among processes.

    Example:
        >>> with Registry.open("models.db") as registry:
        ...     version = registry.register(result, card)
        ...     gate = Gate.not_worse(margin=0.02)
        ...     move = registry.promote(version, to="production", gate=gate, actor="ci")
    """

    def __init__(self, database: Database, *, on_event: Hook | None = None, reader: str = "on_event") -> None:
        super().__init__(database)
        self._hook, self._reader = on_event, reader
        if on_event is not None:
            hooks.subscribe(database, reader)

    @classmethod
    def open(
        cls,
        where: str | Path,
        *,
        timeout_s: float = 30.0,
        read_only: bool = False,
        on_event: Hook | None = None,
        reader: str = "on_event",
    ) -> Self:
        """Return the registry at `where`; a new one is made there if there is none (and no folder) yet.

        Args:
            where: path of an SQLite file, `sqlite:///models.db`, or a `postgresql://` URL (extra `postgres`).
            timeout_s: how long a change waits for those of other processes.
            read_only: whether it is only to be read; nothing is made or brought up to date then.
            on_event: called with every `Event` of the log, at least once, after the change stands: those of
                other processes too, and those that a crash left. Where it raises, the change stands all the
                same, and the event comes again.
            reader: the hook's name: each has a place of its own in the log.

        Raises:
            RegistryError: what is there is no registry, or of a later version; it is left untouched.
        """
        database = open_database(where, timeout_s=timeout_s, read_only=read_only)
        registry = cls(database, on_event=on_event, reader=reader)
        registry.deliver()
        return registry

    @classmethod
    def from_json(cls, path: str | Path, *, at: str | Path) -> Self:
        """Return a registry at `at` with everything that `to_json` wrote, audit log included, and verified.

        Args:
            path: the file.
            at: where the new registry is made: a path or URL, as for `open`; it may exist, but be empty.

        Raises:
            RegistryError: the file is no registry's, its log does not verify, or the registry is not empty.
        """
        from tinker_officer.registry.transfer import read_json

        database = open_database(at)
        with database.write() as connection:
            read_json(connection, Path(path))
        return cls(database)

    def deliver(self) -> int:
        """Hand what is new in the log to `on_event`, and return how many entries it took; 0 without one."""
        if self._hook is None:
            return 0
        return hooks.deliver(self._database, self._reader, self._hook)

    @contextmanager
    def _changing(self) -> Iterator[sa.Connection]:
        """Hand out a connection to write with; once the change stands, `on_event` is told of it."""
        with self._database.write() as connection:
            yield connection
        self.deliver()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; asked for something again, the registry opens it again."""
        self._database.close()

    def register(
        self,
        source: RunResult | str | Path,
        card: Scorecard | None = None,
        *,
        name: str | None = None,
        parents: Sequence[Version | str] | Mapping[str, Sequence[Version | str]] = (),
        notes: str = "",
        data: Mapping[str, Any] | None = None,
        base_model: str = "",
    ) -> Version:
        """Record a model, trained here, trained elsewhere or as it came, and return its version.

        The same source again gives the same version; a card that it did not have yet is attached to it.

        Args:
            source: the result of a run; the name of a base model; or the folder or file of weights from
                elsewhere, whose files are recorded with their SHA-256.
            card: its scorecard. Of a run's checkpoints, the one that the card was made on is registered;
                without a card, the best.
            name: of what it is a version; the run's name, or the last part of the base model's, if left out.
            parents: versions that it was made from; as a mapping, by how:
                `{"distilled from": [teacher], "merged from": [a, b]}`.
            notes: whatever should stand on its card.
            data: what else is known of what it learned from, beside what the run recorded: `licence`,
                `sources`, a contamination report; and `model_license`, which the card tells the Hub.
            base_model: what weights from elsewhere were trained from.

        Raises:
            RegistryError: the card is of another model, or was recorded for one that was trained otherwise;
                a parent is unknown; or the version is there already with other notes or parents.
        """
        moving.check_text(notes=notes)
        fields = sources.describe(source, card, name, data=data, base_model=base_model)
        with self._changing() as connection:
            fields["id"] = version_id(fields)
            found, relations = sources.family(connection, parents)
            fields |= {"parents": found, "relations": relations, "notes": notes}
            version = writes.add_version(connection, fields)
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
        expected_current: Expected = Whatever.CURRENT,
        override: bool = False,
        new_channel: bool = False,
        key: str = "",
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
            key: an idempotency key: asked again with it, the change is made once, whatever happened since.
                Where the channel held the version already, nothing was changed, and the key is still free.

        Raises:
            PromotionRefused: the verdict is not PASS; the refusal is recorded, and `verdict` holds it.
            RegistryError: there is no gate where there must be one, the channel does not hold what was
                expected, the version was retired or pruned, or the key was used for something else.
        """
        moving.check_actor(actor, reason, override=override)
        moving.check_text(key=key)
        moving.check_promotion(to, gate, override=override)
        with self._changing() as connection:
            move = moving.promote(
                connection,
                version,
                to,
                gate,
                actor=actor,
                reason=reason,
                expected=expected_current,
                override=override,
                new_channel=new_channel,
                key=key,
            )
        logger.info("registry.%s", move.kind, extra={"officer.version": move.label, "officer.channel": to})
        if move.kind == "refused":
            raise PromotionRefused(move)
        return move

    def rollback(
        self,
        channel: str,
        *,
        name: str | None = None,
        actor: str,
        reason: str,
        expected_current: Expected = Whatever.CURRENT,
        key: str = "",
    ) -> Move:
        """Put back the version that the channel held before its current one, and return the move.

        Args:
            channel: which.
            name: the model; it may be left out while only one model was ever in the channel.
            actor: who.
            reason: why; a rollback needs no gate, but it needs a reason.
            expected_current: the version that the channel must hold now.
            key: an idempotency key, as for `promote`: a retried rollback does not go back twice.

        Raises:
            RegistryError: the channel holds nothing, or held nothing before that is still to be had.
        """
        moving.check_actor(actor, reason, override=True)
        with self._changing() as connection:
            return moving.rollback(
                connection, channel, name, actor=actor, reason=reason, expected=expected_current, key=key
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
        moving.check_actor(actor, reason, override=True)
        with self._changing() as connection:
            return moving.retire(connection, version, actor=actor, reason=reason)

    def hold(self, version: Version | str, *, actor: str, reason: str) -> Version:
        """Keep a version's checkpoint from `prune`, until `release`, and return the version.

        Raises:
            RegistryError: there is no such version, its checkpoint is gone, or actor or reason is missing.
        """
        moving.check_actor(actor, reason, override=True)
        with self._changing() as connection:
            return moving.hold(connection, version, on=True, actor=actor, reason=reason)

    def release(self, version: Version | str, *, actor: str, reason: str) -> Version:
        """End the hold on a version, if there is one, and return the version.

        Raises:
            RegistryError: there is no such version, or actor or reason is missing.
        """
        moving.check_actor(actor, reason, override=True)
        with self._changing() as connection:
            return moving.hold(connection, version, on=False, actor=actor, reason=reason)

    def export_peft(
        self,
        version: Version | str,
        *,
        to: str | Path,
        base_url: str | None = None,
        adapter: str | Path | None = None,
        actor: str = "",
    ) -> Path:
        """Write a version's adapter in PEFT's format to a new folder, record its digests, return the folder.

        Args:
            version: whose.
            to: a folder that is not there yet.
            base_url: of the Tinker service to download from, such as `engine.base_url`; the SDK's default
                when None. Its key is read from `TINKER_API_KEY` (`engine.token`).
            adapter: a folder to which the checkpoint was downloaded already.
            actor: who exports it.

        Raises:
            RegistryError: the version has no adapter, or `to` is there.
        """
        from tinker_officer.registry.exporting import export_peft

        found = self.get(version)
        source = Path(adapter) if adapter is not None else None
        detail = export_peft(found, Path(to), base_url=base_url, adapter=source)
        with self._changing() as connection:
            writes.add_move(connection, found, "", "exported", actor=actor, reason="", detail=detail)
        return Path(to)

    def prune(
        self,
        on: On | None = None,
        *,
        delete: bool = False,
        fallbacks: int = 1,
        older_than_days: float = 0.0,
        actor: str = "",
        reason: str = "",
    ) -> Pruning:
        """List the checkpoints that no channel, parent or hold needs; with `delete`, delete them too.

        The record is never pruned. A version whose checkpoint is gone cannot be promoted any more.

        Args:
            on: the service that keeps them: a `LocalEngine`, a `tinker.ServiceClient` or a base URL; only
                needed to delete.
            delete: whether to delete, and not only list.
            fallbacks: how many rollbacks each channel must stay able to make.
            older_than_days: younger versions are kept, whatever else holds.
            actor: who deletes.
            reason: why.

        Raises:
            RegistryError: something is to be deleted without `on`, actor or reason.
        """
        pruning.check(delete=delete, on=on, fallbacks=fallbacks)
        if not delete or on is None:
            with self._database.read() as connection:
                return pruning.look(connection, fallbacks=fallbacks, older_than_days=older_than_days)
        moving.check_actor(actor, reason, override=True)
        found = pruning.prune(
            self._database,
            on,
            fallbacks=fallbacks,
            older_than_days=older_than_days,
            actor=actor,
            reason=reason,
        )
        self.deliver()
        return found
