"""What the server answers to, as OpenAPI 3.1: its own routes, with the SDK's own models of their bodies."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from typing import Any

from starlette.routing import BaseRoute, Route


# The SDK's model of what each path is sent: module and class under `tinker.types`.
_BODIES = {
    "asample": ("sample_request", "SampleRequest"),
    "client/config": ("client_config_request", "ClientConfigRequest"),
    "copy_weights": ("copy_weights_request", "CopyWeightsRequest"),
    "create_model": ("create_model_request", "CreateModelRequest"),
    "create_sampling_session": ("create_sampling_session_request", "CreateSamplingSessionRequest"),
    "create_session": ("create_session_request", "CreateSessionRequest"),
    "get_info": ("get_info_request", "GetInfoRequest"),
    "load_weights": ("load_weights_request", "LoadWeightsRequest"),
    "optim_step": ("optim_step_request", "OptimStepRequest"),
    "retrieve_future": ("future_retrieve_request", "FutureRetrieveRequest"),
    "save_weights": ("save_weights_request", "SaveWeightsRequest"),
    "save_weights_external": ("save_weights_external_request", "SaveWeightsExternalRequest"),
    "save_weights_for_sampler": ("save_weights_for_sampler_request", "SaveWeightsForSamplerRequest"),
    "session_heartbeat": ("session_heartbeat_request", "SessionHeartbeatRequest"),
    "sessions/search": ("session_search_request", "SessionSearchRequest"),
    "telemetry": ("telemetry_send_request", "TelemetrySendRequest"),
}
_SENT_AS = {"optim_params": "adam_params"}  # a field that the SDK renames when it writes the body
# Bodies that the SDK writes by hand.
_BY_HAND: dict[str, dict[str, Any]] = {
    "cancel_future": {"request_id": {"type": "string"}},
    "sessions/{session}/finish": {"reason": {"type": "object"}, "detail": {"type": "string"}},
    "training_runs/{run}/checkpoints/{kind}/{name}/ttl": {"ttl_seconds": {"type": ["integer", "null"]}},
    "weights_info": {"tinker_path": {"type": "string"}},
}
_QUERIES = {
    "billing/usage/events": dict.fromkeys(("starting_on", "ending_before"), "string"),
    **{
        path: {"limit": "integer", "offset": "integer"}
        for path in ("checkpoints", "sessions", "training_runs")
    },
}
_PREFIX = "/api/v1/"
_COMPONENTS = "#/components/schemas/"


def description(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """Return the OpenAPI description of routes.

    Args:
        routes: those of the application; one that takes any path is left out.
    """
    schemas: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if not isinstance(route, Route) or ":path}" in route.path:
            continue
        for method in sorted((route.methods or set()) - {"HEAD"}):
            paths.setdefault(route.path, {})[method.lower()] = _operation(route.path, method, schemas)
    key = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "LocalEngine, a Tinker-protocol server", "version": "1"},
        "security": [{"key": []}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": key}},
    }


def _operation(path: str, method: str, schemas: dict[str, Any]) -> dict[str, Any]:
    short = path.removeprefix(_PREFIX)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": {"type": kind}}
        for name, kind in _QUERIES.get(short, {}).items()
        if method == "GET"
    ]
    answers = {"default": {"description": "a JSON object, or protobuf"}}
    operation: dict[str, Any] = {"parameters": parameters, "responses": answers}
    content = _content(short, schemas) if method in {"POST", "PUT"} else None
    if content is not None:
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _content(path: str, schemas: dict[str, Any]) -> dict[str, Any] | None:
    if path == "forward_backward":
        binary = {"type": "string", "format": "binary"}
        return {"application/x-protobuf": {"schema": binary}}
    if path in _BY_HAND:
        return {"application/json": {"schema": {"type": "object", "properties": _BY_HAND[path]}}}
    if path not in _BODIES:
        return None
    module, name = _BODIES[path]
    model = getattr(importlib.import_module(f"tinker.types.{module}"), name)
    schema = model.model_json_schema(ref_template=_COMPONENTS + "{model}")
    schemas |= schema.pop("$defs", {})
    for ours, sent in _SENT_AS.items():
        if ours in schema["properties"]:
            schema["properties"][sent] = schema["properties"].pop(ours)
            schema["required"] = [sent if name == ours else name for name in schema["required"]]
    schemas[name] = schema
    return {"application/json": {"schema": {"$ref": _COMPONENTS + name}}}
