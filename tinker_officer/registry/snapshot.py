"""A registry as it stands, or stood at a moment: all that can be asked of it, nothing that changes it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from tinker_officer._text import table
from tinker_officer.registry import reads
from tinker_officer.registry.database import Database
from tinker_officer.registry.values import History, Version


if TYPE_CHECKING:
    from tinker_officer.evals.scorecard import Scorecard


class Snapshot:
    """A registry as it stood at a moment: what `Registry.as_of` returns. Read-only."""

    def __init__(self, database: Database, until: str = "") -> None:
        self._database, self._until = database, until

    def __repr__(self) -> str:
        moment = f" as of {self._until}" if self._until else ""
        return f"{type(self).__name__}({str(self._database.where)!r}{moment})"

    def get(self, ref: Version | str) -> Version:
        """Return a version by `name@number`, by id, or by the first digits of its id.

        Raises:
            RegistryError: there is none, or more than one.
        """
        with self._database.read() as connection:
            return reads.find(connection, ref, self._until)

    def versions(self, name: str | None = None) -> tuple[Version, ...]:
        """Return the versions of a model, or of all, oldest first."""
        with self._database.read() as connection:
            return reads.all_versions(connection, name, self._until)

    def scorecards(self, version: Version | str) -> tuple[Scorecard, ...]:
        """Return the scorecards of a version, oldest first."""
        with self._database.read() as connection:
            return reads.cards(connection, reads.find(connection, version, self._until).id, self._until)

    def current(self, channel: str, *, name: str | None = None) -> Version | None:
        """Return the version that `channel` holds; None if it holds none.

        Args:
            channel: "production", "staging", ...
            name: the model; it may be left out while only one model was ever in the channel.

        Raises:
            RegistryError: several models were in the channel, and none was named; or none ever was, and its
                name looks like that of another.
        """
        with self._database.read() as connection:
            return reads.current(connection, channel, name, self._until)

    def history(self, name: str | None = None, *, channel: str | None = None) -> History:
        """Return moves and refusals of a model, or of all, oldest first; it prints as a table."""
        with self._database.read() as connection:
            return History(reads.all_moves(connection, name=name, channel=channel, until=self._until))

    def explain(self) -> str:
        """Return what there is and where it is deployed, a model and channel a line."""
        with self._database.read() as connection:
            names = dict.fromkeys(v.name for v in reads.all_versions(connection, None, self._until))
            channels = reads.used_channels(connection)
            rows = []
            for name in names:
                held = {c: reads.holder(connection, name, c, self._until) for c in channels}
                rows += [(name, c, reads.find(connection, one).label) for c, one in held.items() if one]
                if not any(held.values()):
                    rows.append((name, "nowhere", ""))
        return table(rows, header=("model", "channel", "version")) if rows else "nothing is registered"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"
