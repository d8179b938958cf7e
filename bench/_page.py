"""The part of a docs page that a bench writes: what stands between two marks with the bench's name."""

from __future__ import annotations

from pathlib import Path

from tinker_officer._files import write_atomic


DOCS = Path(__file__).resolve().parent.parent / "docs/explanation"
END = "<!-- to here -->"


def write(page: str, script: str, text: str) -> None:
    """Put `text` where `docs/explanation/<page>.md` says that `bench/<script>.py` writes."""
    path, begin = DOCS / f"{page}.md", f"<!-- bench/{script}.py writes from here -->"
    before, rest = path.read_text("utf-8").split(begin)
    _, after = rest.split(END, 1)
    write_atomic(path, f"{before}{begin}\n\n{text}\n\n{END}{after}")
