"""Sorting and comparing digests by the million: arrays of bytes, shape `(rows, 16)`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


Digests = npt.NDArray[np.uint8]


def order(digests: Digests) -> npt.NDArray[np.intp]:
    """Return the indices that sort `digests` as bytes; equal ones keep their order."""
    high, low = np.ascontiguousarray(digests).view(">u8").astype(np.uint64).T
    return np.lexsort((low, high))


def items(digests: Digests) -> npt.NDArray[Any]:
    """Return each digest as one item that NumPy can compare and look up."""
    result: npt.NDArray[Any] = np.ascontiguousarray(digests).view(f"S{digests.shape[1]}")[:, 0]
    return result


def first_of_each(digests: Digests) -> npt.NDArray[np.intp]:
    """Return the index of the first of each distinct digest."""
    ordered = order(digests)
    different = np.ones(len(ordered), np.bool_)
    different[1:] = (digests[ordered[1:]] != digests[ordered[:-1]]).any(axis=1)
    return ordered[different]
