"""Columns of numbers that may have more rows than memory: in a file of their own once they are long.

What is known of a row (where it begins, its digest, its length) is a few bytes, but a corpus has millions.
A long column is a memory map of a file that has no name: it goes away with the column, the system writes it
out as it sees fit, and `release` takes its pages out of this process. Loops over columns therefore go in
blocks, and release now and then; so what they hold does not grow with the corpus.
"""

from __future__ import annotations

import mmap
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tinker_officer._disk import writing
from tinker_officer._files import home
from tinker_officer.errors import DataError


Column = npt.NDArray[Any]
BLOCK = 1 << 16  # rows that are worked on at a time; a column that is no longer stays in memory
_APART = 1 << 12  # as many, where they stand far apart and each may be on a page of its own

_MAPS: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_FIX = "free some space, or export TINKER_OFFICER_HOME=/a/larger/disk"


class Growing:
    """A column that is written row after row, each a few bytes."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._end = bytearray()
        self._file: Any = None

    def __iadd__(self, raw: bytes) -> Self:
        """Add rows, given as bytes."""
        self._end += raw
        if len(self._end) >= BLOCK * self.dtype.itemsize:
            self._flush()
        return self

    def _flush(self) -> None:
        with writing("what is known of the rows", home(), error=DataError, fix=_FIX):
            self._file = self._file or _nameless()
            self._file.write(self._end)
            self._file.flush()
        self._end.clear()

    def column(self) -> Column:
        """Return what was written."""
        if self._file is None:
            return np.frombuffer(bytes(self._end), self.dtype)
        self._flush()
        with self._file:
            return _mapped(self._file, self.dtype)


def zeros(rows: int, dtype: npt.DTypeLike) -> Column:
    """Return a column of zeros."""
    dtype = np.dtype(dtype)
    if rows <= BLOCK:
        return np.zeros(rows, dtype)
    with writing("what is known of the rows", home(), error=DataError, fix=_FIX), _nameless() as file:
        file.truncate(rows * dtype.itemsize)
        return _mapped(file, dtype)


def selected(column: Column, indices: npt.NDArray[np.intp]) -> Column:
    """Return the rows `indices` of a column."""
    if len(indices) <= BLOCK:
        result: Column = column[indices]
        return result
    made = zeros(len(indices), (column.dtype, column.shape[1:]))
    for part in blocks(len(indices)):
        made[part] = column[indices[part]]
    return made


def numbered(rows: int) -> npt.NDArray[np.int64]:
    """Return the numbers from 0 as a column."""
    column = zeros(rows, np.int64)
    for part in blocks(rows):
        column[part] = np.arange(part.start, part.stop)
    return column


def gathered(column: Column, indices: npt.NDArray[np.intp]) -> Column:
    """Return the rows `indices`, ascending, of a column; the result is held in memory."""
    made: Column = np.empty((len(indices), *column.shape[1:]), column.dtype)
    for part in blocks(len(indices), _APART):
        made[part] = column[indices[part]]
    return made


def scattered(column: Column, indices: npt.NDArray[np.intp], values: Column) -> None:
    """Set the rows `indices`, ascending, of a column."""
    for part in blocks(len(indices), _APART):
        column[indices[part]] = values[part]


def blocks(rows: int, size: int = BLOCK) -> Iterator[slice]:
    """Yield slices that cover `rows` rows; what a block read is released before the next."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
        release()


def opened(path: Path) -> Column:
    """Return the column of a `.npy` file, read only.

    Raises:
        OSError, ValueError, EOFError: there is none, or it is damaged.
    """
    column: Column = np.load(path, mmap_mode="r")
    if (area := getattr(column, "_mmap", None)) is not None:
        _MAPS.add(area)
    return column


def release() -> None:
    """Take the pages of all long columns out of this process; they are read again when they are needed."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for area in tuple(_MAPS):
            area.madvise(mmap.MADV_DONTNEED)


def _nameless() -> Any:
    folder = home() / "cache" / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder)


def _mapped(file: Any, dtype: np.dtype[Any]) -> Column:
    area = mmap.mmap(file.fileno(), 0)
    _MAPS.add(area)
    column: Column = np.frombuffer(area, dtype)
    return column
