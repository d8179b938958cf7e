r"""Hashes of the words and n-grams of many texts at once.

A word is what `re.findall(r"\w+", text.lower())` finds. Its hash is a polynomial in its letters, modulo
2^64, read off two prefix sums; an n-gram's is the same over its words. Equal n-grams always have equal
hashes; whoever needs to know that equal hashes are equal n-grams looks at the texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

import attrs
import numpy as np
import numpy.typing as npt


Hashes: TypeAlias = npt.NDArray[np.uint64]
Places: TypeAlias = npt.NDArray[np.intp]
_WORD = re.compile(r"\w+")
_END = "\x00"  # between texts; no part of a word
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_MASK = (1 << 64) - 1
_CHUNK = 1 << 16


def words(text: str) -> list[str]:
    """Return the words of `text`, lower-cased letter by letter."""
    if text.isascii():
        return _WORD.findall(text.lower())
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    letters = lowered()[codes]
    spaced = np.where(letters > 0, letters, ord(" ")).astype(np.uint32)
    return spaced.tobytes().decode("utf-32-le", "surrogatepass").split()


@attrs.frozen(eq=False)
class Grams:
    """The words of some texts, hashed.

    Attributes:
        sums: prefix sums over the words, one more than there are words.
        owner: which text each word stands in.
        first: where each text's words begin, one more than there are texts.
    """

    sums: Hashes
    owner: Places
    first: Places

    def of(self, size: int) -> tuple[Hashes, Places]:
        """Return the hash of each run of `size` words within one text, and where the run begins."""
        count = len(self.owner) - size + 1
        if count < 1:
            return np.zeros(0, np.uint64), np.zeros(0, np.intp)
        hashes = (self.sums[size:] - self.sums[:count]) * _powers(len(self.owner))[1][:count]
        starts = np.flatnonzero(self.owner[:count] == self.owner[size - 1 :])
        return mixed(hashes[starts], size), starts

    def whole(self) -> Hashes:
        """Return the hash of all words of each text: that of a run of so many words."""
        sizes = np.diff(self.first)
        starts = np.minimum(self.first[:-1], max(0, len(self.owner) - 1))
        hashes = (self.sums[self.first[1:]] - self.sums[self.first[:-1]]) * _powers(len(self.owner) + 1)[1][
            starts
        ]
        return mixed(hashes, sizes.astype(np.uint64))


def grams(texts: Sequence[str]) -> Grams:
    """Return the words of `texts`, hashed, in order."""
    joined = _END.join(texts)
    if joined.isascii():
        letters: npt.NDArray[np.uint8 | np.uint32] = np.frombuffer(
            joined.encode("ascii").translate(_ascii()), np.uint8
        )
    else:
        letters = lowered()[np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)]
    inside = np.zeros(len(letters) + 2, np.bool_)
    np.not_equal(letters, 0, out=inside[1:-1])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = edges[::2], edges[1::2]
    powers, inverse = _powers(len(letters))
    sums = np.zeros(len(letters) + 1, np.uint64)
    np.cumsum(letters * powers[: len(letters)], out=sums[1:])
    hashes = mixed((sums[ends] - sums[starts]) * inverse[starts], (ends - starts).astype(np.uint64))
    lengths = np.fromiter(map(len, texts), np.intp, len(texts))
    first = np.zeros(len(texts) + 1, np.intp)
    first[1:] = np.searchsorted(starts, np.cumsum(lengths + 1) - 1)
    owner = np.repeat(np.arange(len(texts)), np.diff(first))
    powers, _ = _powers(len(hashes))
    word_sums = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum(hashes * powers[: len(hashes)], out=word_sums[1:])
    return Grams(word_sums, owner, first)


def mixed(hashes: Hashes, salt: int | Hashes) -> Hashes:
    """Return well-spread hashes: the high bits of a polynomial say much, the low ones little."""
    mixed = hashes + np.asarray(salt, np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(29)
    return mixed


@cache
def lowered() -> npt.NDArray[np.uint32]:
    """Return, for each code point, its lower-case one where it is part of a word, else 0."""
    table = np.zeros(0x110000, np.uint32)
    for code in range(0x110000):
        letter = chr(code)
        if letter.isalnum() or letter == "_":
            small = letter.lower()
            table[code] = ord(small) if len(small) == 1 else code
    return table


@cache
def _ascii() -> bytes:
    """Return the same for ASCII alone, as `bytes.translate` takes it."""
    return lowered()[:128].astype(np.uint8).tobytes() + bytes(128)


_POWERS: list[tuple[Hashes, Hashes]] = []


def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Return at least `count` powers of the base and of its inverse."""
    if not _POWERS or len(_POWERS[-1][0]) < count:
        size = max(_CHUNK, 1 << max(0, count - 1).bit_length())
        both = []
        for base in (BASE, pow(BASE, -1, 1 << 64)):
            powers = np.full(size, base, np.uint64)
            powers[0] = 1
            both.append(np.cumprod(powers))
        _POWERS.append((both[0], both[1]))
    return _POWERS[-1]
