"""Counting on a Ray cluster: `train.measure(base_model, on=ray)`, extra `ray`.

Every part of a corpus is counted by a task of Ray's core, as one machine counts it, sample check included.
A part's rows depend on nothing but the part, so a task whose worker dies is run again and changes nothing,
and the parts put after each other are what one machine would have counted.
"""

from __future__ import annotations

from typing import Any

from tinker_officer._progress import Progress
from tinker_officer.data import columns
from tinker_officer.data.counting import ROW, Countable, Rows, count
from tinker_officer.data.render import TrainOn, renderer_for
from tinker_officer.errors import DataError, OfficerError


_PART = 50_000  # conversations a task: long against its start, short against a worker's life
_RETRIES = 10


def count_on(
    ray: Any,
    conversations: Countable,
    base_model: str,
    renderer_name: str,
    *,
    limit: int | None,
    train_on: TrainOn,
    progress: bool | None = None,
    part: int = _PART,
) -> Rows:
    """Return a `ROW` for each conversation, in order, counted by tasks of `ray`.

    Args:
        ray: the imported module, connected by `ray.init(...)`; it connects by itself if it is not.
        conversations: their file must be at the same path on every machine.
        base_model: whose tokenizer counts.
        renderer_name: the cookbook's name.
        limit: tokens after which a conversation is cut.
        train_on: the mask.
        progress: show progress.
        part: conversations a task.

    Raises:
        DataError: `ray` is not Ray, a row cannot be rendered, or is no longer what was checked.
    """
    if not all(hasattr(ray, verb) for verb in ("remote", "put", "get", "wait")):
        raise DataError(
            "measuring can be spread over Ray only",
            got=f"on={ray!r}",
            need="the module `ray`, or None for this machine",
            fix='import ray  # pip install "tinker-officer[ray]"\ntrain.measure(base_model, on=ray)',
        )
    total = len(conversations)
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_part)
    shared = ray.put(conversations)
    waiting = {
        task.remote(
            shared, start, min(start + part, total), base_model, renderer_name, limit, train_on
        ): start
        for start in range(0, total, part)
    }
    rows = columns.zeros(total, ROW)
    with Progress(total, "measuring on Ray", unit="conversations", show=progress) as bar:
        try:
            while waiting:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                found = ray.get(done)
                start = waiting.pop(done)
                rows[start : start + len(found)] = found
                bar.advance(len(found))
        except Exception as error:
            cause = getattr(error, "cause", None)  # Ray wraps what a task raises
            if isinstance(cause, OfficerError):
                raise cause from None
            raise
        finally:
            for each in waiting:
                ray.cancel(each, force=True)
    return rows


def _part(
    conversations: Countable,
    start: int,
    stop: int,
    base_model: str,
    renderer_name: str,
    limit: int | None,
    train_on: TrainOn,
) -> Rows:
    """Count one part; runs in a worker, on the one core that it was given."""
    renderer = renderer_for(base_model, renderer_name)
    rows = range(start, stop)
    return count(
        conversations, renderer, limit=limit, train_on=train_on, progress=False, within=rows, cores=1
    )
