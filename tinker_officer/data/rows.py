"""Where rows stay: in a file of JSON lines, in a list, or in a Hugging Face dataset.

Each store answers `read(i)` with the raw row and where it stands, and `walk()` with all of them in order.
A file is never held open, and never read whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import attrs
import numpy as np
import numpy.typing as npt
import orjson

from tinker_officer.data.messages import Json, RowError
from tinker_officer.errors import DataError


_BOM = b"\xef\xbb\xbf"
_NESTING = "nested too deeply"
_AT_ONCE_BYTES = 16 << 20  # lines that stand no farther apart are read together


class Store(Protocol):
    """Rows that stay where they are; the numbers are those of the checked rows, from 0."""

    def read(self, number: int) -> Any:
        """Return raw row `number`."""

    def guess(self, numbers: Sequence[int]) -> Iterator[Any]:
        """Yield raw rows quickly, unchecked; None for one that `read` has to look at."""

    def written(self, numbers: Sequence[int]) -> Sequence[bytes | None]:
        """Return the line of each row that shows its texts and is as it was checked; None for others."""

    def where(self, number: int) -> str:
        """Say where row `number` stands, for people."""


def parse_line(line: bytes) -> Any:
    """Return what one line of JSON holds.

    Raises:
        RowError: it is not UTF-8, or not JSON.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise RowError(f"not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}") from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise RowError(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise RowError(f"not JSON: {_NESTING}") from error
    except ValueError as error:  # a number of thousands of digits
        raise RowError(f"not JSON: {str(error).split(';', 1)[0]}") from error


def lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield `(line number, offset, line)` of each line that is not blank; line ends and a BOM are cut off."""
    offset = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            start, offset = offset, offset + len(raw)
            line = raw.rstrip(b"\r\n")
            if number == 1 and line.startswith(_BOM):
                line, start = line[len(_BOM) :], start + len(_BOM)
            if line.strip():
                yield number, start, line


def mark(line: bytes) -> int:
    """Return the checksum of a line without its end, 32 bits; never that of no line, 0."""
    return crc32(line) or 1


def shows(row: Mapping[str, Any], turns: Iterable[Json]) -> bool:
    """Whether each of a row's messages has for its text one of the strings of the raw row, whole.

    Said only of strings that are values of the row, or of objects in its lists.
    """
    strings: set[int] = set()
    for value in row.values():
        if type(value) is str:
            strings.add(id(value))
        elif type(value) is list:
            for part in value:
                if type(part) is dict:
                    strings.update(map(id, part.values()))
    return all(type(text := turn["content"]) is str and id(text) in strings for turn in turns)


@attrs.frozen(eq=False)
class LineStore:
    """Rows that are lines of a file.

    Attributes:
        path: the file.
        name: what the user called it.
        offsets: where each line begins, bytes.
        numbers: of each line, from 1.
        marks: of each line its `mark`, if every text of the row is one of its strings; else 0.
        unit: what a row is there.
    """

    path: Path
    name: str
    offsets: npt.NDArray[np.int64] = attrs.field(repr=False)
    numbers: npt.NDArray[np.int64] = attrs.field(repr=False)
    marks: npt.NDArray[np.uint32] = attrs.field(repr=False)
    unit: str = "line"

    def read(self, number: int) -> Any:
        """Return raw row `number`."""
        try:
            with self.path.open("rb") as file:
                file.seek(int(self.offsets[number]))
                return parse_line(file.readline().rstrip(b"\r\n"))
        except OSError as error:
            raise changed(self.name, self.where(number), f"{type(error).__name__}: {error}") from error
        except RowError as error:
            raise changed(self.name, self.where(number), str(error)) from error

    def guess(self, numbers: Sequence[int]) -> Iterator[Any]:
        """Yield raw rows, the file opened once."""
        try:
            with self.path.open("rb") as file:
                parse, seek, line = orjson.loads, file.seek, file.readline
                for offset in self.offsets[np.asarray(numbers, np.intp)].tolist():
                    seek(offset)
                    try:
                        row = parse(line())
                    except ValueError:  # orjson is stricter than json: `read` decides
                        row = None
                    yield row
        except OSError:  # the file is gone: `read` says so
            for _ in numbers:
                yield None

    def written(self, numbers: Sequence[int]) -> Sequence[bytes | None]:
        """Return the line of each row that shows its texts and is as it was checked; None for others."""
        indices = np.asarray(numbers, np.intp)
        starts, marks = self.offsets[indices], self.marks[indices].tolist()
        at_once = len(starts) and (np.diff(starts) > 0).all() and starts[-1] - starts[0] < _AT_ONCE_BYTES
        found: list[bytes | None] = []
        try:
            with self.path.open("rb") as file:
                for part in [starts] if at_once else starts[:, None]:
                    file.seek(int(part[0]))
                    text = file.read(int(part[-1] - part[0])) + file.readline()
                    for start in (part - part[0]).tolist():
                        end = text.find(b"\n", start)
                        line = (text[start:end] if end >= 0 else text[start:]).rstrip(b"\r\n")
                        expected = marks[len(found)]
                        found.append(line if expected and mark(line) == expected else None)
        except OSError:  # the file is gone: `read` says so
            return [None] * len(marks)
        return found

    def where(self, number: int) -> str:
        """Say where row `number` stands: `tickets.jsonl:17`."""
        place = f"{int(self.numbers[number])}"
        return f"{Path(self.name).name}:{place if self.unit == 'line' else f'{self.unit} {place}'}"


@attrs.frozen(eq=False)
class SequenceStore:
    """Rows of a list, or of anything else with `[i]`, such as a Hugging Face dataset."""

    rows: Sequence[Any] = attrs.field(repr=False)
    name: str

    def read(self, number: int) -> Any:
        """Return raw row `number`."""
        return self.rows[number]

    def guess(self, numbers: Sequence[int]) -> Iterator[Any]:
        """Yield raw rows."""
        for number in numbers:
            yield self.rows[number]

    def written(self, numbers: Sequence[int]) -> Sequence[bytes | None]:
        """Return None for each row: they are no lines."""
        return [None] * len(numbers)

    def where(self, number: int) -> str:
        """Say where row `number` stands: `list[17]`."""
        return f"{self.name}[{number}]"


def changed(name: str, where: str, got: str) -> DataError:
    """Return the error for a row that is no longer what it was when the file was checked."""
    return DataError(
        f"{name} has changed since it was loaded",
        got=f"{where}: {got}",
        need="the rows that were checked: the plan, the split and the fingerprint are about them",
        fix="load it again, and plan again",
    )
