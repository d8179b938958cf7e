"""A plan as JSON values, and back: nothing is measured or looked up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from tinker_officer.data.measure import TokenCounts
from tinker_officer.data.pair_counts import PairCounts
from tinker_officer.errors import PlanError
from tinker_officer.plan.capacity import ModelShape
from tinker_officer.plan.cost import Prices
from tinker_officer.plan.counts import EpisodeCounts
from tinker_officer.plan.decision import Pins
from tinker_officer.plan.distill import Distill
from tinker_officer.plan.pilot_fit import PilotFit
from tinker_officer.plan.preference import Dpo, RewardModel
from tinker_officer.plan.rates import CalibratedRule
from tinker_officer.plan.rl import Rl
from tinker_officer.plan.sft import PromptDistillation, Sft


if TYPE_CHECKING:
    from tinker_officer.plan.numbers import Objective
    from tinker_officer.plan.plan import LoRAPlan

    Plan = TypeVar("Plan", bound=LoRAPlan)

KIND, FORMAT = "tinker_officer.LoRAPlan", 2
_NUMBERS = ("rank", "batch_size", "learning_rate")
_PLAIN = ("base_model", "max_rank", "seed", "train_mlp", "train_attn", "train_unembed")
_KINDS: dict[str, tuple[type[Any], type[Any]]] = {
    kind.method: (kind, counts)
    for kind, counts in (
        (Sft, TokenCounts),
        (PromptDistillation, TokenCounts),
        (Dpo, PairCounts),
        (RewardModel, PairCounts),
        (Rl, EpisodeCounts),
        (Distill, EpisodeCounts),
    )
}


def to_dict(plan: LoRAPlan) -> dict[str, Any]:
    """Return what was asked and, for the record, what was worked out."""
    body: dict[str, Any] = {
        "kind": KIND,
        "format": FORMAT,
        **{name: getattr(plan, name) for name in _PLAIN},
        "shape": attrs.asdict(plan.shape),
        "pins": attrs.asdict(plan.pins),
        "prices": attrs.asdict(plan.prices),
        "pilot": plan.pilot_fit.to_dict() if plan.pilot_fit else None,
        "calibration": plan.calibration.to_dict() if plan.calibration else None,
        "objective": None,
    }
    if plan.objective is not None:
        body["objective"] = {"method": plan.method, **_lists(attrs.asdict(plan.objective))}
        body["computed"] = {name: getattr(plan, name) for name in (*_NUMBERS, "steps", "verdict")}
    return body


def from_dict(cls: type[Plan], body: Any) -> Plan:
    """Return the plan that `to_dict` wrote.

    Numbers that this version works out otherwise are kept as they were, as pins.

    Raises:
        PlanError: `body` is not a plan.
    """
    try:
        if (body["kind"], body["format"]) != (KIND, FORMAT):
            raise _refused(f"kind {body['kind']!r}, format {body['format']!r}")
        plan = cls(
            **{name: body[name] for name in _PLAIN},
            shape=ModelShape(**body["shape"]),
            pins=Pins(**body["pins"]),
            prices=Prices(**body["prices"]),
            pilot_fit=PilotFit.from_dict(body["pilot"]) if body["pilot"] else None,
            calibration=CalibratedRule.from_dict(body["calibration"]) if body["calibration"] else None,
            objective=_objective(body["objective"]) if body["objective"] else None,
        )
        return _kept(plan, body["computed"]) if body["objective"] else plan
    except PlanError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(f"{type(error).__name__}: {error}") from error


def _kept(plan: Plan, recorded: dict[str, Any]) -> Plan:
    """Return the plan with the numbers that were recorded, those that differ as pins."""
    for name in _NUMBERS:  # in this order: the rate follows from the rank and the steps
        if recorded[name] != getattr(plan, name):
            plan = plan.pin(**{name: recorded[name]})
    return plan


def _objective(body: dict[str, Any]) -> Objective:
    """Return the objective that was stored.

    Raises:
        PlanError: the method is not one that this version knows.
    """
    values = dict(body)
    if (method := values.pop("method")) not in _KINDS:
        raise _refused(f"method {method!r}")
    kind, counts = _KINDS[method]
    counted = counts(**{name: _tuples(value) for name, value in values.pop("counts").items()})
    objective: Objective = kind(counted, **values)
    return objective


def _lists(value: Any) -> Any:
    """Return `value` with its tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {name: _lists(item) for name, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple | list) else value


def _tuples(value: Any) -> Any:
    """Return `value` with its lists as tuples, as frozen values have them."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _refused(got: str) -> PlanError:
    return PlanError(
        "this is not a plan's JSON",
        got=got,
        need=f"what LoRAPlan.to_json() of this version writes ({KIND}, format {FORMAT})",
        fix="LoRAPlan.from_json(plan.to_json())",
    )
