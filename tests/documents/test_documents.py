"""Every example of the README, the docs and the docstrings runs as it stands."""

from __future__ import annotations

import ast
import doctest
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

import tinker_officer


ROOT = Path(__file__).parents[2]
SKIP = SkipParser()
PAGES = Sybil(parsers=[PythonCodeBlockParser(), SKIP])
DOCSTRINGS = Sybil(parsers=[DocTestParser(doctest.ELLIPSIS)])


def _documents() -> Iterator[tuple[Sybil, Path]]:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        if "```python" in page.read_text(encoding="utf-8"):
            yield PAGES, page
    for module in sorted((ROOT / "tinker_officer").rglob("*.py")):
        if ">>> " in module.read_text(encoding="utf-8"):
            yield DOCSTRINGS, module


DOCUMENTS = list(_documents())


@pytest.mark.smollm2
@pytest.mark.parametrize(
    ("sybil", "path"), DOCUMENTS, ids=[str(path.relative_to(ROOT)) for _, path in DOCUMENTS]
)
def test_every_example_runs(sybil: Sybil, path: Path, scene: Callable[[], dict[str, Any]]) -> None:
    """What a reader pastes from this document works, in the order in which it stands."""
    document = sybil.parse(path)
    document.namespace.update(scene())
    for example in document.examples():
        with suppress(SkipTest):  # the page says why, in a comment: `<!-- skip: next "why" -->`
            example.evaluate()


@pytest.mark.parametrize("name", tinker_officer.__all__)
def test_every_public_name_has_an_example(name: str) -> None:
    """Each name in __all__ is used by an example that the test above runs."""
    used: set[str] = set()
    for sybil, path in DOCUMENTS:
        for example in sybil.parse(path).examples():
            if example.region.evaluator is not SKIP.skipper:
                tree = ast.parse(getattr(example.parsed, "source", example.parsed))
                used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert name in used
