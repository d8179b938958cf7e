"""What the sieve sees of texts: their letters, lower-cased, a byte each, with nothing in between.

Equal runs of words have equal letters, in either of two alphabets. The plain one leaves out all letters but
those of ASCII: it is quick, and can be read off a line of JSON without parsing it. The wide one has all
letters of 16 bits, for runs that have too few of ASCII to be known by.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from tinker_officer.evals import ngrams


END, QUOTE = 0, 1  # after each text, and where a string of a line of JSON begins or ends
_ASCII = 128
_SPACE, _BACKSLASH, _U = b" \\u"
_0, _1, _2, _8 = b"0128"


def plain(texts: Sequence[str]) -> bytes:
    """Return the letters of `texts` that are ASCII when lower-cased, and `END` after each text."""
    joined = _joined(texts)
    letters, others, folded = _plain()
    raw = joined.encode("utf-8", "surrogatepass")
    if not joined.isascii():
        raw = _fold(raw, folded)
    return raw.translate(letters, others + b'\n"')


def wide(texts: Sequence[str]) -> bytes:
    """Return the letters of `texts`, each outside ASCII as one of 128 bytes, and `END` after each text."""
    codes = np.frombuffer(_joined(texts).encode("utf-16-le", "surrogatepass"), "<u2")
    return np.take(_wide(), codes).tobytes().translate(None, b"\1")


def of_lines(lines: Sequence[bytes], *, strings: bool = False) -> tuple[bytes, set[int]]:
    r"""Return the plain letters of lines of JSON, keys and all, and `END` after each line.

    A text is a string of JSON, so its letters are in one piece there once escapes are taken out.

    Args:
        lines: each valid JSON in UTF-8, without a line end.
        strings: write `QUOTE` at both ends of each string.

    Returns:
        The letters; and which lines have others than are shown: they hold letters of ASCII as `\u....`.
    """
    letters, others, folded = _plain()
    said = b"\n".join([*lines, b""])
    if not said.isascii():
        said = _fold(said, folded)
    raw = bytearray(said)
    unsure = _unescape(np.frombuffer(raw, np.uint8))
    return bytes(raw.translate(letters, others if strings else others + b'"')), unsure


def _unescape(codes: npt.NDArray[np.uint8]) -> set[int]:
    """Write spaces over all escapes, in place; return the lines in which one stood for a letter of ASCII."""
    at = np.flatnonzero(codes == _BACKSLASH)
    first = np.append(np.True_, np.diff(at) != 1)[: len(at)]
    number = np.arange(len(at))
    at = at[(number - np.maximum.accumulate(np.where(first, number, 0))) % 2 == 0]  # not one that is escaped
    coded = at[codes[at + 1] == _U]
    codes[at + 1] = _SPACE
    if not len(coded):
        return set()
    digits = codes[coded[:, None] + np.arange(2, 6)]
    codes[coded[:, None] + np.arange(2, 6)] = _SPACE
    one, two, three = digits[:, 0], digits[:, 1], digits[:, 2]
    is_ascii = (one == _0) & (two == _0) & (three < _8)
    may_fold = (one == _2) & (two == _1) & (three == _2)  # the sign of Kelvin and its neighbours
    return set(np.searchsorted(np.flatnonzero(codes == ord("\n")), coded[is_ascii | may_fold]).tolist())


def _joined(texts: Sequence[str]) -> str:
    joined = "\0".join([*texts, ""])
    return (
        joined if joined.count("\0") == len(texts) else _joined([text.replace("\0", " ") for text in texts])
    )


def _fold(raw: bytes, folded: Sequence[tuple[bytes, bytes]]) -> bytes:
    for letter, small in folded:
        if letter in raw:
            raw = raw.replace(letter, small)
    return raw


@cache
def _plain() -> tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...]]:
    """Return the table for `bytes.translate`, what it drops, and what else becomes ASCII when lower-cased.

    It keeps quotes and line ends, for who wants them.
    """
    lowered = ngrams.lowered()
    letters = bytearray(lowered[:_ASCII].astype(np.uint8).tobytes() + bytes(_ASCII))
    letters[ord('"')] = QUOTE
    kept = b'\0\n"'
    others = bytes(code for code in range(256) if code >= _ASCII or (not letters[code] and code not in kept))
    folded = np.flatnonzero((lowered > 0) & (lowered < _ASCII))
    pairs = tuple((chr(code).encode(), bytes([lowered[code]])) for code in folded.tolist() if code >= _ASCII)
    return bytes(letters), others, pairs


@cache
def _wide() -> npt.NDArray[np.uint8]:
    """Return the byte of each code point of 16 bits, 1 for what is no letter."""
    lowered = ngrams.lowered()[: 1 << 16]
    found = np.where(lowered < _ASCII, lowered, _ASCII + lowered % _ASCII).astype(np.uint8)
    found[lowered == 0] = 1
    found[0] = END
    return found
