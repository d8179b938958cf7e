"""Text to tokens by the batch, several batches at once: each encoder here releases the interpreter lock.

`fastokens` (extra `fast`) where it is installed and can read the tokenizer, else `tokenizers` itself. Both
are the tokenizer of the model, read from its own JSON; that they write the same tokens is checked on a
sample of every corpus by `counting`, never assumed.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


logger = logging.getLogger(__name__)


class Encoder(Protocol):
    """Encodes texts in which no special token is recognised: what a user writes stays text."""

    name: str

    def encode(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """Return the tokens of all texts after each other, and where each begins, shape `(texts + 1,)`."""


class Fastokens:
    """The tokenizer as `fastokens` runs it."""

    name = "fastokens"

    def __init__(self, content: str) -> None:
        fastokens = importlib.import_module("fastokens")  # an extra: it may not be here
        self._tokenizer: Any = fastokens.Tokenizer.from_json_str(content)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """Return the tokens of all texts after each other, and where each begins."""
        tokens, begins = self._tokenizer.encode_batch_flat(texts, split_special_tokens=True)
        return np.frombuffer(tokens, "<u4"), np.frombuffer(begins, "<u8").astype(np.int64)


class Tokenizers:
    """The tokenizer as `tokenizers` runs it: a copy, because what it recognises is a setting of the whole."""

    name = "tokenizers"

    def __init__(self, content: str) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_str(content)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True

    def encode(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """Return the tokens of all texts after each other, and where each begins."""
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        tokens = [np.array(encoding.ids, np.uint32) for encoding in encodings]
        begins = np.zeros(len(tokens) + 1, np.int64)
        np.cumsum([len(each) for each in tokens], out=begins[1:])
        return np.concatenate(tokens, dtype=np.uint32) if tokens else np.zeros(0, np.uint32), begins


def encoders_for(tokenizer: Any) -> Iterator[Encoder]:
    """Yield the encoders of a Hugging Face tokenizer, the fastest first; none if it is not a Rust one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    content = backend.to_str()
    try:
        fast: Encoder | None = Fastokens(content)
    except ImportError:  # the extra is not installed
        fast = None
    except Exception as error:  # noqa: BLE001 - it does not take every tokenizer, and says so in its own ways
        logger.warning(
            "data.measure: fastokens cannot read this tokenizer (%s); tokenizers counts instead", error
        )
        fast = None
    if fast is not None:
        yield fast
    yield Tokenizers(content)
