"""Reading and checking: every row once, in order, in constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt
import orjson

from tinker_officer._digest import canonical
from tinker_officer._disk import writing
from tinker_officer._progress import Progress
from tinker_officer._text import nearest
from tinker_officer.data import spool
from tinker_officer.data.columns import Growing
from tinker_officer.data.messages import Json, RowError
from tinker_officer.data.quarantine import Quarantine
from tinker_officer.data.rows import LineStore, SequenceStore, Store, lines, mark, parse_line, shows
from tinker_officer.errors import DataError


DIGEST_BYTES = 16
_hash, _write = hashlib.blake2b, orjson.dumps  # called a million times
_NAMED = 5  # problems that an error lists
_SOON_BYTES = 32 << 20  # read in less than a second: no progress unless it is asked for
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_LOADERS = {".parquet": "from_parquet", ".jsonl": "from_jsonl", ".json": "from_jsonl", ".gz": "from_jsonl"}


class Checked(Protocol):
    """A row in normal form."""

    @property
    def content(self) -> Any:
        """What the row says, as JSON, without its other fields."""

    @property
    def turns(self) -> Sequence[Json]:
        """All of its messages."""


@attrs.frozen
class Kind:
    """What rows are made into, and how errors speak of it.

    Args:
        loader: the class that loads them.
        noun: what one row is.
        shapes: how rows may be laid out.
        normalise: returns a row in normal form, given the row and its shape, or raises `RowError`.
        example: a row, as JSON.
    """

    loader: str
    noun: str
    shapes: tuple[str, ...]
    normalise: Callable[[Any, str | None], Checked]
    example: str


@attrs.frozen(eq=False)
class Loaded:
    """Checked rows: where they are, and the digest of each, shape `(rows, 16)`."""

    source: str
    shape: str | None
    store: Store
    digests: npt.NDArray[np.uint8]
    quarantined: int = 0


def content_digest(row: Checked) -> bytes:
    """Return the digest of what a row says, not of its other fields.

    Raises:
        RowError: a text is not valid Unicode.
    """
    try:
        content = canonical(row.content)
    except UnicodeEncodeError as error:
        raise RowError("a text is not valid Unicode: it holds half of a surrogate pair") from error
    except ValueError as error:
        raise RowError(f"a tool holds a number that JSON has no form for: {error}") from error
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def has_digest(messages: Any, expected: bytes) -> bool:
    """Whether `messages`, as they are, have this content digest: then they are in normal form, without tools.

    Quick, and on the safe side: orjson writes what `canonical` writes, or else the digests differ.
    """
    if not isinstance(messages, list):
        return False
    try:
        content = _write(messages, None, orjson.OPT_SORT_KEYS)
    except TypeError:  # a number or a text that orjson does not write
        return False
    return _hash(content, digest_size=DIGEST_BYTES).digest() == expected


def jsonl(path: str | Path, kind: Kind, *, on_error: str, shape: str | None, progress: bool | None) -> Loaded:
    """Check a file of JSON lines, plain or gzip."""
    file = _existing(path, kind, "from_jsonl")
    head = _head(file)
    if head.startswith(_PARQUET):
        raise DataError(
            f"{path} is a Parquet file",
            got="a file that begins with PAR1",
            need="lines of JSON, plain or gzip",
            fix=f"{kind.loader}.from_parquet({str(path)!r})",
        )
    plain = spool.unzipped(file) if head.startswith(_GZIP) else file
    rules: Any = {"on_error": on_error, "shape": shape, "progress": progress}
    return _lines(path, plain, kind, "line", "from_jsonl", **rules)


def parquet(
    path: str | Path, kind: Kind, *, on_error: str, shape: str | None, progress: bool | None
) -> Loaded:
    """Check a Parquet file."""
    plain = spool.lines_of_parquet(_existing(path, kind, "from_parquet"))
    rules: Any = {"on_error": on_error, "shape": shape, "progress": progress}
    return _lines(path, plain, kind, "row", "from_parquet", **rules)


def sequence(
    rows: Sequence[Any], name: str, kind: Kind, *, shape: str | None, progress: bool | None
) -> Loaded:
    """Check rows that `rows[i]` gives."""
    _check_settings(kind, "raise", shape)
    problems = Problems(name, kind)
    digests = Growing((np.uint8, (DIGEST_BYTES,)))
    with Progress(len(rows), f"checking {name}", unit="rows", show=progress) as bar:
        for number in range(len(rows)):
            try:
                digests += content_digest(kind.normalise(rows[number], shape))
            except RowError as error:
                problems.add(f"{name}[{number}]", str(error))
            bar.advance()
    if not rows:
        raise _empty(name, kind, "no rows")
    problems.refuse("correct or remove those rows, then load again")
    return Loaded(name, shape, SequenceStore(rows, name), digests.column())


def dataset(rows: Any, kind: Kind, *, shape: str | None, progress: bool | None) -> Loaded:
    """Check a Hugging Face dataset."""
    if isinstance(rows, dict):
        raise DataError(
            "a dataset with several splits",
            got="splits " + ", ".join(map(repr, rows)),
            need="one of them",
            fix=f"{kind.loader}.from_dataset(dataset[{next(iter(rows), 'train')!r}])",
        )
    if not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__") and hasattr(rows, "features")):
        raise DataError(
            "not a dataset that can be read at any row",
            got=type(rows).__name__,
            need="a datasets.Dataset",
            fix=f"{kind.loader}.from_list(list(dataset.take(10_000)))  # for one that streams",
        )
    name = str(getattr(rows.info, "dataset_name", None) or "dataset")
    return sequence(rows, name, kind, shape=shape, progress=progress)


class Problems:
    """The first few rows that cannot be used, and how many there are."""

    def __init__(self, name: str, kind: Kind) -> None:
        self.name, self.kind, self.count, self.first = name, kind, 0, list[str]()

    def add(self, where: str, reason: str) -> None:
        """Count a row, and remember it if it is among the first."""
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(f"{where}: {reason}")

    def refuse(self, fix: str) -> None:
        """Raise the `DataError` that names them, if there are any."""
        if not self.count:
            return
        more = self.count - len(self.first)
        what = "1 row" if self.count == 1 else f"{self.count} rows"
        raise DataError(
            f"{self.name} has {what} that cannot be used",
            got="\n".join([*self.first, *([f"and {more} more"] if more else [])]),
            need=f"{self.kind.noun}s, e.g. {self.kind.example}",
            fix=fix,
        )


def _lines(
    path: str | Path,
    plain: Path,
    kind: Kind,
    unit: str,
    loader: str,
    *,
    on_error: str,
    shape: str | None,
    progress: bool | None,
) -> Loaded:
    _check_settings(kind, on_error, shape)
    name, call = str(path), f"{kind.loader}.{loader}"
    problems = Problems(name, kind)
    offsets, numbers, marks = Growing("<i8"), Growing("<i8"), Growing("<u4")
    digests = Growing((np.uint8, (DIGEST_BYTES,)))
    short = Path(name).name
    size = plain.stat().st_size
    if progress is None and size < _SOON_BYTES:
        progress = False
    with (
        Progress(size, f"checking {short}", unit="bytes", show=progress) as bar,
        writing("the quarantine", Path(path).parent, error=DataError, fix=f"{call}({name!r})"),
        Quarantine(Path(path), wanted=on_error == "quarantine") as quarantine,
    ):
        done = kept = 0
        for number, offset, line in lines(plain):
            try:
                raw = parse_line(line)
                row = kind.normalise(raw, shape)
                content = content_digest(row)
            except RowError as error:
                reason = str(error)
                if offset + len(line) == size and reason.startswith("not JSON"):
                    reason += "; the file ends here, within a line: it may be cut off"
                problems.add(f"{short}:{number}" if unit == "line" else f"{short}:{unit} {number}", reason)
                quarantine.add(number, reason, line)
            else:
                digests += content
                offsets += offset.to_bytes(8, "little")
                numbers += number.to_bytes(8, "little")
                marks += (mark(line) if shows(raw, row.turns) else 0).to_bytes(4, "little")
                kept += 1
            bar.advance(offset + len(line) - done)
            done = offset + len(line)
        bar.advance(size - done)
        if not kept and not problems.count:
            raise _empty(name, kind, f"{size} bytes, no rows")
        if on_error == "raise" or not kept:
            problems.refuse(_fix(plain, name, call, kind, some=kept > 0))
        quarantine.keep()
    store = LineStore(plain, name, offsets.column(), numbers.column(), marks.column(), unit)
    return Loaded(name, shape, store, digests.column(), problems.count)


def _check_settings(kind: Kind, on_error: str, shape: str | None) -> None:
    for name, value, known in (
        ("on_error", on_error, ("raise", "quarantine")),
        ("shape", shape, (None, *kind.shapes)),
    ):
        if value not in known:
            raise DataError(
                f"{name} is not known",
                got=repr(value),
                need="one of " + ", ".join(map(repr, known)),
                fix=f"{kind.loader}.from_jsonl(path, {name}={known[1]!r})",
            )


def _existing(path: str | Path, kind: Kind, loader: str) -> Path:
    """Return `path` if it is a file; otherwise say what is there instead."""
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        inside = [found for found in sorted(file.iterdir()) if found.suffix in _LOADERS]
        example = str(inside[0]) if inside else str(Path(path) / "tickets.jsonl")
        raise DataError(
            f"{path} is a folder",
            got=", ".join(found.name for found in inside[:_NAMED]) or "no data files in it",
            need="a file",
            fix=f"{kind.loader}.{_LOADERS.get(Path(example).suffix, loader)}({example!r})",
        )
    folder = file.parent
    near = nearest(file.name, (found.name for found in _files(folder)))
    meant = str(folder / near.split(", ")[0].strip("'\"")) if near else "tickets.jsonl"
    raise DataError(
        f"{path} does not exist",
        got=f"no such file in {folder}" if folder.is_dir() else f"no such folder: {folder}",
        need="a file that exists" + (f" (did you mean {near}?)" if near else ""),
        fix=f"{kind.loader}.{loader}({meant!r})",
    )


def _files(folder: Path) -> Iterator[Path]:
    return (found for found in folder.iterdir() if found.is_file()) if folder.is_dir() else iter(())


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(4)


def _fix(plain: Path, name: str, call: str, kind: Kind, *, some: bool) -> str:
    with plain.open("rb") as file:
        first = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if first.startswith(b"["):  # one array over the whole file
        opener = "gzip.open" if name.endswith(".gz") else "open"
        loader = call.partition(".")[0]
        return f"{loader}.from_list(json.load({opener}({name!r})))  # the file is one JSON array"
    if not some:
        return f"look at the first lines of {name}: are these {kind.noun}s?"
    return f'{call}({name!r}, on_error="quarantine")'


def _empty(name: str, kind: Kind, got: str) -> DataError:
    return DataError(
        f"{name} is empty",
        got=got,
        need=f"at least one {kind.noun}",
        fix=f"write rows such as {kind.example}",
    )
