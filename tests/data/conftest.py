"""Fixtures of the data room: files of conversations, and rows to put in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest


Write = Callable[..., Path]


def chat(user: str, assistant: str, **fields: Any) -> dict[str, Any]:
    """A row in the `messages` shape."""
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": turns, **fields}


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Forty rows of eight customers, all different."""
    return [chat(f"Question {i}?", f"Answer {i}.", customer=f"c{i % 8}") for i in range(40)]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows (objects, or raw bytes as they are) as a JSONL file, and return its path."""

    def written(rows: Iterable[Any], name: str = "tickets.jsonl") -> Path:
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path = tmp_path / name
        path.write_bytes(b"\n".join(lines) + b"\n")
        return path

    return written
