"""An append-only JSONL file that survives a torn tail.

Each record is one line, written with one `write` call and flushed; `sync=True` also fsyncs it. A process
that is killed, or a disk that fills, can leave an incomplete last line: reading ignores it, and opening
for appending cuts it off. An unreadable line *before* the last is damage, and is said so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tinker_officer.errors import OfficerError


class Journal:
    """An append-only JSONL file at `path`; the file and its folder are made on the first append."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._checked = False

    def __repr__(self) -> str:
        return f"Journal({str(self.path)!r})"

    def append(self, record: Mapping[str, Any], *, sync: bool = False) -> None:
        """Add one record; with `sync`, return only when it is on the disk.

        Raises:
            OSError: the disk is full; whatever was written of the record is cut off again.
        """
        if not self._checked:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._cut_torn_tail()
            self._checked = True
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            start = os.fstat(handle).st_size
            try:
                written = os.write(handle, line)
                while written < len(line):  # a nearly full disk may take a part
                    written += os.write(handle, line[written:])
                if sync:
                    os.fsync(handle)
            except OSError:
                os.ftruncate(handle, start)
                raise
        finally:
            os.close(handle)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each complete record, oldest first; nothing when the file is not there.

        Raises:
            OfficerError: a line before the last is not a JSON object.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return  # torn: never acknowledged
                try:
                    record = json.loads(line)
                except ValueError:
                    record = None
                if not isinstance(record, dict):
                    raise OfficerError(
                        f"{self.path.name} is damaged at line {number}",
                        got=line[:80].decode(errors="replace").rstrip(),
                        need="one JSON object a line",
                        fix=f"restore {self.path} from a backup, or remove the lines from {number} on",
                    )
                yield record

    def _cut_torn_tail(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            end = position = file.seek(0, os.SEEK_END)
            keep = 0
            while position > 0 and not keep:
                step = min(65536, position)
                position -= step
                file.seek(position)
                newline = file.read(step).rfind(b"\n")
                keep = position + newline + 1 if newline >= 0 else 0
            if keep < end:
                file.truncate(keep)
