"""Channels: which names there are, and what a list of moves says about where a version is deployed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Protocol

from tinker_officer._text import nearest
from tinker_officer.errors import RegistryError


# On their way to production, in that order; `retired` is where `Registry.retire` puts a version.
CHANNELS = ("candidate", "staging", "production", "retired")

# Here a version may stand without a gate. Everywhere else a gate decides, or a person overrides it by name.
UNGATED = frozenset({"candidate", "staging"})

_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def check_channel(name: str, used: Iterable[str], *, new: bool) -> None:
    """Refuse a channel name that is malformed, or so near a known one that it may be a slip.

    Args:
        name: what was asked for.
        used: channels that the registry has seen.
        new: whether the caller said that it is meant to be new.

    Raises:
        RegistryError: as said.
    """
    known = tuple(dict.fromkeys((*CHANNELS, *used)))
    if name in known:
        return
    if not _PATTERN.fullmatch(str(name)):
        raise RegistryError(
            "this cannot be a channel",
            got=repr(name),
            need=f"{', '.join(map(repr, CHANNELS))}, or a-z, 0-9, - and _, at most 63, a letter first",
            fix='registry.promote(version, to="production", gate=gate, actor="ci")',
        )
    near = nearest(name, known)
    if near and not new:
        raise RegistryError(
            "there is no such channel yet, and it looks like one that there is",
            got=repr(name),
            need=f"{near}, or word that a new channel is meant, from the first who moves a version there",
            fix=f"registry.promote(version, to={name!r}, new_channel=True, gate=gate, actor=...)",
        )


class Step(Protocol):
    """What a channel's state is worked out from."""

    @property
    def kind(self) -> str:
        """What happened."""

    @property
    def version(self) -> str | None:
        """The version that the channel holds since."""


def standing(moves: Iterable[Step], gone: Collection[str] = ()) -> list[str]:
    """Return the versions that a channel can fall back on, the current one last.

    Args:
        moves: the moves of one channel of one model, oldest first; refusals are passed over.
        gone: versions whose checkpoints were deleted: nothing can fall back on them.

    Returns:
        Version ids; a rollback takes the last away, and a withdrawn version is never fallen back on.
    """
    stack: list[str] = []
    for move in moves:
        if move.kind in {"promoted", "overridden", "retired"} and move.version:
            stack.append(move.version)
        elif move.kind == "rolled back":
            del stack[-1:]
        elif move.kind in {"withdrawn", "reinstated"}:
            stack = [version for version in stack if version != move.version]
    return [version for version in stack if version not in gone]
