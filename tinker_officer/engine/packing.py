"""Which examples stand in one row together; numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence


# Tokens that one forward and backward pass takes. Enough for wide products, few enough that a layer's
# activations stay in the cache and that sampling waits less than a second for its turn.
MICRO_BATCH_TOKENS = 512
# Two batches are held in memory at once when neither is longer: together no more than one row of which every
# layer is kept (`decoder.RECOMPUTE_TOKENS`).
BESIDE_TOKENS = 1024


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


def rounds(
    batches: Sequence[tuple[int, ...]], lengths: Sequence[int], *, longest: int = BESIDE_TOKENS
) -> list[tuple[tuple[tuple[int, ...], ...], ...]]:
    """Return which batches are computed at the same time, in one lane or two, a function of their sizes only.

    The largest batch that is left has a lane to itself; others stand in the second, until they have as many
    tokens and an eighth. A batch too long for company, or the last one, is a round of one lane.

    Args:
        batches: as `micro_batches` returns them.
        lengths: tokens of each example.
        longest: tokens of a batch that may have another beside it.
    """
    sizes = {batch: sum(lengths[index] for index in batch) for batch in batches}
    left = sorted(batches, key=lambda batch: (-sizes[batch], batch))
    found: list[tuple[tuple[tuple[int, ...], ...], ...]] = []
    while left:
        first, *left = left
        beside: list[tuple[int, ...]] = []
        room = sizes[first] * 9 // 8 if sizes[first] <= longest else 0
        for batch in left:
            if sizes[batch] <= room:
                beside.append(batch)
                room -= sizes[batch]
        left = [batch for batch in left if batch not in beside]
        found.append(((first,), tuple(beside)) if beside else ((first,),))
    return found


def runs(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Return neighbours of equal length as (how many, length)."""
    found: list[tuple[int, int]] = []
    for length in lengths:
        if found and found[-1][1] == length:
            found[-1] = (found[-1][0] + 1, length)
        else:
            found.append((1, length))
    return found
