"""The decoder itself: one forward pass for training, prefill and decoding; knows nothing of losses or caches.

Tokens of all sequences stand in one row of length N, with no padding. What differs between training and
sampling is handed in: the linear layers (`projections.py`), and `attend`, which mixes positions.

Source:
    Llama (arXiv:2302.13971), Qwen3 (arXiv:2505.09388) and Mixtral (arXiv:2401.04088) as in transformers'
    `modeling_llama.py`, `modeling_qwen3.py` and `modeling_mixtral.py`, which the tests compare with.
"""

# ruff: noqa: N803 - argument names carry their axes (house rule 5)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - torch's own spelling
from torch.utils.checkpoint import checkpoint

from tinker_officer.engine.borrowed import Borrowed, Texts
from tinker_officer.engine.kernels import applied
from tinker_officer.engine.models import BaseModel, Shape
from tinker_officer.engine.packing import runs
from tinker_officer.engine.projections import Hooked, LayerProjections, Projections


# A row of more tokens keeps only the input of each layer, and computes the layer again in the backward pass:
# a third more work, a tenth of the memory.
RECOMPUTE_TOKENS = 2048
# (layer, q (N, heads, head_dim), k and v (N, kv_heads, head_dim)) -> (N, heads * head_dim)
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
# The rotary cosines and signed sines of N positions, each (N, 1, head_dim).
Rotation = tuple[Tensor, Tensor]


def hidden_states(
    base: BaseModel, projections: Projections, tokens_N: Tensor, positions_N: Tensor, attend: Attend | Texts
) -> Tensor:
    """Return the last hidden states after the final norm, shape `(N, hidden)`.

    Args:
        base: the frozen model.
        projections: its linear layers, with or without an adapter.
        tokens_N: token ids, all sequences one after another.
        positions_N: the position of each token in its own sequence.
        attend: mixes positions, sequence by sequence; of a borrowed model, the sequences.
    """
    if isinstance(attend, Texts):
        assert isinstance(base, Borrowed)  # noqa: S101 - `within` and `cache_for` see to it
        assert isinstance(projections, Hooked)  # noqa: S101 - so does `with_lora`
        return attend.read(base, projections.pairs, projections.scaling, tokens_N)
    rotation = rotations(base, positions_N)
    x = base.embed[tokens_N].to(base.activations)
    again = torch.is_grad_enabled() and tokens_N.shape[0] > RECOMPUTE_TOKENS
    for index in range(base.shape.layers):
        inputs = (base, index, projections.layers[index], x, rotation, attend)
        x = _recomputed(*inputs) if again else layer_forward(*inputs)
    return rms_norm(x, base.norm, base.shape.norm_eps)


def layer_forward(
    base: BaseModel, index: int, ops: LayerProjections, x: Tensor, rotation: Rotation, attend: Attend
) -> Tensor:
    """Return the residual stream after one decoder layer, shape `(N, hidden)`."""
    layer, shape = base.layers[index], base.shape
    qkv = ops.qkv(rms_norm(x, layer.attention_norm, shape.norm_eps))
    turn = rotation if shape.rope_layers[index] else None
    q, k, v = split_heads(qkv, shape.heads, shape.kv_heads, turn, layer.qk_norm, shape.norm_eps)
    x = x + ops.o(attend(index, q, k, v))
    normed = rms_norm(x, layer.mlp_norm, shape.norm_eps)
    if layer.router is not None:
        return x + _routed(shape, layer.router, ops, normed)
    return x + ops.down[0](swiglu(ops.gate_up[0](normed)))


def _routed(shape: Shape, router: Tensor, ops: LayerProjections, x: Tensor) -> Tensor:
    """Return what the experts make of `x`, each token by those that the router gives most weight."""
    weights, chosen = (
        F.linear(x, router.to(x.dtype)).softmax(-1, dtype=torch.float32).topk(shape.chosen, dim=-1)
    )
    if shape.renormalised:
        weights = weights / weights.sum(-1, keepdim=True)
    out = torch.zeros_like(x)
    for expert in sorted(set(chosen.flatten().tolist())):
        rows, places = (chosen == expert).nonzero(as_tuple=True)
        made = ops.down[expert](swiglu(ops.gate_up[expert](x[rows])))
        out = out.index_add(0, rows, made * weights[rows, places, None].to(x.dtype))
    return out


def _recomputed(*inputs: Any) -> Tensor:
    out: Tensor = checkpoint(layer_forward, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out


def rotations(base: BaseModel, positions_N: Tensor) -> Rotation:
    """Return the rotary cosines and signed sines of positions, computed in float32 as transformers does."""
    angles = positions_N.float()[:, None] * base.inverse_frequencies
    cos, sin = angles.cos() * base.rope_scale, angles.sin() * base.rope_scale
    return (
        torch.cat((cos, cos), dim=-1)[:, None].to(base.activations),
        torch.cat((-sin, sin), dim=-1)[:, None].to(base.activations),
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return `weight * x / rms(x)` over the last axis; the weight is frozen, and may have a row a head."""
    if x.requires_grad:
        normed: Tensor = applied(_RmsNorm, x, weight, eps)
        return normed
    return _normalise(x, weight, eps)[0]


def _normalise(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    wide = x.float()
    scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    scale = scale.mul_(scale).mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
    if x.dtype == torch.float32:
        return (x * scale).mul_(weight), scale
    return (wide * scale).to(x.dtype) * weight, scale


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, scale = _normalise(x, weight, eps)
        ctx.save_for_backward(x, scale)
        ctx.weight = weight
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        return _norm_backward(dy, x, scale, ctx.weight), None, None


def _norm_backward(dy: Tensor, x: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    """Return an RMSNorm's input gradient: `scale * (g - x_hat * mean(g * x_hat))`, `g = dy * weight`."""
    unit = x * scale  # float32, since `scale` is
    g = dy * weight if dy.dtype == torch.float32 else dy.float() * weight
    along = (g * unit).mean(-1, keepdim=True)
    return g.sub_(unit.mul_(along)).mul_(scale).to(x.dtype)


def split_heads(
    qkv: Tensor, heads: int, kv_heads: int, rotation: Rotation | None, qk_norm: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values by head, normalised (Qwen3) and rotated to their positions.

    Args:
        qkv: the stacked projection, shape `(N, (heads + 2 * kv_heads) * head_dim)`.
        heads: query heads.
        kv_heads: key and value heads.
        rotation: cosines and signed sines; None for a layer without positions.
        qk_norm: RMSNorm weights, one row a head; None for none.
        eps: of that norm.
    """
    if qkv.requires_grad:
        parts: tuple[Tensor, Tensor, Tensor] = applied(
            _SplitHeads, qkv, heads, kv_heads, rotation, qk_norm, eps
        )
        return parts
    return _split(qkv, heads, kv_heads, rotation, qk_norm, eps)[0]


def _split(
    qkv: Tensor, heads: int, kv_heads: int, rotation: Rotation | None, qk_norm: Tensor | None, eps: float
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
    by_head = qkv.view(qkv.shape[0], heads + 2 * kv_heads, -1)
    turned, scale = by_head[:, : heads + kv_heads], None
    if qk_norm is not None:
        turned, scale = _normalise(turned, qk_norm, eps)
    if rotation is not None:
        turned = _rotate(turned, *rotation)
    return (turned[:, :heads], turned[:, heads:], by_head[:, heads + kv_heads :]), scale


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return `x` turned: the halves of a head are the two axes, and `sin` carries the sign of each half."""
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin)


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        heads: int,
        kv_heads: int,
        rotation: Rotation | None,
        qk_norm: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (q, k, v), scale = _split(qkv, heads, kv_heads, rotation, qk_norm, eps)
        if scale is not None:
            ctx.save_for_backward(qkv, scale)
        ctx.sizes, ctx.rotation, ctx.qk_norm = (heads, kv_heads), rotation, qk_norm
        return q, k, v.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor) -> tuple[Tensor | None, ...]:
        (heads, kv_heads), rotated = ctx.sizes, ctx.sizes[0] + ctx.sizes[1]
        d_by_head = torch.cat((dq, dk, dv), dim=1)
        turned = d_by_head[:, :rotated]
        if ctx.rotation is not None:
            cos, sin = ctx.rotation
            turned = (turned * cos).add_((turned * sin).roll(turned.shape[-1] // 2, -1))
        if ctx.qk_norm is not None:
            qkv, scale = ctx.saved_tensors
            x = qkv.view(qkv.shape[0], heads + 2 * kv_heads, -1)[:, :rotated]
            turned = _norm_backward(turned, x, scale, ctx.qk_norm)
        d_by_head[:, :rotated] = turned
        return d_by_head.view(d_by_head.shape[0], -1), None, None, None, None, None


def swiglu(gate_up: Tensor) -> Tensor:
    """Return `silu(gate) * up` of the stacked projection `(N, 2 * intermediate)`."""
    if gate_up.requires_grad:
        mixed: Tensor = applied(_SwiGlu, gate_up)
        return mixed
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        out = torch.empty_like(gate_up)
        d_gate, d_up = out.chunk(2, dim=-1)
        torch.mul(F.silu(gate), dy, out=d_up)
        torch.ops.aten.silu_backward.grad_input(dy * up, gate, grad_input=d_gate)
        return out


def within(base: BaseModel, lengths: tuple[int, ...]) -> Attend | Texts:
    """Return what `hidden_states` needs to know of sequences that stand in one row, to read them.

    Args:
        base: the frozen model.
        lengths: of the sequences; their sum is N.
    """
    return Texts(lengths) if isinstance(base, Borrowed) else packed_attention(lengths)


def packed_attention(lengths: tuple[int, ...]) -> Attend:
    """Return causal attention within each of several sequences that stand in one row.

    Args:
        lengths: of the sequences; their sum is N.
    """
    together = runs(lengths)

    def attend(_layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, start = [], 0
        for count, length in together:
            stop = start + count * length
            q_part, k_part, v_part = (
                part[start:stop].view(count, length, *part.shape[1:]).transpose(1, 2) for part in (q, k, v)
            )
            mixed = F.scaled_dot_product_attention(q_part, k_part, v_part, is_causal=True, enable_gqa=True)
            out.append(mixed.transpose(1, 2).reshape(stop - start, -1))
            start = stop
        return out[0] if len(out) == 1 else torch.cat(out)

    return attend
