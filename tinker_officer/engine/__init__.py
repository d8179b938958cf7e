"""The embedded engine: a Tinker-protocol server on loopback, and the handle that starts it."""

from __future__ import annotations

from tinker_officer.engine.server import LocalEngine as LocalEngine


__all__ = ["LocalEngine"]
