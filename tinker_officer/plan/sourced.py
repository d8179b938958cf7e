"""A number that knows where it comes from."""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs


Number = TypeVar("Number", int, float)


@attrs.frozen
class Sourced(Generic[Number]):
    """A number with its source, its interval and its doubts.

    Attributes:
        value: the number.
        source: the rule, measurement or person that it comes from.
        interval: where the best value is expected to lie, if the source says.
        doubts: what the source does not cover, one sentence each.
        computed: what would stand here without a pin; None when nothing is pinned.
    """

    value: Number
    source: str
    interval: tuple[float, float] | None = None
    doubts: tuple[str, ...] = ()
    computed: Number | None = None

    @property
    def pinned(self) -> bool:
        """Whether the user set the number."""
        return self.computed is not None
