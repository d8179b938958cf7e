"""Counts finished samples while Inspect runs, for the progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inspect_ai.hooks import Hooks, SampleEnd, hooks


_LISTENING: list[Callable[[], None]] = []  # one evaluation runs at a time: at most one entry


@hooks(name="tinker_officer_progress", description="Counts finished samples.")
class _Progress(Hooks):
    def enabled(self) -> bool:
        return bool(_LISTENING)

    async def on_sample_end(self, data: SampleEnd) -> None:  # noqa: ARG002 - Inspect's own signature
        for done in _LISTENING:
            done()


@contextmanager
def counting(done: Callable[[], None]) -> Iterator[None]:
    """Call `done` after each sample that finishes within the block."""
    _LISTENING.append(done)
    try:
        yield
    finally:
        _LISTENING.remove(done)
