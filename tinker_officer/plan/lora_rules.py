"""The eight rules by which Tinker's LoRA parameters follow from the shapes of a model's weights.

1. A projection costs inputs + outputs per unit of rank.
2. Routed experts: each projection costs outer + experts x inner; the factor on the model dimension is shared.
3. Latent experts: outer is the latent dimension; the two latent projections are ordinary.
4. Shared experts are ordinary. Routers, scalar gates and sparse-attention indexers are left out.
5. Multi-head latent attention: `q_b_proj` and `kv_b_proj` are left out.
6. Gated delta nets: `in_proj_qkv` is three projections; the projections to decay and gates are left out.
7. Mamba: of `in_proj` only z and x are adapted, and `out_proj`.
8. The unembedding costs hidden + padded vocabulary, tied or not.

Nothing here knows torch: the weights come as names, class names and shapes from `architectures`.
What was found, and where it was checked: docs/reference/parameter-counts.md.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, TypeAlias

import attrs

from tinker_officer.errors import ModelError


Component: TypeAlias = Literal["mlp", "attn"]
Kind: TypeAlias = Literal["linear", "stack", "raw"]

# Classes that mix tokens, by the name that transformers gives them; all else in a layer is feed-forward.
_MIXER = re.compile(
    r"(Attention\d*|Attn|MLA|Mixer|MambaLayer|DeltaNet|ShortConv|RecurrentBlock|MoA|LSTMLayer)$",
    re.IGNORECASE,
)
_ROUTER_CLASS = re.compile(r"(Router|Gating|TopkGate|TopKGate)$", re.IGNORECASE)
_ROUTER_NAME = re.compile(r"gate|router|classifier|wg", re.IGNORECASE)
_INDEXER = re.compile(r"Indexer", re.IGNORECASE)
_DELTA = re.compile(r"Delta", re.IGNORECASE)
_MAMBA_INNER = frozenset({"x_proj", "dt_proj", "bcdt_proj"})
_MLA_UP = frozenset({"q_b_proj", "kv_b_proj"})
_DELTA_SPLIT = {"in_proj_qkv": 3, "in_proj_qkvz": 4}
_DELTA_SKIPPED = frozenset(
    {"in_proj_a", "in_proj_b", "in_proj_ba", "a_proj", "b_proj"}
    | {"f_a_proj", "f_b_proj", "g_a_proj", "g_b_proj"}
)
_ONE_EXPERT = re.compile(r"(?P<block>.*\bexperts)\.\d+\.(?P<rest>.*)")


@attrs.frozen
class Weight:
    """One matrix of a decoder layer, or a stack of them.

    Attributes:
        path: its module, or its parameter for a stack: `model.layers.0.mlp.experts.down_proj`.
        layer: the path of its decoder layer.
        classes: class names of the modules around it, from the layer to the one that holds it.
        kind: `linear` (inputs, outputs), `stack` (experts, a, b), or `raw`: a matrix of no known meaning.
        shape: as `kind` says.
        mamba_width: for the `in_proj` of a state-space mixer, the inputs of its `out_proj`.
    """

    path: str
    layer: str
    classes: tuple[str, ...]
    kind: Kind
    shape: tuple[int, ...]
    mamba_width: int | None = None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def component(self) -> Component:
        """Whether it mixes tokens (`attn`: attention, Mamba, delta nets) or not (`mlp`)."""
        return "attn" if any(_MIXER.search(name) for name in self.classes) else "mlp"


@attrs.frozen
class Blueprint:
    """The shapes of a decoder, without its weights.

    Attributes:
        model_type: transformers' name of the architecture.
        hidden: width of the residual stream.
        latent: width of the experts' input where it is another one.
        vocabulary: rows of the unembedding.
        weights: the matrices of the decoder layers.
    """

    model_type: str
    hidden: int
    latent: int | None
    vocabulary: int
    weights: tuple[Weight, ...]


@attrs.frozen
class Counts:
    """LoRA parameters per unit of rank by component, and whether there are routed experts."""

    mlp: int
    attn: int
    unembed: int
    experts: bool


def count(blueprint: Blueprint) -> Counts:
    """Return the LoRA parameters per unit of rank that Tinker adapts.

    Raises:
        ModelError: a large weight is of no kind that the rules know.
    """
    totals = {"mlp": 0, "attn": 0}
    stacks = list(_stacks(blueprint.weights))
    expert_counts = {(stack.layer, stack.shape[0]) for stack in stacks}
    for weight in blueprint.weights:
        if weight.kind == "raw" and _matters(weight, blueprint):
            raise _unknown(
                blueprint, weight, "a matrix that is neither a linear layer nor a stack of experts"
            )
        if weight.kind == "linear" and not _ONE_EXPERT.match(weight.path):
            totals[weight.component] += _linear(weight, expert_counts)
    inner = _inner_widths(blueprint, stacks)
    for stack in stacks:
        experts, outer = stack.shape[0], _outer(blueprint, stack)
        width = stack.shape[1] * stack.shape[2] // outer
        fused = max(1, width // inner[stack.layer, stack.component, experts])
        totals[stack.component] += fused * outer + experts * width
    return Counts(**totals, unembed=blueprint.hidden + blueprint.vocabulary, experts=bool(stacks))


def _matters(weight: Weight, blueprint: Blueprint) -> bool:
    """Return whether a matrix of no known meaning is too large, or too much like experts, to be left out."""
    square = min(weight.shape[-2:]) >= blueprint.hidden
    return square or (weight.component == "mlp" and len(weight.shape) > 2)  # noqa: PLR2004 - a stack


def _linear(weight: Weight, expert_counts: set[tuple[str, int]]) -> int:
    """Return what one linear layer costs: rules 1 and 4 to 7."""
    inputs, outputs = weight.shape
    name, around = weight.name, weight.classes[:-1]
    if any(map(_INDEXER.search, around)) or any(map(_ROUTER_CLASS.search, weight.classes)):
        return 0
    routes = (weight.layer, outputs) in expert_counts and bool(_ROUTER_NAME.search(weight.path))
    if routes or outputs == 1 or name in _MLA_UP:
        return 0
    if name in _DELTA_SPLIT:
        return _DELTA_SPLIT[name] * inputs + outputs
    if any(map(_DELTA.search, around)) and name in _DELTA_SKIPPED:
        return 0
    if weight.mamba_width is not None:
        return 2 * (inputs + weight.mamba_width) if name == "in_proj" else 0
    return inputs + outputs


def _stacks(weights: Iterable[Weight]) -> Iterable[Weight]:
    """Yield the stacked experts, those that are separate modules stacked by their names."""
    separate: defaultdict[str, list[Weight]] = defaultdict(list)
    for weight in weights:
        if weight.kind == "stack":
            yield weight
        elif weight.kind == "linear" and (found := _ONE_EXPERT.match(weight.path)):
            separate[f"{found['block']}.{found['rest']}"].append(weight)
    for path, group in separate.items():
        first = group[0]
        yield attrs.evolve(first, path=path, kind="stack", shape=(len(group), *first.shape))


def _outer(blueprint: Blueprint, stack: Weight) -> int:
    """Return the side of the experts' matrices that all experts share: the latent width, else the hidden."""
    sides = stack.shape[1:]
    for width in (blueprint.latent, blueprint.hidden):
        if width in sides:
            return int(width)
    raise _unknown(blueprint, stack, f"experts of which no side is the model's width of {blueprint.hidden}")


def _inner_widths(blueprint: Blueprint, stacks: Iterable[Weight]) -> dict[tuple[str, str, int], int]:
    """Return the experts' own width by layer, component and number of experts.

    It is the narrowest inner side there: that of the down projection, where gate and up are one matrix.
    """
    narrowest: dict[tuple[str, str, int], int] = {}
    for stack in stacks:
        key = (stack.layer, stack.component, stack.shape[0])
        width = stack.shape[1] * stack.shape[2] // _outer(blueprint, stack)
        narrowest[key] = min(width, narrowest.get(key, width))
    return narrowest


def _unknown(blueprint: Blueprint, weight: Weight, what: str) -> ModelError:
    return ModelError(
        f"the adapter of a {blueprint.model_type!r} cannot be sized: one of its weights is not understood",
        got=f"{weight.path}, shape {tuple(weight.shape)}: {what}",
        need="linear layers, and experts stacked as (experts, width, width)",
        fix="plan from a model that is listed: LoRAPlan.for_('Qwen/Qwen3-8B')",
    )
