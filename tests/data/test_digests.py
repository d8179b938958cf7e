"""Digests by the million: sorted, looked up and counted as their bytes are."""

from __future__ import annotations

import hashlib

import numpy as np

from tinker_officer.data.digests import distinct, firsts, items, order, parts, sha256


def some(rows: int) -> np.ndarray:
    """Digests of few different bytes, so that many are equal and many begin alike."""
    return np.random.default_rng(0).integers(0, 2, (rows, 16), np.uint8) * 255


def test_the_order_is_that_of_the_bytes():
    """Sorting gives the order that Python gives the bytes."""
    digests = some(300)
    digests[:, 4:] = 0
    expected = sorted(range(300), key=lambda i: digests[i].tobytes())
    assert list(order(digests)) == expected


def test_the_first_of_each_is_found():
    """Each distinct digest is found once, at its first place."""
    digests = some(300)
    digests[:, 3:] = 7
    expected = {}
    for i, row in enumerate(digests):
        expected.setdefault(row.tobytes(), i)
    assert sorted(np.concatenate(list(firsts(digests)))) == sorted(expected.values())
    assert distinct(digests) == len(expected)
    assert distinct(digests[:0]) == 0


def test_items_compare_as_whole_digests():
    """Digests that differ in any byte, the last included, are different items."""
    digests = np.zeros((16, 16), np.uint8)
    np.fill_diagonal(digests, 1)
    assert len(set(items(digests))) == 16
    assert np.isin(items(digests), items(digests[3:5])).sum() == 2


def test_parts_are_what_sorting_all_at_once_gives():
    """More digests than a block are sorted part by part, in the same order, with the same first ones."""
    digests = np.random.default_rng(1).integers(0, 256, (150_000, 16), np.uint8)
    digests[100_000:] = digests[:50_000]
    found = list(parts(digests))
    assert len(found) == 4
    assert np.array_equal(np.concatenate([indices[by] for indices, by in found]), order(digests))
    assert sha256(digests) == hashlib.sha256(digests[order(digests)].tobytes()).hexdigest()
    assert distinct(digests) == 100_000
    assert sorted(np.concatenate(list(firsts(digests)))) == list(range(100_000))
    among = np.zeros(150_000, np.bool_)
    among[[3, 100_003, 100_004]] = True
    assert sorted(np.concatenate(list(firsts(digests, among)))) == [3, 100_004]
