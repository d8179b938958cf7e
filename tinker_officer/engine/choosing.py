"""From logits to a token: temperature, top-k, top-p, and a stream of random numbers per sample.

A sample's stream is Philox keyed by (seed, index of the sample), one number a token, so that no batch-mate
changes it. Log-probabilities are those of the model itself, before temperature, top-k and top-p: they are
what `compute_logprobs` and a forward pass say of the same tokens, which the importance ratio of RL needs.
"""

# ruff: noqa: N803 - argument names carry their axes (house rule 5)

from __future__ import annotations

import secrets
from collections.abc import Sequence

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own spelling


_SHORT_LIST = 128
_BLOCK = 128  # tokens that are summed together: a draw adds up one such block, not the whole vocabulary
_COLD = 1e-6  # the likeliest token at any lower temperature, where dividing logits would overflow


@attrs.frozen
class Choice:
    """How one row is sampled."""

    temperature: float
    top_k: int
    top_p: float

    @property
    def restricted(self) -> bool:
        """Whether some tokens are ruled out."""
        return self.top_k > 0 or self.top_p < 1


def stream(seed: int | None, index: int) -> np.random.Generator:
    """Return the random numbers of one sample; without a seed, fresh ones."""
    key = secrets.randbits(64) if seed is None else seed
    return np.random.Generator(np.random.Philox(key=[key & (2**64 - 1), index]))


def choose(
    logits_B_V: Tensor, choices: Sequence[Choice], streams: Sequence[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray]:
    """Return one token a row and its log-probability.

    Args:
        logits_B_V: float32.
        choices: of each row.
        streams: of each row; greedy rows draw nothing.

    Returns:
        Token ids, int64, and log-probabilities, float32 (not finite where the logits were not), both `(B,)`.
    """
    peaks = logits_B_V.amax(-1, keepdim=True)
    weights = _weights(logits_B_V, peaks)
    sums = weights.sum(-1)
    totals = sums.sum(-1)
    cold = [row for row, choice in enumerate(choices) if choice.temperature <= _COLD]
    if len(cold) == len(choices):
        tokens = logits_B_V.argmax(-1)
    else:
        _adapt(weights, sums, logits_B_V, peaks, choices)
        draws = [
            0.0 if choice.temperature <= _COLD else generator.random()
            for choice, generator in zip(choices, streams, strict=True)
        ]
        tokens = _draw(weights, sums, torch.tensor(draws, dtype=torch.float32, device=logits_B_V.device))
        if cold:
            tokens[cold] = logits_B_V[cold].argmax(-1)
    logprobs = (logits_B_V.gather(1, tokens[:, None]) - peaks)[:, 0] - totals.log()
    return tokens.cpu().numpy(), logprobs.cpu().numpy()


def draw(logits_B_V: Tensor, temperature: float, draws_B_K: Tensor) -> Tensor:
    """Return K tokens for every row, int64 `(B, K)`, drawn independently and from all tokens.

    Args:
        logits_B_V: float32.
        temperature: 0 takes the likeliest token.
        draws_B_K: random numbers from 0 to below 1.
    """
    likeliest = logits_B_V.argmax(-1, keepdim=True).expand(draws_B_K.shape)
    if temperature <= _COLD:
        return likeliest
    probabilities = torch.softmax(logits_B_V / temperature, -1)
    cumulative = probabilities.cumsum(-1)
    found = torch.searchsorted(cumulative, draws_B_K * cumulative[:, -1:], right=True)
    found.clamp_(max=logits_B_V.shape[-1] - 1)
    possible = probabilities.gather(1, found) > 0  # rounding may push a draw past the last of them
    return torch.where(possible, found, likeliest)


def _weights(logits_B_V: Tensor, peaks_B_1: Tensor) -> Tensor:
    """Return `exp(logits - peaks)` in blocks of the vocabulary, `(B, blocks, _BLOCK)`, zeros behind it."""
    rows, vocab = logits_B_V.shape
    blocks = -(-vocab // _BLOCK)
    weights = torch.empty(rows, blocks * _BLOCK, device=logits_B_V.device)
    weights[:, vocab:] = -torch.inf
    torch.sub(logits_B_V, peaks_B_1, out=weights[:, :vocab])
    return weights.exp_().view(rows, blocks, _BLOCK)


def _adapt(weights: Tensor, sums: Tensor, logits: Tensor, peaks: Tensor, choices: Sequence[Choice]) -> None:
    """Let temperature, top-k and top-p change the weights of their rows, and the sums of their blocks."""
    vocab = logits.shape[-1]
    for row, choice in enumerate(choices):
        if choice.temperature <= _COLD or (choice.temperature == 1 and not choice.restricted):
            continue
        flat = weights[row].view(-1)[:vocab]
        if choice.temperature != 1:
            torch.sub(logits[row], peaks[row], out=flat).div_(choice.temperature).exp_()
        if choice.restricted:
            flat.copy_(_restricted(flat, choice))
        torch.sum(weights[row], -1, out=sums[row])


def _draw(weights: Tensor, sums: Tensor, draws_B: Tensor) -> Tensor:
    """Return a token a row: first its block of the vocabulary, then its place in the block."""
    running = F.pad(sums.cumsum(-1), (1, 0))
    below = draws_B[:, None] * running[:, -1:]
    block = torch.searchsorted(running[:, 1:].contiguous(), below, right=True).clamp_(max=sums.shape[-1] - 1)
    inside = weights[torch.arange(len(weights), device=weights.device), block[:, 0]].cumsum(-1)
    place = torch.searchsorted(inside, below - running.gather(1, block), right=True).clamp_(max=_BLOCK - 1)
    found = block * _BLOCK + place
    flat = weights.view(len(weights), -1)
    possible = flat.gather(1, found) > 0
    if not bool(possible.all()):  # rounding pushed a draw past the last token that can be drawn
        for row in torch.nonzero(~possible[:, 0]).flatten().tolist():
            before = torch.nonzero(flat[row, : int(found[row]) + 1])
            found[row] = before[-1] if len(before) else 0
    return found[:, 0]


def _restricted(probabilities: Tensor, choice: Choice) -> Tensor:
    """Return the row, of any sum, with ruled-out tokens at zero: first top-k, then top-p of the rest."""
    size = probabilities.shape[0]
    count = min(choice.top_k, size) if choice.top_k > 0 else min(_SHORT_LIST, size)
    values, ids = torch.topk(probabilities, count)
    if choice.top_p < 1:
        whole = values.sum() if choice.top_k > 0 else probabilities.sum()
        if choice.top_k <= 0 and values.sum() < choice.top_p * whole:
            values, ids = torch.sort(probabilities, descending=True)
        before = values.cumsum(0) - values
        keep = before < choice.top_p * whole
        keep[0] = True
        values, ids = values[keep], ids[keep]
    return torch.zeros_like(probabilities).scatter_(0, ids, values)
