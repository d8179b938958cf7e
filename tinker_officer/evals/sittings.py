"""Samples that were answered and scored, kept beside the logs: what was asked once is not asked again.

One journal an exam (`kept`), one line a sample, written as each ends: a killed process loses the samples that
were under way and no others. A line counts only for a question that reads the same. Samples that errored are
not kept: they were never answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import attrs

from tinker_officer._journal import Journal


@attrs.frozen
class Ended:
    """What is kept of a sample when it ends.

    Attributes:
        id: of the item.
        shown: digest of what the model was asked.
        error: what went wrong; empty when nothing did.
        scores: value by scorer: a number, a word, or several by part.
        reasons: why a scorer gave no value, by scorer.
        stop_reason: why the model stopped.
        tokens: that the model wrote.
        read: tokens that it was shown.
    """

    id: str
    shown: str
    error: str = ""
    scores: Mapping[str, Any] = attrs.field(factory=dict)
    reasons: Mapping[str, str] = attrs.field(factory=dict)
    stop_reason: str = ""
    tokens: int = 0
    read: int = 0


class Sittings:
    """The samples of one exam that are known.

    Args:
        journal: where they are kept; None keeps none.
        shown: digest of what each item asks now, by id.
        epochs: how often each item is sat.
    """

    def __init__(self, journal: Journal | None, shown: Mapping[str, str], *, epochs: int = 1) -> None:
        self._journal, self._shown, self._epochs = journal, shown, epochs
        self.samples: list[Ended] = []
        self.used: set[str] = set()
        count = dict.fromkeys(shown, 0)
        for record in journal or ():
            if "used" in record:
                self.used.add(record["used"])
            elif "id" in record:
                sample = Ended(**record)
                if shown.get(sample.id) == sample.shown and count[sample.id] < epochs:
                    count[sample.id] += 1
                    self.samples.append(sample)

    def missing(self) -> dict[str, int]:
        """Return how often each item is still to be sat, by id; items that are done are left out."""
        done = Counter(sample.id for sample in self.samples)
        return {name: self._epochs - done[name] for name in self._shown if done[name] < self._epochs}

    def add(self, sample: Ended, used: set[str]) -> None:
        """Take a sample that has just ended, and the settings that the model was used with so far."""
        self.samples.append(sample)
        if self._journal is None:
            self.used |= used
            return
        for setting in sorted(used - self.used):
            self._journal.append({"used": setting})
            self.used.add(setting)
        if not sample.error:
            self._journal.append(attrs.asdict(sample))
