"""What can be registered, made into the fields of a version: a run, weights in files, a base model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinker_officer._digest import digest
from tinker_officer.errors import RegistryError
from tinker_officer.registry import exporting, provenance, reads
from tinker_officer.registry.values import Version


if TYPE_CHECKING:
    import sqlalchemy as sa

    from tinker_officer.evals.scorecard import Scorecard
    from tinker_officer.train.checkpoints import Checkpoint
    from tinker_officer.train.result import RunResult

LONGEST_NAME = 200
_LORA = ("train_mlp", "train_attn", "train_unembed")


def describe(
    source: RunResult | str | Path,
    card: Scorecard | None,
    name: str | None,
    *,
    data: Mapping[str, Any] | None = None,
    base_model: str = "",
) -> dict[str, Any]:
    """Return the fields of the version that `source` is, all but its number and its time.

    Raises:
        RegistryError: the source or the name cannot be registered, or the card is of another model.
    """
    if isinstance(source, str | Path):
        fields = _base(str(source), card, base_model)
        fields["name"] = _checked(name if name is not None else str(source).rstrip("/").rpartition("/")[2])
    else:
        fields = _trained(source, card)
        fields["name"] = _checked(name if name is not None else source.name)
    fields["data"] = {**fields["data"], **plain(dict(data or {}))}
    return {**fields, "packages": dict(provenance.packages()), "git": provenance.git()}


def family(
    connection: sa.Connection, parents: Sequence[Version | str] | Mapping[str, Sequence[Version | str]]
) -> tuple[list[str], dict[str, str]]:
    """Return the ids of the parents, and how each was used where that was said.

    Raises:
        RegistryError: there is no such version.
    """
    said = parents if isinstance(parents, Mapping) else {"": parents}
    relations = {
        reads.find(connection, one).id: str(how)
        for how, those in said.items()
        for one in ((those,) if isinstance(those, str | Version) else those)
    }
    return list(relations), {one: how for one, how in relations.items() if how}


def _base(source: str, card: Scorecard | None, base_model: str) -> dict[str, Any]:
    if not source.strip() or source.startswith("tinker://") or "\0" in f"{base_model}{source}":
        raise _no_source(source)
    if card is not None and card.target != source:
        raise _another_model(card, source)
    weights = exporting.weigh(Path(source)) if Path(source).exists() or base_model else {}
    identity = {"base_model": base_model or source} | ({"weights": weights["digest"]} if weights else {})
    return {
        "base_model": base_model or source,
        "renderer_name": card.renderer_name if card else "",
        "training_fingerprint": digest(identity),
        "weights": weights,
        "plan": {},
        "spec": {},
        "spec_digest": "",
        "data": {},
        "step": 0,
        "state_path": "",
        "sampler_path": "",
    }


def _trained(result: RunResult, card: Scorecard | None) -> dict[str, Any]:
    if not hasattr(result, "training_fingerprint"):
        raise _no_source(result)
    checkpoint = _checkpoint(result, card)
    plan = plain(result.plan)
    computed = plan.get("computed") or {}
    lora = {"rank": computed.get("rank", plan.get("rank"))} | {key: plan.get(key) for key in _LORA}
    return {
        "base_model": result.base_model,
        "renderer_name": result.renderer_name,
        "training_fingerprint": result.training_fingerprint,
        "lora": {key: value for key, value in lora.items() if value is not None},
        "plan": plan,
        "spec": plain(result.spec),
        "spec_digest": result.spec_digest,
        "data": plain(result.data),
        "metrics": plain({**result.metrics, **checkpoint.metrics}),
        "stopped": result.stopped,
        "engine": plain(result.engine),
        "step": checkpoint.step,
        "state_path": checkpoint.state_path,
        "sampler_path": checkpoint.sampler_path or "",
    }


def _checkpoint(result: RunResult, card: Scorecard | None) -> Checkpoint:
    """Return the checkpoint that the card was made on; without a card, the best."""
    if card is None:
        return result.best
    for checkpoint in (result.best, result.final, result.last):
        if checkpoint.sampler_path and checkpoint.sampler_path == card.target:
            return checkpoint
    raise _another_model(card, result.best.sampler_path or "a checkpoint with a sampler_path")


def _no_source(source: object) -> RegistryError:
    return RegistryError(
        "this cannot be registered",
        got=repr(source),
        need="the result of a run, or the name (without a NUL) or folder of a base model",
        fix='registry.register(result, card)  # or registry.register("Qwen/Qwen3-8B", card)',
    )


def _another_model(card: Scorecard, need: str) -> RegistryError:
    return RegistryError(
        "the scorecard is of another model",
        got=f"a card of {card.target}",
        need=f"a card of {need}",
        fix="registry.register(result, suite.evaluate(result.best, on=engine))",
    )


def _checked(name: str) -> str:
    if not name.strip() or name != name.strip() or not name.isprintable():
        problem = "printable text without spaces around it"
    elif len(name) > LONGEST_NAME or "@" in name:
        problem = f"at most {LONGEST_NAME} characters, none of them @"
    else:
        return name
    raise RegistryError(
        "this cannot be the name of a model", got=repr(name), need=problem, fix='name="tickets"'
    )


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: numbers that are not finite, and objects, become text."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return str(value)
