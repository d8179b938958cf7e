"""Batches, made ahead of the loop on threads of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import attrs

from tinker_officer.train.objective import Batch
from tinker_officer.train.source import Scene, Source


if TYPE_CHECKING:
    from tinker_officer.train.run import Run


@attrs.define
class Batches:
    """The batches of a run, by step; asked for in order, made up to `ahead` steps early.

    Args:
        source: makes them.
        ahead: steps that a batch is made before it is asked for.
        depth: steps that the loop may submit before the oldest is waited for.
    """

    source: Source
    ahead: int
    depth: int
    _pool: ThreadPoolExecutor = attrs.field(init=False)
    _coming: deque[tuple[int, Future[Batch]]] = attrs.field(init=False, factory=deque)

    @_pool.default
    def _threads(self) -> ThreadPoolExecutor:
        # Rendering takes one thread. Sampling waits for its weights, so each step ahead has its own.
        return ThreadPoolExecutor(1 if self.source.ahead is None else self.ahead + 1, "batches")

    @classmethod
    def of(cls, run: Run, renderer_name: str, *, progress: bool | None) -> Self:
        """Return the batches of `run`.

        Raises:
            RunError: there is no data, or nothing of it is left to train on.
        """
        source = _source(run, renderer_name, progress=progress)
        if source.ahead is None:
            return cls(source, ahead=run.submission.depth + 2, depth=run.submission.depth)
        return cls(source, ahead=source.ahead, depth=0)

    @property
    def steps(self) -> int:
        """Steps in the whole run."""
        return self.source.steps

    @contextmanager
    def making(self) -> Iterator[Batches]:
        """Stop the threads at the end; a batch that is being made is waited for, others are dropped."""
        try:
            yield self
        finally:
            self.source.close()
            self._pool.shutdown(wait=True, cancel_futures=True)

    def opened(self, scene: Scene) -> None:
        """Take note that the run is open, or open again: what was made for an earlier session is dropped."""
        self._coming.clear()
        self.source.opened(scene)

    def ask(self, step: int) -> Future[Batch]:
        """Return the batch of `step` as a future, and begin on those after it."""
        if self._coming and self._coming[0][0] != step:
            self._coming.clear()
        following = self._coming[-1][0] + 1 if self._coming else step
        for coming in range(following, min(step + self.ahead, self.steps) + 1):
            self._coming.append((coming, self._pool.submit(self.source.make, coming)))
        return self._coming.popleft()[1]


def _source(run: Run, renderer_name: str, *, progress: bool | None) -> Source:
    from tinker_officer.train.datasets import CookbookRows
    from tinker_officer.train.rl import Rl
    from tinker_officer.train.rollouts import Rollouts
    from tinker_officer.train.rows import DataRows

    if isinstance(run.objective, Rl):
        return Rollouts.of(run)
    if run.given is not None:
        return CookbookRows.of(run)
    return DataRows.of(run, renderer_name, progress=progress)
