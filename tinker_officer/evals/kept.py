"""Items that were asked before an evaluation was interrupted: none of them is asked twice.

Each finished item is one line in a journal beside the scorecard, under a digest of everything that decides
its
score: the weights, the renderer, the sampling, the grader. An item that failed is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from tinker_officer._digest import digest
from tinker_officer._journal import Journal
from tinker_officer.evals.scorecard import Item


class Kept:
    """The items of one eval of one target that are already known.

    Args:
        folder: where journals lie; None keeps nothing.
        name: the eval's name.
        settings: whatever decides an item's score, the target among it; JSON.
    """

    def __init__(self, folder: Path | None, name: str, settings: Mapping[str, Any]) -> None:
        self._journal = (
            Journal(folder / "items" / f"{name}-{digest(dict(settings))[:16]}.jsonl") if folder else None
        )
        records = [dict(record) for record in self._journal or ()]
        items = [Item(**record) for record in records]
        self._items = {(item.id, item.input_digest): item for item in items}

    def get(self, item_id: str, input_digest: str) -> Item | None:
        """Return the item, if it was asked before with this very input."""
        return self._items.get((item_id, input_digest))

    def add(self, item: Item) -> None:
        """Keep an item that did not fail."""
        if self._journal is not None and item.status == "completed":
            self._journal.append(attrs.asdict(item))
