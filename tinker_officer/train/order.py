"""The order of the data: which rows make up which step, from a seed alone.

The order of an epoch sorts the rows by the raw output of NumPy's Philox generator, keyed by (seed,
epoch). NumPy promises that raw stream to stay as it is (it promises less for `permutation`), so a run can
be resumed after an upgrade; and a step's rows follow from its number, so nothing needs to be replayed.
"""

from __future__ import annotations

from functools import lru_cache

import attrs
import numpy as np
from numpy.typing import NDArray

from tinker_officer.errors import RunError


@lru_cache(maxsize=2)
def permutation(rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of `rows` rows in `epoch` (from 0)."""
    keys = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(rows)
    order = np.argsort(keys, kind="stable").astype(np.int64, copy=False)
    order.flags.writeable = False
    return order


@attrs.frozen
class Order:
    """Batches of rows for every step of a run.

    Each epoch passes over every row once; its last batch may be smaller, and is kept.

    Args:
        rows: the usable rows, as indices into the data, ascending.
        batch_size: rows a step.
        epochs: passes over the rows.
        seed: what the order follows from.
    """

    rows: NDArray[np.int64] = attrs.field(eq=False, repr=lambda rows: f"<{len(rows)}>")
    batch_size: int
    epochs: int
    seed: int

    def __attrs_post_init__(self) -> None:
        """Refuse to train on nothing."""
        if len(self.rows) == 0:
            raise RunError(
                "there is nothing to train on",
                got="0 usable rows: the data is empty, or every row is dropped or has no trained token",
                need="at least one conversation with an assistant turn that fits max_length",
                fix="print(data.explain()), or plan with a larger max_length",
            )

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch."""
        return -(-len(self.rows) // self.batch_size)

    @property
    def steps(self) -> int:
        """Steps in the whole run."""
        return self.steps_per_epoch * self.epochs

    def epoch(self, step: int) -> int:
        """Return the epoch (from 0) of `step` (from 1)."""
        return (step - 1) // self.steps_per_epoch

    def batch(self, step: int) -> tuple[int, ...]:
        """Return the rows of `step` (from 1), as indices into the data."""
        epoch, position = divmod(step - 1, self.steps_per_epoch)
        order = permutation(len(self.rows), self.seed, epoch)
        chosen = order[position * self.batch_size : (position + 1) * self.batch_size]
        return tuple(int(row) for row in self.rows[chosen])
