"""PromotionRefused: the error that carries its evidence."""

from __future__ import annotations

from tinker_officer.errors import RegistryError
from tinker_officer.registry.values import Move
from tinker_officer.registry.verdict import Verdict


class PromotionRefused(RegistryError):  # noqa: N818 - says what happened; it is caught to read the verdict
    """The gate did not let a version move. The refusal is on record.

    Args:
        move: the refusal, as the registry recorded it.
    """

    def __init__(self, move: Move) -> None:
        self.move = move
        super().__init__(
            f"the gate refused {move.label} for {move.channel!r}",
            got=move.verdict.explain() if move.verdict else "no verdict",
            need="PASS",
            fix="train on, evaluate more items, or override=True with an actor and a reason",
        )

    @property
    def verdict(self) -> Verdict | None:
        """The gate's decision with its evidence."""
        return self.move.verdict

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the evidence."""
        return type(self), (self.move,)
