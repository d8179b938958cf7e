"""Batches, rendered ahead of the loop on a thread of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import attrs
import numpy as np

from tinker_officer.train.objectives import Batch, Objective, Source, content_digest
from tinker_officer.train.order import Order


if TYPE_CHECKING:
    from tinker_officer.train.run import Run


@attrs.define
class Batches:
    """The batches of a run, by step; asked for in order, rendered up to `ahead` steps early."""

    objective: Objective
    source: Source
    order: Order
    ahead: int
    _pool: ThreadPoolExecutor = attrs.field(init=False, factory=lambda: ThreadPoolExecutor(1, "render"))
    _ready: deque[tuple[int, Future[Batch]]] = attrs.field(init=False, factory=deque)

    @classmethod
    def of(cls, run: Run, renderer_name: str, *, progress: bool | None) -> Self:
        """Return the batches of `run`.

        Rows that are dropped, or have no trained token, are left out before the order is made.

        Raises:
            RunError: the plan has no data, or no row is left.
        """
        from tinker_officer.data.measure import measure_rows
        from tinker_officer.data.render import renderer_for

        plan = run.plan
        counted = measure_rows(
            run.data,
            plan.base_model,
            max_length=plan.max_length,
            train_on=plan.train_on,
            too_long=plan.too_long,
            renderer_name=renderer_name,
            progress=progress,
        )
        renderer = renderer_for(plan.base_model, renderer_name)
        source = Source(run.data, renderer, counted.max_length, plan.train_on, plan.too_long)
        rows = np.flatnonzero(counted.used).astype(np.int64)
        order = Order(rows, batch_size=plan.batch_size, epochs=plan.epochs, seed=run.order_seed)
        return cls(run.objective, source, order, ahead=run.submission.depth + 2)

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
