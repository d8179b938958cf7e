"""LocalEngine: a Tinker server of one's own, in a process beside this one."""

from __future__ import annotations

import collections
import contextlib
import html
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer.engine.settings import Settings, compute_environment
from tinker_officer.errors import EngineError


if TYPE_CHECKING:
    import tinker

logger = logging.getLogger(__name__)

_STOP_S = 8.0
_RESTARTS = 3  # within _RESTARTS_S, before the engine gives up
_RESTARTS_S = 300.0


class LocalEngine:
    """A server on this machine that the Tinker SDK talks to as it does to Tinker.

    One process, started by `with` (or `start`) and ended with it, also when this process is killed. What
    is saved stays under `root`, so that a `tinker://` path holds for the next engine on the same root.
    When the server process dies it is started again on the same port: requests that were under way fail
    with a clear error, and saved states can be loaded.

    Args:
        root: where checkpoints are kept; by default `engine` in `$TINKER_OFFICER_HOME`.
        port: the port on 127.0.0.1; 0 takes a free one.
        device: where the base models are computed, "cpu" or "cuda".
        dtype: of the base models, "float32" or "bfloat16" (faster to train, less exact).
        threads: how many threads compute; by default `$OMP_NUM_THREADS`, else the physical cores.
        token: what clients must send as their API key; by default random, 256 bits.
        model: a base model to load before `start` returns.
        startup_timeout_s: how long the server may take to answer.

    Raises:
        EngineError: an argument is out of range.

    Example:
        >>> with LocalEngine() as engine:
        ...     client = engine.service_client()
        ...     training_client = client.create_lora_training_client(base_model, rank=8)
    """

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        port: int = 0,
        device: str = "cpu",
        dtype: str = "float32",
        threads: int | None = None,
        token: str | None = None,
        model: str | None = None,
        startup_timeout_s: float = 60.0,
    ) -> None:
        given = {"root": root, "threads": threads, "token": token}
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._settings = Settings(port=port, device=device, dtype=dtype, model=model, **chosen)
        self._startup_timeout_s = startup_timeout_s
        self._lock = threading.RLock()
        self._process: subprocess.Popen[str] | None = None
        self._said: collections.deque[str] = collections.deque(maxlen=40)
        self._client: tinker.ServiceClient | None = None
        self._stopping = threading.Event()
        self._owner = 0
        self._port = 0
        self._restarts: list[float] = []

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = f"at {self.base_url}" if self._process is not None else "not started"
        return f"<LocalEngine {where}, root={str(self._settings.root)!r}>"

    def explain(self) -> str:
        """Return what this engine is, as text; the token is not in it."""
        settings = self._settings
        running = f"at {self.base_url}" if self._process is not None else "not started"
        return (
            f"Embedded Tinker engine, {running}\n"
            f"  checkpoints  {settings.root}\n"
            f"  base models  in {settings.dtype} on {settings.device}, {settings.threads} threads"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"

    @property
    def base_url(self) -> str:
        """The URL that the Tinker SDK takes as `base_url`.

        Raises:
            EngineError: the engine is not started.
        """
        if self._process is None:
            raise _not_started()
        return f"http://{self._settings.host}:{self._port}"

    @property
    def token(self) -> str:
        """The key that the Tinker SDK takes as `api_key`; it appears in no repr, log or file."""
        return self._settings.token

    @property
    def root(self) -> Path:
        """The folder where checkpoints are kept."""
        return self._settings.root

    def start(self) -> Self:
        """Start the server, and return this engine when it answers; nothing happens when it runs.

        Raises:
            EngineError: the port is in use, the root cannot be written, or the server did not start; the
                message ends with what it said last.
        """
        with self._lock:
            if self._process is None:
                self._stopping.clear()
                self._owner = os.getpid()
                self._port = self._launch(self._settings.port)
            return self

    def stop(self) -> None:
        """End the server; what is saved stays. Nothing happens when it does not run."""
        if self._owner != os.getpid():
            return  # a fork of the process that started it
        self._stopping.set()
        with self._lock:
            process, self._process = self._process, None
            client, self._client = self._client, None
        if process is not None:
            _finish(client, alive=process.poll() is None)
            _end(process)

    def service_client(self) -> tinker.ServiceClient:
        """Return a client of this engine, the same one each time (a new one after a restart).

        Raises:
            EngineError: the engine is not started.
        """
        import tinker

        with self._lock:
            base_url = self.base_url
            if self._client is None:
                _bypass_proxies()
                self._client = tinker.ServiceClient(base_url=base_url, api_key=self.token)
            return self._client

    # -- private

    def _launch(self, port: int) -> int:
        """Start a server process on `port`; return the port that it listens on."""
        self._said.clear()
        environment = {**os.environ, **compute_environment(self._settings.threads), "PYTHONUNBUFFERED": "1"}
        package = Path(__file__).parents[2]
        if package.name not in {"site-packages", "dist-packages"}:  # a checkout: the child must find it too
            paths = [environment.get("PYTHONPATH", ""), str(package)]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        process = subprocess.Popen(
            [sys.executable, "-m", "tinker_officer.engine", "--supervised"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._process = process
        threading.Thread(target=self._listen, args=(process,), name="engine-stderr", daemon=True).start()
        try:
            self._send_settings(process, port)
            answer = self._first_line(process)
        except BaseException:
            self._process = None
            _end(process)
            raise
        threading.Thread(
            target=self._supervise, args=(process,), name="engine-supervisor", daemon=True
        ).start()
        return answer

    def _send_settings(self, process: subprocess.Popen[str], port: int) -> None:
        settings = attrs.asdict(self._settings) | {"root": str(self._settings.root), "port": port}
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError):  # it died: `_first_line` says why
            process.stdin.write(json.dumps({**settings, "parent": os.getpid()}) + "\n")
            process.stdin.flush()

    def _first_line(self, process: subprocess.Popen[str]) -> int:
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()

        def read() -> None:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            for line in process.stdout:
                lines.put(line)
            lines.put("")

        threading.Thread(target=read, name="engine-stdout", daemon=True).start()
        deadline = time.monotonic() + self._startup_timeout_s
        while True:
            try:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise self._did_not_start(f"no answer in {self._startup_timeout_s:g} s") from None
            if not line:
                process.wait(_STOP_S)
                time.sleep(0.1)  # the last of what it says may still be in the pipe
                raise self._did_not_start(f"it ended with status {process.returncode}")
            try:
                message = json.loads(line)
            except ValueError:
                logger.debug("engine.said: %s", line.rstrip())
                continue
            if "error" in message:
                raise EngineError(**message["error"])
            return int(message["port"])

    def _did_not_start(self, what: str) -> EngineError:
        said = "\n".join(list(self._said)[-12:]) or "nothing"
        return EngineError(
            "the engine did not start",
            got=f"{what}; it said:\n{said}",
            need="a server process that listens on 127.0.0.1",
            fix=f"{sys.executable} -m tinker_officer.engine  # shows all that it says",
        )

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        for line in process.stderr:
            self._said.append(line.rstrip())
            logger.debug("engine.said: %s", line.rstrip())

    def _supervise(self, process: subprocess.Popen[str]) -> None:
        """Wait for the end of `process`; when nobody asked for it, start another on the same port."""
        status = process.wait()
        with self._lock:
            if self._stopping.is_set() or self._process is not process:
                return
            client, self._client = self._client, None
            said = " | ".join(list(self._said)[-3:])
            logger.error("engine.died: status %s, last words: %s", status, said or "none")
            if not self._may_restart():
                self._process = None
            else:
                try:
                    self._launch(self._port)
                except (EngineError, OSError) as error:
                    logger.error("engine.not_restarted: %s", error)  # noqa: TRY400 - the message says it all
                    self._process = None
            if self._process is None and client is not None:
                _finish(client, alive=False)  # so that whoever waits for a result gets an error

    def _may_restart(self) -> bool:
        now = time.monotonic()
        self._restarts = [then for then in self._restarts if now - then < _RESTARTS_S]
        self._restarts.append(now)
        return len(self._restarts) <= _RESTARTS


def _finish(client: tinker.ServiceClient | None, *, alive: bool) -> None:
    """Close `client`: its session at the server if that is `alive`, and its connections here."""
    if client is None:
        return
    try:
        if alive:
            client.close("success").result(timeout=2.0)
            return
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's answer
        logger.debug("engine.session_not_finished: %s", error)
    for name in ("_session_holder", "_rest_holder"):  # the SDK has no way to close without the server
        holder = getattr(client, name, None)
        if holder is not None:
            holder.close()


def _end(process: subprocess.Popen[str]) -> None:
    """End `process`: the end of its standard input tells it to; what does not listen is killed."""
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    for insist in (process.terminate, process.kill):
        try:
            process.wait(_STOP_S if insist == process.terminate else 2.0)
        except subprocess.TimeoutExpired:
            insist()
    process.wait()


def _bypass_proxies() -> None:
    """Let requests to this machine go straight to it, also where a proxy is set."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        if "*" not in hosts:
            os.environ[name] = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))


def _not_started() -> EngineError:
    return EngineError(
        "the engine is not started",
        got="a LocalEngine that does not run",
        need="one inside `with`, or after start()",
        fix="with LocalEngine() as engine: client = engine.service_client()",
    )
