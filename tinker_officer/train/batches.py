"""Batches, rendered ahead of the loop on a thread of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import attrs

from tinker_officer.train.objectives import Batch, Objective, Source, content_digest
from tinker_officer.train.order import Order


@attrs.define
class Batches:
    """The batches of a run, by step; asked for in order, rendered up to `ahead` steps early."""

    objective: Objective
    source: Source
    order: Order
    ahead: int
    _pool: ThreadPoolExecutor = attrs.field(init=False, factory=lambda: ThreadPoolExecutor(1, "render"))
    _ready: deque[tuple[int, Future[Batch]]] = attrs.field(init=False, factory=deque)

    @contextmanager
    def rendering(self) -> Iterator[Batches]:
        """Stop the thread at the end; a batch that it is rendering is waited for, others are dropped."""
        try:
            yield self
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of `step`, and begin on those after it."""
        if self._ready and self._ready[0][0] != step:
            self._ready.clear()
        following = self._ready[-1][0] + 1 if self._ready else step
        for coming in range(following, min(step + self.ahead, self.order.steps) + 1):
            self._ready.append((coming, self._pool.submit(self.render, coming)))
        return self._ready.popleft()[1].result()

    def render(self, step: int) -> Batch:
        """Return the batch of `step`, rendered on this thread."""
        return self.objective.batch(step, self.order.epoch(step), self.order.batch(step), self.source)

    def applied(self, record: Mapping[str, Any]) -> bool:
        """Return whether a ledger's record says what its step's batch is."""
        rows = self.order.batch(record["step"])
        return tuple(record["rows"]) == rows and record["content"] == content_digest(self.source.data, rows)
