"""Log-probabilities of prompts, for the sampling requests that ask; knows nothing of caches.

Prompts that were read together are scored together, and only where somebody asked
(`prompt_logprobs_last_n`): the output head is the widest layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tinker_officer.engine.head import chunk_rows
from tinker_officer.engine.models import BaseModel
from tinker_officer.engine.projections import Projection, Projections
from tinker_officer.engine.sampling import Request, TopK


NO_LOGPROB = -99999.0  # the SDK's mark of a position without top-k log-probabilities


def score(
    base: BaseModel,
    weights: Projections,
    prompts: Sequence[list[Request]],
    hidden: Tensor,
) -> None:
    """Fill in the log-probabilities of prompts, for those that asked.

    Args:
        base: the frozen model.
        weights: its linear layers, with the adapter that is sampled from.
        prompts: of each prompt, the requests that have it.
        hidden: last hidden states of all prompts, one after another, shape `(N, D)`.
    """
    rows: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    asked: list[tuple[list[Request], int, int]] = []
    start = 0
    for requests in prompts:
        prompt = requests[0].spec.prompt
        asking = [request for request in requests if request.scored and request.prompt_logprobs is None]
        if asking:
            first = min(request.first_scored for request in asking)
            rows.append(np.arange(start + first - 1, start + prompt.size - 1))
            targets.append(prompt[first:])
            asked.append((asking, first, start))
        start += prompt.size
    if not asked:
        return
    found = weights.logprobs(
        hidden[torch.from_numpy(np.concatenate(rows)).to(base.device)],
        torch.from_numpy(np.concatenate(targets)).to(base.device)[:, None],
    )[:, 0]
    ends = np.cumsum([part.size for part in targets])[:-1]
    for (asking, first, start), part in zip(asked, np.split(found.cpu().numpy(), ends), strict=True):
        size = asking[0].spec.prompt.size
        logprobs = np.concatenate([np.full(first, np.nan, np.float32), part])
        most = max(request.spec.topk_prompt_logprobs for request in asking)
        top = (
            _top_k(base, weights.head, hidden[start + first - 1 : start + size - 1], most, first)
            if most
            else None
        )
        for request in asking:
            k = request.spec.topk_prompt_logprobs
            request.prompt_logprobs = logprobs
            request.topk_prompt = (top[0][:, :k], top[1][:, :k]) if top is not None and k else None


def _top_k(base: BaseModel, head: Projection, hidden: Tensor, most: int, skipped: int) -> TopK:
    """Return the likeliest tokens after each row and their log-probabilities, below `skipped` empty rows."""
    size = skipped + hidden.shape[0]
    ids = np.zeros((size, most), np.int32)
    values = np.full((size, most), NO_LOGPROB, np.float32)
    step = chunk_rows(base.vocab_size)
    for start in range(0, hidden.shape[0], step):
        logits = head(hidden[start : start + step]).float()
        top = torch.topk(logits, most)
        part = slice(skipped + start, skipped + start + logits.shape[0])
        ids[part] = top.indices.cpu().numpy()
        values[part] = (top.values - torch.logsumexp(logits, -1, keepdim=True)).cpu().numpy()
    return ids, values
