"""JSON bodies, read field by field; what is missing or of another type is refused by name."""

from __future__ import annotations

import json
import sys
from typing import Any

from tinker_officer.engine.refusal import Refused


_MOST_BYTES = 32 * 2**20


def parse_object(text: bytes) -> dict[str, Any]:
    """Return the JSON object that `text` holds; an empty text is an empty object.

    Raises:
        Refused: it is no JSON object, or longer than any that the SDK sends.
    """
    if len(text) > _MOST_BYTES:  # nested lists take twenty times as much memory as their text
        raise malformed("the body", f"{len(text)} bytes of JSON")
    try:
        value = json.loads(text or b"{}")
    except (ValueError, RecursionError) as error:
        raise malformed("the body", str(error)[:200]) from error
    if not isinstance(value, dict):
        raise malformed("the body", f"{type(value).__name__} instead of an object")
    return value


class Fields:
    """Typed access to the fields of a JSON object.

    Args:
        body: the object.
        where: its name, for messages.
    """

    def __init__(self, body: Any, where: str) -> None:
        if not isinstance(body, dict):
            raise malformed(where, f"{type(body).__name__} instead of an object")
        self._body, self._where = body, where

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string.

        Raises:
            Refused: it is missing and there is no default, or it is no string.
        """
        value = self._body.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or len(value) > 4096:  # noqa: PLR2004 - no name is longer
            raise self._wrong(name, value, "a string")
        return value

    def maybe_text(self, name: str) -> str | None:
        """Return a string, or None when it is missing."""
        return None if self._body.get(name) is None else self.text(name)

    def whole(
        self, name: str, default: int | None, *, low: int | None = None, high: int | None = None
    ) -> int | None:
        """Return an integer from `low` to `high`, or `default` when it is missing.

        Raises:
            Refused: it is no integer, or out of range.
        """
        value = self._body.get(name)
        if value is None:
            return default
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or (low is not None and value < low) or (high is not None and value > high):
            raise self._wrong(name, value, _range("an integer", low, high))
        return int(value)

    def real(
        self, name: str, default: float, *, low: float | None = None, high: float | None = None
    ) -> float:
        """Return a finite number from `low` to `high`, or `default` when it is missing.

        Raises:
            Refused: it is no finite number, or out of range.
        """
        value = self._body.get(name)
        if value is None:
            return default
        number = (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and abs(value) <= sys.float_info.max
        )
        if not number or (low is not None and value < low) or (high is not None and value > high):
            raise self._wrong(name, value, _range("a finite number", low, high))
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Return a boolean, or `default` when it is missing.

        Raises:
            Refused: it is no boolean.
        """
        value = self._body.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def mapping(self, name: str) -> dict[str, Any] | None:
        """Return an object, or None when it is missing.

        Raises:
            Refused: it is no object.
        """
        value = self._body.get(name)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(name, value, "an object")
        return value

    def _wrong(self, name: str, value: Any, need: str) -> Refused:
        return Refused(
            f"{self._where}: {name} is not usable",
            got=repr(value)[:200],
            need=need,
            fix=f"send {name} as {need}",
        )


def _range(kind: str, low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{kind} from {low} to {high}"
    return f"{kind} of at least {low}" if low is not None else kind


def malformed(what: str, got: str) -> Refused:
    """Return the refusal of something that is not as the SDK sends it."""
    return Refused(
        f"{what} cannot be read",
        got=got,
        need="a message as the Tinker SDK 0.38 sends it",
        fix="pip install 'tinker>=0.38,<0.39'",
    )
