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


_SHORT_LIST = 128
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
    warm = [row for row, choice in enumerate(choices) if choice.temperature > _COLD]
    if len(warm) == len(choices):
        tokens = _draw(logits_B_V, list(choices), list(streams))
    else:
        tokens = logits_B_V.argmax(-1)
        if warm:
            chosen = [choices[row] for row in warm], [streams[row] for row in warm]
            tokens[warm] = _draw(logits_B_V[warm], *chosen)
    totals = torch.logsumexp(logits_B_V, -1)
    logprobs = logits_B_V.gather(1, tokens[:, None])[:, 0] - totals
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


def _draw(logits: Tensor, choices: list[Choice], streams: list[np.random.Generator]) -> Tensor:
    temperatures = [choice.temperature for choice in choices]
    if any(temperature != 1 for temperature in temperatures):
        logits = logits / torch.tensor(temperatures, device=logits.device)[:, None]
    probabilities = torch.softmax(logits, -1)
    for row, choice in enumerate(choices):
        if choice.restricted:
            probabilities[row] = _restricted(probabilities[row], choice)
    cumulative = probabilities.cumsum(-1)
    draws = torch.tensor(
        [generator.random() for generator in streams], dtype=torch.float32, device=logits.device
    )
    below = draws[:, None] * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, below, right=True).clamp_(max=logits.shape[-1] - 1)
    possible = probabilities.gather(1, found) > 0
    if not bool(possible.all()):  # rounding pushed a draw past the last token that can be drawn
        for row in torch.nonzero(~possible[:, 0]).flatten().tolist():
            found[row] = torch.nonzero(probabilities[row]).max()
    return found[:, 0]


def _restricted(probabilities: Tensor, choice: Choice) -> Tensor:
    """Return the row with ruled-out tokens at zero: first top-k, then top-p of what is left."""
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
