"""The order of the data against an independent Philox, and the promises it makes."""

from __future__ import annotations

import numpy as np
import pytest

from tinker_officer.errors import RunError
from tinker_officer.train.order import Order, permutation


_MASK = (1 << 64) - 1


def philox4x64(counter: list[int], key: list[int]) -> list[int]:
    """Four words of Philox 4x64-10, from Salmon et al., "Parallel random numbers" (2011), table 2."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (second >> 64) ^ b ^ k0, second & _MASK, (first >> 64) ^ d ^ k1, first & _MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & _MASK, (k1 + 0xBB67AE8584CAA73B) & _MASK
    return [a, b, c, d]


@pytest.mark.parametrize(("rows", "seed", "epoch"), [(1, 0, 0), (13, 0, 0), (13, 0, 1), (50, 7, 3)])
def test_an_epoch_sorts_rows_by_philox(rows: int, seed: int, epoch: int) -> None:
    """The order equals sorting rows by a Philox written from the paper, keyed by (seed, epoch)."""
    words: list[int] = []
    block = 0
    while len(words) < rows:
        block += 1  # NumPy counts before it draws
        words += philox4x64([block, 0, 0, 0], [seed, epoch])
    expected = sorted(range(rows), key=lambda row: words[row])
    assert permutation(rows, seed, epoch).tolist() == expected


def test_every_row_is_used_once_an_epoch() -> None:
    """Eleven rows in batches of four: three steps an epoch, the last of three rows, each row once."""
    usable = np.array([0, 1, 2, 3, 5, 6, 7, 8, 9, 11, 12])
    order = Order(usable, batch_size=4, epochs=2, seed=3)
    assert (order.steps_per_epoch, order.steps) == (3, 6)
    batches = [order.batch(step) for step in range(1, 7)]
    assert [len(batch) for batch in batches] == [4, 4, 3, 4, 4, 3]
    for epoch in (batches[:3], batches[3:]):
        assert sorted(row for batch in epoch for row in batch) == usable.tolist()
    assert batches[:3] != batches[3:]
    assert [order.epoch(step) for step in range(1, 7)] == [0, 0, 0, 1, 1, 1]


def test_another_seed_is_another_order() -> None:
    """The order follows from the seed alone."""
    rows = np.arange(100)
    assert Order(rows, 10, 1, 0).batch(1) == Order(rows, 10, 1, 0).batch(1)
    assert Order(rows, 10, 1, 0).batch(1) != Order(rows, 10, 1, 1).batch(1)


def test_nothing_to_train_on_is_an_error() -> None:
    """No usable row is an error, not a run of no steps."""
    with pytest.raises(RunError, match="nothing to train on"):
        Order(np.array([], dtype=np.int64), 4, 1, 0)
