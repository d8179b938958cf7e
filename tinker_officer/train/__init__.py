"""The loop: a `Run` is declared once, trains through a Tinker service, and survives what happens to it."""

from __future__ import annotations
