"""How long a run will take, measured on the service that will train it, before it starts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from tinker_officer._service import On, connect
from tinker_officer._text import duration
from tinker_officer.train.batches import Batches
from tinker_officer.train.origin import begin


if TYPE_CHECKING:
    from tinker_officer.train.run import Run


@attrs.frozen
class Estimate:
    """What training will take, if the service stays as fast as it was just now.

    Evaluations are not in it. A service that others use too, or that scales with load, may be faster or
    slower when the run comes; the run's own progress then says so.

    Args:
        seconds: of training, from the first step to the last.
        tokens_per_second: tokens that the model reads, prompts included.
        steps: of the whole run.
    """

    seconds: float
    tokens_per_second: float
    steps: int

    def __str__(self) -> str:
        return f"about {duration(self.seconds)}: {self.steps} steps at {self.tokens_per_second:,.0f} tokens/s"


def estimate(run: Run, *, on: On) -> Estimate:
    """Time one batch of `run`, forward and backward, on an adapter that is thrown away.

    The batch runs twice, and the second time counts: the first one loads the model.
    """
    batches = Batches.of(run, run.renderer_name, progress=False)
    batch = batches.source.make(1)
    client = begin(run, connect(on)).result()
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        run.objective.submit(client, batch).result()
        seconds = time.monotonic() - began
    speed = batch.tokens / seconds
    return Estimate(run.plan.counts.total * run.plan.epochs / speed, speed, batches.steps)
