"""Conversations: what is learned from. Load, check, split, fingerprint.

    tickets = Conversations.from_jsonl("tickets.jsonl")
    train, held_out = tickets.split(held_out=0.1, seed=0)

Every row is checked when it is loaded; what is kept in memory is where each row begins and the digest of
its content (about 32 bytes a row). The rows themselves stay on disk and are read when asked for. A row
whose content is no longer what was checked is an error, never silently something else.
"""

from __future__ import annotations

import functools
import html
import logging
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer import _text
from tinker_officer.data import loading
from tinker_officer.data.digests import first_of_each, sha256
from tinker_officer.data.formats import Json, RowError, normalise
from tinker_officer.data.rows import Store, changed
from tinker_officer.data.splitting import sides
from tinker_officer.errors import DataError


if TYPE_CHECKING:
    from tinker_officer.data.measure import TokenCounts

logger = logging.getLogger(__name__)

OnError = Literal["raise", "quarantine"]
TrainOn = Literal["last", "all"]
TooLong = Literal["truncate", "drop"]
_SHOWN = 3
_SHOWN_LETTERS = 500


@attrs.frozen
class Conversation:
    """One conversation, in normal form.

    Args:
        messages: the cookbook's messages as plain JSON: `role`, `content`, and where they apply
            `tool_calls`, `tool_call_id`, `name`, `trainable`.
        id: hash of the content (messages and tools), 16 hexadecimal digits.
        where: where the row stands, for people: `tickets.jsonl:17`.
        metadata: the row's other fields.
        tools: what the model may call, each with `name`, `description` and `parameters`.
    """

    messages: tuple[Json, ...]
    id: str
    where: str = ""
    metadata: Json = attrs.field(factory=dict)
    tools: tuple[Json, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.where or self.id}"]
        for message in self.messages:
            said = str(message["content"]).replace("\n", "\n    ")
            lines.append(f"  {message['role']}: {said}")
            lines += [f"    calls {call['function']}" for call in message.get("tool_calls", ())]
        return "\n".join(lines)


@attrs.frozen(eq=False, repr=False)
class Conversations:
    """Checked conversations, in order; the rows stay on disk. Made by one of the `from_` methods.

    A value: `split` and `take` return others, and nothing changes this one.
    """

    source: str
    quarantined: int
    _shape: str | None
    _store: Store
    _rows: npt.NDArray[np.int64]
    _digests: npt.NDArray[np.uint8]
    splits: tuple[Json, ...] = ()

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
            shape: how rows are laid out (`data.formats` lists the shapes); found out row by row if None.
            progress: show progress (None: yes).

        Raises:
            DataError: no such file, an empty file, or rows that cannot be used.
        """
        return cls._of(loading.jsonl(path, on_error=on_error, shape=shape, progress=progress))

    @classmethod
    def from_parquet(
        cls,
        path: str | Path,
        *,
        on_error: OnError = "raise",
        shape: str | None = None,
        progress: bool | None = None,
    ) -> Self:
        """Load a Parquet file, a row a conversation; like `from_jsonl` in all else.

        Raises:
            DataError: no such file, not Parquet, an empty file, or rows that cannot be used.
        """
        return cls._of(loading.parquet(path, on_error=on_error, shape=shape, progress=progress))

    @classmethod
    def from_list(cls, rows: Sequence[Any], *, shape: str | None = None) -> Self:
        """Check a list of rows, which stays in memory.

        Raises:
            DataError: no rows, or rows that cannot be used.
        """
        return cls._of(loading.sequence(list(rows), "list", shape=shape, progress=False))

    @classmethod
    def from_dataset(cls, dataset: Any, *, shape: str | None = None, progress: bool | None = None) -> Self:
        """Check a Hugging Face `datasets.Dataset`, which keeps its rows on disk.

        Raises:
            DataError: not a dataset that can be read at any row, no rows, or rows that cannot be used.
        """
        return cls._of(loading.dataset(dataset, shape=shape, progress=progress))

    @classmethod
    def _of(cls, loaded: loading.Loaded) -> Self:
        return cls(
            source=loaded.source,
            quarantined=loaded.quarantined,
            shape=loaded.shape,
            store=loaded.store,
            rows=np.arange(len(loaded.digests), dtype=np.int64),
            digests=loaded.digests,
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Conversation:
        count, index = len(self), operator.index(index)  # a slice is a TypeError: see take(n), split(...)
        if not -count <= index < count:
            raise IndexError(f"{index} is outside these {count} conversations")
        return self._conversation(index % count)

    def __iter__(self) -> Iterator[Conversation]:
        for index in range(len(self)):
            yield self._conversation(index)

    def _conversation(self, index: int) -> Conversation:
        number = int(self._rows[index])
        where = self._store.where(number)
        raw = self._store.read(number)
        try:
            row = normalise(raw, self._shape)
        except RowError as error:
            raise changed(self.source, where, str(error)) from error
        content = loading.content_digest(row)
        if content != self._digests[index].tobytes():
            raise changed(self.source, where, "other content than the row that was checked")
        return Conversation(
            messages=row.messages,
            id=content[:8].hex(),
            where=where,
            metadata=row.metadata,
            tools=row.tools,
        )

    def plain_messages(self, indices: Sequence[int]) -> Iterator[Sequence[Json] | None]:
        """Yield the messages of each row, None for rows with tools; fast, and checked by digest as ever."""
        numbers = self._rows[np.asarray(indices, np.intp)].tolist()
        for index, row in zip(indices, self._store.guess(numbers), strict=True):
            messages = row.get("messages") if type(row) is dict else None
            if not loading.has_digest(messages, self._digests[index]):
                conversation = self._conversation(index)
                messages = None if conversation.tools else conversation.messages
            yield messages

    def take(self, count: int) -> Self:
        """Return the first `count` conversations, all of them when there are fewer."""
        if operator.index(count) < 1:
            raise DataError("take() needs rows", got=repr(count), need="1 or more", fix="train.take(100)")
        return self._select(np.arange(min(count, len(self))))

    def split(self, held_out: float = 0.1, *, seed: int = 0, by: str | None = None) -> tuple[Self, Self]:
        """Return `(train, held_out)`, each conversation put on its side by a hash of its content.

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
            rows=self._rows[indices],
            digests=self._digests[indices],
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
        return len(self) - len(first_of_each(self._digests))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Conversations):
            return NotImplemented
        return np.array_equal(self._digests, other._digests)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def measure(
        self,
        base_model: str | Path,
        *,
        max_length: int | None = None,
        train_on: TrainOn = "last",
        too_long: TooLong = "truncate",
        renderer_name: str | None = None,
        progress: bool | None = None,
        on: Any = None,
    ) -> TokenCounts:
        """Return token counts of these conversations, exactly as training will see them.

        Cached by content, tokenizer, renderer and settings: asking again costs nothing.

        Args:
            base_model: whose tokenizer and renderer count.
            max_length: tokens an example may have; the model's context if None.
            train_on: the `last` assistant turn, or `all` of them.
            too_long: `truncate` an example that is longer, or `drop` it.
            renderer_name: one of the cookbook's renderers; the model's own if None.
            progress: show progress (None: yes).
            on: the module `ray`, to count on a Ray cluster; this machine's cores if None.

        Raises:
            ModelError: no such model or renderer.
            DataError: a row cannot be rendered, or a setting is out of range.
        """
        from tinker_officer.data.measure import measure

        return measure(
            self,
            base_model,
            max_length=max_length,
            train_on=train_on,
            too_long=too_long,
            renderer_name=renderer_name,
            progress=progress,
            on=on,
        )

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
        """Return what is here, as text: rows, copies, the split, and the first conversation."""
        lines = [
            ("source", self.source),
            ("conversations", str(len(self))),
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
        return f"<Conversations: {', '.join(parts)}, {self.fingerprint[:8]}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(conversation.where)}</td><td>{html.escape(message['role'])}</td>"
            "<td style='text-align:left;white-space:pre-wrap'>"
            f"{html.escape(str(message['content'])[:_SHOWN_LETTERS])}</td></tr>"
            for conversation in self.take(_SHOWN)
            for message in conversation.messages
        )
        return (
            f"<p>{html.escape(repr(self))}</p><table><thead><tr><th>row</th><th>role</th><th>content</th></tr>"
            f"</thead><tbody>{rows}</tbody></table>"
        )


def _split_text(split: Json) -> str:
    by = f", by {split['by']!r}" if split["by"] else ""
    left = f"; {split['copies_left_out']} copies left out" if "copies_left_out" in split else ""
    return f"{split['side']} of held_out={split['held_out']}, seed={split['seed']}{by}{left}"
