"""Answers that are not ready yet, and those not fetched yet."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Collection

import attrs

from tinker_officer.engine.refusal import Refused


@attrs.frozen
class Reply:
    """The body of an answer, ready to send."""

    body: bytes = attrs.field(repr=False)
    media_type: str = "application/json"


@attrs.define(eq=False)
class Future:
    """One promised answer."""

    id: str
    owner: str
    seq: int | None
    done: asyncio.Future[Reply]
    samples: int = 0  # how many the SDK wants to know the names of at once
    fetched: bool = False


class Futures:
    """The table of promised answers. For the event loop's thread only.

    A request that comes twice (the SDK sends one again when a connection breaks) is done once: it is
    known by its owner (a model or a sampler) and its number, as long as the owner is there. An answer is
    kept until it is fetched, and after that as long as there is room, so that a fetch that got lost can be
    repeated.

    Args:
        waiting: how many requests may be unanswered at a time.
        fetched_bytes: how much answers that were fetched may take before the oldest go.
        unfetched_bytes: how much those that nobody fetched may take before the oldest go.
        remembered: how many requests are remembered, so that they are not done twice; and all that wait.
    """

    def __init__(
        self,
        *,
        waiting: int = 20_000,
        fetched_bytes: int = 32 * 2**20,
        unfetched_bytes: int = 512 * 2**20,
        remembered: int = 50_000,
    ) -> None:
        self._limit, self._remembered = waiting, remembered
        self._room = {True: fetched_bytes, False: unfetched_bytes}
        self._futures: dict[str, Future] = {}
        self._answered: dict[bool, OrderedDict[str, Future]] = {True: OrderedDict(), False: OrderedDict()}
        self._held = {True: 0, False: 0}
        self._known: OrderedDict[tuple[str, int], Future] = OrderedDict()
        self._waiting = 0
        self._closed = False

    def begin(self, owner: str, seq: int | None) -> tuple[Future, bool]:
        """Return the future of request `seq` of `owner`, and whether it is new.

        Raises:
            Refused: too many requests are waiting (429; the SDK waits and tries again).
        """
        if seq is not None and (owner, seq) in self._known:
            return self._known[owner, seq], False
        if self._waiting >= self._limit:
            raise Refused(
                "too many requests are waiting",
                got=f"{self._waiting} unanswered requests",
                need=f"at most {self._limit}",
                fix="wait for results before sending more",
                status=429,
            )
        future = Future(uuid.uuid4().hex, owner, seq, asyncio.get_running_loop().create_future())
        self._futures[future.id] = future
        self._waiting += 1
        if seq is not None:
            self._known[owner, seq] = future
            if len(self._known) > self._remembered:
                self._forget_oldest()
        return future, True

    def finish(self, future: Future, reply: Reply) -> None:
        """Answer `future`; a second answer is ignored."""
        if future.done.done():
            return
        future.done.set_result(reply)
        self._waiting -= 1
        self._hold(future, fetched=False)

    async def wait(self, request_id: str, timeout_s: float) -> Reply | None:
        """Return the answer to `request_id`, or None when it is not there after `timeout_s`.

        Raises:
            Refused: nothing is known of the request, or the engine is stopping (410).
        """
        future = self._futures.get(request_id)
        if future is None or (self._closed and not future.done.done()):
            raise _gone(request_id)
        if not future.done.done():
            await asyncio.wait([future.done], timeout=timeout_s)
        if not future.done.done():
            return None
        if future.done.cancelled():
            raise _gone(request_id)
        reply = future.done.result()
        if not future.fetched and future.id in self._futures:
            self._release(future)
            future.fetched = True
            self._hold(future, fetched=True)
        return reply

    def get(self, request_id: str) -> Future | None:
        """Return the future of `request_id`, if it is known."""
        return self._futures.get(request_id)

    def forget(self, owners: Collection[str]) -> list[str]:
        """Drop everything of `owners`; who waits for it is told that it is gone.

        Returns:
            The requests that had no answer yet.
        """
        theirs = [future for future in self._futures.values() if future.owner in owners]
        unanswered = [future.id for future in theirs if not future.done.done()]
        for future in theirs:
            self._drop(future)
        for known in [known for known in self._known if known[0] in owners]:  # none of them can come again
            del self._known[known]
        return unanswered

    def close(self) -> None:
        """Wake everyone who waits, and tell them that their answer will not come."""
        self._closed = True
        for future in list(self._futures.values()):
            future.done.cancel()

    def __len__(self) -> int:
        return len(self._futures)

    @property
    def waiting(self) -> int:
        """How many requests have no answer yet."""
        return self._waiting

    def _forget_oldest(self) -> None:
        """Forget the oldest request, or put it last while it waits: its work must not be done twice."""
        known, future = self._known.popitem(last=False)
        if future.id in self._futures and not future.done.done():
            self._known[known] = future

    def _hold(self, future: Future, *, fetched: bool) -> None:
        held = self._answered[fetched]
        held[future.id] = future
        self._held[fetched] += len(future.done.result().body)
        while self._held[fetched] > self._room[fetched] or len(held) > self._remembered:
            self._drop(next(iter(held.values())))

    def _release(self, future: Future) -> None:
        del self._answered[future.fetched][future.id]
        self._held[future.fetched] -= len(future.done.result().body)

    def _drop(self, future: Future) -> None:
        del self._futures[future.id]
        if future.id in self._answered[future.fetched]:
            self._release(future)
            future.done = future.done.get_loop().create_future()  # the request stays known, its answer goes
        elif not future.done.done():
            self._waiting -= 1
        future.done.cancel()


def _gone(request_id: str) -> Refused:
    return Refused(
        "the answer to this request is gone",
        got=request_id[:64],
        need="a request that this engine took, and still runs",
        fix="the engine was stopped or started again: make a new client from the last saved state,"
        " service_client.create_training_client_from_state_with_optimizer(path)",
        status=410,
    )
