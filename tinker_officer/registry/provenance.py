"""Where a version was registered: library versions, and the revision of the working tree."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib import metadata
from typing import Any


PACKAGES = (
    "tinker-officer", "tinker", "tinker-cookbook", "inspect-ai", "inspect-evals", "torch", "transformers",
    "numpy",
)  # fmt: skip
_PATIENCE_S = 5.0


@cache
def packages() -> dict[str, str]:
    """Return the installed versions of the libraries that results depend on; read once a process."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git() -> dict[str, Any]:
    """Return the revision of the working tree that the process stands in, and whether it has changes.

    Returns:
        `{"revision": ..., "dirty": ...}`; empty outside git, without git, or when git is slow to answer.
    """
    status = _ask("status", "--porcelain=v2", "--branch", "--untracked-files=no")
    lines = status.splitlines() if status else []
    revision = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    if revision == "(initial)":
        return {}
    return {"revision": revision, "dirty": any(not line.startswith("#") for line in lines)}


def _ask(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words only
            ["git", "--no-optional-locks", *arguments],  # noqa: S607 - the user's git, found as they find it
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
