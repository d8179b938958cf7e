"""The routes of Tinker's protocol: each reads a request, asks the state, and writes the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tinker_officer.engine import accounts, rest, wire
from tinker_officer.engine.dispatch import Application, Endpoint, json_body
from tinker_officer.engine.exports import encrypted, parse_recipients
from tinker_officer.engine.fields import Fields
from tinker_officer.engine.futures import Future
from tinker_officer.engine.openapi import description
from tinker_officer.engine.records import TinkerPath
from tinker_officer.engine.refusal import Refused
from tinker_officer.engine.state import State


_MOST_BETA = 0.999999  # as AdamSettings has it
HOLD_S = 20.0  # the SDK gives up a poll after 45 s

Handler = Callable[[State, dict[str, Any]], Awaitable[dict[str, Any]]]

# What the SDK may leave to a bigger server. One connection carries what little this one has to say;
# chunks of one batch come one after the other, so that gradients add up in one order.
CLIENT_CONFIG = {
    "pjwt_auth_enabled": False,
    "custom_loss_server_side": False,
    "sample_use_retrieve_futures": False,
    "sample_join_sampling_session": False,
    "proto_compress_fwdbwd": False,
    "parallel_fwdbwd_chunks": False,
    "use_pyqwest_transport": True,
}
DYNAMIC_CONFIG = {"refresh_interval_sec": 3600, "sample_cancel_enabled": True}


def build(state: State, *, on_startup: Callable[[], Awaitable[None]] | None = None) -> Starlette:
    """Return the application.

    Args:
        state: what the routes ask.
        on_startup: awaited once, before the first request.
    """

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        if on_startup is not None:
            await on_startup()
        yield

    def post(path: str, handler: Handler) -> Route:
        return Route(f"/api/v1/{path}", _json_endpoint(state, handler), methods=["POST"])

    routes: list[Route] = [
        Route("/api/v1/retrieve_future", _retrieve(state), methods=["POST"]),
        Route("/api/v1/forward_backward", _forward_backward(state), methods=["POST"]),
        post("optim_step", _optim_step),
        post("asample", _asample),
        post("create_model", _create_model),
        post("load_weights", _load_weights),
        post("save_weights", _save_weights),
        post("save_weights_for_sampler", _save_weights_for_sampler),
        post("save_weights_external", _save_weights_external),
        post("create_sampling_session", _create_sampling_session),
        post("cancel_future", _cancel_future),
        post("create_session", _create_session),
        post("session_heartbeat", _session_heartbeat),
        post("telemetry", _telemetry),
        post("client/config", _client_config),
        post("client/dynamic_config", _dynamic_config),
        *rest.routes(state),
        *accounts.routes(state),
    ]
    routes.append(Route("/openapi.json", _described(routes), methods=["GET"]))
    return Application(routes, lifespan=lifespan)


# -- requests that are answered at once


async def _create_session(state: State, body: dict[str, Any]) -> dict[str, Any]:
    read = Fields(body, "create_session")
    session = state.here.open(read.mapping("user_metadata"), read.maybe_text("display_name"))
    return {"type": "create_session", "session_id": session.id}


async def _session_heartbeat(state: State, body: dict[str, Any]) -> dict[str, Any]:
    state.here.session(Fields(body, "session_heartbeat").text("session_id"))
    return {"type": "session_heartbeat"}


async def _telemetry(_state: State, _body: dict[str, Any]) -> dict[str, Any]:
    return {"status": "accepted"}


async def _client_config(_state: State, _body: dict[str, Any]) -> dict[str, Any]:
    return CLIENT_CONFIG


async def _dynamic_config(_state: State, _body: dict[str, Any]) -> dict[str, Any]:
    return DYNAMIC_CONFIG


async def _create_sampling_session(state: State, body: dict[str, Any]) -> dict[str, Any]:
    read = Fields(body, "create_sampling_session")
    path = read.maybe_text("model_path")
    sampler_id = await state.open_sampler(
        read.text("session_id"),
        read.whole("sampling_session_seq_id", 0) or 0,
        read.maybe_text("base_model"),
        None if path is None else TinkerPath.parse(path),
    )
    return {"type": "create_sampling_session", "sampling_session_id": sampler_id}


async def _cancel_future(state: State, body: dict[str, Any]) -> dict[str, Any]:
    state.cancel(Fields(body, "cancel_future").text("request_id"))
    return {}


# -- requests that are promised an answer


async def _create_model(state: State, body: dict[str, Any]) -> dict[str, Any]:
    read = Fields(body, "create_model")
    lora = Fields(read.mapping("lora_config"), "lora_config")
    _only_adam(read.mapping("optimizer_config"))
    flags = {name: lora.flag(name, default=True) for name in ("train_mlp", "train_attn", "train_unembed")}
    if not any(flags.values()):
        raise Refused(
            "nothing to train",
            got="train_mlp, train_attn and train_unembed are all false",
            need="at least one of them",
            fix="service_client.create_lora_training_client(base_model, rank=32)",
        )
    return _promise(
        state.create_model(
            read.text("session_id"),
            read.whole("model_seq_id", 0, low=0, high=10**9 - 1) or 0,
            read.text("base_model"),
            {"rank": lora.whole("rank", 32), "seed": lora.whole("seed", None), **flags},
            read.mapping("user_metadata"),
        )
    )


async def _load_weights(state: State, body: dict[str, Any]) -> dict[str, Any]:
    read = Fields(body, "load_weights")
    _only_adam(read.mapping("optimizer_config"))
    path = TinkerPath.parse(read.text("path"))
    optimizer = read.flag("optimizer", default=False)
    if body.get("session_id") is None:
        state.store.meta(path)
        return _promise(state.load(read.text("model_id"), read.whole("seq_id", None), path, optimizer))
    return _promise(
        state.create_from_state(
            read.text("session_id"),
            read.whole("model_seq_id", 0, low=0, high=10**9 - 1) or 0,
            path,
            read.maybe_text("base_model"),
            optimizer,
            read.mapping("user_metadata"),
        )
    )


async def _optim_step(state: State, body: dict[str, Any]) -> dict[str, Any]:
    read = Fields(body, "optim_step")
    if body.get("optimizer_params") is not None:
        _only_adam(read.mapping("optimizer_params"))
    adam = Fields(read.mapping("adam_params"), "adam_params")
    settings = {
        "learning_rate": adam.real("learning_rate", 1e-4, low=0.0),
        "beta1": adam.real("beta1", 0.9, low=0.0, high=_MOST_BETA),
        "beta2": adam.real("beta2", 0.95, low=0.0, high=_MOST_BETA),
        "eps": adam.real("eps", 1e-12, low=0.0),
        "weight_decay": adam.real("weight_decay", 0.0, low=0.0),
        "grad_clip_norm": adam.real("grad_clip_norm", 0.0, low=0.0),
    }
    return _promise(state.optim_step(read.text("model_id"), read.whole("seq_id", None), settings))


async def _save_weights(state: State, body: dict[str, Any]) -> dict[str, Any]:
    read = Fields(body, "save_weights")
    model_id, seq = read.text("model_id"), read.whole("seq_id", None)
    path = TinkerPath(model_id, "weights", read.text("path", f"{seq or 0:06d}"))
    answer = {"path": str(path), "type": "save_weights"}
    return _promise(
        state.save(
            model_id,
            seq,
            path,
            answer,
            overwrite=read.flag("overwrite", default=False),
            expires=rest.expiry(read),
            user_metadata=read.mapping("user_metadata"),
        )
    )


async def _save_weights_for_sampler(state: State, body: dict[str, Any]) -> dict[str, Any]:
    read = Fields(body, "save_weights_for_sampler")
    model_id, seq = read.text("model_id"), read.whole("seq_id", None)
    if body.get("path") is None:
        sampler_seq = read.whole("sampling_session_seq_id", None, low=0)
        if sampler_seq is None:
            raise Refused(
                "neither a name nor a sampling session",
                got="no path and no sampling_session_seq_id",
                need="one of them",
                fix="training_client.save_weights_for_sampler('step-000100')",
            )
        return _promise(state.open_snapshot(model_id, seq, sampler_seq))
    path = TinkerPath(model_id, "sampler_weights", read.text("path"))
    return _promise(
        state.save(
            model_id,
            seq,
            path,
            {"path": str(path), "type": "save_weights_for_sampler"},
            overwrite=True,
            expires=rest.expiry(read),
            user_metadata=read.mapping("user_metadata"),
        )
    )


async def _save_weights_external(state: State, body: dict[str, Any]) -> dict[str, Any]:
    read = Fields(body, "save_weights_external")
    model_id = read.text("model_id")
    path = TinkerPath(model_id, "external_weights", read.text("path"))
    recipients = parse_recipients(body.get("age_encryption_recipients"))
    return _promise(
        state.save(
            model_id,
            read.whole("seq_id", None),
            path,
            {"path": str(path), "type": "save_weights_external"},
            overwrite=False,
            expires=rest.expiry(read),
            changed=partial(encrypted, recipients=recipients) if recipients else None,
        )
    )


async def _asample(state: State, body: dict[str, Any]) -> dict[str, Any]:
    return _promise(state.sample(wire.decode_sample(body)))


def _forward_backward(state: State) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        if not kind.startswith(wire.PROTOBUF) or "content-encoding" in request.headers:
            raise Refused(
                "forward_backward is not in plain protobuf",
                got=f"{kind or 'no content type'} {request.headers.get('content-encoding', '')}",
                need=wire.PROTOBUF,
                fix="pip install 'tinker>=0.38,<0.39'",
                status=415,
            )
        decoded = wire.decode_forward_backward(await request.body())
        return JSONResponse(_promise(state.forward_backward(decoded)))

    return endpoint


def _retrieve(state: State) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        body = await json_body(request)
        request_id = Fields(body, "retrieve_future").text("request_id")
        reply = await state.futures.wait(request_id, HOLD_S)
        if reply is None:
            return JSONResponse({"type": "try_again", "queue_state": "active"}, status_code=408)
        return Response(reply.body, media_type=reply.media_type)

    return endpoint


def _described(routes: list[Route]) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(description, routes))

    return endpoint


# -- shared


def _promise(future: Future) -> dict[str, Any]:
    names = {"sample_sequence_ids": [f"{future.id}:{i}" for i in range(future.samples)]}
    return {"request_id": future.id, **(names if future.samples else {})}


def _only_adam(config: dict[str, Any] | None) -> None:
    kind = (config or {}).get("type", "adamw")
    if kind != "adamw":
        raise Refused(
            "the embedded engine has one optimizer",
            got=str(kind)[:80],
            need="adamw",
            fix="create_lora_training_client(base_model) and optim_step(tinker.AdamParams(...))",
        )


def _json_endpoint(state: State, handler: Handler) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return JSONResponse(await handler(state, await json_body(request)))

    return endpoint
