"""Samples that were answered and scored, kept beside the logs: what was asked once is not asked again.

One file an exam, one line a sample, written as each ends: a killed process loses the samples that were under
way and no others. A file belongs to one checkpoint, task version and way of asking; a line counts only for a
question that reads the same. A checkpoint's path may have been saved over: so the file also holds what the
weights made of one fixed sentence, and is thrown away when they make something else of it. Samples that
errored are not kept: they were never answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tinker_officer._digest import digest
from tinker_officer._journal import Journal


_NOISE_NATS = 0.02


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
    """The samples of one exam that a folder holds already.

    Args:
        folder: where; None keeps nothing.
        name: the eval's name.
        identity: the checkpoint, the task's version, and how it is asked.
        shown: digest of what each item asks now, by id.
        epochs: how often each item is sat.
        probe: log-probabilities of a fixed sentence, nats; the weights' fingerprint.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        identity: Mapping[str, Any],
        shown: Mapping[str, str],
        *,
        epochs: int = 1,
        probe: Sequence[float] = (),
    ) -> None:
        file = f"{name}-{digest(identity)[:16]}.jsonl"
        self._journal = None if folder is None else Journal(folder / "items" / file)
        self._shown, self._epochs = shown, epochs
        self.samples: list[Ended] = []
        self.used: set[str] = set()
        self._probe: list[float] = []
        self._read()
        if self._journal is not None and probe and not self._same(probe):
            self._journal.path.unlink(missing_ok=True)
            self.samples, self.used = [], set()
            self._journal.append({"probe": list(probe)})

    def _read(self) -> None:
        count = dict.fromkeys(self._shown, 0)
        for record in self._journal or ():
            if "probe" in record:
                self._probe = record["probe"]
                continue
            if "used" in record:
                self.used.add(record["used"])
                continue
            sample = Ended(**record)
            if self._shown.get(sample.id) == sample.shown and count[sample.id] < self._epochs:
                count[sample.id] += 1
                self.samples.append(sample)

    def _same(self, probe: Sequence[float]) -> bool:
        """Return whether the weights are those of the file, but for what arithmetic varies on a GPU."""
        pairs = zip(probe, self._probe, strict=False)
        return len(probe) == len(self._probe) and all(abs(a - b) < _NOISE_NATS for a, b in pairs)

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
