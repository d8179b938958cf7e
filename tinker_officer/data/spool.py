"""Compressed and columnar files, written once as plain lines of JSON.

gzip and Parquet cannot be read at an offset, and training reads rows in any order. So such a file is
unpacked once into our cache, in constant memory, and read from there. The copy is found again by the
original's path, size and time of change; the cache folder may be deleted at any time.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tinker_officer._disk import writing
from tinker_officer._files import home
from tinker_officer.errors import DataError


_BATCH_ROWS = 256
_FIX = "free some space, or export TINKER_OFFICER_HOME=/a/larger/disk"
_CHUNK_BYTES = 1 << 20


def unzipped(path: Path) -> Path:
    """Return a plain copy of the gzip file `path`.

    Raises:
        DataError: it is not gzip, or is damaged or cut off.
    """

    def write(file: IO[bytes]) -> None:
        try:
            with gzip.open(path) as packed:
                shutil.copyfileobj(packed, file, _CHUNK_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{path} cannot be unpacked",
                got=f"{type(error).__name__}: {error}",
                need="a whole gzip file",
                fix=f"gzip --test {path}  # then copy or download it again",
            ) from error

    return _spooled(path, write)


def lines_of_parquet(path: Path) -> Path:
    """Return a copy of the Parquet file `path` with one JSON object a line, in its order.

    Raises:
        DataError: it is not a Parquet file, or is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(file: IO[bytes]) -> None:
        try:
            with pq.ParquetFile(path, pre_buffer=False) as table:
                for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                    for row in batch.to_pylist():
                        file.write(
                            json.dumps(row, ensure_ascii=False, default=_as_json).encode(
                                errors="surrogatepass"
                            )
                        )
                        file.write(b"\n")
        except (pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None) is not None:  # the disk, not the file
                raise
            raise DataError(
                f"{path} cannot be read",
                got=f"{type(error).__name__}: {str(error)[:200]}",
                need="a whole Parquet file",
                fix="for lines of JSON: from_jsonl(path)",
            ) from error

    return _spooled(path, write)


def _as_json(value: Any) -> str:
    """Write what JSON has no form for (bytes, dates, decimals) as text."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _spooled(path: Path, write: Callable[[IO[bytes]], None]) -> Path:
    state = path.stat()
    key = f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}".encode(errors="surrogateescape")
    target = home() / "cache" / "rows" / f"{hashlib.sha256(key).hexdigest()[:32]}.jsonl"
    if target.exists():
        return target
    with writing(f"a copy of {path.name}", target.parent, error=DataError, fix=_FIX):
        _write(target, write)
    return target


def _write(target: Path, write: Callable[[IO[bytes]], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".unpacking-", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
