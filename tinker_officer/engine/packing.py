"""Which examples stand in one row together; numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence


# Tokens that one forward and backward pass takes. Enough for wide products, few enough that a layer's
# activations stay in the cache and that sampling waits less than a second for its turn.
MICRO_BATCH_TOKENS = 512


def micro_batches(lengths: Sequence[int], *, budget: int = MICRO_BATCH_TOKENS) -> list[tuple[int, ...]]:
    """Return which examples go together, a function of their lengths only.

    First fit by decreasing length; a batch never exceeds the budget, unless one example alone does.

    Args:
        lengths: tokens of each example.
        budget: tokens of a micro-batch.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    room: list[int] = []
    for index in order:
        for batch, left in enumerate(room):
            if lengths[index] <= left:
                batches[batch].append(index)
                room[batch] -= lengths[index]
                break
        else:
            batches.append([index])
            room.append(budget - lengths[index])
    return [tuple(batch) for batch in batches]


def runs(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Return neighbours of equal length as (how many, length)."""
    found: list[tuple[int, int]] = []
    for length in lengths:
        if found and found[-1][1] == length:
            found[-1] = (found[-1][0] + 1, length)
        else:
            found.append((1, length))
    return found
