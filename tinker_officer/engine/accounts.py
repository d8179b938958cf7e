"""The routes that say who was here, and what was used."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from tinker_officer.engine.fields import Fields, malformed, parse_object
from tinker_officer.engine.refusal import Refused
from tinker_officer.engine.rest import page, route, text_only
from tinker_officer.engine.sessions import Session
from tinker_officer.engine.state import State


_OWNER = "local"  # one user, one project
_PAGE = 200
_GIGABYTE = 10**9


def routes(state: State) -> list[Route]:
    """Return the routes."""
    return [
        route(state, "GET", "sessions", _sessions),
        route(state, "POST", "sessions/search", _search),
        route(state, "GET", "sessions/{session}", _session),
        route(state, "POST", "sessions/{session}/finish", _finish),
        route(state, "GET", "billing/usage/events", _usage),
        route(state, "GET", "billing/usage/checkpoints/current", _storage),
    ]


def _newest_first(state: State) -> list[Session]:
    return sorted(state.here.sessions.values(), key=lambda one: (one.created, one.id), reverse=True)


async def _sessions(state: State, request: Request) -> dict[str, Any]:
    start, end = page(request)
    return {"sessions": [session.id for session in _newest_first(state)[start:end]]}


async def _session(state: State, request: Request) -> dict[str, Any]:
    session = state.here.sessions.get(request.path_params["session"])
    if session is None:
        raise Refused(
            "no such session",
            got=request.path_params["session"][:64],
            need="a session of this engine since it was started",
            fix="tinker.RestClient(...).list_sessions().result()",
            status=404,
        )
    return {
        "training_run_ids": session.models,
        "sampler_ids": session.samplers,
        "user_metadata": text_only(session.user_metadata),
        "display_name": session.display_name,
    }


async def _finish(state: State, request: Request) -> dict[str, Any]:
    read = Fields(parse_object(await request.body()), "finish")
    reason = Fields(read.mapping("reason") or {}, "reason").text("type", "success")
    if reason not in {"success", "errored", "interrupted"}:
        raise malformed("reason", reason[:80])
    ended = {"type": "client_finished", "reason": {"type": reason}, "detail": read.maybe_text("detail")}
    state.finish_session(request.path_params["session"], ended)
    return {}


async def _search(state: State, request: Request) -> dict[str, Any]:
    body = parse_object(await request.body())
    read = Fields(body, "sessions/search")
    wanted, words = read.maybe_text("session_id"), (read.maybe_text("display_name") or "").lower().split()
    metadata = read.mapping("user_metadata") or {}
    limit = read.whole("limit", 50, low=1, high=_PAGE) or 50
    statuses = body.get("statuses")
    if statuses is not None and not (isinstance(statuses, list) and all(map(_is_object, statuses))):
        raise malformed("statuses", repr(statuses)[:80])

    def fits(session: Session) -> bool:
        named = bool(words) and all(word in (session.display_name or "").lower() for word in words)
        chosen = session.id == wanted or named if wanted or words else True
        labels = text_only(session.user_metadata) or {}
        status = _status(session)
        return (
            chosen
            and all(labels.get(key) == value for key, value in metadata.items())
            and (statuses is None or any(_matches(status, one) for one in statuses))
        )

    found = [session for session in _newest_first(state) if fits(session)]
    cursor = read.mapping("cursor")
    if cursor is not None:
        last = Fields(cursor, "cursor")
        at = (_moment(last.text("last_created_at")), last.text("last_session_id"))
        found = [one for one in found if (_moment(one.created), one.id) < at]
    last_one = found[limit - 1] if len(found) > limit else None
    return {
        "sessions": await asyncio.to_thread(lambda: [_summary(state, one) for one in found[:limit]]),
        "next_cursor": last_one and {"last_created_at": last_one.created, "last_session_id": last_one.id},
    }


def _summary(state: State, session: Session) -> dict[str, Any]:
    metas = [meta for run in tuple(session.models) for meta in state.store.checkpoints(run)]
    return {
        "session_id": session.id,
        "created_at": session.created,
        "owner": _OWNER,
        "project_id": _OWNER,
        "status": _status(session),
        "checkpoints_count": len(metas),
        "display_name": session.display_name,
        "user_metadata": text_only(session.user_metadata),
        "checkpoint_storage_bytes": sum(meta.size_bytes for meta in metas),
    }


def _status(session: Session) -> dict[str, Any] | None:
    """Return how a session stands; None for one that ended because nobody was heard of."""
    return session.ended if session.finished else {"type": "active"}


def _matches(status: dict[str, Any] | None, wanted: dict[str, Any]) -> bool:
    if status is None or status["type"] != wanted.get("type"):
        return False
    reasons = wanted.get("reasons")
    return not isinstance(reasons, list) or status["reason"]["type"] in reasons


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


async def _usage(state: State, request: Request) -> dict[str, Any]:
    read = Fields(dict(request.query_params), "billing/usage/events")
    events = state.usage.events(*(_moment(read.text(name)) for name in ("starting_on", "ending_before")))
    sessions = {event["session_id"] for event in events} & state.here.sessions.keys()
    return {
        "data": events,
        "sessions": {
            one: {"user_metadata": text_only(state.here.sessions[one].user_metadata)} for one in sessions
        },
    }


async def _storage(state: State, _request: Request) -> dict[str, Any]:
    def look() -> tuple[int, int]:
        sizes = [meta.size_bytes for run in state.store.runs() for meta in state.store.checkpoints(run.id)]
        return len(sizes), sum(sizes)

    count, size = await asyncio.to_thread(look)
    item = {
        "project_id": _OWNER,
        "checkpoint_count": count,
        "size_bytes": size,
        "size_gigabytes": size / _GIGABYTE,
    }
    return {"data": [item]}


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise malformed("a time", text[:80]) from error
    if moment.tzinfo is None:
        raise malformed("a time", f"{text[:80]} without a time zone")
    return moment
