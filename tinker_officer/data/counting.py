"""Counting the tokens of conversations: exactly, on all cores, in constant memory.

The reference is the renderer itself, a conversation at a time. Where the renderer has a layout, blocks of
conversations are read, laid out, encoded and counted in threads: the encoders release the interpreter
lock, so the cores encode while one of them reads. Threads, and no processes: nothing is started anew, and
a script needs no `__main__` guard. A sample of every corpus is counted both ways; on any difference the
next slower way is taken, and a warning says so.
"""

from __future__ import annotations

import collections
import hashlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer._memory import release as release_memory
from tinker_officer._progress import Progress
from tinker_officer.data import columns
from tinker_officer.data.encoders import Encoder, encoders_for
from tinker_officer.data.layouts import Batch, Layout, fixed_tokens, layout_for, put
from tinker_officer.data.render import TrainOn, example


if TYPE_CHECKING:
    from tinker_cookbook.renderers import Renderer

    from tinker_officer.data.conversations import Conversation
    from tinker_officer.data.messages import Json

logger = logging.getLogger(__name__)

# What is kept of a conversation: its length before truncation, how many of its tokens are trained on, and a
# digest of what remains, each token with its mask as the highest bit.
ROW = np.dtype([("length", "<i4"), ("trained", "<i4"), ("digest", "u1", (16,))])
Rows = npt.NDArray[Any]

_SAMPLE = 200  # conversations of every corpus that are counted both ways
_BLOCK = 1_024  # conversations that a thread takes at a time
_BLOCKS_HELD = 32  # after as many, columns are released
_LETTERS = 1 << 17  # text that is encoded in one call
_SOON_ROWS = 2_000
_RENDERING = threading.Lock()  # a Hugging Face tokenizer changes its settings while it encodes


class Countable(Protocol):
    """What can be counted: `Conversations`, or one side of `Pairs`."""

    @property
    def content_digests(self) -> npt.NDArray[np.uint8]:
        """The digest of each row's content, in order, shape `(rows, 16)`."""

    @property
    def fingerprint(self) -> str:
        """A hash of the content of all rows, in whatever order they stand."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Conversation: ...

    def plain_messages(self, indices: Sequence[int]) -> Iterator[Sequence[Json] | None]:
        """Yield the messages of each row, None for one that only the renderer can write."""


def count(
    conversations: Countable,
    renderer: Renderer,
    *,
    limit: int | None,
    train_on: TrainOn,
    progress: bool | None = None,
    within: range | None = None,
    cores: int | None = None,
) -> Rows:
    """Return a `ROW` for each conversation, in order.

    Args:
        conversations: what is counted.
        renderer: the cookbook's.
        limit: tokens after which a conversation is cut.
        train_on: the mask.
        progress: show progress; None shows it for many rows.
        within: only these rows.
        cores: how many threads count; None for as many as this process may use.

    Raises:
        DataError: a row cannot be rendered, or is no longer what was checked.
    """
    way = fastest(conversations, renderer, limit=limit, train_on=train_on)
    within = range(len(conversations)) if within is None else within
    rows = columns.zeros(len(within), ROW)
    release_memory()  # what reading the tokenizer left
    if progress is None and len(rows) < _SOON_ROWS:
        progress = False
    with Progress(len(rows), "measuring", unit="conversations", show=progress) as bar:
        for start, block in _blocks(way, within, cores or _cores()):
            rows[start - within.start : start - within.start + len(block)] = block
            bar.advance(len(block))
            if start // _BLOCK % _BLOCKS_HELD == 0:
                columns.release()
    return rows


@attrs.frozen(eq=False)
class Way:
    """How conversations are counted: by the renderer alone, or by a layout and an encoder."""

    conversations: Countable
    renderer: Renderer
    limit: int | None
    train_on: TrainOn
    layout: Layout | None = None
    encoder: Encoder | None = None

    def rows(self, indices: Sequence[int]) -> Rows:
        """Return a `ROW` for each of these conversations."""
        rows = np.zeros(len(indices), ROW)
        if self.layout is None or self.encoder is None:
            for place, index in enumerate(indices):
                rows[place] = self.rendered(self.conversations[index])
            return rows
        batch, places = Batch(), list[int]()
        for place, messages in enumerate(self.conversations.plain_messages(indices)):
            if messages is not None and put(batch, self.layout, messages, self.train_on):
                places.append(place)
            else:
                rows[place] = self.rendered(self.conversations[indices[place]])
            if batch.letters >= _LETTERS:
                rows[places] = laid_out(batch, self.layout, self.encoder, self.limit)
                batch, places = Batch(), []
        if places:
            rows[places] = laid_out(batch, self.layout, self.encoder, self.limit)
        return rows

    def rendered(self, conversation: Conversation) -> tuple[int, int, npt.NDArray[np.uint8]]:
        """Return the `ROW` of one conversation, as the renderer writes it."""
        with _RENDERING:
            model_input, weights = example(conversation, self.renderer, train_on=self.train_on)
        mask = weights.numpy()[: self.limit] > 0
        mask[:1] = False  # nothing predicts the first token
        tokens = np.array(model_input.to_ints()[: self.limit], "<u4") | (mask.astype("<u4") << np.uint32(31))
        return model_input.length, int(mask.sum()), np.frombuffer(_digest(tokens), np.uint8)


def laid_out(batch: Batch, layout: Layout, encoder: Encoder, limit: int | None) -> Rows:
    """Return a `ROW` for each conversation of `batch`."""
    fixed, header_lengths = fixed_tokens(layout)
    tokens, begins = encoder.encode(batch.texts)
    source = np.concatenate([np.array(fixed, "<u4"), tokens])
    lengths_h = np.array(header_lengths, np.int64)
    starts_h = np.cumsum(lengths_h) - lengths_h
    headers = np.array(batch.headers)
    trained = np.array(batch.trained, "<u4")
    # Three pieces a message: header, text, end token. Where each begins in `source`, and how long it is.
    starts = np.stack(
        [starts_h[headers], begins[:-1] + len(fixed), np.full(len(headers), len(fixed) - 1)], axis=1
    ).ravel()
    lengths = np.stack([lengths_h[headers], np.diff(begins), np.ones(len(headers), np.int64)], axis=1).ravel()
    marks = np.stack([np.zeros_like(trained), trained, trained], axis=1).ravel()
    ends = np.cumsum(lengths)
    marked = source[np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1])]
    marked |= np.repeat(marks << np.uint32(31), lengths)
    # Conversations: where each ends in `marked`, and where it is cut.
    stops = ends[3 * np.cumsum(batch.messages) - 1]
    begin = np.concatenate([[0], stops[:-1]])
    cuts = stops if limit is None else np.minimum(stops, begin + limit)
    so_far = np.concatenate([[0], np.cumsum(marked >> np.uint32(31), dtype=np.int64)])
    rows = np.empty(len(stops), ROW)
    rows["length"] = stops - begin
    rows["trained"] = so_far[cuts] - so_far[begin]
    view = memoryview(marked)
    digests = b"".join(_digest(view[a:b]) for a, b in zip(begin.tolist(), cuts.tolist(), strict=True))
    rows["digest"] = np.frombuffer(digests, np.uint8).reshape(-1, 16)
    return rows


def fastest(conversations: Countable, renderer: Renderer, *, limit: int | None, train_on: TrainOn) -> Way:
    """Return the fastest way that counts a sample of `conversations` as the renderer does."""
    reference = Way(conversations, renderer, limit, train_on)
    layout = layout_for(renderer) if len(conversations) > _SAMPLE else None
    if layout is None:
        return reference
    sample = np.linspace(0, len(conversations) - 1, _SAMPLE).astype(int).tolist()
    expected = _sampled(reference, sample)
    for encoder in encoders_for(renderer.tokenizer):
        way = attrs.evolve(reference, layout=layout, encoder=encoder)
        try:
            wrong = np.flatnonzero(_sampled(way, sample) != expected)
        except Exception as error:  # noqa: BLE001 - an encoder that fails in whatever way is not used
            logger.warning("data.measure: %s failed (%s); a slower way is taken", encoder.name, error)
            continue
        if not len(wrong):
            return way
        logger.warning(
            "data.measure: with %s, %d of %d sampled conversations are not what %s writes (first: %s); "
            "a slower way is taken",
            encoder.name,
            len(wrong),
            len(sample),
            type(renderer).__name__,
            conversations[sample[wrong[0]]].where,
        )
    return reference


def _sampled(way: Way, sample: Sequence[int]) -> Rows:
    """Return the rows of a sample from all over the corpus: each touches pages of its own, so in parts."""
    return np.concatenate([way.rows(sample[part]) for part in columns.blocks(len(sample), _SAMPLE // 8)])


def _blocks(way: Way, within: range, workers: int) -> Iterator[tuple[int, Rows]]:
    """Yield where each block of conversations begins, and its rows, in order."""
    blocks = (within[start : start + _BLOCK] for start in range(0, len(within), _BLOCK))
    if way.encoder is None:  # the renderer runs under the interpreter lock: threads would only wait
        for block in blocks:
            yield block.start, way.rows(block)
        return
    executor = ThreadPoolExecutor(workers, thread_name_prefix="measure")
    waiting: collections.deque[tuple[int, Future[Rows]]] = collections.deque()
    try:
        for block in blocks:
            waiting.append((block.start, executor.submit(way.rows, block)))
            if len(waiting) > 2 * workers:
                start, future = waiting.popleft()
                yield start, future.result()
        while waiting:
            start, future = waiting.popleft()
            yield start, future.result()
    finally:
        executor.shutdown(cancel_futures=True)


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _digest(tokens: Any) -> bytes:
    return hashlib.blake2b(tokens, digest_size=16).digest()
