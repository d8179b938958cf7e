"""The part of a docs page that a bench writes: what stands between two marks with the bench's name."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from tinker_officer._files import write_atomic


DOCS = Path(__file__).resolve().parent.parent / "docs/explanation"
END = "<!-- to here -->"


def write(page: str, script: str, text: str, *, part: str = "") -> None:
    """Put `text` where `docs/explanation/<page>.md` says that a bench, or a part of it, writes."""
    command = f"{script}.py {part}".rstrip()
    path, begin = DOCS / f"{page}.md", f"<!-- bench/{command} writes from here -->"
    before, rest = path.read_text("utf-8").split(begin)
    _, after = rest.split(END, 1)
    write_atomic(path, f"{before}{begin}\n\n{text}\n\n{END}{after}")


def machine() -> str:
    """Name what a figure was taken on: the processor, how many cores it has, and Python's version."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8") if path.is_file() else ""
    named = re.search(r"^model name\s*:\s*(.+)$", lines, re.MULTILINE)
    processor = named[1] if named else platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}"
