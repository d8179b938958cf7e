"""Results and errors as bodies of answers."""

from __future__ import annotations

import json
import logging
from typing import Any

from tinker_officer.engine import wire
from tinker_officer.engine.futures import Reply
from tinker_officer.errors import EngineError, OfficerError


logger = logging.getLogger(__name__)


def protobuf(body: bytes) -> Reply:
    """Return an encoded message as an answer."""
    return Reply(body, wire.PROTOBUF)


def as_json(value: Any) -> Reply:
    """Return `value` as an answer in JSON."""
    return Reply(json.dumps(value).encode())


def failure(error: Exception) -> Reply:
    """Return an error as an answer: the caller's ("user") when it says so itself, else the server's.

    Its tracebacks are cut off: they would hold the tensors of the failed request until the next full
    collection of garbage, which after an out-of-memory comes too late.
    """
    reply = _reply(error)
    cause: BaseException | None = error
    while cause is not None and cause.__traceback__ is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return reply


def _reply(error: Exception) -> Reply:
    if isinstance(error, OfficerError):
        return as_json({"error": str(error), "category": "user"})
    if _out_of_memory(error):
        text = EngineError(
            "the engine ran out of memory on this request",
            got=str(error)[:300],
            need="a request that fits",
            fix="fewer or shorter examples a call, or LocalEngine(dtype='bfloat16')",
        )
        return as_json({"error": str(text), "category": "user"})
    logger.error("engine.request_failed", exc_info=error)
    return as_json({"error": f"{type(error).__name__}: {error}", "category": "server"})


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in str(error) or "can't allocate memory" in str(error))
    )
