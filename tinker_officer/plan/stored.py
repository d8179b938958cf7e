"""A plan as JSON values, and back: nothing is measured or looked up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from tinker_officer.data.measure import TokenCounts
from tinker_officer.errors import PlanError
from tinker_officer.plan.capacity import ModelShape
from tinker_officer.plan.sft import Pins, Sft


if TYPE_CHECKING:
    from tinker_officer.plan.plan import LoRAPlan

    Plan = TypeVar("Plan", bound=LoRAPlan)

KIND, FORMAT = "tinker_officer.LoRAPlan", 1
_NUMBERS = ("rank", "learning_rate", "batch_size")
_PLAIN = ("base_model", "max_rank", "seed", "train_mlp", "train_attn", "train_unembed", "price_per_million")


def to_dict(plan: LoRAPlan) -> dict[str, Any]:
    """Return what was asked and, for the record, what was worked out."""
    body: dict[str, Any] = {
        "kind": KIND,
        "format": FORMAT,
        **{name: getattr(plan, name) for name in _PLAIN},
        "shape": attrs.asdict(plan.shape),
        "pins": attrs.asdict(plan.pins),
        "objective": None,
    }
    if plan.objective is not None:
        body["objective"] = {"method": "sft", **_lists(attrs.asdict(plan.objective))}
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
            objective=_objective(body["objective"]) if body["objective"] else None,
        )
        recorded = {name: body["computed"][name] for name in _NUMBERS} if body["objective"] else {}
        moved = {name: value for name, value in recorded.items() if value != getattr(plan, name)}
        return plan.pin(**moved) if moved else plan
    except PlanError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(f"{type(error).__name__}: {error}") from error


def _objective(body: dict[str, Any]) -> Sft:
    """Return the objective that was stored.

    Raises:
        PlanError: the method is not one that this version knows.
    """
    values = dict(body)
    if (method := values.pop("method")) != "sft":
        raise _refused(f"method {method!r}")
    counts = {name: _tuples(value) for name, value in values.pop("counts").items()}
    return Sft(TokenCounts(**counts), **values)


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
