"""What was counted, kept on disk: a file that is whole or is not there."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from numpy.lib.format import dtype_to_descr, write_array_header_1_0

from tinker_officer.data import columns
from tinker_officer.data.counting import ROW, Rows
from tinker_officer.data.digests import Digests, parts


logger = logging.getLogger(__name__)


def save(path: Path, rows: Rows, contents: Digests) -> None:
    """Keep `rows` at `path`, ordered by their content's digests, so that any order finds them again.

    A cache that cannot be written costs time, not the result.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                header = {"descr": dtype_to_descr(ROW), "fortran_order": False, "shape": rows.shape}
                write_array_header_1_0(file, header)
                for indices, by_content in parts(contents):
                    file.write(columns.gathered(rows, indices)[by_content].tobytes())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("data.measure: %s could not be written: %s", path, error)


def load(path: Path, contents: Digests) -> Rows | None:
    """Return the rows kept at `path`, in the order of `contents`; None when there are none, or damaged."""
    try:
        found = columns.opened(path)
    except (OSError, ValueError, EOFError):
        return None
    if found.dtype != ROW or len(found) != len(contents):
        return None
    rows, done = columns.zeros(len(contents), ROW), 0
    for indices, by_content in parts(contents):
        part: Rows = columns.zeros(len(indices), ROW)
        part[by_content] = found[done : done + len(indices)]
        columns.scattered(rows, indices, part)
        done += len(indices)
    return rows
