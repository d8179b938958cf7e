"""What can be searched for an exam: checked rows of both kinds, or a plain list of texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import attrs

from tinker_officer.data.conversations import Conversations
from tinker_officer.data.pairs import Pairs
from tinker_officer.errors import EvalError
from tinker_officer.evals.texts import text_of


Searchable: TypeAlias = Conversations | Pairs | Sequence[str]


class Source(Protocol):
    """Rows that can be searched."""

    def __len__(self) -> int: ...

    def written(self, rows: Sequence[int]) -> Sequence[bytes | None]:
        """Return the line of JSON of each row whose texts are strings of one; None for others."""

    def said(self, rows: Sequence[int]) -> Iterator[Iterable[str]]:
        """Yield the texts of each of these rows."""

    def where(self, row: int) -> str:
        """Say where a row stands, for people."""


def source_of(train: Any) -> Source:
    """Return `train` as rows that can be searched.

    Raises:
        EvalError: it shows no texts.
    """
    if isinstance(train, Conversations):
        return _Conversations(train)
    if isinstance(train, Pairs):
        return _Pairs(train)
    if isinstance(train, Sequence) and not isinstance(train, str | bytes):
        texts = list(train)
        if all(isinstance(text, str) for text in texts):
            return _Texts(texts)
    raise EvalError(
        "this training data cannot be searched",
        got=f"a {type(train).__name__}" + _held(train),
        need="Conversations, Pairs or a list of texts; a cookbook dataset holds tokens, and an environment "
        "shows its prompt only when it is asked",
        fix="suite.contamination(Conversations.from_list(rows))  # or the prompts of an RL run: "
        'suite.contamination([row["problem"] for row in rows])',
    )


def _held(train: Any) -> str:
    if not isinstance(train, Sequence) or isinstance(train, str | bytes):
        return ""
    return f" with a {next(type(row).__name__ for row in train if not isinstance(row, str))} in it"


@attrs.frozen(eq=False)
class _Conversations:
    rows: Conversations

    def __len__(self) -> int:
        return len(self.rows)

    def written(self, rows: Sequence[int]) -> Sequence[bytes | None]:
        return self.rows.written(rows)

    def said(self, rows: Sequence[int]) -> Iterator[Iterable[str]]:
        for row, messages in zip(rows, self.rows.plain_messages(rows), strict=True):
            yield [
                content if type(content := message["content"]) is str else text_of(message)
                for message in (self.rows[row].messages if messages is None else messages)
            ]

    def where(self, row: int) -> str:
        return self.rows.where(row)


@attrs.frozen(eq=False)
class _Pairs:
    """A pair says its prompt and both answers: training sees all of them."""

    rows: Pairs

    def __len__(self) -> int:
        return len(self.rows)

    def written(self, rows: Sequence[int]) -> Sequence[bytes | None]:
        return self.rows.written(rows)

    def said(self, rows: Sequence[int]) -> Iterator[Iterable[str]]:
        for pair in map(self.rows.__getitem__, rows):
            yield map(text_of, (*pair.prompt, *pair.chosen, *pair.rejected))

    def where(self, row: int) -> str:
        return self.rows.where(row)


@attrs.frozen(eq=False)
class _Texts:
    rows: Sequence[str]

    def __len__(self) -> int:
        return len(self.rows)

    def written(self, rows: Sequence[int]) -> Sequence[bytes | None]:
        return [None] * len(rows)

    def said(self, rows: Sequence[int]) -> Iterator[Iterable[str]]:
        for row in rows:
            yield (self.rows[row],)

    def where(self, row: int) -> str:
        return f"texts[{row}]"
