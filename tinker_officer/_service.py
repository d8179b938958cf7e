"""What `on=` takes, made into a `tinker.ServiceClient`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from tinker_officer.errors import EngineError


if TYPE_CHECKING:
    import tinker


@runtime_checkable
class ServesTinker(Protocol):
    """Anything that hands out a `tinker.ServiceClient`, as `LocalEngine` does."""

    def service_client(self) -> tinker.ServiceClient:
        """Return a client of this service; the same one each time."""


On: TypeAlias = "ServesTinker | tinker.ServiceClient | str"


def connect(on: On) -> tinker.ServiceClient:
    """Return a service client for `on`.

    Args:
        on: a `LocalEngine` (or anything with `service_client()`), a `tinker.ServiceClient`, or a base URL
            such as `https://host:port`, whose key is read from `TINKER_API_KEY`.

    Raises:
        EngineError: `on` is none of these.
    """
    import tinker

    if isinstance(on, tinker.ServiceClient):
        return on
    if isinstance(on, ServesTinker):
        return on.service_client()
    if str(on).startswith(("http://", "https://")):
        return tinker.ServiceClient(base_url=on)
    raise EngineError(
        "on= is not a Tinker service",
        got=repr(on),
        need="a LocalEngine, a tinker.ServiceClient, or a base URL",
        fix="with LocalEngine() as engine: run.start(on=engine, at='runs/mine')",
    )
