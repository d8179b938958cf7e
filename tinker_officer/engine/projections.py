"""The linear layers of the decoder, bare, with a LoRA beside them, or with one merged in; one backward pass.

The base is frozen: its weights get no gradient, so a linear layer costs one product forward and one backward.
The LoRA of q, k, v (and of gate, up) reads the same input: its A matrices are one product. Gradients of A and
B are found from the two thin products, never from `dy.T @ x` in full.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tinker_officer.engine.borrowed import Borrowed, logprobs
from tinker_officer.engine.head import chunk_rows, target_logprobs
from tinker_officer.engine.kernels import (
    HALVED_ROWS,
    add_linear,
    applied,
    halved,
    linear,
    onednn_pays,
    prepacked,
)
from tinker_officer.engine.lora import Adapter, Pair
from tinker_officer.engine.models import BaseModel


Projection = Callable[[Tensor], Tensor]


@attrs.frozen(eq=False)
class LayerProjections:
    """The linear layers of one decoder layer, as functions of their input `(N, inputs)`.

    `gate_up` and `down` have one for each expert; one in all in a dense model.
    """

    qkv: Projection
    o: Projection
    gate_up: tuple[Projection, ...]
    down: tuple[Projection, ...]


@attrs.frozen(eq=False)
class Projections:
    """Every linear layer of a decoder.

    Attributes:
        layers: of the decoder layers.
        head: from the last hidden state to the logits.
        logprobs: from hidden states and K targets a row to log p(target), float32, with gradients.
    """

    layers: tuple[LayerProjections, ...]
    head: Projection
    logprobs: Callable[[Tensor, Tensor], Tensor]


@attrs.frozen(eq=False)
class Hooked(Projections):
    """The linear layers of a borrowed model, which has its own: what is added to them.

    Attributes:
        pairs: the LoRA, by place.
        scaling: alpha / rank.
    """

    pairs: dict[tuple[int, str], Pair]
    scaling: float


class _Frozen(torch.autograd.Function):
    """`y = x W' + b` whose weight needs no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        y = linear(x, weight)
        return y if bias is None else y.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return linear(dy, ctx.weight.t()) if ctx.needs_input_grad[0] else None, None, None


class _Lora(torch.autograd.Function):
    """`y = x W' + b + s (x A') B'`, the A of several projections stacked, their outputs side by side."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, scaling: float, down: Tensor, *ups: Tensor
    ) -> Tensor:
        y = linear(x, weight)
        if bias is not None:
            y.add_(bias)
        low = linear(x, down.to(x.dtype)).mul_(scaling)
        rank = ups[0].shape[1]
        columns = torch.split(y, [up.shape[0] for up in ups], dim=1)
        for part, low_j, up in zip(columns, torch.split(low, rank, dim=1), ups, strict=True):
            add_linear(part, low_j, up.to(y.dtype))
        ctx.save_for_backward(x, low, down, *ups)
        ctx.weight, ctx.scaling = weight, scaling
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, low, down, *ups = ctx.saved_tensors
        dx, d_down, d_ups = lora_backward(
            dy, x, low, down, ups, ctx.scaling, ctx.weight, need_dx=ctx.needs_input_grad[0]
        )
        return (dx, None, None, None, d_down, *d_ups)


def lora_backward(
    dy: Tensor,
    x: Tensor,
    low: Tensor,
    down: Tensor,
    ups: list[Tensor] | tuple[Tensor, ...],
    scaling: float,
    weight: Tensor,
    *,
    need_dx: bool,
) -> tuple[Tensor | None, Tensor, list[Tensor]]:
    """Return the gradients of a LoRA layer's input, A matrices and B matrices.

    Args:
        dy: gradient of the output, shape `(N, outputs)`.
        x: the input, shape `(N, inputs)`.
        low: `scaling * x @ down.T`, as the forward pass left it, shape `(N, projections * rank)`.
        down: the A matrices, stacked.
        ups: the B matrices.
        scaling: alpha / rank.
        weight: the frozen weight, shape `(outputs, inputs)`.
        need_dx: whether the gradient of the input is wanted.
    """
    rank, widths = ups[0].shape[1], [up.shape[0] for up in ups]
    columns = torch.split(dy, widths, dim=1)
    if onednn_pays():  # one product, of which the diagonal blocks are wanted: faster there than thin ones
        blocks = torch.split(linear(low.t(), dy.t()), rank)
        thin = [torch.split(block, widths, dim=1)[j] for j, block in enumerate(blocks)]
    else:
        lows = torch.split(low, rank, dim=1)
        thin = [linear(low_j.t(), dy_j.t()) for low_j, dy_j in zip(lows, columns, strict=True)]
    d_ups = [d_up.t().to(up.dtype) for d_up, up in zip(thin, ups, strict=True)]
    d_lows = [linear(dy_j, up.to(dy.dtype).t()) for dy_j, up in zip(columns, ups, strict=True)]
    d_low = (d_lows[0] if len(ups) == 1 else torch.cat(d_lows, dim=1)).mul_(scaling)
    d_down = linear(d_low.t(), x.t()).to(down.dtype)
    dx = add_linear(linear(dy, weight.t()), d_low, down.to(dy.dtype).t()) if need_dx else None
    return dx, d_down, d_ups


def _frozen(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    out: Tensor = applied(_Frozen, x, weight, bias)
    return out


def _lora(weight: Tensor, bias: Tensor | None, scaling: float, pair: Pair, x: Tensor) -> Tensor:
    out: Tensor = applied(_Lora, x, weight, bias, scaling, pair.down, *pair.ups)
    return out


def bare(base: BaseModel) -> Projections:
    """Return the base model's own linear layers, with the gradient of their input."""
    return _beside(base, {}, 1.0)


def with_lora(
    base: BaseModel, adapter: Adapter, pairs: dict[tuple[int, str], Pair] | None = None
) -> Projections:
    """Return the linear layers with an adapter beside them.

    Args:
        base: the frozen model.
        adapter: gives scaling, and the matrices unless `pairs` does.
        pairs: the matrices to use, for example leaves that want gradients.
    """
    return _beside(base, adapter.pairs() if pairs is None else pairs, adapter.scaling)


def _beside(base: BaseModel, pairs: dict[tuple[int, str], Pair], scaling: float) -> Projections:
    if isinstance(base, Borrowed):
        return _hooked(base, pairs, scaling)

    def project(key: tuple[int, str], weight: Tensor, bias: Tensor | None) -> Projection:
        pair = pairs.get(key)
        if pair is None:
            return partial(_frozen, weight, bias)
        return partial(_lora, weight, bias, scaling, pair)

    return _assemble(base, project, pairs, scaling)


def _hooked(base: Borrowed, pairs: dict[tuple[int, str], Pair], scaling: float) -> Hooked:
    head = partial(base.logits, pair=pairs.get((base.shape.layers, "head")), scaling=scaling)
    return Hooked((), head, partial(logprobs, head, chunk_rows(base.vocab_size)), pairs, scaling)


def merged(base: BaseModel, adapter: Adapter | None) -> Projections:
    """Return the linear layers with an adapter, laid out for decoding; no gradients.

    In float32 the adapter is added into a copy as large as the base. In bfloat16 nothing is merged, since
    rounding the sum would lose most of a small adapter: the LoRA stays beside the weight, of which there is a
    copy as float16 where that pays (`kernels.halved`). In a borrowed model the LoRA stays beside it too.
    """
    if isinstance(base, Borrowed) or base.activations != torch.float32:
        return bare(base) if adapter is None else with_lora(base, adapter)
    pairs = {} if adapter is None else adapter.pairs()
    scaling = 1.0 if adapter is None else adapter.scaling

    def project(key: tuple[int, str], weight: Tensor, bias: Tensor | None) -> Projection:
        pair = pairs.get(key)
        if weight.dtype != torch.float32:
            return _decoding(weight, bias, pair, scaling)
        product = prepacked(_sum(weight, pair, scaling))
        return product if bias is None else lambda x: product(x).add_(bias)

    return _assemble(base, project, pairs, scaling)


def _decoding(weight: Tensor, bias: Tensor | None, pair: Pair | None, scaling: float) -> Projection:
    """Return a linear layer with its LoRA beside it, by one product for few rows and by another for many."""
    few = halved(weight)
    # One product for the LoRA of all projections: zeros where one's `low` would meet another's B.
    up = None if pair is None else _diagonal(pair.ups).mul_(scaling)

    def product(x: Tensor) -> Tensor:
        y = few(x) if few is not None and x.shape[0] <= HALVED_ROWS else linear(x, weight)
        if bias is not None:
            y.add_(bias)
        return y if pair is None or up is None else add_linear(y, linear(x, pair.down), up)

    return product


def _diagonal(blocks: tuple[Tensor, ...]) -> Tensor:
    out: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


def _assemble(
    base: BaseModel,
    project: Callable[[tuple[int, str], Tensor, Tensor | None], Projection],
    pairs: dict[tuple[int, str], Pair],
    scaling: float,
) -> Projections:
    """Return every linear layer as `project` makes it of its place, weight and bias."""

    def experts(index: int, group: str, weight: Tensor) -> tuple[Projection, ...]:
        if weight.dim() == 2:  # noqa: PLR2004 - a matrix: no experts
            return (project((index, group), weight, None),)
        return tuple(project((index, f"{group}.{i}"), expert, None) for i, expert in enumerate(weight))

    layers = tuple(
        LayerProjections(
            qkv=project((index, "qkv"), layer.qkv, layer.qkv_bias),
            o=project((index, "o"), layer.o, layer.o_bias),
            gate_up=experts(index, "gate_up", layer.gate_up),
            down=experts(index, "down", layer.down),
        )
        for index, layer in enumerate(base.layers)
    )
    place = (base.shape.layers, "head")
    scores = partial(target_logprobs, weight=base.head, pair=pairs.get(place), scaling=scaling)
    return Projections(layers, project(place, base.head, None), scores)


def _sum(weight: Tensor, pair: Pair | None, scaling: float) -> Tensor:
    if pair is None:
        return weight
    total, start = weight.clone(), 0
    for down, up in zip(torch.split(pair.down, pair.ups[0].shape[1]), pair.ups, strict=True):
        total[start : start + up.shape[0]].addmm_(up, down, alpha=scaling)
        start += up.shape[0]
    return total
