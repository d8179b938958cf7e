"""Chosen tokens scored, and tokens drawn, at every place of a prompt; knows nothing of caches.

What a distillation asks of its teacher: log-probabilities of the student's candidates
(`target_prompt_logprobs`), or candidates of the teacher's own (`prompt_alt_tokens_k`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tinker_officer.engine.choosing import draw, stream
from tinker_officer.engine.head import chunk_rows
from tinker_officer.engine.models import BaseModel
from tinker_officer.engine.projections import Projection
from tinker_officer.engine.sampling import Request


_STREAM = 2**63  # no sample of a request has this index


def probe(base: BaseModel, head: Projection, prompts: Sequence[list[Request]], hidden: Tensor) -> None:
    """Fill in what requests ask of each place of their prompt, once a request.

    Args:
        base: the frozen model.
        head: the output head of the weights that are sampled from.
        prompts: of each prompt, the requests that have it.
        hidden: last hidden states of all prompts, one after another, shape `(N, D)`.
    """
    start = 0
    for requests in prompts:
        size = requests[0].spec.prompt.size
        for request in requests:
            if request.probes and not request.probed:
                _probe(base, head, request, hidden[start : start + size - 1])
                request.probed = True
        start += size


def _probe(base: BaseModel, head: Projection, request: Request, hidden: Tensor) -> None:
    spec, count = request.spec, request.spec.alternatives
    targets = None if spec.targets is None else torch.from_numpy(spec.targets).to(hidden.device)
    scores = None if spec.targets is None else np.zeros(spec.targets.shape, np.float32)
    drawn = np.zeros((hidden.shape[0], count), np.int32), np.zeros((hidden.shape[0], count), np.float32)
    random = stream(spec.seed, _STREAM)
    step = chunk_rows(base.vocab_size)
    for start in range(0, hidden.shape[0], step):
        part = slice(start, start + step)
        logits = head(hidden[part]).float()
        logprobs = logits - torch.logsumexp(logits, -1, keepdim=True)
        if targets is not None and scores is not None:
            named = targets[part] >= 0
            found = logprobs.gather(1, targets[part].clamp(min=0))
            scores[part] = torch.where(named, found, torch.zeros_like(found)).cpu().numpy()
        if count:
            draws = torch.from_numpy(random.random((logits.shape[0], count), np.float32))
            tokens = draw(logits, spec.temperature, draws.to(logits.device))
            drawn[0][part] = tokens.cpu().numpy()
            drawn[1][part] = logprobs.gather(1, tokens).cpu().numpy()
    request.target_logprobs = scores
    request.alternatives = drawn if count else None
