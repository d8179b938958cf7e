"""Hears of each sample when Inspect has finished it, so that nothing need be read back from its log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inspect_ai.hooks import Hooks, SampleEnd, hooks
from inspect_ai.log import EvalSample


_LISTENERS: list[Callable[[EvalSample], None]] = []  # one evaluation runs at a time: at most one entry


@hooks(name="tinker_officer_samples", description="Hands finished samples to tinker_officer.")
class _Samples(Hooks):
    def enabled(self) -> bool:
        return bool(_LISTENERS)

    async def on_sample_end(self, data: SampleEnd) -> None:
        for listener in _LISTENERS:
            listener(data.sample)


@contextmanager
def listening(listener: Callable[[EvalSample], None]) -> Iterator[None]:
    """Call `listener` with each sample that completes or errors within the block."""
    _LISTENERS.append(listener)
    try:
        yield
    finally:
        _LISTENERS.remove(listener)
