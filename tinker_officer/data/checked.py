"""Checked rows: what `Conversations` and `Pairs` have in common. Load, check, split, fingerprint.

Every row is checked when it is loaded; what is kept is where each row begins and the digest of its content
(about 40 bytes a row, in `columns`). The rows themselves stay on disk and are read when asked for. A row
whose content is no longer what was checked is an error, never silently something else.
"""

from __future__ import annotations

import functools
import html
import logging
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar, overload

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer import _text
from tinker_officer.data import columns, loading
from tinker_officer.data.digests import distinct, sha256
from tinker_officer.data.loading import Kind
from tinker_officer.data.messages import Json, RowError
from tinker_officer.data.rows import Store, changed
from tinker_officer.data.splitting import sides
from tinker_officer.errors import DataError


logger = logging.getLogger(__name__)

OnError = Literal["raise", "quarantine"]
_SHOWN = 3
_SHOWN_LETTERS = 500


class Item(Protocol):
    """A row as its reader gets it."""

    @property
    def where(self) -> str:
        """Where it stands, for people."""

    @property
    def metadata(self) -> Json:
        """The row's other fields."""

    def said(self) -> Iterator[tuple[str, str]]:
        """Yield who says what, in order."""


ItemT = TypeVar("ItemT", bound=Item)


@attrs.frozen(eq=False, repr=False)
class CheckedRows(Generic[ItemT]):
    """Checked rows, in order; the rows stay on disk. Made by one of the `from_` methods.

    A value: `split` and `take` return others, and nothing changes this one.
    """

    source: str
    quarantined: int
    _shape: str | None
    _store: Store
    _rows: npt.NDArray[np.int64]
    _digests: npt.NDArray[np.uint8]
    splits: tuple[Json, ...] = ()

    kind: ClassVar[Kind]

    @classmethod
    def from_jsonl(
        cls,
        path: str | Path,
        *,
        on_error: OnError = "raise",
        shape: str | None = None,
        progress: bool | None = None,
    ) -> Self:
        """Load a file with one JSON object a line, plain or gzip; every row is checked.

        Args:
            path: the file.
            on_error: what happens when rows cannot be used: `raise` names the first ones and how many
                there are; `quarantine` copies them to `<path>.quarantine.jsonl`, and goes on without.
            shape: how rows are laid out (`data.formats` and `data.pair_formats` list the shapes); found
                out row by row if None.
            progress: show progress (None: yes).

        Raises:
            DataError: no such file, an empty file, or rows that cannot be used.
        """
        return cls._of(loading.jsonl(path, cls.kind, on_error=on_error, shape=shape, progress=progress))

    @classmethod
    def from_parquet(
        cls,
        path: str | Path,
        *,
        on_error: OnError = "raise",
        shape: str | None = None,
        progress: bool | None = None,
    ) -> Self:
        """Load a Parquet file; like `from_jsonl` in all else.

        Raises:
            DataError: no such file, not Parquet, an empty file, or rows that cannot be used.
        """
        return cls._of(loading.parquet(path, cls.kind, on_error=on_error, shape=shape, progress=progress))

    @classmethod
    def from_list(cls, rows: Sequence[Any], *, shape: str | None = None) -> Self:
        """Check a list of rows, which stays in memory.

        Raises:
            DataError: no rows, or rows that cannot be used.
        """
        return cls._of(loading.sequence(list(rows), "list", cls.kind, shape=shape, progress=False))

    @classmethod
    def from_dataset(cls, dataset: Any, *, shape: str | None = None, progress: bool | None = None) -> Self:
        """Check a Hugging Face `datasets.Dataset`, which keeps its rows on disk.

        Raises:
            DataError: not a dataset that can be read at any row, no rows, or rows that cannot be used.
        """
        return cls._of(loading.dataset(dataset, cls.kind, shape=shape, progress=progress))

    @classmethod
    def _of(cls, loaded: loading.Loaded) -> Self:
        return cls(
            source=loaded.source,
            quarantined=loaded.quarantined,
            shape=loaded.shape,
            store=loaded.store,
            rows=columns.numbered(len(loaded.digests)),
            digests=loaded.digests,
        )

    def _made(self, row: Any, id: str, where: str) -> ItemT:  # noqa: A002 - the item's own field
        """Return a checked row, in normal form, as its reader gets it."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> ItemT: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> ItemT | Self:
        count = len(self)
        if isinstance(index, slice):
            rows = np.arange(*index.indices(count))
            if not len(rows):
                raise DataError(
                    "a slice needs rows", got=f"{index} of {count}", need="1 or more", fix="train[:100]"
                )
            return self._select(rows)
        index = operator.index(index)
        if not -count <= index < count:
            raise IndexError(f"{index} is outside these {count} {self.kind.noun}s")
        return self._item(index % count)

    def __iter__(self) -> Iterator[ItemT]:
        for index in range(len(self)):
            yield self._item(index)

    def _item(self, index: int) -> ItemT:
        number = int(self._rows[index])
        where = self._store.where(number)
        raw = self._store.read(number)
        try:
            row = self.kind.normalise(raw, self._shape)
        except RowError as error:
            raise changed(self.source, where, str(error)) from error
        content = loading.content_digest(row)
        if content != self._digests[index].tobytes():
            raise changed(self.source, where, "other content than the row that was checked")
        return self._made(row, content[:8].hex(), where)

    def where(self, index: int) -> str:
        """Return where row `index` stands, for people, without reading it: `tickets.jsonl:17`."""
        return self._store.where(int(self._rows[index]))

    def written(self, indices: Sequence[int]) -> Sequence[bytes | None]:
        """Return the line of JSON of each row that shows its texts, as it was checked; None for others.

        A row shows its texts where each of its messages' texts is one of the line's strings, whole.
        """
        return self._store.written(self._rows[np.asarray(indices, np.intp)].tolist())

    def take(self, count: int) -> Self:
        """Return the first `count` rows, all of them when there are fewer."""
        if operator.index(count) < 1:
            raise DataError("take() needs rows", got=repr(count), need="1 or more", fix="train.take(100)")
        return self._select(np.arange(min(count, len(self))))

    def split(self, held_out: float = 0.1, *, seed: int = 0, by: str | None = None) -> tuple[Self, Self]:
        """Return `(train, held_out)`, each row put on its side by a hash of its content.

        So a row stays on its side whatever rows are added, removed or reordered, and copies of a row are
        never on both. The share is therefore met on average, not exactly.

        Args:
            held_out: the share to hold out, between 0 and 1.
            seed: another seed, another split.
            by: a field of the rows: rows with the same value stay together (a customer, a document).

        Raises:
            DataError: a side would be empty, the share is not between 0 and 1, or a row lacks the field.
        """
        train, held = sides(self, held_out=held_out, seed=seed, by=by)
        spec: Json = {"held_out": held_out, "seed": seed, "by": by}
        if copies := len(self) - int(train.sum()) - int(held.sum()):
            spec["copies_left_out"] = copies
            logger.warning(
                "data.split: %d rows are copies of held-out ones in other groups by %r; left out", copies, by
            )
        return (
            self._select(np.flatnonzero(train), {**spec, "side": "train"}),
            self._select(np.flatnonzero(held), {**spec, "side": "held_out"}),
        )

    def _select(self, indices: npt.NDArray[np.intp], split: Json | None = None) -> Self:
        return attrs.evolve(
            self,
            rows=columns.selected(self._rows, indices),
            digests=columns.selected(self._digests, indices),
            splits=self.splits if split is None else (*self.splits, split),
        )

    @property
    def content_digests(self) -> npt.NDArray[np.uint8]:
        """The digest of each row's content, in order, shape `(rows, 16)`."""
        return self._digests

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content of all rows, in whatever order they stand; 64 hexadecimal digits."""
        return sha256(self._digests)

    @functools.cached_property
    def duplicates(self) -> int:
        """How many rows repeat the content of an earlier one."""
        return len(self) - distinct(self._digests)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return np.array_equal(self._digests, other._digests)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def summary(self) -> Json:
        """Return what identifies this data, as JSON."""
        return {
            "source": self.source,
            "rows": len(self),
            "quarantined": self.quarantined,
            "fingerprint": self.fingerprint,
            "split": [dict(split) for split in self.splits],
        }

    def explain(self) -> str:
        """Return what is here, as text: rows, copies, the split, and the first row."""
        lines = [
            ("source", self.source),
            (f"{self.kind.noun}s", str(len(self))),
            ("copies", f"{self.duplicates} rows repeat an earlier one"),
            ("quarantined", f"{self.quarantined} rows of the file could not be used"),
            *(("split", _split_text(split)) for split in self.splits),
            ("fingerprint", self.fingerprint),
        ]
        return f"{_text.table(lines)}\n\nfirst: {self[0]}"

    def __repr__(self) -> str:
        parts = [f"{len(self)} from {self.source!r}"]
        parts += [f"{self.splits[-1]['side']} side"] if self.splits else []
        parts += [f"{self.quarantined} quarantined"] if self.quarantined else []
        return f"<{type(self).__name__}: {', '.join(parts)}, {self.fingerprint[:8]}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(item.where)}</td><td>{html.escape(who)}</td>"
            "<td style='text-align:left;white-space:pre-wrap'>"
            f"{html.escape(what[:_SHOWN_LETTERS])}</td></tr>"
            for item in self.take(_SHOWN)
            for who, what in item.said()
        )
        return (
            f"<p>{html.escape(repr(self))}</p><table><thead><tr><th>row</th><th>role</th><th>content</th></tr>"
            f"</thead><tbody>{rows}</tbody></table>"
        )


def _split_text(split: Json) -> str:
    by = f", by {split['by']!r}" if split["by"] else ""
    left = f"; {split['copies_left_out']} copies left out" if "copies_left_out" in split else ""
    return f"{split['side']} of held_out={split['held_out']}, seed={split['seed']}{by}{left}"
