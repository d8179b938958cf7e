"""How much an adapter can hold: its parameters, from the architecture, against the tokens to be learned.

A LoRA of rank r on a projection costs r x (inputs + outputs) parameters. *LoRA Without Regret* and
Tinker's LoRA primer ask for at least as many parameters as trained tokens, "very rough"; the constants
below say how the cookbook's sweep (Tulu 3) bears that out.

Dense models are counted here, in microseconds; all others by `lora_rules` from the shapes that
`architectures` finds. What PEFT adapts instead of Tinker is counted in `peft_count`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs

from tinker_officer.errors import ModelError, PlanError
from tinker_officer.plan import cookbook


Verdict: TypeAlias = Literal["ample", "low-regret", "tight", "capacity-limited"]

SMALLEST_RANK = 16
LARGEST_RANK = 512
# Mixtures need three times the parameters a token for the same regret (sweep: 2.8 to 3.6).
EXPERT_DISCOUNT = 3
# Regret in percent of test NLL against the best rank of the sweep, fitted to it.
REGRET_AT_1, REGRET_EXPONENT = 0.38, -0.80
REGRET_RANGE = (0.07, 12.0)
_VERDICTS: tuple[tuple[float, Verdict], ...] = ((4.0, "ample"), (1.0, "low-regret"), (0.25, "tight"))

# q, k, v, o, gate, up, down and nothing else
_DENSE = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
_EXPERT_NAMES = re.compile(r"-A\d+B|gpt-oss|DeepSeek-V|Kimi-K|GLM-5|Inkling", re.IGNORECASE)
_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")


@attrs.frozen
class ModelShape:
    """LoRA parameters per unit of rank, by component, and what the rules need to know of a model.

    Attributes:
        mlp: parameters per unit of rank in the feed-forward layers.
        attn: the same in the attention layers.
        unembed: the same in the unembedding: hidden + padded vocabulary, tied or not.
        experts: whether the feed-forward layers are a mixture of experts.
        architecture: the config's `model_type`, or empty when a table gave the counts.
        published: whether the model is meant by its published name, and not by a folder of any name.
        hidden_size: the width of the residual stream, where known.
        source: where the counts come from.
    """

    mlp: int
    attn: int
    unembed: int
    experts: bool
    architecture: str
    published: bool
    hidden_size: int | None
    source: str

    def per_rank(self, *, mlp: bool = True, attn: bool = True, unembed: bool = True) -> int:
        """Return the LoRA parameters per unit of rank of the chosen components."""
        return mlp * self.mlp + attn * self.attn + unembed * self.unembed


def model_shape(base_model: str, config: Any = None) -> ModelShape:
    """Return the shape of `base_model`, by `config`, else a folder, the cookbook's table, or its config.json.

    Args:
        base_model: a name, or a folder.
        config: a transformers config object, or the content of `config.json`, of a model that is not on
            this machine.

    Raises:
        ModelError: the model is not found, or its architecture cannot be counted.
    """
    folder = Path(base_model).is_dir()
    bare = base_model if folder else cookbook.bare(base_model)
    if config is not None:
        return config_shape(config, name=base_model, published=not folder)
    table = cookbook.lora_parameters()
    if bare in table and not folder:
        return ModelShape(
            **{part: table[bare][part] for part in ("mlp", "attn", "unembed")},
            experts=bool(_EXPERT_NAMES.search(bare)),
            architecture="",
            published=True,
            hidden_size=cookbook.hidden_size(bare),
            source=f"{cookbook.version()}, table of LoRA parameters",
        )
    from tinker_officer._models import read_config

    try:
        found = read_config(bare)
    except ModelError as error:
        if folder:
            raise
        near = difflib.get_close_matches(bare, table, n=1, cutoff=0.8)
        raise ModelError(
            error.problem,
            got=error.got,
            need=f"{error.need}; or, to plan from counts alone, a name in the table of {cookbook.version()}, "
            "or the model's config",
            fix=f"LoRAPlan.for_({near[0]!r})" if near else f"{error.fix}\n{_config_fix(bare)}",
        ) from error
    return config_shape(found, name=base_model, published=not folder)


def config_shape(config: Any, *, name: str = "this model", published: bool = False) -> ModelShape:
    """Return the shape of any decoder that transformers knows, from its config alone.

    Args:
        config: a transformers config object, or the content of `config.json`.
        name: what to call the model in an error.
        published: whether `name` is a published name, and not a folder.

    Raises:
        ModelError: the architecture is not known, or a size is missing.
    """
    body = config.to_dict() if hasattr(config, "to_dict") else config
    if isinstance(body, Mapping) and body.get("model_type") in _DENSE:
        return dense_shape(body, name=name, published=published)
    from tinker_officer.plan.architectures import blueprint
    from tinker_officer.plan.lora_rules import count

    drawn = blueprint(config, name=name)
    counts = count(drawn)
    return ModelShape(
        mlp=counts.mlp,
        attn=counts.attn,
        unembed=counts.unembed,
        experts=counts.experts,
        architecture=drawn.model_type,
        published=published,
        hidden_size=drawn.hidden,
        source=f"config.json ({drawn.model_type}: Tinker's rules on its shapes)",
    )


def _config_fix(name: str) -> str:
    return f"LoRAPlan.for_({name!r}, config=json.loads(Path('config.json').read_text()))  # as published"


def dense_shape(
    config: Mapping[str, Any], *, name: str = "this model", published: bool = False
) -> ModelShape:
    """Return the shape of a dense model (Llama, Mistral, Qwen2, Qwen3, SmolLM3) from its config alone.

    A projection costs inputs + outputs per unit of rank. Norms, biases and the embedding are not adapted.

    Args:
        config: the content of `config.json`.
        name: what to call the model in an error.
        published: whether `name` is a published name, and not a folder.

    Raises:
        ModelError: a size is missing, or the config speaks of experts, which these types do not have.
    """
    kind = str(config.get("model_type", ""))
    experts = next((key for key in _EXPERT_KEYS if config.get(key)), None)
    if experts is not None:
        raise ModelError(
            f"the config of {name} contradicts itself",
            got=f"model_type {kind!r}, which is dense, with {experts}={config[experts]!r}",
            need="a dense config without experts, or the model_type of a mixture of experts",
            fix="restore config.json from where the model was published",
        )
    hidden, inner, layers, heads, vocabulary = (
        _size(config, key, name)
        for key in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "vocab_size",
        )
    )
    kv_heads = config.get("num_key_value_heads") or heads
    head = config.get("head_dim") or hidden // heads
    queries, keys = heads * head, kv_heads * head
    return ModelShape(
        mlp=layers * 3 * (hidden + inner),
        attn=layers * (2 * (hidden + queries) + 2 * (hidden + keys)),
        unembed=hidden + vocabulary,
        experts=False,
        architecture=kind,
        published=published,
        hidden_size=hidden,
        source=f"config.json ({kind}: q, k, v, o, gate, up, down, unembedding)",
    )


def _size(config: Mapping[str, Any], key: str, name: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelError(
            f"the config of {name} lacks a size",
            got=f"{key}={value!r}",
            need="a whole number of at least 1",
            fix="restore config.json from where the model was published",
        )
    return value


def check_components(shape: ModelShape, base_model: str, *, mlp: bool, attn: bool, unembed: bool) -> None:
    """Refuse a placement in which a chosen component has nothing to adapt.

    Raises:
        PlanError: a chosen component has no parameters.
    """
    chosen = {"mlp": mlp, "attn": attn, "unembed": unembed}
    empty = [part for part, wanted in chosen.items() if wanted and getattr(shape, part) <= 0]
    if empty:
        raise PlanError(
            f"the {empty[0]} layers of {base_model} would have no adapter at all",
            got=f"0 parameters per unit of rank in: {', '.join(empty)}",
            need="at least one adapted projection in each chosen component",
            fix=f"plan.layers({empty[0]}=False)",
        )


def power_of_two_above(number: float) -> int:
    """Return the smallest power of two that is at least `number`, and at least 1."""
    return 1 if number <= 1 else 2 ** math.ceil(math.log2(number))


def power_of_two_below(number: float) -> int:
    """Return the largest power of two that is at most `number`, and at least 1."""
    return 1 if number < 1 else 2 ** math.floor(math.log2(number))


def needed_rank(demand: float, per_rank: int) -> int:
    """Return the smallest power-of-two rank whose adapter has `demand` parameters."""
    return power_of_two_above(demand / per_rank)


def verdict(ratio: float) -> Verdict:
    """Return the word for R, parameters over demand: 4 ample, 1 low-regret, 0.25 tight, below it limited."""
    return next((word for least, word in _VERDICTS if ratio >= least), "capacity-limited")


def expected_regret(ratio: float) -> float:
    """Return the expected excess test NLL in percent, against the best rank of the sweep (not full FT).

    Source:
        Fitted to tinker-cookbook's SFT sweep: 0.38 x R^-0.80; measured for R from 0.07 to 12.
    """
    return float(REGRET_AT_1 * ratio**REGRET_EXPONENT)


def extrapolated(ratio: float) -> bool:
    """Return whether R lies outside the range in which `expected_regret` was measured."""
    return not REGRET_RANGE[0] <= ratio <= REGRET_RANGE[1]
