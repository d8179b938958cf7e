"""A plan as PEFT's configuration, so that a run outside Tinker adapts the same layers at the same rank.

Exact for dense decoders of the Llama kind: the same projections, the same parameters. Other architectures
are refused by name: PEFT has no shared factor across experts and does not split fused projections, so
its adapter would be another one than the plan counts.
"""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING

from tinker_officer.errors import ModelError, PlanError


if TYPE_CHECKING:
    import peft
    import transformers

    from tinker_officer.plan.plan import LoRAPlan

ALPHA = 32  # as on Tinker: the scale is alpha / rank, and the plan's learning rates are for it
_MODULES = {
    "attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
    "unembed": ("lm_head",),
}
_DENSE = frozenset({"llama", "mistral", "qwen2", "qwen3"})
# Names in the cookbook's table, which says nothing of the architecture.
_DENSE_NAMES = re.compile(r"meta-llama/Llama-3\.|Qwen/Qwen3-[\d.]+B(?!-A\d)")


def peft_config(plan: LoRAPlan) -> peft.LoraConfig:
    """Return the `LoraConfig` of a plan; see `LoRAPlan.to_peft_config`.

    Raises:
        ModelError: PEFT cannot adapt this architecture as the plan counts it.
        PlanError: the plan has no data yet, or PEFT is not installed.
    """
    rank, targets = plan.rank, target_modules(plan)
    _need("peft", "peft")
    import peft

    return peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=rank,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(targets),
        base_model_name_or_path=plan.base_model,
    )


def qlora_config(plan: LoRAPlan) -> tuple[peft.LoraConfig, transformers.BitsAndBytesConfig]:
    """Return a plan's `LoraConfig` and a 4-bit base for it; see `LoRAPlan.to_qlora_config`.

    Raises:
        ModelError: PEFT cannot adapt this architecture as the plan counts it.
        PlanError: the plan has no data yet, or PEFT is not installed.

    Source:
        Dettmers et al. 2023, "QLoRA", arXiv:2305.14314: NF4, double quantisation, bfloat16 arithmetic.
    """
    adapter = peft_config(plan)
    import transformers

    base = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype="bfloat16",
    )
    return adapter, base


def target_modules(plan: LoRAPlan) -> tuple[str, ...]:
    """Return the names of the modules that the plan adapts, as PEFT matches them.

    Raises:
        ModelError: the architecture is not one that PEFT adapts as the plan counts it.
    """
    shape = plan.shape
    dense = shape.architecture in _DENSE if shape.architecture else bool(_DENSE_NAMES.match(plan.base_model))
    if shape.experts or not dense:
        kind = "a mixture of experts" if shape.experts else shape.architecture or "another architecture"
        raise ModelError(
            f"PEFT cannot mirror the adapter of {plan.base_model}",
            got=f"{kind}: PEFT shares no factor across experts and splits no fused projection",
            need="a dense model of type " + ", ".join(sorted(_DENSE)),
            fix='LoRAPlan.for_("Qwen/Qwen3-8B").sft(train).to_peft_config(), or train this model on Tinker',
        )
    chosen = {"attn": plan.train_attn, "mlp": plan.train_mlp, "unembed": plan.train_unembed}
    return tuple(name for part, wanted in chosen.items() if wanted for name in _MODULES[part])


def _need(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise PlanError(
            f"{module} is not installed",
            got=f"no module named {module!r}",
            need=f"the extra {extra!r}",
            fix=f'pip install "tinker-officer[{extra}]"',
        )
