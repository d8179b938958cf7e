"""Conversations: what is learned from. Load, check, split, fingerprint.

    tickets = Conversations.from_jsonl("tickets.jsonl")
    train, held_out = tickets.split(held_out=0.1, seed=0)

How rows are checked and kept is in `checked`; what a row may look like is in `formats`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import numpy as np

from tinker_officer.data import formats, loading
from tinker_officer.data.checked import CheckedRows
from tinker_officer.data.loading import Kind
from tinker_officer.data.messages import Json


if TYPE_CHECKING:
    from tinker_officer.data.measure import TokenCounts
    from tinker_officer.data.render import TooLong, TrainOn


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

    def said(self) -> Iterator[tuple[str, str]]:
        """Yield who says what, in order."""
        for message in self.messages:
            yield message["role"], str(message["content"])

    def __str__(self) -> str:
        return "\n".join([self.where or self.id, *lines_of(self.messages)])


@attrs.frozen(eq=False, repr=False)
class Conversations(CheckedRows[Conversation]):
    """Checked conversations, in order; the rows stay on disk. Made by one of the `from_` methods.

    A value: `split` and `take` return others, and nothing changes this one.
    """

    kind: ClassVar[Kind] = Kind(
        loader="Conversations",
        noun="conversation",
        shapes=tuple(formats.SHAPES),
        normalise=formats.normalise,
        example='{"messages": [{"role": "user", "content": "Hi"}, '
        '{"role": "assistant", "content": "Hello"}]}',
    )

    def _made(self, row: Any, id: str, where: str) -> Conversation:  # noqa: A002 - the item's own field
        return Conversation(row.messages, id, where, row.metadata, row.tools)

    def plain_messages(self, indices: Sequence[int]) -> Iterator[Sequence[Json] | None]:
        """Yield the messages of each row, None for rows with tools; fast, and checked by digest as ever."""
        numbers = self._rows[np.asarray(indices, np.intp)].tolist()
        digests = (
            self._digests[np.asarray(indices, np.intp)].view(f"V{loading.DIGEST_BYTES}").ravel().tolist()
        )
        has_digest = loading.has_digest
        for index, digest, row in zip(indices, digests, self._store.guess(numbers), strict=True):
            messages = row.get("messages") if type(row) is dict else None
            if not has_digest(messages, digest):
                conversation = self._item(index)
                messages = None if conversation.tools else conversation.messages
            yield messages

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
        from tinker_officer.data.measure import measure_rows

        rows = measure_rows(
            self,
            base_model,
            max_length=max_length,
            train_on=train_on,
            too_long=too_long,
            renderer_name=renderer_name,
            progress=progress,
            on=on,
        )
        return rows.summed()


def lines_of(messages: Sequence[Json]) -> Iterator[str]:
    """Yield messages as lines for people, each turn indented by two spaces."""
    for message in messages:
        said = str(message["content"]).replace("\n", "\n    ")
        yield f"  {message['role']}: {said}"
        yield from (f"    calls {call['function']}" for call in message.get("tool_calls", ()))
