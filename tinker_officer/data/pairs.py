"""Pairs: preferences to learn from, each a prompt with a chosen and a rejected answer.

    pairs = Pairs.from_jsonl("preferences.jsonl")
    train, held_out = pairs.split(held_out=0.1, seed=0)
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").dpo(train)

How rows are checked and kept is in `checked`; what a row may look like is in `pair_formats`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer._digest import digest
from tinker_officer.data import pair_formats
from tinker_officer.data.checked import CheckedRows
from tinker_officer.data.conversations import Conversation, lines_of
from tinker_officer.data.loading import Kind
from tinker_officer.data.messages import Json


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.renderers import Renderer

    from tinker_officer.data.pair_counts import PairCounts
    from tinker_officer.data.render import TooLong

Side = Literal["chosen", "rejected"]


@attrs.frozen
class Pair:
    """Two answers to one prompt, in normal form.

    Args:
        prompt: the messages that both answers follow.
        chosen: the messages of the better answer, the last from the assistant.
        rejected: those of the worse one.
        id: hash of the content, 16 hexadecimal digits.
        where: where the row stands, for people: `preferences.jsonl:17`.
        metadata: the row's other fields.
        tools: what the model may call, each with `name`, `description` and `parameters`.
    """

    prompt: tuple[Json, ...]
    chosen: tuple[Json, ...]
    rejected: tuple[Json, ...]
    id: str
    where: str = ""
    metadata: Json = attrs.field(factory=dict)
    tools: tuple[Json, ...] = ()

    def conversation(self, side: Side) -> Conversation:
        """Return the prompt with one of the answers; training on its last turn trains on the answer alone."""
        prompt = self.prompt
        if prompt[-1]["role"] != "user":  # a call and its result: the prompt's part of the last turn
            prompt = tuple({**message, "trainable": False} for message in prompt)
        answer = self.chosen if side == "chosen" else self.rejected
        return Conversation((*prompt, *answer), self.id, f"{self.where} ({side})", self.metadata, self.tools)

    def datums(
        self, renderer: Renderer, *, max_length: int | None = None, too_long: TooLong = "truncate"
    ) -> tuple[tinker.Datum, tinker.Datum] | None:
        """Return the chosen and the rejected conversation as datums, the answers' tokens with weight 1.

        Each is what `render.to_datum` makes of it. None when one of the two is left out: dropped, or
        truncated so far that nothing of the answer remains.

        Raises:
            DataError: the renderer refuses a conversation.
        """
        from tinker_officer.data.render import to_datum

        rules: Any = {"max_length": max_length, "too_long": too_long}
        chosen = to_datum(self.conversation("chosen"), renderer, **rules)
        rejected = to_datum(self.conversation("rejected"), renderer, **rules)
        return None if chosen is None or rejected is None else (chosen, rejected)

    def said(self) -> Iterator[tuple[str, str]]:
        """Yield who says what, in order."""
        for messages, side in ((self.prompt, ""), (self.chosen, "chosen: "), (self.rejected, "rejected: ")):
            for message in messages:
                yield side + message["role"], str(message["content"])

    def __str__(self) -> str:
        lines = [self.where or self.id, *lines_of(self.prompt)]
        for side, answer in (("chosen", self.chosen), ("rejected", self.rejected)):
            lines += [f"  {side}:", *(f"  {line}" for line in lines_of(answer))]
        return "\n".join(lines)


@attrs.frozen(eq=False, repr=False)
class Pairs(CheckedRows[Pair]):
    """Checked preference pairs, in order; the rows stay on disk. Made by one of the `from_` methods.

    A value: `split` and `take` return others, and nothing changes this one.

    Example:
        >>> pairs = Pairs.from_list([{"prompt": "What is 2 + 2?", "chosen": "4.", "rejected": "5."}])
        >>> pairs.measure(base_model).pairs
        1
    """

    kind: ClassVar[Kind] = Kind(
        loader="Pairs",
        noun="pair",
        shapes=tuple(pair_formats.SHAPES),
        normalise=pair_formats.normalise,
        example='{"prompt": "What is 2 + 2?", "chosen": "4.", "rejected": "5."}',
    )

    def _made(self, row: Any, id: str, where: str) -> Pair:  # noqa: A002 - the item's own field
        return Pair(row.prompt, row.chosen, row.rejected, id, where, row.metadata, row.tools)

    def measure(
        self,
        base_model: str | Path,
        *,
        max_length: int | None = None,
        too_long: TooLong = "truncate",
        renderer_name: str | None = None,
        progress: bool | None = None,
        on: Any = None,
    ) -> PairCounts:
        """Return the counts of these pairs, exactly as training will see them.

        Cached by content, tokenizer, renderer and settings: asking again costs nothing.

        Args:
            base_model: whose tokenizer and renderer count.
            max_length: tokens that a prompt with an answer may have; the model's context if None.
            too_long: `truncate` an answer that is longer, or `drop` its pair.
            renderer_name: one of the cookbook's renderers; the model's own if None.
            progress: show progress (None: yes).
            on: the module `ray`, to count on a Ray cluster; this machine's cores if None.

        Raises:
            ModelError: no such model or renderer.
            DataError: a row cannot be rendered, or a setting is out of range.
        """
        from tinker_officer.data.pair_counts import measure_pairs

        rows = measure_pairs(
            self,
            base_model,
            max_length=max_length,
            too_long=too_long,
            renderer_name=renderer_name,
            progress=progress,
            on=on,
        )
        return rows.summed()


@attrs.frozen(eq=False)
class Answers:
    """One side of `pairs`, as conversations: what `measure_rows` counts."""

    pairs: Pairs
    side: Side

    @property
    def content_digests(self) -> npt.NDArray[np.uint8]:
        """The digest of each pair's content, in order, shape `(rows, 16)`."""
        return self.pairs.content_digests

    @property
    def fingerprint(self) -> str:
        """A hash of the pairs' content and the side, 64 hexadecimal digits."""
        return digest({"pairs": self.pairs.fingerprint, "side": self.side})

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Conversation:
        return self.pairs[index].conversation(self.side)

    def plain_messages(self, indices: Sequence[int]) -> Iterator[Sequence[Json] | None]:
        """Yield the messages of each row, None for rows with tools."""
        for index in indices:
            conversation = self[index]
            yield None if conversation.tools else conversation.messages
