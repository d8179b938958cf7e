"""A sieve before the search for an exam: which texts may hold one of its runs of words, and which cannot.

A text is cut down to its letters, lower-cased, a byte each, with nothing in between: equal runs of words have
equal bytes. Of the exam's runs every stretch of so many bytes is known; of a text only every sixteenth is
looked up, or closer where a run is short. However a run lies in a text, it covers one that is looked up: so
what the sieve holds back holds no run. What it lets through is for `leaks` to look at exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Self

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer.evals import ngrams


_WORD_BYTES = 8
_FACTOR = np.uint64(ngrams.BASE)
_SPARSE = 64  # places, a bit each, for a hash that is known, at least: few others fall on theirs
_BITS = np.left_shift(np.uint8(1), np.arange(8, dtype=np.uint8))


def letters(texts: Sequence[str]) -> bytes:
    """Return the letters of `texts`, lower-cased, a byte each, and a zero after each text."""
    joined = "\0".join([*texts, ""])
    if joined.count("\0") != len(texts):
        return letters([text.replace("\0", " ") for text in texts])
    bytes_, between = _tables()
    if joined.isascii():
        return joined.encode("ascii").translate(bytes_[:256].tobytes(), between)
    codes = np.frombuffer(joined.encode("utf-16-le", "surrogatepass"), "<u2")
    return np.take(bytes_, codes).tobytes().translate(None, b"\1")


@cache
def _tables() -> tuple[npt.NDArray[np.uint8], bytes]:
    """Return the byte of each code point of 16 bits, 1 for what is no letter, and what of ASCII that is."""
    lowered = ngrams.lowered()[: 1 << 16]
    found = np.where(lowered < 128, lowered, 128 + lowered % 128).astype(np.uint8)  # noqa: PLR2004 - ASCII
    found[lowered == 0] = 1
    found[0] = 0
    return found, bytes(code for code in range(128) if found[code] == 1)


@attrs.frozen(eq=False)
class Table:
    """Hashes that are known, and where to look first.

    Attributes:
        known: the hashes, ascending, none twice.
        present: whether a known hash begins with these bits, 8 answers a byte.
    """

    known: ngrams.Hashes
    present: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, hashes: ngrams.Hashes) -> Self:
        """Return a table of `hashes`."""
        known = np.sort(hashes)
        known = known[np.append(True, known[1:] != known[:-1])] if len(known) else known
        table = cls(known, np.zeros(1 << max(0, (_SPARSE * len(known)).bit_length() - 3), np.uint8))
        at, bits = table._begins(known)
        np.bitwise_or.at(table.present, at, bits)
        return table

    def _begins(self, hashes: ngrams.Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Return the byte that each hash is answered by, and its bit there."""
        first = hashes >> np.uint64(62 - len(self.present).bit_length())
        return (first >> np.uint64(3)).view(np.int64), _BITS.take((first & np.uint64(7)).view(np.int64))

    def among(self, hashes: ngrams.Hashes) -> npt.NDArray[np.intp]:
        """Return which of `hashes` are known, ascending."""
        at, bits = self._begins(hashes)
        near = np.flatnonzero(self.present.take(at) & bits)
        if not len(near):
            return near
        some = hashes[near]
        at = np.searchsorted(self.known, some)
        found: npt.NDArray[np.intp] = near[self.known[np.minimum(at, len(self.known) - 1)] == some]
        return found


@attrs.frozen
class _Tier:
    """Stretches of `size` bytes, of which a text is asked every `step` bytes."""

    size: int
    step: int

    @property
    def reach(self) -> int:
        """Letters that a run must have, so that it always covers a stretch that is looked up."""
        return self.size + self.step - 1

    def met(self, text: bytes, table: Table) -> npt.NDArray[np.intp]:
        """Return where stretches of `table` begin, of those that are looked up."""
        apart = max(self.step, _WORD_BYTES)
        found = [
            table.among(_stretches(text, self.size, at, apart)) * apart + at
            for at in range(0, apart, self.step)
        ]
        return np.concatenate(found)


_TIERS = (_Tier(24, 16), _Tier(16, 8), _Tier(8, 4), _Tier(8, 1))


def _stretches(text: bytes, size: int, offset: int, apart: int = _WORD_BYTES) -> ngrams.Hashes:
    """Return the hash of each stretch of `size` bytes, one every `apart` bytes from `offset`.

    The first bits are well spread: they come out of a product, to which every byte adds.
    """
    count = max(0, (len(text) - offset) // _WORD_BYTES)
    parts = np.frombuffer(text, "<u8", count, offset if count else 0)
    each, skip = size // _WORD_BYTES, apart // _WORD_BYTES
    count = max(0, count - each + 1)
    hashes = parts[:count:skip] * _FACTOR
    for part in range(1, each):
        hashes += parts[part : part + count : skip]
        hashes *= _FACTOR
    return hashes


@attrs.frozen(eq=False)
class Sieve:
    """What lets through every text that holds a run of the exam, and few others.

    Attributes:
        tables: stretches of the exam's runs, by their length.
        wholes: the letters of texts that count as a whole.
        blind: whether some run has too few letters for any sieve: then everything passes.
    """

    tables: tuple[tuple[_Tier, Table], ...]
    wholes: frozenset[bytes]
    blind: bool = False

    @classmethod
    def of(cls, texts: Iterable[tuple[int, str]]) -> Sieve:
        """Return the sieve for texts, each with the size of its runs in words, 0 for the whole."""
        by_size: dict[int, list[str]] = {}
        for size, text in texts:
            by_size.setdefault(size, []).append(text)
        wholes = letters(by_size.pop(0, [])).split(b"\0")[:-1]
        found: list[list[ngrams.Hashes]] = [[] for _ in _TIERS]
        blind = False
        for size, some in by_size.items():
            joined, first, last = _runs(some, size)
            room = last - first
            for stretches, tier in zip(found, _TIERS, strict=True):
                fits = room >= tier.reach
                stretches.append(_covered(joined, first[fits], last[fits], tier.size))
                first, last, room = first[~fits], last[~fits], room[~fits]
            blind |= bool(len(room))
        tables = tuple(
            (tier, Table.of(np.concatenate(stretches)))
            for tier, stretches in zip(_TIERS, found, strict=True)
            if any(len(part) for part in stretches)
        )
        return cls(tables, frozenset(wholes), blind or b"" in wholes)

    def passing(self, texts: Sequence[str]) -> list[int]:
        """Return which of `texts` may hold a run of the exam, ascending."""
        if self.blind:
            return list(range(len(texts)))
        plain = [at for at, text in enumerate(texts) if text.isascii()]
        other = [at for at, text in enumerate(texts) if not text.isascii()]
        return sorted(
            part[at] for part in (plain, other) if part for at in self._among([texts[at] for at in part])
        )

    def _among(self, texts: Sequence[str]) -> list[int]:
        """Return which of some texts pass, which are all ASCII or not: ASCII is quicker by itself."""
        text = letters(texts)
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == 0)
        held = [np.searchsorted(ends, tier.met(text, table)) for tier, table in self.tables]
        if self.wholes:
            begins = np.concatenate([[0], ends[:-1] + 1])
            short = np.flatnonzero(ends - begins <= max(map(len, self.wholes)))
            held.append(
                np.array([at for at in short.tolist() if text[begins[at] : ends[at]] in self.wholes], np.intp)
            )
        found: list[int] = np.unique(np.concatenate(held)).tolist() if held else []
        return found


def _runs(texts: Sequence[str], size: int) -> tuple[bytes, npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the letters of `texts`, and where in them each run of `size` words begins and ends."""
    said = [ngrams.words(text) for text in texts]
    lengths = np.array([len(part) for words in said for part in letters(words).split(b"\0")[:-1]], np.intp)
    owner = np.repeat(np.arange(len(said)), [len(words) for words in said])
    ends = np.cumsum(lengths) + owner
    begins = ends - lengths
    count = max(0, len(owner) - size + 1)
    within = owner[:count] == owner[size - 1 :][:count]
    text = letters([" ".join(words) for words in said])
    return text, begins[:count][within], ends[size - 1 :][:count][within]


def _covered(
    text: bytes, first: npt.NDArray[np.intp], last: npt.NDArray[np.intp], size: int
) -> ngrams.Hashes:
    """Return the hashes of all stretches of `size` bytes that lie within one of these runs."""
    depth = np.zeros(len(text) + 1, np.int64)
    np.add.at(depth, first, 1)
    np.add.at(depth, last - size + 1, -1)
    inside = np.cumsum(depth) > 0
    hashes = []
    for offset in range(_WORD_BYTES):
        every = _stretches(text, size, offset)
        hashes.append(every[inside[offset::_WORD_BYTES][: len(every)]])
    return np.concatenate(hashes)
