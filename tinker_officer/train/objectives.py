"""The objectives of a run by their names, to and from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from tinker_officer.train.sft import Sft


Known = Sft
_KINDS: dict[str, type[Known]] = {kind.method: kind for kind in (Sft,)}


def from_dict(spec: Mapping[str, Any]) -> Known:
    """Return the objective that `to_dict` wrote."""
    fields = {key: value for key, value in spec.items() if key != "method"}
    return _KINDS[spec["method"]](**fields)


def to_dict(objective: Known) -> dict[str, Any]:
    """Return an objective as JSON."""
    return {"method": objective.method, **attrs.asdict(objective)}
