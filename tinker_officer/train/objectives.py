"""The objectives of a run by their names: which one a plan asks for, and JSON of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import attrs

from tinker_officer.train.distill import Distill
from tinker_officer.train.preference import Dpo, RewardModel
from tinker_officer.train.rl import Rl
from tinker_officer.train.sft import Sft


Known: TypeAlias = Sft | Dpo | RewardModel | Rl | Distill
_KINDS: dict[str, type[Known]] = {kind.method: kind for kind in (Sft, Dpo, RewardModel, Rl, Distill)}
_SETTLED = {"prompt_distillation": "sft"}  # the plan's methods that are another's, once there is data


def of_plan(plan: Any) -> Known:
    """Return the objective that `plan` asks for; supervised fine-tuning where that needs settings."""
    method = getattr(plan, "method", "sft")
    if method == "dpo":
        return Dpo(beta=plan.objective.dpo_beta)
    return RewardModel() if method == "reward_model" else Sft()


def fits(method: str, objective: Known) -> bool:
    """Return whether `objective` is what a plan for `method` was made for."""
    return objective.method == _SETTLED.get(method, method)


def from_dict(spec: Mapping[str, Any]) -> Known:
    """Return the objective that `to_dict` wrote."""
    return _KINDS[spec["method"]](**{key: value for key, value in spec.items() if key != "method"})


def to_dict(objective: Known) -> dict[str, Any]:
    """Return an objective as JSON."""
    return {"method": objective.method, **attrs.asdict(objective)}
