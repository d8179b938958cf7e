"""A tokenizer that does not encode the same text twice in a row of conversations."""

from __future__ import annotations

import functools
import threading
from typing import Any


_REMEMBERED = 512

# transformers keeps `split_special_tokens` in the tokenizer itself, so two threads at once get each other's
# setting, or "Already borrowed". One lock for all: several renderers share a tokenizer.
_ONE_AT_A_TIME = threading.RLock()


class Remembering:
    """A tokenizer that remembers what it encoded lately; in all else it is the tokenizer itself.

    A renderer encodes the same headers and system message for every conversation, and each prompt twice.
    Threads may share it: a run renders ahead while its evaluation renders too.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

        @functools.lru_cache(maxsize=_REMEMBERED)
        def encode(text: str, settings: tuple[tuple[str, Any], ...]) -> tuple[int, ...]:
            with _ONE_AT_A_TIME:
                return tuple(tokenizer.encode(text, **dict(settings)))

        self._encode = encode

    def encode(self, text: str, **settings: Any) -> list[int]:
        """Return the tokens of `text`, as the tokenizer's own `encode` does."""
        return list(self._encode(text, tuple(sorted(settings.items()))))

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Call the tokenizer itself."""
        with _ONE_AT_A_TIME:
            return self._tokenizer(*args, **settings)

    def decode(self, *args: Any, **settings: Any) -> Any:
        """Return the text of tokens, as the tokenizer's own `decode` does."""
        with _ONE_AT_A_TIME:
            return self._tokenizer.decode(*args, **settings)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)
