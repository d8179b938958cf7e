"""A plan as PEFT's configuration, so that a run outside Tinker adapts the same layers at the same rank.

Exact for dense decoders of the Llama kind: the same projections, the same parameters. Elsewhere the same
projections are named, as Tinker's rules choose them, but PEFT makes another adapter of some: it shares no
factor across experts, and does not split fused projections. The log then says how many parameters it trains.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer.errors import ModelError, PlanError


if TYPE_CHECKING:
    import peft
    import transformers

    from tinker_officer.plan.plan import LoRAPlan

logger = logging.getLogger(__name__)

ALPHA = 32  # as on Tinker: the scale is alpha / rank, and the plan's learning rates are for it
_HEAD = "lm_head"
_DENSE_MODULES = {
    "attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
    "unembed": (_HEAD,),
}
_DENSE = frozenset({"llama", "mistral", "qwen2", "qwen3"})
# Names in the cookbook's table, which says nothing of the architecture.
_DENSE_NAMES = re.compile(r"meta-llama/Llama-3\.|Qwen/Qwen3-[\d.]+B(?!-A\d)")


@attrs.frozen
class Targets:
    """What PEFT is told to adapt.

    Attributes:
        modules: linear layers, by the end of their names.
        parameters: stacks of experts, by the end of their names.
    """

    modules: tuple[str, ...]
    parameters: tuple[str, ...] = ()


def peft_config(plan: LoRAPlan, config: Any = None) -> peft.LoraConfig:
    """Return the `LoraConfig` of a plan; see `LoRAPlan.to_peft_config`.

    Raises:
        ModelError: the names of the model's layers cannot be known.
        PlanError: the plan has no data yet, PEFT is not installed, or it would adapt nothing of a component.
    """
    rank = plan.rank
    _need("peft", "peft")
    found = targets(plan, config)
    import peft

    return peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=rank,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(found.modules),
        target_parameters=list(found.parameters) or None,
        base_model_name_or_path=plan.base_model,
    )


def qlora_config(
    plan: LoRAPlan, config: Any = None
) -> tuple[peft.LoraConfig, transformers.BitsAndBytesConfig]:
    """Return a plan's `LoraConfig` and a 4-bit base for it; see `LoRAPlan.to_qlora_config`.

    Raises:
        ModelError: the names of the model's layers cannot be known.
        PlanError: the plan has no data yet, PEFT is not installed, or it would adapt nothing of a component.

    Source:
        Dettmers et al. 2023, "QLoRA", arXiv:2305.14314: NF4, double quantisation, bfloat16 arithmetic.
    """
    adapter = peft_config(plan, config)
    import transformers

    base = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype="bfloat16",
    )
    return adapter, base


def targets(plan: LoRAPlan, config: Any = None) -> Targets:
    """Return what the plan adapts, in PEFT's words.

    Raises:
        ModelError: the names of the model's layers cannot be known.
        PlanError: PEFT would adapt nothing of a chosen component.
    """
    chosen = {"attn": plan.train_attn, "mlp": plan.train_mlp, "unembed": plan.train_unembed}
    shape = plan.shape
    dense = shape.architecture in _DENSE if shape.architecture else _DENSE_NAMES.match(plan.base_model)
    if dense and not shape.experts:
        return Targets(
            tuple(name for part, wanted in chosen.items() if wanted for name in _DENSE_MODULES[part])
        )
    body = _config(plan.base_model, config)
    found = _by_the_rules(plan.base_model, body, chosen)
    _compare(plan, body, found, chosen)
    return found


def _by_the_rules(name: str, config: Any, chosen: dict[str, bool]) -> Targets:
    """Return the layers that Tinker's rules adapt, by the end of their names."""
    from tinker_officer.plan.architectures import blueprint
    from tinker_officer.plan.lora_rules import count

    drawn = blueprint(config, name=name)
    modules: dict[str, bool] = {}
    parameters: dict[str, None] = {}
    stacks: dict[str, list[Any]] = {}
    for weight in drawn.weights:
        if weight.kind == "stack":
            stacks.setdefault(weight.layer, []).append(weight)
    for weight in drawn.weights:
        end = weight.path[len(weight.layer) + 1 :]
        if not chosen[weight.component]:
            continue
        if weight.kind == "stack":
            parameters[end] = None
        elif weight.kind == "linear" and not modules.get(end):
            beside = tuple(stacks.get(weight.layer, ()))
            without = count(attrs.evolve(drawn, weights=beside))
            modules[end] = count(attrs.evolve(drawn, weights=(*beside, weight))) != without
    named = tuple(end for end, adapted in modules.items() if adapted)
    return Targets((*named, _HEAD) if chosen["unembed"] else named, tuple(parameters))


def _compare(plan: LoRAPlan, config: Any, found: Targets, chosen: dict[str, bool]) -> None:
    """Ask the installed PEFT what it would create, and say where that is not what the plan counts.

    Raises:
        PlanError: nothing of a chosen component.
    """
    from tinker_officer.plan.capacity import check_components
    from tinker_officer.plan.peft_count import peft_shape

    created = peft_shape(
        plan.base_model, config, target_modules=found.modules, target_parameters=found.parameters
    )
    check_components(created, plan.base_model, **chosen)
    theirs, ours = created.per_rank(**chosen), plan.decision.per_rank
    if theirs != ours:
        logger.warning(
            "plan: PEFT trains %s parameters of %s at rank %d, where the plan counts %s (%.2f times)",
            f"{theirs * plan.rank:,}",
            plan.base_model,
            plan.rank,
            f"{plan.parameters:,}",
            theirs / ours,
        )


def _config(base_model: str, config: Any) -> Any:
    if config is not None:
        return config
    from tinker_officer._models import read_config

    try:
        return read_config(base_model)
    except ModelError as error:
        raise ModelError(
            f"what the layers of {base_model} are called is not known without its config",
            got=error.got,
            need="the model on this machine, or its config",
            fix="plan.to_peft_config(config=transformers.AutoConfig.from_pretrained(base_model))",
        ) from error


def _need(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise PlanError(
            f"{module} is not installed",
            got=f"no module named {module!r}",
            need=f"the extra {extra!r}",
            fix=f'pip install "tinker-officer[{extra}]"',
        )
