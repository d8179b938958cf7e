"""From a request to its endpoint, and from an error there to an answer that the SDK does not repeat."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tinker_officer.engine.fields import parse_object
from tinker_officer.engine.guard import refusal_body
from tinker_officer.engine.refusal import Refused
from tinker_officer.errors import OfficerError


logger = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]
Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


class Application(Starlette):
    """Starlette, with a table for what is posted to a fixed path: training comes that way, hundreds a second.

    Args:
        routes: the routes; any other path is refused.
        lifespan: entered before the first request.
    """

    def __init__(self, routes: Sequence[Route], *, lifespan: Lifespan) -> None:
        handlers: dict[Any, Any] = {OfficerError: _refuse, Exception: _broken}
        unknown = Route("/{path:path}", _unknown, methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
        super().__init__(routes=[*routes, unknown], lifespan=lifespan, exception_handlers=handlers)
        self.router.redirect_slashes = False
        self._posted: dict[str, Endpoint] = {
            route.path: route.endpoint
            for route in routes
            if route.methods == {"POST"} and "{" not in route.path
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        endpoint = self._posted.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or scope["method"] != "POST":
            await super().__call__(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except ClientDisconnect:
            return
        except OfficerError as error:
            response = await _refuse(request, error)
        except Exception as error:
            logger.exception("engine.request_failed")
            response = await _broken(request, error)
        await response(scope, receive, send)


async def json_body(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request brings.

    Raises:
        Refused: it is none.
    """
    return parse_object(await request.body())


async def _refuse(_request: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        return JSONResponse(refusal_body(error), status_code=error.status)
    return JSONResponse({"error": str(error), "category": "user"}, status_code=400)


async def _unknown(request: Request) -> Response:
    raise Refused(
        "the embedded engine does not do this",
        got=f"{request.method} {request.url.path}"[:200],
        need="a request that training, sampling or checkpoints need; see the reference of LocalEngine",
        fix="tinker.ServiceClient() with a key of hosted Tinker",
        status=404,
    )


async def _broken(_request: Request, error: Exception) -> Response:
    # Not a 5xx: the SDK would send the request again for five minutes, and it would fail again.
    return JSONResponse({"error": f"{type(error).__name__}: {error}", "category": "server"}, status_code=422)
