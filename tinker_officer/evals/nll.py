"""Layer 1: negative log-likelihood on held-out conversations, in nats per trained token.

What is scored is exactly what training would train on: the same renderer, the same weights, the same
truncation. Each conversation is one item, its score the mean over its trained tokens, its weight their
number; the value is their weighted mean, and conversations are the clusters of its interval, because the
tokens of one conversation are not independent.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tinker_officer._digest import digest
from tinker_officer.errors import EvalError
from tinker_officer.evals.cases import unique_ids
from tinker_officer.evals.scorecard import EvalResult, Item


if TYPE_CHECKING:
    import tinker

    from tinker_officer.data.conversations import Conversation, Conversations
    from tinker_officer.evals.target import Target

IN_FLIGHT = 64


async def run_nll(
    name: str,
    data: Conversations,
    target: Target,
    *,
    max_length: int | None,
    train_on: str,
    done: Callable[[], None] = lambda: None,
    in_flight: int = IN_FLIGHT,
) -> EvalResult:
    """Return the negative log-likelihood of `data` under `target`.

    Args:
        name: the eval's name.
        data: held-out conversations.
        target: the opened target.
        max_length: longest sequence in tokens, longer ones are cut; None for the model's context.
        train_on: `last` or `all` assistant turns.
        done: called after each conversation.
        in_flight: requests under way at once.

    Raises:
        EvalError: a conversation could not be scored, or nothing in them is trained on.
    """
    longest = max_length or _context(target.base_model)
    gate = asyncio.Semaphore(in_flight)
    settings = {
        "kind": "nll",
        "data": data.fingerprint,
        "train_on": train_on,
        "max_length": longest,
        "renderer": target.renderer_name,
    }

    async def one(conversation: Conversation, item_id: str) -> tuple[Item, int]:
        async with gate:
            scored = await _score(conversation, item_id, target, longest, train_on)
        done()
        return scored

    names = unique_ids(conversation.id for conversation in data)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(*pair)) for pair in zip(data, names, strict=True)]
    scored = [task.result() for task in tasks]
    items = tuple(item for item, _ in scored)
    trained = sum(item.weight for item in items)
    if items and not trained:
        raise EvalError(
            f"nothing in {name!r} is trained on",
            got=f"{len(items)} conversations, 0 trained tokens at max_length={longest}",
            need="conversations whose assistant turns fit",
            fix="suite.nll(held_out, max_length=2048)",
        )
    nats = sum(item.score * item.weight for item in items)
    size = sum(length for _, length in scored)
    extra = {"perplexity": math.exp(min(700.0, nats / trained)) if trained else 0.0}
    if size:
        extra["bits_per_byte"] = nats / math.log(2) / size
    return EvalResult.from_items(
        items,
        name=name,
        layer="nll",
        metric="nll",
        settings=settings,
        asked=len(data),
        higher_is_better=False,
        extra=extra,
    )


async def _score(
    conversation: Conversation, item_id: str, target: Target, max_length: int, train_on: Any
) -> tuple[Item, int]:
    """Return the item of one conversation, and the bytes of its trained text."""
    from tinker_officer.data.render import to_datum

    datum = to_datum(conversation, target.renderer, max_length=max_length, train_on=train_on)
    if datum is None:  # cut so short that nothing is left to score: it stays on the card, with no weight
        return Item(item_id, 0.0, 0.0, 0, "nothing trained", "", "", conversation.id), 0
    targets = np.asarray(datum.loss_fn_inputs["target_tokens"].data, dtype=np.int64)
    weights = np.asarray(datum.loss_fn_inputs["weights"].data, dtype=np.float64)
    trained = float(weights.sum())
    tokens = [*datum.model_input.to_ints(), int(targets[-1])]
    shown = digest(tokens)[:16]
    nats_by_token = -np.asarray(await _logprobs(tokens, target), dtype=np.float64)
    used = weights > 0
    nats = float(nats_by_token[used] @ weights[used])
    size = len(target.renderer.tokenizer.decode(targets[used].tolist()).encode())
    item = Item(item_id, nats / trained, trained, int(used.sum()), "", "", shown, conversation.id)
    if not math.isfinite(nats):
        raise EvalError(
            "a conversation has no finite likelihood",
            got=f"{nats} nats for {conversation.where or item_id}",
            need="finite log-probabilities",
            fix="look at the checkpoint: its weights may hold NaN",
        )
    return item, size


async def _logprobs(tokens: list[int], target: Target) -> list[float]:
    """Return log p(token | those before it) for every token but the first, in nats."""
    import tinker

    prompt: tinker.ModelInput = tinker.ModelInput.from_ints(tokens)
    try:
        found = await target.client.compute_logprobs(prompt)
    except Exception as error:
        error.add_note(f"while scoring a held-out conversation of {len(tokens)} tokens")
        raise
    if len(found) != len(tokens):
        raise EvalError(
            "the service returned log-probabilities for another number of tokens",
            got=f"{len(found)} for {len(tokens)} tokens",
            need="one a token",
            fix="check the service's version",
        )
    return [math.nan if value is None else value for value in found[1:]]


def _context(base_model: str) -> int:
    from tinker_officer._models import read_config

    return int(read_config(base_model).get("max_position_embeddings") or 4096)
