"""What was counted, kept on disk: a file that is whole or is not there."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib.format import dtype_to_descr, write_array_header_1_0

from tinker_officer.data.counting import ROW, Rows


logger = logging.getLogger(__name__)

_CHUNK = 1 << 16


def save(path: Path, rows: Rows, order: npt.NDArray[np.intp]) -> None:
    """Keep `rows` at `path`, in this order; a cache that cannot be written costs time, not the result."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                header = {"descr": dtype_to_descr(ROW), "fortran_order": False, "shape": rows.shape}
                write_array_header_1_0(file, header)
                for start in range(0, len(order), _CHUNK):  # never a second copy of all of them
                    file.write(rows[order[start : start + _CHUNK]].tobytes())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("data.measure: %s could not be written: %s", path, error)


def load(path: Path, length: int) -> Rows | None:
    """Return the rows kept at `path`; None when there are none, or they are damaged."""
    try:
        rows: Rows = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    return rows if rows.dtype == ROW and len(rows) == length else None
