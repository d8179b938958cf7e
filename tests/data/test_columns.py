"""Columns: long ones are files without a name, and behave as arrays in memory do."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path

import numpy as np
import pytest

from tinker_officer.data import columns
from tinker_officer.data.columns import BLOCK, Growing
from tinker_officer.errors import DataError


LONG = 3 * BLOCK + 17


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("rows", [0, 5, BLOCK, LONG])
def test_what_is_added_row_by_row_is_read_back(rows):
    """A column holds every row that was added, in order, however many there are."""
    growing = Growing("<i8")
    for number in range(rows):
        growing += (number * 3).to_bytes(8, "little")
    assert np.array_equal(growing.column(), np.arange(rows) * 3)


def test_released_pages_are_read_again():
    """Releasing changes no value, written or read."""
    column = columns.zeros(LONG, np.dtype([("a", "<i4"), ("b", "u1", (16,))]))
    column["a"] = np.arange(LONG)
    columns.release()
    assert np.array_equal(column["a"], np.arange(LONG))
    assert not column["b"].any()


def test_selecting_gathering_and_scattering_are_indexing():
    """Each gives what NumPy's own indexing gives, for one dimension and for two."""
    indices = np.flatnonzero(np.random.default_rng(0).random(LONG) < 0.7)
    flat = columns.numbered(LONG)
    wide = columns.zeros(LONG, (np.uint8, (16,)))
    wide[:] = np.random.default_rng(1).integers(0, 256, wide.shape, np.uint8)
    for column in (flat, wide):
        assert np.array_equal(columns.selected(column, indices), column[indices])
        assert np.array_equal(columns.gathered(column, indices), column[indices])
    expected = flat.copy()
    expected[indices] = 7
    columns.scattered(flat, indices, np.full(len(indices), 7))
    assert np.array_equal(flat, expected)


def test_a_column_goes_to_another_process():
    """A long column is pickled with its content."""
    column = columns.numbered(LONG)
    assert np.array_equal(pickle.loads(pickle.dumps(column)), column)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_column_leaves_nothing_behind():
    """A column that is dropped leaves no open file, and no file in the cache."""
    gc.collect()
    before = open_files()
    column = columns.numbered(LONG)
    assert column[-1] == LONG - 1
    del column
    gc.collect()
    assert open_files() == before
    from tinker_officer._files import home

    assert not [path for path in (home() / "cache" / "rows").iterdir() if path.suffix != ".jsonl"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    """Long columns need a little disk: where there is none, the error says what to set."""
    (tmp_path / "home").write_text("a file, not a folder")
    monkeypatch.setenv("TINKER_OFFICER_HOME", str(tmp_path / "home"))
    assert len(columns.zeros(5, np.int64)) == 5
    with pytest.raises(DataError, match="TINKER_OFFICER_HOME"):
        columns.zeros(LONG, np.int64)
