"""What was asked before an evaluation was interrupted: nothing of it is asked twice.

Each eval of each target has a journal beside the scorecard, under a digest of everything that decides a
score: the checkpoint, the renderer, the sampling, the grader. A checkpoint's path may have been saved over:
so its first line holds what the weights made of one fixed sentence, and the journal is begun anew when they
make something else of it. What failed is not kept: it is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer._digest import digest
from tinker_officer._journal import Journal
from tinker_officer.evals.results import Item


if TYPE_CHECKING:
    from tinker_officer.evals.target import Target

_NOISE_NATS = 0.02  # what the same weights' arithmetic varies by on a GPU


async def open_journal(
    folder: Path | None, name: str, target: Target, settings: Mapping[str, Any]
) -> Journal | None:
    """Return the journal of one eval of one target, begun anew where its weights are others by now.

    Args:
        folder: where journals lie, in `items`; None keeps nothing.
        name: the eval's name.
        target: the opened target; nothing is kept of a live one, which is never met again.
        settings: whatever else decides an item's score; JSON.
    """
    if folder is None or target.live:
        return None
    exam = {**settings, "target": target.identity, "renderer": target.renderer_name}
    journal = Journal(folder / "items" / f"{name}-{digest(exam)[:16]}.jsonl")
    probe = await target.probe()
    if not _same(probe, next(iter(journal), {}).get("probe", ())):
        journal.path.unlink(missing_ok=True)
        journal.append({"probe": probe})
    return journal


def _same(probe: Sequence[float], before: Sequence[float]) -> bool:
    pairs = zip(probe, before, strict=False)
    return len(probe) == len(before) and all(abs(now - then) < _NOISE_NATS for now, then in pairs)


class Kept:
    """The items of one eval of one target that are already known.

    Args:
        journal: what `open_journal` returned.
    """

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        items = [Item(**record) for record in journal or () if "probe" not in record]
        self._items = {(item.id, item.input_digest): item for item in items}

    def get(self, item_id: str, input_digest: str) -> Item | None:
        """Return the item, if it was asked before with this very input."""
        return self._items.get((item_id, input_digest))

    def add(self, item: Item) -> None:
        """Keep an item that did not fail."""
        if self._journal is not None and item.status == "completed":
            self._journal.append(attrs.asdict(item))
