"""What a local PEFT run really adapts, which is not what Tinker adapts.

PEFT's `all-linear` takes every linear layer but the output head. Experts that a model keeps in stacked
tensors are no linear layers: on gpt-oss, Qwen2-MoE, Phi-MoE, Jamba, Llama 4 and Granite-MoE they get nothing
unless they are named in `target_parameters`; on others PEFT converts them, and adapts the router besides.
Nothing of that is guessed: the installed PEFT is asked, on the meta device. Needs the `peft` extra.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinker_officer.errors import PlanError
from tinker_officer.plan.architectures import blueprint, meta_model
from tinker_officer.plan.capacity import ModelShape
from tinker_officer.plan.lora_rules import Blueprint, Weight


def peft_shape(
    base_model: str,
    config: Any = None,
    *,
    target_modules: str | Sequence[str] = "all-linear",
    target_parameters: Sequence[str] = (),
) -> ModelShape:
    """Return the parameters per unit of rank that the installed PEFT would create for `base_model`.

    Args:
        base_model: a name or a folder whose config is on this machine.
        config: a transformers config object, or the content of `config.json`, if it is not.
        target_modules: as in `peft.LoraConfig`.
        target_parameters: as in `peft.LoraConfig`; `expert_parameters` gives those of the experts.

    Raises:
        ModelError: the model is not found, or transformers cannot build it.
        PlanError: PEFT is not installed, or the routed experts would have no adapter at all.
    """
    found = _config(base_model, config)
    plan = blueprint(found, name=base_model)
    created = _created(found, base_model, target_modules, target_parameters)
    where = {weight.path: weight for weight in plan.weights}
    totals = {"mlp": 0, "attn": 0, "unembed": 0}
    adapted_experts = 0
    for module, parameters in created.items():
        part = _component(module, where)
        totals[part] += parameters
        adapted_experts += parameters if _is_expert(module, plan) else 0
    stacks = expert_parameters(found, name=base_model)
    if stacks and not adapted_experts:
        raise PlanError(
            f"the routed experts of {base_model} would have no adapter at all",
            got=f"PEFT {importlib.metadata.version('peft')}, target_modules={target_modules!r}: "
            f"0 parameters in {', '.join(stacks)}",
            need="an adapter on the experts, which hold most of the model",
            fix=f"peft.LoraConfig(target_modules={target_modules!r}, target_parameters={list(stacks)!r})",
        )
    return ModelShape(
        mlp=totals["mlp"],
        attn=totals["attn"],
        unembed=totals["unembed"],
        experts=bool(stacks),
        architecture=plan.model_type,
        published=not Path(base_model).is_dir(),
        hidden_size=plan.hidden,
        source=f"PEFT {importlib.metadata.version('peft')}, target_modules={target_modules!r}",
    )


def expert_parameters(config: Any, *, name: str = "this model") -> tuple[str, ...]:
    """Return what to give as `target_parameters` so that PEFT adapts the routed experts; empty without any.

    Raises:
        ModelError: transformers does not know the architecture, or cannot build it from this config.
    """
    stacks = [weight for weight in blueprint(config, name=name).weights if weight.kind == "stack"]
    return tuple(dict.fromkeys(weight.path[len(weight.layer) + 1 :] for weight in stacks))


def _config(base_model: str, config: Any) -> Any:
    if importlib.util.find_spec("peft") is None:
        raise PlanError(
            "PEFT is not installed, so what it would adapt cannot be counted",
            got="no module named 'peft'",
            need="the peft extra",
            fix='python -m pip install "tinker-officer[peft]"',
        )
    if config is not None:
        return config
    from tinker_officer._models import read_config

    return read_config(base_model)


def _created(
    config: Any, name: str, modules: str | Sequence[str], parameters: Sequence[str]
) -> dict[str, int]:
    """Return the LoRA parameters at rank 1 that PEFT creates, by module."""
    import peft

    model, _ = meta_model(config, name=name)
    settings = peft.LoraConfig(
        r=1,
        target_modules=modules if isinstance(modules, str) else list(modules),
        target_parameters=list(parameters) or None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(model, settings)
    found: dict[str, int] = {}
    for path, parameter in adapted.named_parameters():
        module, marker, _ = path.partition(".lora_")
        if marker:
            plain = module.removeprefix("base_model.model.").replace(".base_layer", "")
            found[plain] = found.get(plain, 0) + parameter.numel()
    return found


def _component(module: str, where: dict[str, Weight]) -> str:
    """Return the component of an adapted module: that of its weights; outside the layers, the unembedding."""
    weight = where.get(module) or next(
        (w for path, w in where.items() if path.startswith(f"{module}.")), None
    )
    return "unembed" if weight is None else weight.component


def _is_expert(module: str, plan: Blueprint) -> bool:
    """Return whether an adapted module holds stacked experts."""
    return any(weight.kind == "stack" and weight.path.startswith(f"{module}.") for weight in plan.weights)
