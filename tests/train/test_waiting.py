"""Waiting for the server, also for what the SDK does before it hands out a future."""

from __future__ import annotations

import concurrent.futures
import logging
import threading

import pytest

from tinker_officer.train.waiting import Aborted, Waiter, apart


def answered(value: object) -> concurrent.futures.Future[object]:
    future: concurrent.futures.Future[object] = concurrent.futures.Future()
    future.set_result(value)
    return future


def test_what_blocks_before_there_is_a_future_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """A call that waits for the session is named in the log while it waits, and its answer comes."""
    told = threading.Event()

    def ask() -> concurrent.futures.Future[object]:
        assert told.wait(60)
        return answered("client")

    class Telling(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            told.set()

    log = logging.getLogger("tinker_officer.train.waiting")
    handler = Telling()
    log.addHandler(handler)
    try:
        assert Waiter(0.05, threading.Event())(apart(ask), "the new adapter", step=0) == "client"
    finally:
        log.removeHandler(handler)
    assert "the new adapter of step 0 has not come" in caplog.text


def test_what_goes_wrong_there_is_raised_where_it_is_waited_for() -> None:
    """The error of the call is the error of the wait."""

    def ask() -> concurrent.futures.Future[object]:
        raise ConnectionError("no route")

    with pytest.raises(ConnectionError, match="no route"):
        Waiter(60, threading.Event())(apart(ask), "the new adapter", step=0)


def test_an_abort_does_not_wait_for_it() -> None:
    """Aborted, the wait ends although the call has not."""
    going_on, aborted = threading.Event(), threading.Event()
    aborted.set()

    def ask() -> concurrent.futures.Future[object]:
        going_on.wait(60)
        return answered(None)

    with pytest.raises(Aborted):
        Waiter(60, aborted)(apart(ask), "the new adapter", step=0)
    going_on.set()
