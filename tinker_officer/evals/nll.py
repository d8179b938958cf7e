"""Layer 1: negative log-likelihood on held-out conversations, in nats per trained token.

What is scored is exactly what training would train on: the same renderer, the same weights, the same
truncation. Each conversation is one item, its score the mean over its trained tokens, its weight their
number; the value is their weighted mean, and conversations are the clusters of its interval, because the
tokens of one conversation are not independent.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Self

import attrs
import numpy as np

from tinker_officer._digest import digest
from tinker_officer.errors import EvalError
from tinker_officer.evals.cases import unique_ids
from tinker_officer.evals.kept import Kept, open_journal
from tinker_officer.evals.prepared import Context
from tinker_officer.evals.results import EvalResult, Item


if TYPE_CHECKING:
    import tinker

    from tinker_officer.data.conversations import Conversation, Conversations
    from tinker_officer.data.render import TrainOn
    from tinker_officer.evals.target import Target

IN_FLIGHT = 64  # conversations that are scored at once


async def run_nll(
    name: str,
    data: Conversations,
    target: Target,
    *,
    max_length: int | None,
    train_on: TrainOn,
    by: str | None = None,
    context: Context | None = None,
) -> EvalResult:
    """Return the negative log-likelihood of `data` under `target`.

    Args:
        name: the eval's name.
        data: held-out conversations.
        target: the opened target; a training client scores by its own forward pass.
        max_length: longest sequence in tokens, longer ones are cut; None for the model's context.
        train_on: `last` or `all` assistant turns.
        by: the field of the rows whose values make groups.
        context: where known items are kept.

    Raises:
        EvalError: a conversation could not be scored, or nothing in them is trained on.
    """
    context = context or Context()
    longest = max_length or target.context
    settings = {
        "kind": "nll",
        "data": data.fingerprint,
        "train_on": train_on,
        "max_length": longest,
        "renderer": target.renderer_name,
    }
    kept = Kept(await open_journal(context.at, name, target, settings))
    started = time.monotonic()
    names = unique_ids(conversation.id for conversation in data)
    rows = (
        _Row.read(conversation, item_id, target, longest, train_on, by)
        for conversation, item_id in zip(data, names, strict=True)
    )
    usage: Counter[str] = Counter()
    done = await _scored(rows, target, kept, context, usage)
    items = tuple(item for item, _ in done)
    return EvalResult.from_items(
        items,
        name=name,
        layer="nll",
        metric="nll",
        settings=settings,
        asked=len(data),
        higher_is_better=False,
        extra=_figures(name, items, sum(size for _, size in done), longest),
        usage={**usage, "seconds": time.monotonic() - started},
    )


def _figures(name: str, items: tuple[Item, ...], size: int, longest: int | None) -> dict[str, float]:
    """Return what else the likelihoods say: a token, a conversation, a byte."""
    trained = sum(item.weight for item in items)
    if items and not trained:
        raise EvalError(
            f"nothing in {name!r} is trained on",
            got=f"{len(items)} conversations, 0 trained tokens at max_length={longest}",
            need="conversations whose assistant turns fit",
            fix="suite.nll(held_out, max_length=2048)",
        )
    nats = sum(item.score * item.weight for item in items)
    scored = sum(1 for item in items if item.weight)
    figures = {
        "perplexity": math.exp(min(700.0, nats / trained)) if trained else 0.0,
        "nats_per_example": nats / max(1, scored),
    }
    return figures | ({"bits_per_byte": nats / math.log(2) / size} if size else {})


@attrs.frozen
class _Row:
    """One conversation, rendered; `datum` is None where nothing of it is trained on."""

    item: Item
    datum: tinker.Datum | None
    tokens: list[int]
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    size: int
    where: str

    @classmethod
    def read(
        cls,
        conversation: Conversation,
        item_id: str,
        target: Target,
        max_length: int | None,
        train_on: TrainOn,
        by: str | None,
    ) -> Self:
        from tinker_officer.data.render import to_datum

        group = "" if by is None else str(conversation.metadata.get(by, "(none)"))
        item = Item(item_id, 0.0, weight=0.0, cluster=conversation.id, group=group)
        datum = to_datum(conversation, target.renderer, max_length=max_length, train_on=train_on)
        if datum is None:  # cut so short that nothing is left to score: it stays on the card, with no weight
            nothing = np.zeros(0)
            return cls(attrs.evolve(item, stop_reason="nothing trained"), None, [], nothing, 0, item_id)
        targets = np.asarray(datum.loss_fn_inputs["target_tokens"].data, dtype=np.int64)
        weights = np.asarray(datum.loss_fn_inputs["weights"].data, dtype=np.float64)
        tokens = [*datum.model_input.to_ints(), int(targets[-1])]
        used = weights > 0
        size = len(target.renderer.tokenizer.decode(targets[used].tolist()).encode())
        item = attrs.evolve(
            item, weight=float(weights.sum()), tokens=int(used.sum()), input_digest=digest(tokens)[:16]
        )
        return cls(item, datum, tokens, weights, size, conversation.where or item_id)

    def scored(self, logprobs: Sequence[float | None]) -> Item:
        """Return the item with its score: mean nats a trained token, from log p of each target."""
        found = np.array([math.nan if value is None else value for value in logprobs], dtype=np.float64)
        if len(found) != len(self.weights):
            raise EvalError(
                "the service returned log-probabilities for another number of tokens",
                got=f"{len(found)} for {len(self.weights)} targets",
                need="one a target",
                fix="check the service's version",
            )
        used = self.weights > 0
        nats = float(-found[used] @ self.weights[used])
        if not math.isfinite(nats):
            raise EvalError(
                "a conversation has no finite likelihood",
                got=f"{nats} nats for {self.where}",
                need="finite log-probabilities",
                fix="look at the checkpoint: its weights may hold NaN",
            )
        return attrs.evolve(self.item, score=nats / self.item.weight)


async def _scored(
    rows: Iterable[_Row], target: Target, kept: Kept, context: Context, usage: Counter[str]
) -> list[tuple[Item, int]]:
    """Return each row's item, and the bytes of its trained text, batch by batch; count tokens in `usage`."""
    found: list[tuple[Item, int]] = []
    for batch in _batches(rows):
        known = {row.item.id: kept.get(row.item.id, row.item.input_digest) for row in batch}
        asked = [row for row in batch if row.datum is not None and known[row.item.id] is None]
        for row, logprobs in zip(asked, await _logprobs(asked, target), strict=True):
            usage["input_tokens"] += len(row.tokens)
            known[row.item.id] = item = row.scored(logprobs)
            kept.add(item)
        for row in batch:
            item = known[row.item.id] or row.item
            found.append((attrs.evolve(item, group=row.item.group), row.size))
            context.done()
    return found


def _batches(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    walk = iter(rows)
    while batch := list(islice(walk, IN_FLIGHT)):
        yield batch


async def _logprobs(rows: list[_Row], target: Target) -> list[list[float | None]]:
    """Return log p(target | those before it) of each row's targets, in nats."""
    import tinker

    if target.training is not None and rows:
        answer = await target.training.forward(
            [row.datum for row in rows if row.datum is not None], "cross_entropy"
        )
        outputs = answer.loss_fn_outputs
        return [[float(value) for value in output["logprobs"].data] for output in outputs]

    async def one(row: _Row) -> list[float | None]:
        try:
            found = await target.client.compute_logprobs(
                tinker.ModelInput.from_ints(row.tokens),
                prompt_logprobs_last_n=len(row.weights) - int(np.argmax(row.weights > 0)),
            )
        except Exception as error:
            error.add_note(f"while scoring a held-out conversation of {len(row.tokens)} tokens")
            raise
        return list(found[1:])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(row)) for row in rows]
    return [task.result() for task in tasks]
