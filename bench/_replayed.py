"""A far server whose work costs this machine nothing: it says again, in its time, what one said before."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from typing import Any

from _idle import ID, Watched


_TRAINING = ("/forward_backward", "/optim_step")
_BESIDE = ("/session_heartbeat", "/telemetry")  # asked by the clock
_NOTED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Recording(Watched):
    """A wire that keeps every answer, by what was asked."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.answers: dict[Any, list[bytes]] = defaultdict(list)

    async def _ask(self, request: bytes) -> bytes:
        answer = await super()._ask(request)
        if b" 200" in answer.split(b"\r\n", 1)[0]:  # not: ask again
            self.answers[_asked(request)].append(answer)
        return answer


class Replay(Watched):
    """A wire without a server behind it, which answers as it was recorded.

    Args:
        answers: of a `Recording` of the same client doing the same.
        latency_s: added to every request.
        pass_s: what a training pass or an optimizer step takes, one after the other.
        sample_s: what an answer takes, beside everything else.
    """

    def __init__(
        self, answers: dict[Any, list[bytes]], *, latency_s: float, pass_s: float, sample_s: float
    ) -> None:
        super().__init__("", latency_s=latency_s)
        self._left = {asked: list(reversed(found)) for asked, found in answers.items()}
        self._pass_s, self._sample_s = pass_s, sample_s
        self._free, self._due = 0.0, dict[bytes, float]()

    async def _ask(self, request: bytes) -> bytes:
        asked = _asked(request)
        found = self._left.get(asked)
        if not found:
            if asked[0].endswith(_BESIDE):
                return _NOTED
            raise KeyError(f"never asked while it was recorded: {asked}")
        answer = found.pop() if len(found) > 1 else found[0]
        path, now = _path(request), time.monotonic()
        if path.endswith("/retrieve_future"):
            await asyncio.sleep(max(0.0, self._due.get(asked[1], now) - now))
        elif told := ID.search(answer):
            if path.endswith(_TRAINING):
                self._free = max(self._free, now) + self._pass_s
                self._due[told[1]] = self._free
            elif path.endswith("/asample"):
                self._due[told[1]] = now + self._sample_s
        return answer


def _path(request: bytes) -> str:
    return request.split(b" ", 2)[1].decode()


def _asked(request: bytes) -> tuple[str, bytes]:
    """Return what is asked: a question in order of its kind, but a sample and its result by name."""
    head, _, body = request.partition(b"\r\n\r\n")
    path = _path(head)
    if path.endswith("/retrieve_future") and (named := ID.search(body)):
        return path, named[1]
    if path.endswith("/asample"):
        fields = json.loads(body)
        return path, json.dumps({k: v for k, v in sorted(fields.items()) if "seq" not in k}).encode()
    return path, b""
