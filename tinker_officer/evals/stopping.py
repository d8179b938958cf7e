"""Inspect's early stopping, told by a race: once the comparison is decided, no further sample is begun."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

from tinker_officer.evals.grades import Grades
from tinker_officer.evals.race import Against, Race
from tinker_officer.evals.results import Item
from tinker_officer.evals.sittings import Ended


if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.util import EarlyStop


class Stop:
    """What Inspect asks before each sample. Without a race it never stops anything.

    Args:
        race: the comparison, or None.
        shown: digest of what each item asks, by id.
        grades: makes an item of its samples.
        epochs: how often each item is sat.
    """

    def __init__(self, race: Race | None, shown: Mapping[str, str], grades: Grades, epochs: int) -> None:
        self._race, self._shown, self._grades, self._epochs = race, shown, grades, epochs
        self._sat: dict[str, list[Ended]] = defaultdict(list)

    @classmethod
    def of(
        cls, against: Against | None, name: str, shown: Mapping[str, str], grades: Grades, epochs: int
    ) -> Stop:
        """Return the stop of an eval that races against a card, or of one that does not."""
        items = [(item, "", digest) for item, digest in shown.items()]
        return cls(against.race(name, items) if against is not None else None, shown, grades, epochs)

    @property
    def decided(self) -> bool:
        """Whether the comparison is decided."""
        return self._race is not None and self._race.decided

    def add(self, sample: Ended) -> None:
        """Take in a sample; an item counts once all of its epochs are there."""
        if self._race is None:
            return
        self._sat[sample.id].append(sample)
        if len(self._sat[sample.id]) == self._epochs:
            (item,) = self._grades.items(self._sat[sample.id])
            self._race.add(item.id, item.score)

    def watching(self, task: Task) -> Task:
        """Return the task as it is sat: where there is a race, a copy that asks this stop."""
        if self._race is None:
            return task
        task = copy(task)
        task.early_stopping = self
        return task

    def items(self, samples: Iterable[Ended]) -> tuple[Item, ...]:
        """Return every item: those whose epochs are all there graded, the others cancelled."""
        if self._race is None:
            return self._grades.items(samples)
        whole = {name for name, epochs in self._sat.items() if len(epochs) == self._epochs}
        graded = self._grades.items(sample for sample in samples if sample.id in whole)
        rest = (name for name in self._shown if name not in whole)
        return (*graded, *(self._race.cancelled(name, self._shown[name], "") for name in rest))

    def found(self) -> dict[str, Any] | None:
        """Return what the race has found; None without one."""
        return None if self._race is None else self._race.found()

    async def start_task(self, task: Any, samples: Any, epochs: int) -> str:  # noqa: ARG002 - Inspect's own
        """Return the manager's name, for Inspect's log."""
        return "tinker_officer"

    async def schedule_sample(self, id: str | int, epoch: int) -> EarlyStop | None:  # noqa: A002 - Inspect's own
        """Return the order to leave out a sample, once the comparison is decided."""
        from inspect_ai.util import EarlyStop

        return EarlyStop(id=id, epoch=epoch, reason="the comparison is decided") if self.decided else None

    async def complete_sample(self, id: str | int, epoch: int, scores: Any) -> None:  # noqa: A002 - Inspect's own
        """Do nothing: samples come in through `add`."""

    async def complete_task(self) -> dict[str, Any]:
        """Return what was decided, for Inspect's log."""
        return self.found() or {}
