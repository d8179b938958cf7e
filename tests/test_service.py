"""`on=` takes an engine, a client or an address; progress is drawn where it can be seen."""

from __future__ import annotations

import asyncio
import signal
import threading
import time

import pytest

from tinker_officer import LocalEngine, _portal
from tinker_officer._progress import Progress
from tinker_officer._service import connect
from tinker_officer.errors import EngineError


def test_an_engine_gives_one_client_however_often_it_is_asked(engine: LocalEngine) -> None:
    """Rooms that connect to the same engine share its client."""
    assert connect(engine) is connect(engine)
    assert connect(connect(engine)) is connect(engine)


def test_a_base_url_uses_the_key_of_the_environment(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL alone is enough where TINKER_API_KEY is set, as for hosted Tinker."""
    monkeypatch.setenv("TINKER_API_KEY", engine.token)
    client = connect(engine.base_url)
    assert client.create_rest_client().get_server_capabilities().result().supported_models


@pytest.mark.parametrize("wrong", [None, 7, "runs/tickets"])
def test_anything_else_is_refused_with_what_would_do(wrong: object) -> None:
    """A path, a number or nothing is not a service, and the message shows what is."""
    with pytest.raises(EngineError, match="on= is not a Tinker service"):
        connect(wrong)  # the wrong type is what is tested


def test_off_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines say how much is done, how long it took and what is left."""
    with Progress(4, "train", unit="steps", every_s=0.0) as bar:
        for _ in range(4):
            bar.advance(note="nll 1.2")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("train: 1/4 steps in 0.0 s, about ")
    assert lines[0].endswith(" left, nll 1.2")
    assert lines[-1].startswith("train: 4/4 steps in ")


def test_progress_false_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written when nothing was asked for."""
    with Progress(None, "read", unit="rows", show=False, every_s=0.0) as bar:
        bar.advance(10)
    assert capsys.readouterr().err == ""


def test_a_coroutine_runs_from_synchronous_code_inside_a_running_loop() -> None:
    """What works in a script works in a notebook, where a loop already runs."""

    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    async def notebook() -> int:
        return _portal.run(answer())

    assert asyncio.run(notebook()) == 42


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals cannot be sent to a thread here")
def test_ctrl_c_ends_the_wait_whichever_thread_takes_it() -> None:
    """The system may hand it to any thread; the main one must notice, and what it waits for is cancelled."""
    ended = threading.Event()

    async def long() -> None:
        try:
            await asyncio.sleep(20)
        finally:
            ended.set()

    def press() -> None:
        time.sleep(0.1)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    started = time.monotonic()
    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        _portal.run(long())
    assert ended.wait(5)
    assert time.monotonic() - started < 10
