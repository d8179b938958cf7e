"""A sieve before the search for an exam: which texts may hold one of its runs of words, and which cannot.

Of texts and runs only the letters are seen (`letters`): equal runs of words have equal letters. Of the
exam's runs every stretch of so many letters is known; of a text only every sixteenth is looked up, or closer
where a run is short. However a run lies in a text, it covers one that is looked up: so what the sieve holds
back holds no run. What it lets through is for `leaks` to look at exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Self, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer.evals import letters, ngrams


_WORD_BYTES = 8
_FACTOR = np.uint64(ngrams.BASE)
_SPARSE = 64  # places, a bit each, for a hash that is known, at least: few others fall on theirs
_BITS = np.left_shift(np.uint8(1), np.arange(8, dtype=np.uint8))


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
_ENOUGH = _TIERS[2].reach  # letters of ASCII by which a run with others is known all the same


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


_Runs: TypeAlias = tuple[bytes, npt.NDArray[np.intp], npt.NDArray[np.intp]]


@attrs.frozen(eq=False)
class _Net:
    """What of the exam is known in one alphabet.

    Attributes:
        tables: stretches of runs, by their length.
        wholes: the letters of texts that count as a whole.
    """

    tables: tuple[tuple[_Tier, Table], ...]
    wholes: frozenset[bytes]

    @classmethod
    def of(cls, runs: Iterable[_Runs], wholes: Iterable[bytes]) -> Self:
        """Return what knows these runs, each with enough letters for some tier, and these whole texts."""
        found: list[list[ngrams.Hashes]] = [[] for _ in _TIERS]
        for text, first, last in runs:
            for stretches, tier in zip(found, _TIERS, strict=True):
                fits = last - first >= tier.reach
                stretches.append(_covered(text, first[fits], last[fits], tier.size))
                first, last = first[~fits], last[~fits]  # noqa: PLW2901 - those that are left
        tables = tuple(
            (tier, Table.of(np.concatenate(stretches)))
            for tier, stretches in zip(_TIERS, found, strict=True)
            if any(len(part) for part in stretches)
        )
        return cls(tables, frozenset(wholes))

    def __bool__(self) -> bool:
        return bool(self.tables or self.wholes)

    def caught(self, text: bytes) -> set[int]:
        """Return which of the texts of `text`, each with `END` after it, may hold something that is known."""
        if not self:
            return set()
        codes = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(codes == letters.END)
        held = [np.searchsorted(ends, tier.met(text, table)) for tier, table in self.tables]
        if self.wholes:
            stops = np.flatnonzero(codes <= letters.QUOTE)
            begins = np.append(0, stops[:-1] + 1)
            short = np.flatnonzero(stops - begins <= max(map(len, self.wholes)))
            short = short[self._firsts[codes[begins[short]]]]
            pieces = zip(begins[short].tolist(), stops[short].tolist(), strict=True)
            equal = [begin for begin, stop in pieces if text[begin:stop] in self.wholes]
            held.append(np.searchsorted(ends, np.array(equal, np.intp)))
        return set(np.concatenate(held).tolist())

    @cached_property
    def _firsts(self) -> npt.NDArray[np.bool_]:
        """Whether some whole text begins with a letter."""
        firsts = np.zeros(256, np.bool_)
        firsts[[whole[0] for whole in self.wholes]] = True
        return firsts


@attrs.frozen(eq=False)
class Sieve:
    """What lets through every text that holds a run of the exam, and few others.

    Attributes:
        plain: what is known by its letters of ASCII.
        wide: what has too few of them. A text that is all ASCII has none of it.
        blind: whether something has too few letters for any sieve: then everything passes.
    """

    plain: _Net
    wide: _Net
    blind: bool = False

    @classmethod
    def of(cls, texts: Iterable[tuple[int, str]]) -> Sieve:
        """Return the sieve for texts, each with the size of its runs in words, 0 for the whole."""
        by_size: dict[int, list[str]] = {}
        for size, text in texts:
            by_size.setdefault(size, []).append(text)
        wholes = by_size.pop(0, [])
        plain, wide = (alphabet(wholes).split(b"\0")[:-1] for alphabet in (letters.plain, letters.wide))
        by_plain = [few for few in plain if few]
        by_wide = [many for few, many in zip(plain, wide, strict=True) if not few]
        blind = b"" in by_wide
        plain_runs: list[_Runs] = []
        wide_runs: list[_Runs] = []
        for size, some in by_size.items():
            ascii_, other = (
                [ngrams.words(text) for text in some if text.isascii() == is_] for is_ in (True, False)
            )
            plain_runs.append(_runs(ascii_, size, letters.plain))
            runs, all_letters = (_runs(other, size, alphabet) for alphabet in (letters.plain, letters.wide))
            has, has_all = (last - first for _, first, last in (runs, all_letters))
            own = (has >= _ENOUGH) | (has == has_all)
            plain_runs.append(_some(runs, own))
            wide_runs.append(_some(all_letters, ~own))
            blind |= bool((has_all < _TIERS[-1].reach).any())
        return cls(_Net.of(plain_runs, by_plain), _Net.of(wide_runs, by_wide), blind)

    def passing(self, texts: Sequence[str]) -> list[int]:
        """Return which of `texts` may hold a run of the exam, ascending."""
        if self.blind:
            return list(range(len(texts)))
        found = self.plain.caught(letters.plain(texts)) if self.plain else set()
        if self.wide:
            other = [at for at, text in enumerate(texts) if not text.isascii()]
            found |= {other[at] for at in self.wide.caught(letters.wide([texts[at] for at in other]))}
        return sorted(found)

    def passing_lines(self, lines: Sequence[bytes]) -> list[int]:
        """Return which lines of JSON may have a string that holds a run of the exam, ascending."""
        if self.blind:
            return list(range(len(lines)))
        text, found = letters.of_lines(lines, strings=bool(self.plain.wholes))
        found |= self.plain.caught(text)
        if self.wide:
            found |= {at for at, line in enumerate(lines) if not line.isascii() or b"\\u" in line}
        return sorted(found)


def _runs(said: Sequence[Sequence[str]], size: int, alphabet: Callable[[Sequence[str]], bytes]) -> _Runs:
    """Return the letters of texts, given by their words, and where in them each run begins and ends."""
    each = np.frombuffer(alphabet([word for words in said for word in words]), np.uint8)
    lengths = np.diff(np.flatnonzero(each == letters.END), prepend=-1) - 1
    owner = np.repeat(np.arange(len(said)), [len(words) for words in said])
    ends = np.cumsum(lengths) + owner
    begins = ends - lengths
    count = max(0, len(owner) - size + 1)
    within = owner[:count] == owner[size - 1 :][:count]
    text = alphabet([" ".join(words) for words in said])
    return text, begins[:count][within], ends[size - 1 :][:count][within]


def _some(runs: _Runs, which: npt.NDArray[np.bool_]) -> _Runs:
    text, first, last = runs
    return text, first[which], last[which]


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
