"""What a server has to do, seen from the wire in front of it: when nothing is asked of it, it waits."""

from __future__ import annotations

import importlib.util
import re
import time
from pathlib import Path
from typing import Any


ID = re.compile(rb'"request_id":\s*"([0-9a-f]+)"')
_WORK = (b"/forward_backward", b"/optim_step")


def _tests_wire() -> Any:
    path = Path(__file__).parents[1] / "tests/train/wire.py"
    spec = importlib.util.spec_from_file_location("wire", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Wire


class Watched(_tests_wire()):  # read from a file, since the tests are no package
    """The tests' wire, which notes when each pass and each optimizer step was asked for and when done.

    A request counts from the moment that the server has it to the moment that its answer leaves, for which a
    client is always waiting. Between two that do not touch, the server had nothing of this client to do.
    """

    def __init__(self, upstream: str, *, latency_s: float = 0.0) -> None:
        super().__init__(upstream, latency_s=latency_s)
        self._asked: dict[bytes, tuple[bool, float]] = {}
        self.work: list[tuple[bool, float, float]] = []  # whether an optimizer step, from, to

    async def _ask(self, request: bytes) -> bytes:
        began = time.monotonic()
        answer = bytes(await super()._ask(request))
        head, path = answer.split(b"\r\n", 1)[0], request.split(b" ", 2)[1]
        if b" 200" not in head:  # not ready, or refused: asked again
            return answer
        if path.endswith(_WORK):
            if found := ID.search(answer):
                self._asked[found[1]] = path.endswith(b"/optim_step"), began
        elif path.endswith(b"/retrieve_future") and (found := ID.search(request)) and found[1] in self._asked:
            optimizes, since = self._asked.pop(found[1])
            self.work.append((optimizes, since, time.monotonic()))
        return answer

    def idle_share(self, *, after: int) -> float:
        """Return the share of the time since optimizer step `after` in which the server had nothing to do."""
        begins = sorted(done for optimizes, _, done in self.work if optimizes)[after - 1]
        ends = max(done for _, _, done in self.work)
        busy, reached = 0.0, begins
        for _, since, done in sorted(self.work, key=lambda one: one[1]):
            if done > reached:
                busy += done - max(since, reached)
                reached = done
        return 1.0 - busy / (ends - begins)
