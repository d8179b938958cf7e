"""Sampling requests in, sequences out, many at a time; knows nothing of HTTP, futures or checkpoints.

Continuous batching: each `step` either prefills waiting prompts, packed in one row without padding, or
decodes one token for every running sequence of one adapter. Short answers leave, new prompts enter. Equal
prompts that wait together, and the samples of one request, share a prefill. Answers that outgrow the memory
for keys and values are paused, those that have said least first, and read again when there is room.

Decided, and the source:
    - `max_tokens` is cut to what the context leaves; without it, it is that (stop_reason "length").
    - Explicit stops replace the model's own end-of-sequence tokens, and none at all disables them (the SDK's
      `SamplingParams.stop`: "None keeps implicit EOS stopping; [] disables all stop tokens, including EOS").
    - The token that stops is part of the answer: the cookbook's renderers look for it.
    - Log-probabilities are the model's own, at temperature 1 (`choosing.py` says why).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from tinker_officer import _memory
from tinker_officer.engine.cache import Cache, cache_for
from tinker_officer.engine.choosing import choose
from tinker_officer.engine.decoder import hidden_states
from tinker_officer.engine.examples import check_tokens
from tinker_officer.engine.lora import Adapter
from tinker_officer.engine.models import BaseModel
from tinker_officer.engine.probing import probe
from tinker_officer.engine.projections import Projections, merged
from tinker_officer.engine.sampling import (
    Request,
    Row,
    SampleOutput,
    SampleSequence,
    SampleSpec,
    check_parameters,
)
from tinker_officer.engine.scoring import score
from tinker_officer.errors import EngineError


__all__ = ["SampleOutput", "SampleSequence", "SampleSpec", "Sampler"]
PREFILL_TOKENS = 1024  # of one step, unless one prompt alone is longer
MAX_ROWS = 64  # sequences of one adapter that are decoded together, and answers of one token in a step
CACHE_BYTES = 600_000_000  # of keys and values of one adapter, beyond which answers wait
MERGED_ADAPTERS = 2  # weights with an adapter merged in that stay in memory
PATIENCE = 32  # steps before another adapter's turn, when their weights do not all fit


@attrs.define(eq=False)
class _Group:
    """The running answers of one adapter."""

    adapter: Adapter | None
    cache: Cache
    rows: list[Row]


class Sampler:
    """The sampling requests of one base model, with any adapters.

    Args:
        base: the frozen model.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self._waiting: OrderedDict[str, Request] = OrderedDict()
        self._groups: OrderedDict[int, _Group] = OrderedDict()
        self._weights: OrderedDict[int, tuple[Adapter | None, Projections]] = OrderedDict()
        self._paused: list[Row] = []  # whose keys and values had to go; they go on before new ones start
        self._turns = 0
        self._tokenizer: Any = None

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self._waiting or self._paused or self._groups)

    def add(self, request_id: str, spec: SampleSpec, adapter: Adapter | None = None) -> None:
        """Take a request.

        Args:
            request_id: what its answer will be called.
            spec: what to sample.
            adapter: a snapshot that nobody changes; None for the bare base model.

        Raises:
            EngineError: the request is not valid; nothing is taken.
        """
        prompt = check_tokens("the prompt", np.asarray(spec.prompt), self.base)
        check_parameters(spec, self.base.vocab_size)
        if spec.stop_strings:
            self._decoder()  # what is missing must fail this request, not the batch that it joins
        # The last token sampled need not fit: nothing is asked of the model behind it.
        room = self.base.max_context - prompt.size + 1
        limit = room if spec.max_tokens is None else min(spec.max_tokens, room)
        stops = spec.stop_tokens
        if stops is None:
            stops = () if spec.stop_strings else self.base.eos_ids
        spec = attrs.evolve(spec, prompt=prompt)
        self._waiting[request_id] = Request(request_id, spec, adapter, limit, frozenset(stops))

    def cancel(self, request_id: str) -> None:
        """Forget a request; no answer will come."""
        self._waiting.pop(request_id, None)
        self._paused = [row for row in self._paused if row.request.name != request_id]
        for group in list(self._groups.values()):
            self._drop(group, lambda row: row.request.name == request_id)

    @torch.no_grad()
    def step(self) -> list[tuple[str, SampleOutput | Exception]]:
        """Do one piece of work, a prefill or one token for each running answer of an adapter.

        Returns:
            The requests that are finished, or have failed, by id.
        """
        rows, group = self._next_resume()
        if rows and group is not None:
            return self._guarded(group, [row.request for row in rows], lambda: self._resume(group, rows))
        batch, group = self._next_prefill()
        if batch and group is not None:
            return self._guarded(group, batch, lambda: self._prefill(group, batch))
        if not self._groups:
            return []
        group = self._next_group()
        return self._guarded(group, [row.request for row in group.rows], lambda: self._decode(group))

    def _guarded(
        self, group: _Group, requests: Iterable[Request], work: Any
    ) -> list[tuple[str, SampleOutput | Exception]]:
        """Run a piece of work; if it fails, fail its requests and no others."""
        try:
            finished: list[tuple[str, SampleOutput | Exception]] = work()
        except Exception as error:  # noqa: BLE001 - whatever it was (out of memory, say), others go on
            names = list(dict.fromkeys(request.name for request in requests))
            for name in names:
                self.cancel(name)
            finished = [(name, error) for name in names]
        if not group.rows:
            self._groups.pop(id(group.adapter), None)
        return finished

    def _next_group(self) -> _Group:
        """Return whose turn it is: each in turn, but longer turns when switching means merging weights."""
        self._turns += 1
        patience = 1 if len(self._groups) <= MERGED_ADAPTERS else PATIENCE
        if self._turns >= patience:
            self._turns = 0
            self._groups.move_to_end(next(iter(self._groups)))
        return next(iter(self._groups.values()))

    def _next_prefill(self) -> tuple[dict[Request, int], _Group | None]:
        """Return waiting requests of one adapter, how many answers of each fit, and the group they join."""
        batch: dict[Request, int] = {}
        group: _Group | None = None
        tokens, rows, single = 0, 0, 0
        paused = {id(row.request.adapter) for row in self._paused}
        for request in self._waiting.values():
            if id(request.adapter) in paused:
                continue  # its adapter's paused answers go on first
            if group is None:
                group = self._groups.get(id(request.adapter)) or _Group(
                    request.adapter, cache_for(self.base), []
                )
            if request.adapter is not group.adapter:
                continue
            new = 0 if any(other.key == request.key for other in batch) else request.spec.prompt.size
            want = min(request.spec.num_samples - request.started, MAX_ROWS)
            if batch and tokens + new > PREFILL_TOKENS:
                break
            if request.limit == 1:  # its answers leave at once, and need logits but no cache
                if batch and single + want > MAX_ROWS:
                    break
                single += want
            else:
                longest = request.spec.prompt.size + _headroom(request.limit)
                alone = not (group.rows or rows)
                if alone:  # as many answers as fit, and one that does not
                    want = max(1, min(want, CACHE_BYTES // group.cache.bytes_for(1, longest)))
                full = len(group.rows) + rows + want > MAX_ROWS
                if not alone and (full or group.cache.bytes_for(rows + want, longest) > CACHE_BYTES):
                    break
                rows += want
            batch[request] = want
            tokens += new
        return batch, group

    def _prefill(
        self, group: _Group, batch: dict[Request, int]
    ) -> list[tuple[str, SampleOutput | Exception]]:
        prompts: dict[bytes, list[Request]] = {}
        for request in batch:
            prompts.setdefault(request.key, []).append(request)
        lengths = tuple(requests[0].spec.prompt.size for requests in prompts.values())
        places: list[tuple[int, int] | None] = []
        starting: list[tuple[int, Row]] = []  # which prompt, which answer; those that go on stand first
        for index, (requests, length) in enumerate(zip(prompts.values(), lengths, strict=True)):
            rows = [row for request in requests for row in request.start(batch[request])]
            going = [row for row in rows if row.request.limit > 1]
            places.append((group.cache.add(len(going), length), len(going)) if going else None)
            group.rows += going
            starting += [(index, row) for row in rows]
        weights = self._projections(group.adapter)
        hidden = self._read(
            group, weights, [requests[0].spec.prompt for requests in prompts.values()], places
        )
        score(self.base, weights, list(prompts.values()), hidden)
        probe(self.base, weights.head, list(prompts.values()), hidden)
        last = weights.head(hidden[self._tensor(np.cumsum(lengths) - 1)]).float()
        logits = last[self._tensor(np.array([index for index, _ in starting]))]
        for request in batch:
            if request.started == request.spec.num_samples:
                del self._waiting[request.name]
        return self._advance(group, [row for _, row in starting], logits)

    def _read(
        self,
        group: _Group,
        weights: Projections,
        texts: list[np.ndarray],
        places: list[tuple[int, int] | None],
    ) -> Tensor:
        """Return the last hidden states of texts, one after another, and keep their keys and values."""
        lengths = tuple(text.size for text in texts)
        positions = np.concatenate([np.arange(length) for length in lengths])
        attend = group.cache.prefilling(lengths, places)
        return hidden_states(
            self.base, weights, self._tensor(np.concatenate(texts)), self._tensor(positions), attend
        )

    def _next_resume(self) -> tuple[list[Row], _Group | None]:
        """Return paused answers of one adapter that fit again, and the group they join."""
        for adapter in {id(row.request.adapter): row.request.adapter for row in self._paused}.values():
            group = self._groups.get(id(adapter)) or _Group(adapter, cache_for(self.base), [])
            chosen: list[Row] = []
            tokens, longest = 0, max(group.cache.lengths, default=0)
            for row in self._paused:
                if row.request.adapter is not adapter:
                    continue
                tokens += row.size
                longest = max(longest, row.size)
                if group.rows or chosen:  # one goes on in any case
                    room = longest + _headroom(row.request.limit - len(row.tokens))
                    full = len(group.rows) + len(chosen) >= MAX_ROWS or tokens > PREFILL_TOKENS
                    if full or group.cache.bytes_for(len(chosen) + 1, room) > CACHE_BYTES:
                        break
                chosen.append(row)
            if chosen:
                return chosen, group
        return [], None

    def _resume(self, group: _Group, rows: list[Row]) -> list[tuple[str, SampleOutput | Exception]]:
        """Read again what paused answers have said so far, and give each its next token."""
        self._paused = [row for row in self._paused if not any(row is other for other in rows)]
        texts = [np.concatenate([row.request.spec.prompt, np.array(row.tokens, np.int64)]) for row in rows]
        places: list[tuple[int, int] | None] = [(group.cache.add(1, text.size), 1) for text in texts]
        group.rows += rows
        weights = self._projections(group.adapter)
        hidden = self._read(group, weights, texts, places)
        ends = np.cumsum([text.size for text in texts]) - 1
        return self._advance(group, rows, weights.head(hidden[self._tensor(ends)]).float())

    def _pause(self, group: _Group) -> None:
        """Let answers wait whose keys and values no longer fit: those that have said least."""
        while len(group.rows) > 1 and group.cache.bytes_for(0, max(group.cache.lengths) + 1) > CACHE_BYTES:
            shortest = min(reversed(group.rows), key=lambda row: len(row.tokens))
            self._drop(group, lambda row, chosen=shortest: row is chosen)
            self._paused.append(shortest)

    def _decode(self, group: _Group) -> list[tuple[str, SampleOutput | Exception]]:
        self._pause(group)
        weights = self._projections(group.adapter)
        tokens = torch.tensor([row.tokens[-1] for row in group.rows], device=self.base.device)
        positions, attend = group.cache.decoding()
        hidden = hidden_states(self.base, weights, tokens, positions, attend)
        return self._advance(group, list(group.rows), weights.head(hidden).float())

    def _advance(
        self, group: _Group, rows: list[Row], logits: Tensor
    ) -> list[tuple[str, SampleOutput | Exception]]:
        """Give every row its next token; return the requests that this finishes."""
        tokens, logprobs = choose(logits, [row.request.choice for row in rows], [row.stream for row in rows])
        failed: dict[str, Exception] = {}
        ended: dict[str, Request] = {}
        over: set[int] = set()
        for place, (row, token, logprob) in enumerate(
            zip(rows, tokens.tolist(), logprobs.tolist(), strict=True)
        ):
            if not math.isfinite(logprob):
                failed[row.request.name] = _not_finite()
                continue
            row.tokens.append(token)
            row.logprobs.append(logprob)
            if row.request.spec.topk_sample_logprobs:
                top = torch.topk(torch.log_softmax(logits[place], -1), row.request.spec.topk_sample_logprobs)
                row.topk.append((top.indices.tolist(), top.values.tolist()))
            reason = self._reason(row)
            if reason:
                row.request.done[row.index] = row.sequence(reason)
                ended[row.request.name] = row.request
                over.add(id(row))
        self._drop(group, lambda row: id(row) in over or row.request.name in failed)
        for name in failed:
            self.cancel(name)
        finished: list[tuple[str, SampleOutput | Exception]] = list(failed.items())
        finished += [
            (name, request.output())
            for name, request in ended.items()
            if name not in failed and len(request.done) == request.spec.num_samples
        ]
        return finished

    def _reason(self, row: Row) -> str:
        """Return why a row is over, or nothing."""
        if row.tokens[-1] in row.request.stops or self._stop_string(row):
            return "stop"
        return "length" if len(row.tokens) >= row.request.limit else ""

    def _stop_string(self, row: Row) -> bool:
        texts = row.request.spec.stop_strings
        if not texts:
            return False
        # Every token is at least a byte; a few more, so that no character is cut where the tail begins.
        tail = row.tokens[-(max(len(text.encode()) for text in texts) + 4) :]
        decoded = self._decoder().decode(tail, skip_special_tokens=False)
        return any(text in decoded for text in texts)

    def _decoder(self) -> Any:
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(self.base.folder / "tokenizer.json"))
        return self._tokenizer

    def _drop(self, group: _Group, over: Any) -> None:
        """Take rows out of a group and its cache."""
        for place in range(len(group.rows) - 1, -1, -1):
            if over(group.rows[place]):
                group.cache.remove(place)
                last = group.rows.pop()
                if place < len(group.rows):
                    group.rows[place] = last
        if not group.rows:
            self._groups.pop(id(group.adapter), None)
        else:
            self._groups[id(group.adapter)] = group

    def rest(self) -> None:
        """Give up the merged weights, while nothing is sampled: training needs the room."""
        if self._weights and not self.busy:
            self._weights.clear()
            _memory.release()

    def _projections(self, adapter: Adapter | None) -> Projections:
        """Return the weights with an adapter merged in, from a few that are kept."""
        key = id(adapter)
        if key not in self._weights:
            _memory.release()  # what training left behind
            while len(self._weights) >= MERGED_ADAPTERS:
                self._weights.popitem(last=False)
            self._weights[key] = (adapter, merged(self.base, adapter))
        self._weights.move_to_end(key)
        return self._weights[key][1]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.base.device)


def _headroom(limit: int) -> int:
    """Return how much of an answer to reserve memory for: most are shorter than they may be."""
    return min(limit, 256)


def _not_finite() -> EngineError:
    return EngineError(
        "the model's output is not finite",
        got="NaN or infinite logits",
        need="weights that give finite numbers",
        fix="sample from an earlier checkpoint; lower learning_rate when training",
    )
