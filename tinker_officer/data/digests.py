"""Sorting and comparing digests by the million: columns of bytes, shape `(rows, 16)`.

More digests than fit in memory are sorted in parts: those that begin alike, one part after the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tinker_officer.data.columns import BLOCK, blocks, gathered


Digests = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]
_BYTE = 8


def order(digests: Digests) -> Indices:
    """Return the indices that sort `digests` as bytes, all at once; equal ones keep their order."""
    high, low = np.ascontiguousarray(digests).view(">u8").astype(np.uint64).T
    return np.lexsort((low, high))


def parts(digests: Digests) -> Iterator[tuple[Indices, Indices]]:
    """Yield `(indices, order)` of each part, the parts in order: `indices[order]` sorts the digests of one.

    The indices of a part ascend.
    """
    bits = min(max(len(digests) - 1, 0) // BLOCK, (1 << _BYTE) - 1).bit_length()
    if not bits:
        yield np.arange(len(digests)), order(digests)
        return
    begins = np.empty(len(digests), np.uint8)
    for block in blocks(len(digests)):
        begins[block] = digests[block, 0]
    begins >>= np.uint8(_BYTE - bits)
    for begin in range(1 << bits):
        indices = np.flatnonzero(begins == begin)
        yield indices, order(gathered(digests, indices))


def firsts(digests: Digests, among: npt.NDArray[np.bool_] | None = None) -> Iterator[Indices]:
    """Yield the index of the first of each distinct digest, a part at a time, ascending within a part.

    Args:
        digests: all of them.
        among: which of them count; all if None.
    """
    for indices, by_digest in parts(digests):
        ordered = indices[by_digest]
        if among is not None:
            by_digest = by_digest[among[ordered]]  # noqa: PLW2901 - those that count
            ordered = indices[by_digest]
        found = gathered(digests, indices)[by_digest]
        different = np.ones(len(found), np.bool_)
        different[1:] = (found[1:] != found[:-1]).any(axis=1)
        yield np.sort(ordered[different])


def distinct(digests: Digests) -> int:
    """Return how many different digests there are."""
    return sum(len(each) for each in firsts(digests))


def sha256(digests: Digests) -> str:
    """Return the SHA-256 of all digests, whatever their order; 64 hexadecimal digits."""
    content = hashlib.sha256()
    for indices, by_digest in parts(digests):
        content.update(gathered(digests, indices)[by_digest].tobytes())
    return content.hexdigest()


def items(digests: Digests) -> npt.NDArray[Any]:
    """Return each digest as one item that NumPy can compare and look up."""
    result: npt.NDArray[Any] = np.ascontiguousarray(digests).view(f"S{digests.shape[1]}")[:, 0]
    return result
