"""Looks for the items of an exam in the training data.

The index is on the exam's side, which is small; training rows are streamed past it and forgotten. An item
is known by its runs of 13 words, lower-cased and without punctuation; a shorter question by its runs of 8;
one of fewer than 8 words only where it is the whole of a message. Every hit is looked up in the text, so
that a hash alone never accuses. It finds what was copied, not what was rephrased.

Source:
    Brown et al. 2020 (GPT-3), appendix C, for runs of 13 words; overlap and halves as in Touvron et al. 2023.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer._progress import Progress
from tinker_officer.data import columns
from tinker_officer.errors import EvalError
from tinker_officer.evals import ngrams
from tinker_officer.evals.contamination import DIRTY, Contamination, Exposed
from tinker_officer.evals.searched import Source
from tinker_officer.evals.sieve import Sieve, Table


LONG, SHORT = 13, 8
_BATCH = 512  # rows that are hashed at once: they stay in the processor's cache
_BLOCK = 4096  # rows after which hits are looked up
_BLOCKS_HELD = 4  # after as many, what is known of rows is taken out of memory
_PLACES = 3
_ITEMS = 1024  # of the exam that are hashed at once
_REMEMBERED = 64  # texts whose words are at hand: the runs of one follow each other


def find(
    evals: Mapping[str, Iterable[tuple[str, Sequence[str]]]],
    train: Source,
    *,
    threshold: float = DIRTY,
    progress: bool | None = None,
) -> Contamination:
    """Return which items stand in `train`; see `EvalSuite.contamination`.

    Args:
        evals: each item's id and texts, by eval.
        train: what is trained on.
        threshold: the overlap from which an item counts as dirty, above 0 and at most 1.
        progress: False for none.

    Raises:
        EvalError: the threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise EvalError(
            "the threshold is out of range",
            got=repr(threshold),
            need="a share above 0 and at most 1",
            fix="suite.contamination(train, threshold=0.2)",
        )
    index = Index.of(evals)
    found = _Found(index)
    with Progress(len(train), "looking for the exam", unit="rows", show=progress) as bar:
        for start in range(0, len(train), _BLOCK):
            rows = range(start, min(start + _BLOCK, len(train)))
            found.add(*_passing(index, train, rows))
            bar.advance(len(rows))
            if start // _BLOCK % _BLOCKS_HELD == 0:
                columns.release()
    return found.report(train, threshold)


@attrs.frozen(eq=False)
class Index:
    """The runs of words of every item, by hash. One entry a distinct run of an item.

    Attributes:
        names: eval and id of each item.
        texts: the texts of each item.
        hashes: of each entry, ascending.
        owner: the item of each entry.
        sizes: words in the run of each entry; 0 for a whole message.
        place: which text of the item the run stands in, and at which word.
        table: the same hashes, for a quick look.
        sieve: which texts are worth looking at.
    """

    names: tuple[tuple[str, str], ...]
    texts: tuple[tuple[str, ...], ...]
    hashes: ngrams.Hashes
    owner: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    table: Table
    sieve: Sieve

    @classmethod
    def of(cls, evals: Mapping[str, Iterable[tuple[str, Sequence[str]]]]) -> Index:
        """Return the index of every item of every eval."""
        names: list[tuple[str, str]] = []
        texts: list[tuple[str, ...]] = []
        for name, items in evals.items():
            for item_id, said in items:
                names.append((name, item_id))
                texts.append(tuple(said))
        parts, sought = [], list[tuple[int, str]]()
        for start in range(0, len(texts), _ITEMS):
            part, some = _entries(start, texts[start : start + _ITEMS])
            parts.append(part)
            sought += some
        hashes, rest = _distinct(parts)
        return cls(
            tuple(names),
            tuple(texts),
            hashes,
            rest[:, 0],
            rest[:, 1],
            rest[:, 2:],
            Table.of(hashes),
            Sieve.of(sought),
        )

    def entries(self, found: ngrams.Hashes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return pairs `(which of found, which entry)` with equal hashes."""
        near = self.table.among(found)
        low = np.searchsorted(self.hashes, found[near], "left")
        counts = np.searchsorted(self.hashes, found[near], "right") - low
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(near, counts), np.repeat(low, counts) + offsets


_Entries: TypeAlias = tuple[ngrams.Hashes, npt.NDArray[np.int64]]


def _entries(first: int, texts: Sequence[Sequence[str]]) -> tuple[_Entries, list[tuple[int, str]]]:
    """Return the runs of some items, numbered from `first`, and the texts that have any, with their size.

    Of each run it is the hash; and the item, the run's size, the text and the word that it begins at.
    """
    flat = [text for said in texts for text in said]
    lengths = np.array([len(said) for said in texts], np.intp)
    item = np.repeat(np.arange(len(texts)), lengths)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    said = ngrams.grams(flat)
    counts = np.diff(said.first)
    longest = np.zeros(len(texts), np.intp)
    np.maximum.at(longest, item, counts)
    size = np.where(longest >= LONG, LONG, np.where(longest >= SHORT, SHORT, 0))[item]
    found = []
    for runs in (LONG, SHORT, 0):
        if runs:
            hashes, starts = said.of(runs)
            text = said.owner[starts]
        else:
            text = np.flatnonzero(counts)
            hashes, starts = said.whole()[text], said.first[text]
        own = size[text] == runs
        hashes, starts, text = hashes[own], starts[own], text[own]
        rest = [item[text] + first, size[text], place[text], starts - said.first[text]]
        found.append((hashes, np.stack(rest, axis=1).astype(np.int64)))
    has = np.flatnonzero(counts >= np.maximum(1, size)).tolist()
    joined = np.concatenate([part for part, _ in found]), np.concatenate([part for _, part in found])
    return joined, [(int(size[text]), flat[text]) for text in has]


def _distinct(parts: Sequence[_Entries]) -> _Entries:
    """Return all runs by ascending hash, each once an item."""
    hashes = np.concatenate([np.zeros(0, np.uint64), *(part for part, _ in parts)])
    rest = np.concatenate([np.zeros((0, 4), np.int64), *(part for _, part in parts)])
    order = np.lexsort((rest[:, 0], hashes))
    hashes, rest = hashes[order], rest[order]
    new = np.ones(len(hashes), np.bool_)
    new[1:] = (hashes[1:] != hashes[:-1]) | (rest[1:, 0] != rest[:-1, 0])
    return hashes[new], rest[new]


def _passing(index: Index, train: Source, within: range) -> tuple[list[str], list[int]]:
    """Return the texts of these rows that may hold something of the index, and the row of each.

    A row whose line shows its texts is parsed, and held against its digest, only if its line passes.
    """
    texts: list[str] = []
    owners: list[int] = []
    rows = _rows_passing(index, train, within)
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        said: list[str] = []
        first = [0]
        for texts_of_row in train.said(some):
            said += texts_of_row
            first.append(len(said))
        passing = index.sieve.passing(said)
        texts += [said[at] for at in passing]
        owners += np.array(some, np.intp)[np.searchsorted(first, passing, "right") - 1].tolist()
    return texts, owners


def _rows_passing(index: Index, train: Source, within: range) -> list[int]:
    """Return those of these rows whose line passes the sieve, or does not show all their texts."""
    found: list[int] = []
    for start in range(within.start, within.stop, _BATCH):
        rows = range(start, min(start + _BATCH, within.stop))
        written = train.written(rows)
        lines = [line for line in written if line is not None]
        passing = index.sieve.passing_lines(lines)
        shown = [at for at, line in enumerate(written) if line is not None]
        hidden = [at for at, line in enumerate(written) if line is None]
        found += [rows[at] for at in sorted([*hidden, *(shown[at] for at in passing)])]
    return found


class _Found:
    """What was found so far, verified: which entries, how many rows an item, and the first of them."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._sizes: list[int] = np.unique(index.sizes).tolist()
        self._entries = np.zeros(len(index.hashes), np.bool_)
        self._rows: Counter[int] = Counter()
        self._where: dict[int, list[int]] = {}
        self._words = lru_cache(_REMEMBERED)(ngrams.words)

    def add(self, texts: Sequence[str], owners: Sequence[int]) -> None:
        """Take in what these texts hold, given the row of each; no row may be in two calls."""
        met = [np.zeros((0, 2), np.int64)]
        for start in range(0, len(texts), _BATCH):
            met += self._looked(texts[start : start + _BATCH], owners[start : start + _BATCH])
        for row, item in np.unique(np.concatenate(met), axis=0).tolist():
            self._rows[item] += 1
            if len(self._where.setdefault(item, [])) < _PLACES:
                self._where[item].append(row)

    def _looked(self, texts: Sequence[str], owners: Sequence[int]) -> Iterator[npt.NDArray[np.int64]]:
        """Yield rows and items that were met; a run is looked up in the text the first time."""
        index, hashed, rows = self._index, ngrams.grams(texts), np.array(owners, np.int64)
        for size in self._sizes:
            hashes, starts = hashed.of(size) if size else (hashed.whole(), hashed.first[:-1])
            which, entry = index.entries(hashes)
            right = index.sizes[entry] == size
            which, entry = which[right], entry[right]
            text = np.searchsorted(hashed.first, starts[which], "right") - 1 if size else which
            word = starts[which] - hashed.first[text]
            new = np.flatnonzero(~self._entries[entry])
            self._verify(size, texts, text[new], word[new], entry[new])
            known = self._entries[entry]
            yield np.stack([rows[text[known]], index.owner[entry[known]]], axis=1)

    def _verify(
        self,
        size: int,
        texts: Sequence[str],
        text: npt.NDArray[np.intp],
        word: npt.NDArray[np.intp],
        entry: npt.NDArray[np.intp],
    ) -> None:
        """Mark the entries that stand in a text from a word on; runs that overlap are compared together."""
        place, owner = self._index.place[entry], self._index.owner[entry]
        alike = np.stack([text, owner, place[:, 0], word - place[:, 1]], axis=1)
        order = np.lexsort((word, *alike.T))
        apart = (np.diff(alike[order], axis=0) != 0).any(axis=1) | (np.diff(word[order]) > size)
        for group in np.split(order, np.flatnonzero(apart) + 1):
            self._compare(size, texts, text[group], word[group], entry[group])

    def _compare(self, size: int, texts: Sequence[str], text: Any, word: Any, entry: Any) -> None:
        if not len(entry):
            return
        (item, begins), owner = self._index.place[entry[0]], self._index.owner[entry[0]]
        said, asked = self._words(texts[text[0]]), self._words(self._index.texts[owner][item])
        if size:
            length = word[-1] - word[0] + size
            said, asked = said[word[0] : word[0] + length], asked[begins : begins + length]
        if said == asked:
            self._entries[entry] = True
        elif len(entry) > 1:  # a hash is wrong: which?
            for at in range(len(entry)):
                self._compare(size, texts, text[at : at + 1], word[at : at + 1], entry[at : at + 1])

    def report(self, train: Source, threshold: float) -> Contamination:
        """Return what was found."""
        index = self._index
        runs = np.bincount(index.owner, minlength=len(index.names))
        met = np.bincount(index.owner[self._entries], minlength=len(index.names))
        exposed = [
            Exposed(
                *index.names[item],
                float(met[item] / runs[item]),
                self._rows[item],
                tuple(train.where(row) for row in self._where[item]),
            )
            for item in sorted(self._rows)
        ]
        exposed.sort(key=lambda item: (-item.overlap, item.eval, item.id))
        items = Counter(name for name, _ in index.names)
        return Contamination(dict(items), tuple(exposed), len(train), threshold)
