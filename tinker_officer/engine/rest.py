"""The routes that list, describe and manage: training runs, checkpoints, samplers."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from tinker_officer.engine.exports import FILES
from tinker_officer.engine.fields import Fields, parse_object
from tinker_officer.engine.records import KINDS, Meta, Run, TinkerPath, now
from tinker_officer.engine.refusal import Refused
from tinker_officer.engine.settings import context
from tinker_officer.engine.state import State


Endpoint = Callable[[State, Request], Awaitable[Any]]

_CHECKPOINT = "training_runs/{run}/checkpoints/{kind}/{name}"


def route(state: State, method: str, path: str, endpoint: Endpoint) -> Route:
    """Return the route of an endpoint that answers in JSON."""

    async def handle(request: Request) -> Response:
        return JSONResponse(await endpoint(state, request))

    return Route(f"/api/v1/{path}", handle, methods=[method])


def routes(state: State) -> list[Route]:
    """Return the routes."""
    return [
        route(state, "GET", "healthz", _healthz),
        route(state, "GET", "get_server_capabilities", _capabilities),
        route(state, "POST", "get_info", _get_info),
        route(state, "POST", "weights_info", _weights_info),
        route(state, "GET", "samplers/{sampler}", _sampler),
        route(state, "GET", "training_runs", _runs),
        route(state, "GET", "training_runs/{run}", _run),
        route(state, "GET", "training_runs/{run}/checkpoints", _run_checkpoints),
        route(state, "GET", "checkpoints", _checkpoints),
        route(state, "DELETE", _CHECKPOINT, _delete),
        route(state, "POST", f"{_CHECKPOINT}/publish", _publish),
        route(state, "DELETE", f"{_CHECKPOINT}/publish", _unpublish),
        route(state, "PUT", f"{_CHECKPOINT}/ttl", _ttl),
        route(state, "GET", f"{_CHECKPOINT}/external_weights_urls", _urls),
        route(state, "POST", "copy_weights", _copy),
        Route(f"{FILES}{{run}}/{{kind}}/{{name}}/{{file}}", _file(state), methods=["GET"]),
    ]


async def _healthz(_state: State, _request: Request) -> dict[str, Any]:
    return {"status": "ok"}


async def _capabilities(state: State, _request: Request) -> dict[str, Any]:
    from tinker_officer._models import WHEELS

    models: dict[str, int | None] = dict.fromkeys(name for name, wheel in WHEELS.items() if wheel.path())
    for name, folder in state.located().items():
        models[name] = await asyncio.to_thread(_context, folder)
    return {
        "supported_models": [
            {"model_name": name, "max_context_length": context, "trainable": True, "sampleable": True}
            for name, context in models.items()
        ]
    }


async def _get_info(state: State, request: Request) -> dict[str, Any]:
    model = state.here.model(Fields(parse_object(await request.body()), "get_info").text("model_id"))
    config = await asyncio.to_thread(_config, model.folder)
    return {
        "type": "get_info",
        "model_id": model.id,
        "model_name": model.base_model,
        "is_lora": True,
        "lora_rank": model.lora["rank"],
        "model_data": {
            "arch": config.get("model_type"),
            "model_name": model.base_model,
            "tokenizer_id": str(model.folder),
        },
    }


async def _weights_info(state: State, request: Request) -> dict[str, Any]:
    path = TinkerPath.parse(Fields(parse_object(await request.body()), "weights_info").text("tinker_path"))
    meta = await asyncio.to_thread(state.store.meta, path)
    flags = {name: meta.lora.get(name) for name in ("train_unembed", "train_mlp", "train_attn")}
    return {"base_model": meta.base_model, "is_lora": True, "lora_rank": meta.lora["rank"], **flags}


async def _sampler(state: State, request: Request) -> dict[str, Any]:
    sampler_id = request.path_params["sampler"]
    weights = state.here.sampler(sampler_id)
    path = None if weights.path is None else str(weights.path)
    return {"sampler_id": sampler_id, "base_model": weights.base_model, "model_path": path}


async def _runs(state: State, request: Request) -> dict[str, Any]:
    start, end = page(request)

    def look() -> tuple[list[dict[str, Any]], int]:
        found = state.store.runs()
        return [_describe_run(state, run) for run in found[start:end]], len(found)

    described, total = await asyncio.to_thread(look)
    return {
        "training_runs": described,
        "cursor": {"offset": start, "limit": end - start, "total_count": total},
    }


async def _run(state: State, request: Request) -> dict[str, Any]:
    run_id = request.path_params["run"]
    return await asyncio.to_thread(lambda: _describe_run(state, state.store.run(run_id)))


async def _run_checkpoints(state: State, request: Request) -> dict[str, Any]:
    run = await asyncio.to_thread(state.store.run, request.path_params["run"])
    metas = await asyncio.to_thread(state.store.checkpoints, run.id)
    return {"checkpoints": [describe(meta) for meta in metas]}


async def _checkpoints(state: State, request: Request) -> dict[str, Any]:
    start, end = page(request)

    def look() -> list[Meta]:
        found = [meta for run in state.store.runs() for meta in state.store.checkpoints(run.id)]
        return sorted(found, key=lambda meta: meta.created, reverse=True)

    metas = await asyncio.to_thread(look)
    return {
        "checkpoints": [describe(meta) for meta in metas[start:end]],
        "cursor": {"offset": start, "limit": end - start, "total_count": len(metas)},
    }


async def _delete(state: State, request: Request) -> dict[str, Any]:
    await asyncio.to_thread(state.store.delete, _path(request))
    return {}


async def _publish(state: State, request: Request) -> dict[str, Any]:
    await asyncio.to_thread(lambda: state.store.amend(_path(request), public=True))
    return {}


async def _unpublish(state: State, request: Request) -> dict[str, Any]:
    await asyncio.to_thread(lambda: state.store.amend(_path(request), public=False))
    return {}


async def _ttl(state: State, request: Request) -> dict[str, Any]:
    expires = expiry(Fields(parse_object(await request.body()), "ttl"))
    await asyncio.to_thread(lambda: state.store.amend(_path(request), expires=expires))
    return {}


async def _urls(state: State, request: Request) -> dict[str, Any]:
    path = _path(request)
    meta = await asyncio.to_thread(state.store.meta, path)
    if path.kind != "external_weights":
        raise Refused(
            "only external weights have addresses to download from",
            got=str(path),
            need="tinker://<training run>/external_weights/<name>",
            fix="path = training_client.save_weights_external('export').result().path",
        )
    urls, expires = state.signer.urls(str(request.base_url), path, tuple(meta.files))
    return {"urls": urls, "expires": expires.isoformat()}


def _file(state: State) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        path, name = _path(request), request.path_params["file"]
        state.signer.check(path, name, request.url.query)
        return FileResponse(await asyncio.to_thread(state.store.file, path, name))

    return handle


async def _copy(state: State, request: Request) -> dict[str, Any]:
    read = Fields(parse_object(await request.body()), "copy_weights")
    source = TinkerPath.parse(read.text("source_path"))
    session_id = read.maybe_text("session_id")
    if session_id is not None:
        session = state.here.session(session_id).id
    else:  # a request that comes twice has one key, and so one copy
        key = request.headers.get("x-idempotency-key") or str(uuid.uuid4())
        session = str(uuid.uuid5(uuid.NAMESPACE_OID, key))
    run_id = f"{session}:train:{read.whole('model_seq_id', 0, low=0, high=10**9 - 1)}"
    expires = expiry(read)

    def copy() -> TinkerPath:
        meta = state.store.meta(source)
        run = Run(run_id, meta.base_model, meta.lora, now(), session)
        return state.store.copy(source, run, expires=expires)

    return {"tinker_path": str(await asyncio.to_thread(copy))}


def expiry(read: Fields) -> str | None:
    """Return when a checkpoint with this `ttl_seconds` expires, as ISO 8601, or None for never.

    Raises:
        Refused: the time to live is no integer from an hour to ten years.
    """
    ttl_s = read.whole("ttl_seconds", None, low=3600, high=10 * 366 * 86400)
    return None if ttl_s is None else (datetime.now(UTC) + timedelta(seconds=ttl_s)).isoformat()


def describe(meta: Meta) -> dict[str, Any]:
    """Return a checkpoint as the SDK's `Checkpoint`."""
    path = TinkerPath.parse(meta.path)
    return {
        "checkpoint_id": f"{path.kind}/{path.name}",
        "checkpoint_type": KINDS[path.kind],
        "time": meta.created,
        "tinker_path": meta.path,
        "size_bytes": meta.size_bytes,
        "public": meta.public,
        "user_metadata": meta.user_metadata,
        "expires_at": meta.expires,
    }


def _describe_run(state: State, run: Run) -> dict[str, Any]:
    metas = state.store.checkpoints(run.id)
    last: dict[str, dict[str, Any]] = {}
    for meta in metas:
        description = describe(meta)
        last[description["checkpoint_type"]] = description
    model = state.here.models.get(run.id)
    times = [run.created, *(meta.created for meta in metas), *([model.last_request] if model else [])]
    return {
        "training_run_id": run.id,
        "base_model": run.base_model,
        "model_owner": "local",
        "is_lora": True,
        "lora_rank": run.lora["rank"],
        "last_request_time": max(times),
        "last_checkpoint": last.get("training"),
        "last_sampler_checkpoint": last.get("sampler"),
        "user_metadata": text_only(run.user_metadata),
    }


def text_only(metadata: dict[str, Any] | None) -> dict[str, str] | None:
    """Return `metadata` with every value as text, as the SDK's answers have it."""
    if metadata is None:
        return None
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}


def _path(request: Request) -> TinkerPath:
    params = request.path_params
    return TinkerPath(params["run"], params["kind"], params["name"])


def page(request: Request) -> tuple[int, int]:
    """Return where the page that a request asks for starts and ends.

    Raises:
        Refused: `limit` or `offset` is no number from 0.
    """
    query = {
        key: int(value[:18]) if value.isdecimal() else value
        for key, value in request.query_params.items()
        if key in {"limit", "offset"}
    }
    read = Fields(query, "query")
    offset = read.whole("offset", 0, low=0) or 0
    return offset, offset + (read.whole("limit", 100, low=0, high=10_000) or 0)


def _config(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_bytes())
    return config if isinstance(config, dict) else {}


def _context(folder: Path) -> int | None:
    return context(_config(folder))
