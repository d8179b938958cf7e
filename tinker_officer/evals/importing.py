"""What a suite names instead of holding it: functions and classes that can be imported."""

from __future__ import annotations

import importlib
from typing import Any


def imported(path: str) -> Any:
    """Return what can be imported as `module:name`; None where it cannot."""
    module, _, names = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError, ValueError):
        return None
    return found
