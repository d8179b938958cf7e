"""The server process: a socket, the protocol on it, and an end when it is time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tinker_officer.engine.app import build
from tinker_officer.engine.compute import Compute
from tinker_officer.engine.guard import App, Guard, is_loopback
from tinker_officer.engine.settings import Settings
from tinker_officer.engine.state import State
from tinker_officer.engine.store import Store
from tinker_officer.engine.workshop import Workshop
from tinker_officer.errors import EngineError


logger = logging.getLogger(__name__)

_MOST_HEAD = 64 * 2**10  # bytes of a request's line and headers
_LAST_STEP_S = 3.0  # how long the step at hand may take when the server ends
_HOUSEKEEPING_S = 600.0
_IDLE_S = 3600.0  # the SDK is heard of every 10 s, so a client that is silent this long is gone


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Made with `IPPROTO_TCP`: for any other asyncio leaves Nagle's delay on, 44 ms a call.

    Raises:
        EngineError: the port is in use, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        taken = error.errno == errno.EADDRINUSE
        raise EngineError(
            f"port {port} is in use" if taken else f"{host}:{port} cannot be bound",
            got=error.strerror or str(error),
            need="a free port of this machine",
            fix="LocalEngine(port=0), or --port 0: any free one",
        ) from error
    return listening


def serve(
    settings: Settings, *, ready: Callable[[int], None], until: Callable[[], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, or until `until` returns.

    The process must end soon after this returns: the compute thread may still be in a long step.

    Args:
        settings: what to serve, and where.
        ready: called with the port when requests are taken (and `settings.model` is loaded).
        until: blocks in a thread of its own; when it returns, the server ends.

    Raises:
        EngineError: the port is in use, the folder cannot be used, or the model cannot be loaded.
    """
    if not is_loopback(settings.host):
        logger.warning(
            "engine.open_to_network: whoever has the token and reaches %s may use it", settings.host
        )
    # A compute thread that holds the interpreter for 5 ms at a time makes every answer late.
    sys.setswitchinterval(0.001)
    listening = bind(settings.host, settings.port)
    with listening:
        store = Store(settings.root)
        workshop = Workshop(store, settings.dtype, settings.device)
        compute = Compute(workshop, lambda: workshop.warm(settings.threads))
        state = State(store, workshop, compute)
        compute.start()
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(_serve(state, settings, listening, ready, until))
        finally:
            state.close()
            compute.stop(_LAST_STEP_S)  # a longer step ends with the process: nothing on disk depends on it
            store.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the quickest event loop there is; None for asyncio's own, as on Windows."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(
    state: State,
    settings: Settings,
    listening: socket.socket,
    ready: Callable[[int], None],
    until: Callable[[], None] | None,
) -> None:
    loop = asyncio.get_running_loop()

    async def on_startup() -> None:
        ready(listening.getsockname()[1])

    if settings.model is not None:
        await state.preload(settings.model)
    app = build(state, on_startup=on_startup)
    guarded = Guard(app, token=settings.token, host=settings.host, body_bytes=settings.body_bytes)
    server = _Server(_uvicorn_config(guarded))

    def stop() -> None:
        state.futures.close()
        server.should_exit = True
        last = threading.Timer(2 * _LAST_STEP_S, os._exit, (1,))  # if something does not let it end
        last.daemon = True
        last.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) == signal.SIG_IGN:
            continue  # Ctrl-C is the parent's
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, stop)
    if until is not None:
        _watch(until, loop, stop)
    housekeeping = asyncio.ensure_future(_keep_house(state))
    try:
        await server.serve(sockets=[listening])
    finally:
        housekeeping.cancel()


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: they belong to `serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with an end to what stands around a body: httptools takes headers of any length."""

    _around = 0  # bytes since the last that belonged to a body

    def data_received(self, data: bytes) -> None:
        """Take what came; refuse it where no body is in sight."""
        self._around += len(data)
        super().data_received(data)
        if self._around > _MOST_HEAD and not self.transport.is_closing():
            self.send_400_response("The headers are too long.")

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._around = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._around = 0
        super().on_body(body)


def _uvicorn_config(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        loop="none",
        http=_Protocol,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=1,
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )


def _watch(until: Callable[[], None], loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    def watch() -> None:
        until()
        with contextlib.suppress(RuntimeError):  # the loop is closed: it ends already
            loop.call_soon_threadsafe(stop)

    threading.Thread(target=watch, name="until", daemon=True).start()


async def _keep_house(state: State) -> None:
    while True:
        await asyncio.sleep(_HOUSEKEEPING_S)
        try:
            state.finish_idle(_IDLE_S)
            await asyncio.to_thread(state.store.remove_expired)
        except Exception:
            logger.exception("engine.housekeeping_failed")
