"""Keys and values of the sequences that are being decoded, in a tensor a layer that grows; knows no requests.

Rows stay side by side: when one leaves, the last takes its place, so that a decode step reads one slab. Slabs
grow one after the other, so that the old and the new stand in memory together for one layer only.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own spelling

from tinker_officer.engine.borrowed import Borrowed, Texts
from tinker_officer.engine.decoder import Attend, packed_attention
from tinker_officer.engine.models import BaseModel


_TOKEN_STEP = 128  # a multiple of _LANES: what is read is always there
_LANES = 32  # attention reads whole vectors of positions, so an answer's bits do not depend on its neighbours


class Cache:
    """The keys and values of a batch of sequences with one adapter.

    Attributes:
        lengths: tokens in the cache, row by row.
    """

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self.lengths: list[int] = []
        self._slabs: list[Tensor] = []  # (rows, 2 x key heads, tokens, head size), keys before values

    def bytes_for(self, rows: int, tokens: int) -> int:
        """Return the memory that so many more rows, of up to so many tokens, would make this cache need."""
        longest = max([tokens, *self.lengths])
        shape = self._base.shape
        per_token = 2 * shape.layers * shape.kv_heads * shape.head_dim * self._base.activations.itemsize
        return (len(self.lengths) + rows) * longest * per_token

    def add(self, rows: int, tokens: int) -> int:
        """Make room for `rows` more sequences of `tokens` tokens; return the first one's index."""
        first = len(self.lengths)
        self._reserve(first + rows, max([tokens, *self.lengths]) + 1)  # may fail, with nothing changed
        self.lengths += [tokens] * rows
        return first

    def remove(self, row: int) -> None:
        """Forget a row; the last row takes its index."""
        last = len(self.lengths) - 1
        if row != last:
            for slab in self._slabs:
                slab[row, :, : self.lengths[last]] = slab[last, :, : self.lengths[last]]
            self.lengths[row] = self.lengths[last]
        del self.lengths[last]

    def _reserve(self, rows: int, tokens: int) -> None:
        shape = self._base.shape
        # The least of all slabs: growing may have failed half-way.
        have_rows = min((slab.shape[0] for slab in self._slabs), default=0)
        have_tokens = min((slab.shape[2] for slab in self._slabs), default=0)
        if rows <= have_rows and tokens <= have_tokens:
            return
        # What is held now, not what was once held: a long answer that has left must not make every row long.
        kept, longest = len(self.lengths), max(self.lengths, default=0)
        if rows > have_rows:
            rows += min(rows // 4, 16)
        tokens = -(-max(tokens, longest) // _TOKEN_STEP) * _TOKEN_STEP
        size = (max(rows, kept), 2 * shape.kv_heads, tokens, shape.head_dim)
        self._slabs = self._slabs or [torch.empty(0, *size[1:])] * shape.layers
        for layer, old in enumerate(self._slabs):
            # Zeros, not empty: a masked value of NaN would still poison the sum.
            slab = torch.zeros(size, dtype=self._base.activations, device=self._base.device)
            slab[:kept, :, :longest] = old[:kept, :, :longest]
            self._slabs[layer] = slab

    def prefilling(self, lengths: tuple[int, ...], rows: list[tuple[int, int] | None]) -> Attend | Texts:
        """Return packed attention that also stores each prompt in its rows.

        Args:
            lengths: of the prompts.
            rows: first row and how many rows of each prompt; None for a prompt that needs no cache.
        """
        packed, kv_heads = packed_attention(lengths), self._base.shape.kv_heads

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            start = 0
            for length, place in zip(lengths, rows, strict=True):
                if place is not None:
                    slab = self._slabs[layer][place[0] : place[0] + place[1]]
                    slab[:, :kv_heads, :length] = k[start : start + length].transpose(0, 1)
                    slab[:, kv_heads:, :length] = v[start : start + length].transpose(0, 1)
                start += length
            return packed(layer, q, k, v)

        return attend

    def decoding(self) -> tuple[Tensor, Attend | Texts]:
        """Begin a step of one token for every row; return the new tokens' positions and the attention."""
        count = len(self.lengths)
        device, kv_heads = self._base.device, self._base.shape.kv_heads
        positions = torch.tensor(self.lengths, device=device)
        longest, shortest = max(self.lengths) + 1, min(self.lengths) + 1
        self._reserve(count, longest)
        self.lengths = [length + 1 for length in self.lengths]
        longest, mask = -(-longest // _LANES) * _LANES, None
        if longest != shortest:
            late = torch.arange(longest, device=device) > positions[:, None]
            mask = torch.zeros(late.shape, dtype=self._base.activations, device=device)
            mask = mask.masked_fill_(late, float("-inf"))[:, None, None]
        slabs, head_dim = self._slabs, self._base.shape.head_dim
        heads = torch.arange(count * 2 * kv_heads, device=device)
        # Where a slab's rows of one head's numbers get the new token: indexing by row and position is slower.
        places = heads * slabs[0].shape[2] + positions.repeat_interleave(2 * kv_heads)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            slab = slabs[layer]
            slab.view(-1, head_dim).index_copy_(0, places, torch.cat((k, v), dim=1).view(-1, head_dim))
            read = slab[:count, :, :longest]
            # The query heads of one key head stand as its query positions: no key is repeated.
            grouped = q.reshape(count, kv_heads, -1, q.shape[-1])
            mixed = F.scaled_dot_product_attention(
                grouped, read[:, :kv_heads], read[:, kv_heads:], attn_mask=mask
            )
            return mixed.reshape(count, -1)

        return positions, attend


class RowCaches(Cache):
    """transformers' own caches, one a row: those of a borrowed model."""

    def __init__(self, base: Borrowed) -> None:
        super().__init__(base)
        self._borrowed = base
        self._rows: list[Any] = []

    def add(self, rows: int, tokens: int) -> int:
        """Make room for `rows` more sequences of `tokens` tokens; return the first one's index."""
        first = len(self.lengths)
        self._rows += [None] * rows
        self.lengths += [tokens] * rows
        return first

    def remove(self, row: int) -> None:
        """Forget a row; the last row takes its index."""
        self._rows[row], self.lengths[row] = self._rows[-1], self.lengths[-1]
        del self._rows[-1], self.lengths[-1]

    def prefilling(self, lengths: tuple[int, ...], rows: list[tuple[int, int] | None]) -> Texts:
        """Return how to read prompts, each into its rows."""
        caches = tuple(None if place is None else self._borrowed.new_cache() for place in rows)

        def keep() -> None:
            for cache, place in zip(caches, rows, strict=True):
                if place is not None:
                    first, count = place
                    others = [copy.deepcopy(cache) for _ in range(count - 1)]
                    self._rows[first : first + count] = [cache, *others]

        return Texts(lengths, caches, keep)

    def decoding(self) -> tuple[Tensor, Texts]:
        """Begin a step of one token for every row; return the new tokens' positions and the rows."""
        positions = torch.tensor(self.lengths, device=self._base.device)
        self.lengths = [length + 1 for length in self.lengths]
        return positions, Texts((1,) * len(self._rows), tuple(self._rows))


def cache_for(base: BaseModel) -> Cache:
    """Return an empty cache for a batch of sequences with one adapter."""
    return RowCaches(base) if isinstance(base, Borrowed) else Cache(base)
