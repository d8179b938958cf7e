"""Log-probabilities of target tokens, from hidden states, in blocks that never hold all logits at once.

The output head is the widest layer. So it runs a block of the vocabulary at a time, narrow enough that what
is done to every logit is done in the cache; its logits are kept for the backward pass only while they are
few, and computed again otherwise; rows without gradient take no part in it.
"""

# ruff: noqa: N803 - argument names carry their axes (house rule 5)

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tinker_officer.engine.kernels import add_linear, applied, linear
from tinker_officer.engine.lora import Pair


BLOCK_LOGITS = 1_000_000  # float32 logits at a time: 4 MB
LEAST_WIDTH = 1024  # of a block, in tokens of the vocabulary
CHUNK_LOGITS = 8_000_000  # of whole rows at a time: 32 MB
KEPT_LOGITS = 32_000_000  # kept for the backward pass, at most: 128 MB


def chunk_rows(vocab: int) -> int:
    """Return how many whole rows of logits make a chunk."""
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
        up, kept = (matrices[1].to(hidden.dtype) if matrices else None), []
        keep = any(ctx.needs_input_grad) and hidden.shape[0] * weight.shape[0] <= KEPT_LOGITS
        out = torch.empty(targets.shape, dtype=torch.float32, device=hidden.device)
        totals = torch.full((hidden.shape[0], 1), -torch.inf, device=hidden.device)
        for part in _blocks(*hidden.shape[:1], *weight.shape[:1]):
            logits = _logits(hidden, weight, low, up, part)
            totals = torch.logaddexp(totals, torch.logsumexp(logits, -1, keepdim=True))
            rows, which, columns = _inside(targets, part)
            out[rows, which] = logits[rows, columns]
            if keep:
                kept.append(logits)
        ctx.save_for_backward(hidden, targets, totals, *(() if low is None else (low,)), *matrices)
        ctx.weight, ctx.scaling, ctx.kept = weight, scaling, kept
        return out.sub_(totals)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        hidden, targets, totals, *rest = ctx.saved_tensors
        low, down, up = rest or [None, None, None]
        narrow_up: Any = None if up is None else up.to(hidden.dtype)
        d_hidden = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        d_low: Any = None if low is None else torch.zeros(low.shape, dtype=torch.float32, device=low.device)
        d_up: Any = None if up is None else torch.empty_like(up)
        kept, ctx.kept = ctx.kept, []
        pull = d_out.sum(1, keepdim=True).neg_()
        for index, part in enumerate(_blocks(*hidden.shape[:1], *ctx.weight.shape[:1])):
            logits = kept[index] if kept else _logits(hidden, ctx.weight, low, narrow_up, part)
            # d logits = sum over targets of d_out * (one hot - softmax)
            d_logits = logits.sub_(totals).exp_().mul_(pull)
            rows, which, columns = _inside(targets, part)
            d_logits.index_put_((rows, columns), d_out[rows, which], accumulate=True)
            d_logits = d_logits.to(hidden.dtype)
            add_linear(d_hidden, d_logits, ctx.weight[part].t())
            if low is not None:
                add_linear(d_low, d_logits, narrow_up[part].t())
                d_up[part] = linear(d_logits.t(), low.t())
        if low is None:
            return d_hidden.to(hidden.dtype), None, None, None
        d_low = d_low.mul_(ctx.scaling).to(hidden.dtype)
        d_down = linear(d_low.t(), hidden.t()).to(down.dtype)
        add_linear(d_hidden, d_low, down.to(hidden.dtype).t())
        return d_hidden.to(hidden.dtype), None, None, None, d_down, d_up


def _blocks(rows: int, vocab: int) -> list[slice]:
    """Return the blocks of the vocabulary: slices of about `BLOCK_LOGITS / rows` tokens."""
    width = max(LEAST_WIDTH, BLOCK_LOGITS // max(1, rows))
    return [slice(start, min(start + width, vocab)) for start in range(0, vocab, width)]


def _inside(targets_N_K: Tensor, part: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Return row, place in the row, and column in the block of every target that lies in a block."""
    rows, which = torch.nonzero((targets_N_K >= part.start) & (targets_N_K < part.stop), as_tuple=True)
    return rows, which, targets_N_K[rows, which] - part.start


def _logits(hidden: Tensor, weight: Tensor, low: Tensor | None, up: Tensor | None, part: slice) -> Tensor:
    logits = linear(hidden, weight[part])
    if low is not None and up is not None:
        add_linear(logits, low, up[part])
    return logits.float()
