"""A tokenizer that does not encode the same text twice in a row of conversations."""

from __future__ import annotations

import functools
from typing import Any


_REMEMBERED = 512


class Remembering:
    """A tokenizer that remembers what it encoded lately; in all else it is the tokenizer itself.

    A renderer encodes the same headers and system message for every conversation, and each prompt twice.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

        @functools.lru_cache(maxsize=_REMEMBERED)
        def encode(text: str, settings: tuple[tuple[str, Any], ...]) -> tuple[int, ...]:
            return tuple(tokenizer.encode(text, **dict(settings)))

        self._encode = encode

    def encode(self, text: str, **settings: Any) -> list[int]:
        """Return the tokens of `text`, as the tokenizer's own `encode` does."""
        return list(self._encode(text, tuple(sorted(settings.items()))))

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Call the tokenizer itself."""
        return self._tokenizer(*args, **settings)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)
