"""Where the rows go that cannot be used: a file beside theirs, whole or not there."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from pathlib import Path
from typing import IO, Self

from tinker_officer._files import sync_folder


class Quarantine:
    """The rows that cannot be used, copied to `<path>.quarantine.jsonl`: all of them, or no file at all.

    Each line holds the line's number, the reason, and the line itself, byte for byte: as `raw`, or as
    `raw_base64` where it is not UTF-8.
    """

    def __init__(self, path: Path, *, wanted: bool) -> None:
        self.path = path.with_name(f"{path.name}.quarantine.jsonl")
        self._wanted = wanted
        self._file: IO[bytes] | None = None
        self._temporary = Path()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:  # not kept: nothing half-written stays
            self._file.close()
            self._temporary.unlink(missing_ok=True)

    def add(self, number: int, reason: str, line: bytes) -> None:
        """Copy one line."""
        if not self._wanted:
            return
        if self._file is None:
            handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
            self._file, self._temporary = os.fdopen(handle, "wb"), Path(name)
        try:
            raw = {"raw": line.decode()}
        except UnicodeDecodeError:
            raw = {"raw_base64": base64.b64encode(line).decode()}
        record = json.dumps({"line": number, "reason": reason, **raw}, ensure_ascii=False)
        self._file.write(record.encode(errors="backslashreplace") + b"\n")

    def keep(self) -> None:
        """Put the file in its place, whole."""
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.chmod(0o644)
        self._temporary.replace(self.path)
        sync_folder(self.path.parent)
        self._file = None
