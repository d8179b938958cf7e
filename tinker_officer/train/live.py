"""LiveRun: a run as it goes. Iterate its steps, ask for its result, or cancel it.

Training has a thread of its own, so a script, a running event loop and a notebook are the same to it.
Steps wait here until they are asked for; nobody needs to ask.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer._service import On, connect
from tinker_officer._text import duration
from tinker_officer.train.evaluating import check_metrics
from tinker_officer.train.failing import resume_line
from tinker_officer.train.folder import RunFolder
from tinker_officer.train.loop import Loop, Step
from tinker_officer.train.result import RunResult
from tinker_officer.train.settings import NO_NUMBER
from tinker_officer.train.sinks import Outlets, SinkLike, check
from tinker_officer.train.waiting import Aborted


if TYPE_CHECKING:
    from tinker_officer.train.run import Run

logger = logging.getLogger(__name__)
_POLL_S = 1.0  # so that Ctrl-C is noticed where a wait without end would hide it (Windows)


def _spec(run: Run) -> dict[str, Any]:
    """Return what identifies the run in its folder: the spec, and the data by content and order."""
    from tinker_officer.data.measure import renderer_identity
    from tinker_officer.train.source import identity_of

    name = run.renderer_name
    identity = renderer_identity(run.plan.base_model, name)
    identity.pop("cookbook", None)  # an upgrade does not end a run
    return {
        "run": run.to_dict(),
        "data": identity_of(run.data),
        "identity": {"renderer_name": name, **identity},
    }


@attrs.define(eq=False, repr=False)
class LiveRun:
    """A run as it goes: `with run.start(on=engine, at="runs/mine") as live: ...`.

    `for step in live` (or `async for`) yields each finished step, once. Leaving the `with` block waits
    for the end of the run; an exception in the block cancels it. Ctrl-C once stops after the steps under
    way and saves a checkpoint; twice stops at once. Either way the next start goes on.
    """

    run: Run
    folder: RunFolder
    _cancelled: threading.Event = attrs.field(init=False, factory=threading.Event)
    _aborted: threading.Event = attrs.field(init=False, factory=threading.Event)
    _thread: threading.Thread | None = attrs.field(init=False, default=None)
    _changed: threading.Condition = attrs.field(init=False, factory=threading.Condition)
    _steps: deque[Step] = attrs.field(init=False, factory=deque)
    _waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = attrs.field(
        init=False, factory=list
    )
    _loop: Loop | None = attrs.field(init=False, default=None)
    _last: Step | None = attrs.field(init=False, default=None)
    _over: bool = attrs.field(init=False, default=True)
    _error: BaseException | None = attrs.field(init=False, default=None)
    _stopped: str | None = attrs.field(init=False, default=None)

    @classmethod
    def start(
        cls, run: Run, *, on: On, at: Path, progress: bool | None, sinks: Iterable[SinkLike] = ()
    ) -> Self:
        """Return the run as it goes; `Run.start` says what happens."""
        sinks = check(sinks)
        spec = _spec(run)
        check_metrics(run)
        folder = RunFolder(at)
        with ExitStack() as held:
            held.enter_context(folder.owned())
            folder.claim(spec, ignoring=tuple(f"run.{name}" for name in NO_NUMBER))
            live = cls(run, folder)
            ended = folder.read_result()
            if ended is not None and not ended.get("resumable"):
                logger.info("run.is_done", extra={"officer.run": run.name})
                return live
            loop = Loop(
                run,
                folder,
                connect(on),
                publish=live._publish,
                cancelled=live._cancelled,
                aborted=live._aborted,
                progress=progress,
                outlets=Outlets(sinks, run, folder.path),
            )
            live._begin(loop, held.pop_all())
            return live

    # -- what the loop's thread does

    def _begin(self, loop: Loop, held: ExitStack) -> None:
        self._over, self._loop = False, loop
        self._thread = threading.Thread(
            target=self._work, args=(loop, held), name=f"run-{self.run.name}", daemon=True
        )
        self._thread.start()

    def _work(self, loop: Loop, held: ExitStack) -> None:
        error: BaseException | None = None
        try:
            with held:
                try:
                    self._stopped = loop.train()
                finally:
                    loop.outlets.close()
        except Aborted:
            self._stopped = "aborted"
        except BaseException as raised:  # noqa: BLE001 - it is raised again where somebody waits
            error = raised
        with self._changed:
            self._over, self._error = True, error
            self._wake()

    def _publish(self, step: Step) -> None:
        with self._changed:
            self._last = step
            self._steps.append(step)
            self._wake()

    def _wake(self) -> None:
        self._changed.notify_all()
        for loop, future in self._waiters:
            with suppress(RuntimeError):  # the loop was closed: nobody waits in it any more
                loop.call_soon_threadsafe(_settle, future)
        self._waiters.clear()

    # -- waiting, in both colours

    def _next(self) -> Step | None:
        """Return the next step, None at the end; raise what ended the run, if that was an error."""
        with self._changed:
            while not self._steps and not self._over:
                self._changed.wait(_POLL_S)
            return self._pop()

    async def _next_async(self) -> Step | None:
        while True:
            with self._changed:
                if self._steps or self._over:
                    return self._pop()
                loop = asyncio.get_running_loop()
                future: asyncio.Future[None] = loop.create_future()
                self._waiters.append((loop, future))
            await future

    def _pop(self) -> Step | None:
        if self._steps:
            return self._steps.popleft()
        if self._error is not None:
            raise self._error
        return None

    def _finish(self) -> None:
        with self._changed:
            while not self._over:
                self._changed.wait(_POLL_S)

    async def _finish_async(self) -> None:
        while True:
            with self._changed:
                if self._over:
                    return
                loop = asyncio.get_running_loop()
                future: asyncio.Future[None] = loop.create_future()
                self._waiters.append((loop, future))
            await future

    def _aside(self) -> AbstractContextManager[None]:
        """Keep the progress bar off the screen while the user's code has a step: it may print."""
        bar = self._loop.bar if self._loop is not None else None
        return nullcontext() if bar is None else bar.aside()

    # -- what a user does

    def __iter__(self) -> Iterator[Step]:
        """Yield each finished step that was not yielded before."""
        while True:
            try:
                step = self._next()
            except KeyboardInterrupt as error:
                self._interrupt(error)
                raise
            if step is None:
                return
            with self._aside():
                yield step

    async def __aiter__(self) -> AsyncIterator[Step]:
        """Yield each finished step that was not yielded before."""
        while (step := await self._next_async()) is not None:
            with self._aside():
                yield step

    def result(self) -> RunResult:
        """Wait for the end of the run and return its result; of a cancelled run, where it stands.

        Raises:
            RunError: the run stopped with an error of its own, or was aborted.
            Exception: whatever the SDK raised, with a note.
        """
        try:
            self._finish()
        except KeyboardInterrupt as error:
            self._interrupt(error)
            raise
        return self._result()

    async def result_async(self) -> RunResult:
        """Wait for the end of the run and return its result; see `result`."""
        await self._finish_async()
        return self._result()

    def _result(self) -> RunResult:
        if self._error is not None:
            raise self._error
        result = RunResult.open(self.folder.path)
        return result if self._stopped is None else attrs.evolve(result, stopped=self._stopped)

    def cancel(self) -> None:
        """Stop after the steps that are under way, save a checkpoint, and return when that is done.

        The next start in the same folder goes on from there. An error that ended the run is kept for
        `result()`.
        """
        self._cancelled.set()
        self._finish()

    async def cancel_async(self) -> None:
        """Stop after the steps that are under way; see `cancel`."""
        self._cancelled.set()
        await self._finish_async()

    @property
    def done(self) -> bool:
        """Whether the run has ended, in whatever way."""
        return self._over

    # -- as a context

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._interrupt(error)
        elif error is not None:
            self.cancel()
        else:
            try:
                self._finish()
            except KeyboardInterrupt as interrupt:
                self._interrupt(interrupt)
                raise
            if self._error is not None:
                raise self._error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self.cancel_async()
            return
        try:
            await self._finish_async()
        except asyncio.CancelledError:
            await self.cancel_async()
            raise
        if self._error is not None:
            raise self._error

    def _interrupt(self, error: KeyboardInterrupt) -> None:
        """Cancel for the first Ctrl-C, abort for the second; say in `error` how to go on."""
        if not self._over:
            logger.info("run.interrupted", extra={"officer.run": self.run.name})
            try:
                self.cancel()
            except KeyboardInterrupt:
                self._aborted.set()
                error.add_note(f"run {self.run.name!r} was aborted; {resume_line(self.folder)}")
                return
        if not hasattr(error, "__notes__"):
            error.add_note(f"run {self.run.name!r} stopped; {resume_line(self.folder)}")

    def __repr__(self) -> str:
        state = "ended" if self._over else "running"
        at = f" at step {self._last.index}" if self._last else ""
        return f"<LiveRun {self.run.name!r}: {state}{at}>"

    def _repr_html_(self) -> str:
        from html import escape

        figures = "".join(
            f"<tr><td>{escape(key)}</td><td>{value:.6g}</td></tr>"
            for key, value in (self._last.metrics if self._last else {}).items()
            if isinstance(value, int | float)
        )
        return f"<p>{escape(repr(self))}{self._left()}</p><table>{figures}</table>"

    def _left(self) -> str:
        """Return a bar, and how long the rest will take at the pace so far."""
        if self._last is None or self._over:
            return ""
        done, steps = self._last.index, self.run.plan.steps
        rest_s = self._last.metrics["time/elapsed_s"] / done * (steps - done)
        bar = f'<progress value="{done}" max="{steps}"></progress>'
        return f" {bar} {done}/{steps}, {duration(rest_s)} left"


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
