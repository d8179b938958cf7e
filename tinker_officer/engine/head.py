"""Log-probabilities of target tokens, from hidden states, in chunks that never hold all logits at once.

The output head is the widest layer. So it runs a chunk of rows at a time; its logits are kept for the
backward pass only while they are few, and computed again otherwise; rows without gradient take no part in it.
"""

# ruff: noqa: N803 - argument names carry their axes (house rule 5)

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tinker_officer.engine.kernels import applied, linear
from tinker_officer.engine.lora import Pair
from tinker_officer.engine.projections import lora_backward


CHUNK_LOGITS = 8_000_000  # float32 logits at a time: 32 MB
KEPT_LOGITS = 32_000_000  # kept for the backward pass, at most: 128 MB


def chunk_rows(vocab: int) -> int:
    """Return how many rows of logits make a chunk."""
    return max(16, CHUNK_LOGITS // vocab)


def target_logprobs(
    hidden_N_D: Tensor,
    targets_N_K: Tensor,
    weight: Tensor,
    pair: Pair | None = None,
    scaling: float = 1.0,
) -> Tensor:
    """Return log p(target) of K targets a row, shape `(N, K)`, float32, with gradients to hidden and pair.

    Args:
        hidden_N_D: last hidden states.
        targets_N_K: token ids.
        weight: the frozen head, shape `(vocab, D)`.
        pair: the head's LoRA, if it has one.
        scaling: alpha / rank.
    """
    matrices = () if pair is None else (pair.down, *pair.ups)
    out: Tensor = applied(_TargetLogprobs, hidden_N_D, targets_N_K, weight, scaling, *matrices)
    return out


class _TargetLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, weight: Tensor, scaling: float, *matrices: Tensor
    ) -> Tensor:
        low = linear(hidden, matrices[0].to(hidden.dtype)).mul_(scaling) if matrices else None
        rows, kept = chunk_rows(weight.shape[0]), []
        keep = any(ctx.needs_input_grad) and hidden.shape[0] * weight.shape[0] <= KEPT_LOGITS
        out = torch.empty(targets.shape, dtype=torch.float32, device=hidden.device)
        totals = torch.empty((hidden.shape[0], 1), dtype=torch.float32, device=hidden.device)
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            logits = _logits(hidden[part], weight, None if low is None else low[part], matrices)
            totals[part] = torch.logsumexp(logits, -1, keepdim=True)
            torch.sub(logits.gather(1, targets[part]), totals[part], out=out[part])
            if keep:
                kept.append(logits)
        ctx.save_for_backward(hidden, targets, totals, *(() if low is None else (low,)), *matrices)
        ctx.weight, ctx.scaling, ctx.kept, ctx.rows = weight, scaling, kept, rows
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        hidden, targets, totals, *rest = ctx.saved_tensors
        low, matrices = (rest[0], tuple(rest[1:])) if rest else (None, ())
        d_hidden = torch.empty_like(hidden)
        gradients = [torch.zeros_like(matrix) for matrix in matrices]
        kept, ctx.kept = ctx.kept, []
        for index, start in enumerate(range(0, hidden.shape[0], ctx.rows)):
            part = slice(start, start + ctx.rows)
            low_part = None if low is None else low[part]
            logits = kept[index] if kept else _logits(hidden[part], ctx.weight, low_part, matrices)
            # d logits = sum over targets of d_out * (one hot - softmax)
            d_logits = logits.sub_(totals[part]).exp_().mul_(-d_out[part].sum(1, keepdim=True))
            d_logits.scatter_add_(1, targets[part], d_out[part])
            d_logits = d_logits.to(hidden.dtype)
            if low_part is None:
                d_hidden[part] = linear(d_logits, ctx.weight.t())
            else:
                dx, d_down, d_ups = lora_backward(
                    d_logits,
                    hidden[part],
                    low_part,
                    matrices[0],
                    matrices[1:],
                    ctx.scaling,
                    ctx.weight,
                    need_dx=True,
                )
                if dx is not None:
                    d_hidden[part] = dx
                for total, gradient in zip(gradients, (d_down, *d_ups), strict=True):
                    total.add_(gradient)
        return (d_hidden, None, None, None, *gradients)


def _logits(hidden: Tensor, weight: Tensor, low: Tensor | None, matrices: tuple[Tensor, ...]) -> Tensor:
    logits = linear(hidden, weight)
    if low is not None:
        logits.add_(linear(low, matrices[1].to(hidden.dtype)))
    return logits.float()
