"""The hashes of the audit log. Run as a script, it hashes the rows of one query of an SQLite file.

It needs nothing but the standard library, so that a process of its own is at work within 30 ms.
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from collections.abc import Iterable


GENESIS = "0" * 64


def row_digest(values: Iterable[str | int | None]) -> str:
    """Return the SHA-256 of a row's values, in the order of the table's columns.

    Each value is written with its kind and length before it, so that no two rows are written alike.
    """
    parts = [
        f"{len(value)}:{value}" if value.__class__ is str else "null" if value is None else f"i{value}"
        for value in values
    ]
    return hashlib.sha256(",".join(parts).encode()).hexdigest()


def chained(seq: int, prev: str, body: str) -> str:
    """Return an entry's hash, over its number, the hash before it, and its content."""
    return hashlib.sha256(f"{seq}\n{prev}\n{body}".encode()).hexdigest()


def main(uri: str, query: str) -> None:
    """Write the digest of every row of `query` to the standard output, 64 digits each."""
    sys.stdout.write("".join(map(row_digest, sqlite3.connect(uri, uri=True).execute(query))))


if __name__ == "__main__":
    main(*sys.argv[1:])
