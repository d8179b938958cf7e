"""What a user asks for, and what the data were counted with: the same, or an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from tinker_officer.errors import PlanError


if TYPE_CHECKING:
    from tinker_officer.plan.preference import RewardModel
    from tinker_officer.plan.sft import Sft

    Counted = TypeVar("Counted", bound=Sft | RewardModel)


def agreed(objective: Counted, asked: dict[str, Any]) -> Counted:
    """Return a copy of `objective` with the settings that its data were really counted with.

    Args:
        objective: what is learned, and the counts of its data.
        asked: what the user asked for, by setting; None where nothing was asked.

    Raises:
        PlanError: a setting contradicts the counts.
    """
    settled: dict[str, Any] = {}
    for name, wanted in asked.items():
        used = getattr(objective.counts, name)
        if wanted is not None and used is not None and wanted != used:
            raise PlanError(
                f"{name} contradicts the counts",
                got=f"{name}={wanted!r}, but the tokens were counted with {used!r}",
                need="the same value in both",
                fix=f"train.measure(base_model, {name}={wanted!r})",
            )
        settled[name] = wanted if used is None else used
    return attrs.evolve(objective, **settled)
