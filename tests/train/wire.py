"""A wire between client and server, on loopback, that adds latency and goes wrong by a schedule.

It speaks plain HTTP/1.1, one upstream connection a request, and knows nothing of Tinker but that paths end in
the name of what is asked. The same seed and the same traffic give the same faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from typing import Self
from urllib.parse import urlsplit


FAULTS = (
    "503",  # the server is not asked
    "429",
    "reset",  # the connection breaks, and the server is not asked
    "503 after",  # the server has done it, and the client is told that it failed
    "reset after",  # ... and the connection breaks
    "cut off",  # ... and half of the answer comes
    "twice",  # the server is asked twice, as by a client that repeats itself
    "answered twice",  # the answer comes twice on one connection
    "late",  # the answer comes when others have overtaken it
)
HELD = "held"  # the server is not asked, and nothing comes
SILENT = "silent"  # the server has done it, and nothing comes until the client gives up: slow to test
_QUIET = ("session_heartbeat", "telemetry", "client/config", "client/dynamic_config")
_BROKEN = (ConnectionError, asyncio.IncompleteReadError, OSError)


class Schedule:
    """Decides, from a seed, which requests go wrong and how."""

    def __init__(
        self, seed: int, *, rate: float = 0.1, most: int = 12, faults: tuple[str, ...] = FAULTS
    ) -> None:
        self._random = random.Random(seed)
        self.rate, self.left, self.faults = rate, most, faults
        self.done: Counter[str] = Counter()

    def fault(self, path: str) -> str | None:
        """Return the fault of the next request, or None."""
        if path.endswith(_QUIET) or self.left <= 0 or self._random.random() >= self.rate:
            return None
        self.left -= 1
        chosen = self._random.choice(self.faults)
        self.done[chosen] += 1
        return chosen

    def delay_s(self) -> float:
        """Return how late a late answer is."""
        return self._random.uniform(0.01, 0.15)


class Aimed:
    """Decides that the first request to a path goes wrong, and how.

    Args:
        end: how the path ends, such as `/save_state`.
        kind: what happens to it.
    """

    def __init__(self, end: str, kind: str) -> None:
        self._end, self._kind = end, kind
        self.hit = threading.Event()

    def fault(self, path: str) -> str | None:
        """Return the fault of the next request, or None."""
        if self.hit.is_set() or not path.endswith(self._end):
            return None
        self.hit.set()
        return self._kind


class Wire:
    """A proxy in front of `upstream`, a base URL; `url` is its own.

    Args:
        upstream: the server's base URL.
        schedule: what goes wrong; None is nothing.
        latency_s: added to every request, half on the way there and half on the way back.
    """

    def __init__(self, upstream: str, *, schedule: Schedule | None = None, latency_s: float = 0.0) -> None:
        self.upstream, self.schedule, self.latency_s = upstream, schedule, latency_s
        self.requests = 0
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        self._server = await asyncio.start_server(self._client, sock=self._listener)

    async def _close(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(*_BROKEN, asyncio.CancelledError):
            try:
                while await self._exchange(reader, writer):
                    pass
            finally:
                writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Pass one request and its answer on; return whether the connection still stands."""
        head, body = await _message(reader)
        path = head.split(b" ", 2)[1].decode()
        self.requests += 1
        fault = self.schedule.fault(path) if self.schedule else None
        await asyncio.sleep(self.latency_s / 2)
        if fault in {"503", "429"}:
            writer.write(_refusal(int(fault)))
        elif fault == "reset":
            _reset(writer)
            return False
        elif fault == HELD:
            await reader.read()  # the client gives up, or the test ends
            return False
        else:
            if fault == "twice":
                await self._ask(head + body)
            answer = await self._ask(head + body)
            if self.schedule and fault == "late":
                await asyncio.sleep(self.schedule.delay_s())
            await asyncio.sleep(self.latency_s / 2)
            if fault == SILENT:
                await reader.read()  # the client gives up, or the test ends
                return False
            if fault == "reset after":
                _reset(writer)
                return False
            if fault == "cut off":
                writer.write(answer[: len(answer) // 2])
                await writer.drain()
                _reset(writer)
                return False
            writer.write(_refusal(503) if fault == "503 after" else answer)
            if fault == "answered twice":
                writer.write(answer)
        await writer.drain()
        return True

    async def _ask(self, request: bytes) -> bytes:
        place = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        try:
            writer.write(request)
            await writer.drain()
            return b"".join(await _message(reader))
        finally:
            writer.close()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one request or answer: its head, and its body as it stands on the wire."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b""
        while True:
            size = await reader.readuntil(b"\r\n")
            body += size + await reader.readexactly(int(size.split(b";")[0], 16) + 2)
            if int(size.split(b";")[0], 16) == 0:
                return head, body
    return head, await reader.readexactly(int(fields.get(b"content-length", b"0")))


def _refusal(status: int) -> bytes:
    text = b'{"error": "the wire is down", "category": "server"}'
    fields = f"content-type: application/json\r\ncontent-length: {len(text)}\r\nretry-after-ms: 5\r\n"
    return f"HTTP/1.1 {status} Refused\r\n{fields}\r\n".encode() + text


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
    writer.transport.abort()
