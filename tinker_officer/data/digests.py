"""Sorting and comparing digests by the million: arrays of bytes, shape `(rows, 16)`."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt


Digests = npt.NDArray[np.uint8]
_CHUNK = 1 << 16


def order(digests: Digests) -> npt.NDArray[np.intp]:
    """Return the indices that sort `digests` as bytes; equal ones keep their order."""
    high, low = np.ascontiguousarray(digests).view(">u8").astype(np.uint64).T
    return np.lexsort((low, high))


def sha256(digests: Digests) -> str:
    """Return the SHA-256 of all digests, whatever their order; 64 hexadecimal digits."""
    ordered, content = order(digests), hashlib.sha256()
    for start in range(0, len(ordered), _CHUNK):
        content.update(digests[ordered[start : start + _CHUNK]].tobytes())
    return content.hexdigest()


def items(digests: Digests) -> npt.NDArray[Any]:
    """Return each digest as one item that NumPy can compare and look up."""
    result: npt.NDArray[Any] = np.ascontiguousarray(digests).view(f"S{digests.shape[1]}")[:, 0]
    return result


def first_of_each(digests: Digests) -> npt.NDArray[np.intp]:
    """Return the index of the first of each distinct digest."""
    ordered = order(digests)
    different = np.ones(len(ordered), np.bool_)
    for start in range(1, len(ordered), _CHUNK):  # never a second copy of all of them
        here, before = ordered[start : start + _CHUNK], ordered[start - 1 : start - 1 + _CHUNK]
        before = before[: len(here)]
        different[start : start + _CHUNK] = (digests[here] != digests[before]).any(axis=1)
    return ordered[different]
