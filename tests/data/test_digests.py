"""Digests by the million: sorted, looked up and counted as their bytes are."""

from __future__ import annotations

import numpy as np

from tinker_officer.data.digests import first_of_each, items, order


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
    firsts = {}
    for i, row in enumerate(digests):
        firsts.setdefault(row.tobytes(), i)
    assert sorted(first_of_each(digests)) == sorted(firsts.values())
    assert len(first_of_each(digests[:0])) == 0


def test_items_compare_as_whole_digests():
    """Digests that differ in any byte, the last included, are different items."""
    digests = np.zeros((16, 16), np.uint8)
    np.fill_diagonal(digests, 1)
    assert len(set(items(digests))) == 16
    assert np.isin(items(digests), items(digests[3:5])).sum() == 2
