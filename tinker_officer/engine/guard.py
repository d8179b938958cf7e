"""Who may speak to the engine: the bearer of its token, from a program, in messages of sane size."""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tinker_officer.engine.exports import FILES
from tinker_officer.engine.refusal import Refused


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application that lets only good requests through to `app`.

    A web page that a browser shows cannot get in: it does not know the token, it sends `Origin`, and a
    name that was rebound to the loopback address is not in the allow-list.

    Args:
        app: the application behind.
        token: what `X-API-Key` must be.
        host: the address that the server is bound to; `Host` is checked when it is a loopback one.
        body_bytes: how long a body may be.
    """

    def __init__(self, app: App, *, token: str, host: str, body_bytes: int) -> None:
        self._app, self._token, self._body_bytes = app, token.encode(), body_bytes
        self._hosts = {b"127.0.0.1", b"localhost", b"[::1]", host.encode()} if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a bad request, pass a good one on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        try:
            self._check(headers, signed=scope["path"].startswith(FILES))
        except Refused as refusal:
            await send_refusal(send, refusal)
            return
        seen = 0
        started = False

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._body_bytes:
                raise self._too_long(seen)
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, limited, watched)
        except Refused as refusal:
            if started:
                raise
            await send_refusal(send, refusal)

    def _check(self, headers: dict[bytes, bytes], *, signed: bool) -> None:
        name, colon, port = headers.get(b"host", b"").rpartition(b":")
        if not (colon and port.isdigit()):
            name = headers.get(b"host", b"")
        if self._hosts is not None and name.lower() not in self._hosts:
            raise Refused(
                "the Host header names another machine",
                got=name.decode(errors="replace")[:100],
                need="127.0.0.1 or localhost",
                fix="set TINKER_BASE_URL to the address that the engine printed",
                status=403,
            )
        if b"origin" in headers:
            raise Refused(
                "the engine does not serve web pages",
                got="a request with an Origin header",
                need="a program that uses the Tinker SDK",
                fix="tinker.ServiceClient(base_url=..., api_key=...)",
                status=403,
            )
        if not signed and not hmac.compare_digest(headers.get(b"x-api-key", b""), self._token):
            raise Refused(
                "the API key is not this engine's",
                got="another X-API-Key header, or none",
                need="the token that the engine was started with",
                fix="set TINKER_API_KEY to what the engine printed, or use engine.service_client()",
                status=401,
            )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._body_bytes:
            raise self._too_long(int(length) if length.isdigit() else -1)

    def _too_long(self, size: int) -> Refused:
        return Refused(
            "the request is too long",
            got=f"{size} bytes",
            need=f"at most {self._body_bytes} bytes",
            fix="send fewer examples a call",
            status=413,
        )


def is_loopback(host: str) -> bool:
    """Return whether `host` is an address that only this machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def send_refusal(send: Send, refusal: Refused) -> None:
    """Answer with `refusal`: its status, and a JSON body that says what and why."""
    body = json.dumps(refusal_body(refusal)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def refusal_body(refusal: Refused) -> dict[str, Any]:
    """Return the JSON body of a refusal."""
    return {"error": str(refusal), "category": "user", "fix": refusal.fix}
