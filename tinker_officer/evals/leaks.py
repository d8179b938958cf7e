"""Looks for the items of an exam in the training data.

The index is on the exam's side, which is small; training rows are streamed past it and forgotten. An item
is known by its runs of 13 words, lower-cased and without punctuation; a shorter question by its runs of 8;
one of fewer than 8 words only where it is the whole of a message. Every hit is looked up in the text, so
that a hash alone never accuses. It finds what was copied, not what was rephrased.

Source:
    Brown et al. 2020 (GPT-3), appendix C, for runs of 13 words; overlap and halves as in Touvron et al. 2023.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer._progress import Progress
from tinker_officer.errors import EvalError
from tinker_officer.evals import ngrams
from tinker_officer.evals.contamination import DIRTY, Contamination, Exposed
from tinker_officer.evals.sieve import Sieve, Table
from tinker_officer.evals.texts import text_of


if TYPE_CHECKING:
    from tinker_officer.data.conversations import Conversations

LONG, SHORT = 13, 8
_BATCH = 128  # rows that are hashed at once: they stay in the processor's cache
_BLOCK = 4096  # rows that a thread takes at a time
_PLACES = 3
_ITEMS = 1024  # of the exam that are hashed at once
_REMEMBERED = 64  # texts whose words are at hand: the runs of one follow each other


def find(
    evals: Mapping[str, Iterable[tuple[str, Sequence[str]]]],
    train: Conversations,
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
    starts = range(0, len(train), _BLOCK)
    with (
        Progress(len(train), "looking for the exam", unit="rows", show=progress) as bar,
        ThreadPoolExecutor(_cores()) as pool,
    ):
        for block in _in_order(pool, index, train, starts):
            found.add(block)
            bar.advance(block.rows)
    return found.report(train, threshold)


def _in_order(
    pool: ThreadPoolExecutor, index: Index, train: Conversations, starts: Sequence[int]
) -> Iterator[_Block]:
    """Yield what each block of rows holds, in order, with few blocks under way."""
    under_way = []
    for start in starts:
        under_way.append(pool.submit(_scan, index, train, range(start, min(start + _BLOCK, len(train)))))
        if len(under_way) > 2 * _cores():
            yield under_way.pop(0).result()
    for each in under_way:
        yield each.result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


@attrs.define
class _Block:
    """What a block of training rows holds: which row, which entry, and in which message at which word."""

    rows: int
    hits: list[tuple[int, int, str, int]] = attrs.Factory(list)


def _scan(index: Index, train: Conversations, within: range) -> _Block:
    """Return what these rows hold of the index, unverified."""
    texts: list[str] = []
    owners: list[int] = []
    for start in range(within.start, within.stop, _BATCH):
        numbers = range(start, min(start + _BATCH, within.stop))
        said: list[str] = []
        rows: list[int] = []
        for number, messages in zip(numbers, train.plain_messages(numbers), strict=True):
            for message in messages if messages is not None else train[number].messages:
                said.append(text_of(message))
                rows.append(number)
        for at in index.sieve.passing(said):
            texts.append(said[at])
            owners.append(rows[at])
    found = _Block(len(within))
    for start in range(0, len(texts), _BATCH):
        _look(index, texts[start : start + _BATCH], owners[start : start + _BATCH], found)
    return found


def _look(index: Index, texts: Sequence[str], owners: Sequence[int], found: _Block) -> None:
    """Add to `found` what these texts hold of the index."""
    hashed = ngrams.grams(texts)
    for size in np.unique(index.sizes).tolist():
        hashes, starts = hashed.of(size) if size else (hashed.whole(), hashed.first[:-1])
        which, entry = index.entries(hashes)
        right = index.sizes[entry] == size
        which, entry = which[right], entry[right]
        text = np.searchsorted(hashed.first, starts[which], "right") - 1 if size else which
        word = starts[which] - hashed.first[text]
        found.hits += [
            (owners[at], number, texts[at], begins)
            for at, number, begins in zip(text.tolist(), entry.tolist(), word.tolist(), strict=True)
        ]


class _Found:
    """What was found so far, verified: which entries, how many rows an item, and the first of them."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._entries = np.zeros(len(index.hashes), np.bool_)
        self._rows: Counter[int] = Counter()
        self._where: dict[int, list[int]] = {}
        self._read = 0
        self._words = lru_cache(_REMEMBERED)(ngrams.words)

    def add(self, block: _Block) -> None:
        """Take in a block; a run is looked up in the text the first time that it is met."""
        self._read += block.rows
        hits: set[tuple[int, int]] = set()
        for row, entry, text, word in block.hits:
            if not self._entries[entry]:
                size = int(self._index.sizes[entry])
                said = self._words(text)
                if (said[word : word + size] if size else said) != self._run(entry):
                    continue
                self._entries[entry] = True
            hits.add((row, int(self._index.owner[entry])))
        for row, item in sorted(hits):
            self._rows[item] += 1
            if len(self._where.setdefault(item, [])) < _PLACES:
                self._where[item].append(row)

    def _run(self, entry: int) -> list[str]:
        """Return the words of an entry."""
        text, word = self._index.place[entry].tolist()
        size = int(self._index.sizes[entry])
        said = self._words(self._index.texts[int(self._index.owner[entry])][text])
        return said[word : word + size] if size else said

    def report(self, train: Conversations, threshold: float) -> Contamination:
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
        return Contamination(dict(items), tuple(exposed), self._read, threshold)
