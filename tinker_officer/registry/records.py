"""Everything that can be asked of a registry, and written out of it, without changing it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tinker_officer._files import write_atomic
from tinker_officer.errors import RegistryError
from tinker_officer.registry import audit, reads, writes
from tinker_officer.registry.snapshot import Snapshot
from tinker_officer.registry.values import Version


if TYPE_CHECKING:
    from tinker_officer.registry.comparing import VersionComparison
    from tinker_officer.registry.search import Page


class Records(Snapshot):
    """The part of `Registry` that only reads."""

    def search(
        self, query: str = "", *, order_by: str = "created desc", limit: int = 100, offset: int = 0
    ) -> Page:
        """Return a page of the versions that fit a query.

        A query compares fields with text, numbers or times, joined by AND, OR, NOT and parentheses:
        `=`, `!=`, `<`, `<=`, `>`, `>=`, and `LIKE` (`%` for any text, `_` for one character, any case).
        Text and times stand in single quotes. A comparison with what a version does not have is false.

        Fields: id, name, number, base_model, renderer_name, step, stopped, notes, created; channel (where a
        version is current); parent (a version's id or label); and the entries of data, engine, evals, git,
        lora, metrics, packages, plan and weights, such as `lora.rank`, `data.rows`, `plan.learning_rate`.
        An eval's figure, from the newest card that has it, is `evals.<eval>.<metric>`, its items
        `evals.<eval>.n`.

        Args:
            query: for example `base_model = 'Qwen/Qwen3-8B' AND evals.gsm8k.accuracy > 0.6`; all if empty.
            order_by: fields, each with `asc` or `desc`, separated by commas; what lacks the field comes last.
            limit: the most that are returned, up to 1,000.
            offset: how many to pass over.

        Raises:
            RegistryError: the query cannot be read (the place is pointed at), or no version has such a field
                (the nearest names are offered).
        """
        from tinker_officer.registry.search import search

        with self._database.read() as connection:
            return search(connection, query, order_by=order_by, limit=limit, offset=offset)

    def compare(self, before: Version | str, after: Version | str) -> VersionComparison:
        """Return how two versions differ: what went into them, what came of it, eval by eval in pairs.

        The evals are those of the newest cards of both on one suite; what keeps them from being compared is
        said in their place.
        """
        from tinker_officer.registry.comparing import compare

        with self._database.read() as connection:
            first, second = (reads.find(connection, one) for one in (before, after))
            card = reads.card_for(connection, second.id)
            old = reads.card_for(connection, first.id, card.suite_digest if card else "")
            return compare(first, second, old, card)

    def lineage(self, version: Version | str) -> tuple[Version, ...]:
        """Return what a version was made from, and what that was made from, nearest first."""
        with self._database.read() as connection:
            found, seen = [reads.find(connection, version)], set[str]()
            for one in found:
                for parent in one.parents:
                    if parent not in seen:
                        seen.add(parent)
                        found.append(reads.find(connection, parent))
            return tuple(found[1:])

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
            known_head: a head from an earlier card, or at least its first 8 digits; it must still be there.

        Raises:
            RegistryError: names the first entry or row that is not as it was written; or `known_head` is no
                head.
        """
        with self._database.read() as connection:
            return audit.verify(connection, known_head=known_head, uri=self._database.uri(connection))

    def card(self, version: Version | str) -> str:
        """Return the model card of a version, as Markdown: what it is, how it scored, where it stood.

        It begins with the front matter that the Hugging Face Hub reads.
        """
        from tinker_officer.registry.card import markdown
        from tinker_officer.registry.front_matter import front_matter

        with self._database.read() as connection:
            found = reads.find(connection, version)
            cards = reads.cards(connection, found.id)
            moves = [
                move for move in reads.all_moves(connection, name=found.name) if move.version == found.id
            ]
            return front_matter(found, cards) + markdown(found, cards, moves, audit.head(connection))

    def to_markdown(self, path: str | Path) -> Path:
        """Write the registry as one Markdown document, and return its path.

        It says which version each channel of each model holds, lists every version, and ends with the head
        of the audit log.
        """
        from tinker_officer.registry.document import document

        with self._database.read() as connection:
            write_atomic(Path(path), document(connection))
        return Path(path)

    def to_json(self, path: str | Path) -> Path:
        """Write the whole registry, audit log included, as JSON, a row a line; return the path."""
        from tinker_officer.registry.transfer import write_json

        with self._database.read() as connection:
            return write_json(connection, Path(path))

    def export_head(self, path: str | Path, *, private_key: str | Path | None = None) -> Path:
        """Verify the log, write its number of entries and its head as JSON, and return the path.

        Kept elsewhere, it shows later that nothing was cut or rewritten: `registry.verify(known_head=...)`.

        Args:
            path: the file.
            private_key: a PEM file with an elliptic-curve key: the head is signed with it, as `<path>.sig`
                (extra `signing`).

        Raises:
            RegistryError: the log does not verify, or model-signing is missing, or the key cannot be used.
        """
        from tinker_officer.registry.signing import write_head

        return write_head(Path(path), self.verify(), private_key=private_key)

    def to_mlflow(self, tracking_uri: str) -> int:
        """Mirror what MLflow does not have yet into its registry, one way, and return how many versions.

        Each model, version, figure and channel becomes a registered model, a version with a run, a metric and
        an alias. What is changed in MLflow is not read back: aliases are set as the channels stand.

        Args:
            tracking_uri: of the MLflow server or database: `http://...`, `sqlite:///mlflow.db`.

        Raises:
            RegistryError: MLflow is missing (extra `mlflow`).
        """
        from tinker_officer.registry.mlflow_mirror import mirror

        with self._database.read() as connection:
            held = reads.deployed(connection)
            versions = reads.all_versions(connection, None, "")
            cards = {one.id: reads.card_for(connection, one.id) for one in versions}
        return mirror(tracking_uri, versions, cards, held)
