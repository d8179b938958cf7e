"""The one thread that owns every tensor: training jobs in turn, sampling between their micro-batches."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Protocol

import attrs


logger = logging.getLogger(__name__)

Work = Callable[[], Generator[None, None, Any]]
Done = Callable[[Any], None]


class Background(Protocol):
    """Work that goes on in small steps beside the jobs: the continuous batch of the samplers."""

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""

    def step(self) -> None:
        """Do a little of it; never raises."""


@attrs.frozen
class Job:
    """Work of one owner (a model). Jobs of one owner are done in the order in which they came."""

    owner: str
    work: Work
    done: Done


class Compute:
    """A thread that does jobs, and background work between their parts.

    A job is a generator: each `yield` is a place where something else may run. Owners take turns, a job
    each. While both jobs and background work wait, they get equal time: a long training job does not
    stop sampling, nor the other way round.

    Args:
        background: what goes on between the parts of jobs.
        prepare: called once in the thread, before anything else: slow imports. When it fails, so does every
            job, with its error.
    """

    def __init__(self, background: Background, prepare: Callable[[], None]) -> None:
        self._background, self._prepare = background, prepare
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._queues: dict[str, deque[Job]] = {}
        self._turns: deque[str] = deque()
        self._running: tuple[Job, Generator[None, None, Any]] | None = None
        self._owed_s = 0.0
        self._closing = self._prepared = False
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Stop after the step at hand; return whether the thread ended in time.

        A thread that is still being prepared is not waited for: there is no step at hand.
        """
        self._inbox.put(None)
        if self._thread.is_alive() and self._prepared:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` in the thread as soon as the step at hand is done; it must not raise."""
        self._inbox.put(function)

    def submit(self, job: Job) -> None:
        """Queue `job`; its `done` is called in the thread with the result, or with the exception."""
        self._inbox.put(lambda: self._enqueue(job))

    # -- the thread

    def _run(self) -> None:
        try:
            self._prepare()
        except Exception as error:
            logger.exception("engine.not_prepared")
            self._prepared = True
            self._refuse_all(error)
            return
        self._prepared = True
        background = self._background
        while not self._closing:
            idle = self._running is None and not self._turns and not background.busy
            self._drain(block=idle)
            training = self._running is not None or bool(self._turns)
            if background.busy and (self._owed_s > 0 or not training):
                started = time.perf_counter()
                background.step()
                self._owed_s = self._owed_s - (time.perf_counter() - started) if training else 0.0
            elif training:
                started = time.perf_counter()
                self._advance()
                self._owed_s = time.perf_counter() - started if background.busy else 0.0

    def _refuse_all(self, error: Exception) -> None:
        while not self._closing:
            self._drain(block=True)
            while self._turns:
                _tell(self._next(), error)

    def _drain(self, *, block: bool) -> None:
        while True:
            try:
                item = self._inbox.get(block=block)
            except queue.Empty:
                return
            block = False
            if item is None:
                self._closing = True
                return
            try:
                item()
            except Exception:
                logger.exception("engine.call_failed")

    def _enqueue(self, job: Job) -> None:
        waiting = self._queues.setdefault(job.owner, deque())
        if not waiting:
            self._turns.append(job.owner)
        waiting.append(job)

    def _advance(self) -> None:
        if self._running is None:
            job = self._next()
            try:
                self._running = job, job.work()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's answer
                _tell(job, error)
                return
        job, generator = self._running
        result: Any
        try:
            next(generator)
        except StopIteration as stop:
            result = stop.value
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's answer
            result = error
        else:
            return
        self._running = None
        _tell(job, result)

    def _next(self) -> Job:
        owner = self._turns.popleft()
        waiting = self._queues[owner]
        job = waiting.popleft()
        if waiting:
            self._turns.append(owner)
        else:
            del self._queues[owner]
        return job


def _tell(job: Job, result: Any) -> None:
    """Hand out a result; whatever goes wrong with that, the thread goes on: every other request needs it."""
    try:
        job.done(result)
    except Exception:
        logger.exception("engine.answer_failed")
