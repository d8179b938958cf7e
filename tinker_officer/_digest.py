"""Canonical JSON and its digest: one way to say that two values are the same."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> bytes:
    """Return `value` as JSON with sorted keys, no spaces, UTF-8; NaN and infinity are refused.

    Raises:
        ValueError: a number is not finite.
        TypeError: a value is not JSON.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value)).hexdigest()
