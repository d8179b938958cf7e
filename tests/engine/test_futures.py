"""Promised answers: once each, kept until fetched, and never more than there is room for."""

from __future__ import annotations

import asyncio

import pytest

from tinker_officer.engine.futures import Futures, Reply
from tinker_officer.engine.refusal import Refused


def reply(text: str = "x") -> Reply:
    return Reply(text.encode())


def test_an_answer_can_be_fetched_again() -> None:
    """An answer that was fetched is still there, should the connection have broken."""

    async def scenario() -> None:
        futures = Futures()
        future, fresh = futures.begin("model", 1)
        assert fresh
        assert await futures.wait(future.id, 0.01) is None
        futures.finish(future, reply())
        futures.finish(future, reply("second"))
        assert await futures.wait(future.id, 1) == await futures.wait(future.id, 1) == reply()

    asyncio.run(scenario())


def test_waiting_ends_as_soon_as_the_answer_comes() -> None:
    """Several that wait for one answer all get it when it comes."""

    async def scenario() -> None:
        futures = Futures()
        future, _ = futures.begin("model", 1)
        waiting = [asyncio.ensure_future(futures.wait(future.id, 30)) for _ in range(3)]
        await asyncio.sleep(0.01)
        futures.finish(future, reply())
        assert await asyncio.wait_for(asyncio.gather(*waiting), 1) == [reply()] * 3

    asyncio.run(scenario())


def test_a_number_is_known_per_owner() -> None:
    """The same owner and number is the same promise; another owner, or no number, is another."""

    async def scenario() -> None:
        futures = Futures()
        first, _ = futures.begin("model", 1)
        assert futures.begin("model", 1) == (first, False)
        assert futures.begin("other", 1)[0] is not first
        assert futures.begin("model", None)[0] is not futures.begin("model", None)[0]

    asyncio.run(scenario())


def test_fetched_answers_go_first_when_room_is_short() -> None:
    """Old fetched answers are dropped for new ones, and so are unfetched ones beyond their own room."""

    async def scenario() -> None:
        futures = Futures(fetched_bytes=25, unfetched_bytes=25)
        promised = [futures.begin("model", number)[0] for number in range(6)]
        for future in promised[:3]:
            futures.finish(future, reply("0123456789"))
            await futures.wait(future.id, 1)
        with pytest.raises(Refused, match="gone") as caught:
            await futures.wait(promised[0].id, 1)
        assert caught.value.status == 410
        assert await futures.wait(promised[2].id, 1)
        for future in promised[3:]:
            futures.finish(future, reply("0123456789"))
        assert futures.waiting == 0
        with pytest.raises(Refused, match="gone"):
            await futures.wait(promised[3].id, 1)
        assert futures.begin("model", 3) == (promised[3], False), (
            "it is not done twice, though its answer is gone"
        )

    asyncio.run(scenario())


def test_too_many_waiting_requests_are_turned_away() -> None:
    """Beyond the limit a request is refused with 429, which the SDK waits out."""

    async def scenario() -> None:
        futures = Futures(waiting=2)
        first, _ = futures.begin("model", 1)
        futures.begin("model", 2)
        with pytest.raises(Refused, match="too many") as caught:
            futures.begin("model", 3)
        assert caught.value.status == 429
        futures.finish(first, reply())
        assert futures.begin("model", 3)[1]

    asyncio.run(scenario())


def test_a_request_that_waits_is_remembered_however_many_come_after_it() -> None:
    """What was sent long ago and still waits is not done twice; what was answered long ago is forgotten."""

    async def scenario() -> None:
        futures = Futures(remembered=3)
        slow, _ = futures.begin("slow", 1)
        for number in range(20):
            quick, _ = futures.begin("quick", number)
            futures.finish(quick, reply())
        assert futures.begin("slow", 1) == (slow, False)
        assert futures.begin("quick", 19) == (quick, False)
        assert futures.begin("quick", 2)[1]

    asyncio.run(scenario())


def test_forgetting_an_owner_wakes_who_waits_for_it() -> None:
    """When a session ends, those who wait for its answers are told that none will come."""

    async def scenario() -> None:
        futures = Futures()
        future, _ = futures.begin("model", 1)
        done, _ = futures.begin("model", 2)
        futures.finish(done, reply())
        waiting = asyncio.ensure_future(futures.wait(future.id, 30))
        await asyncio.sleep(0.01)
        other, _ = futures.begin("other", 1)
        assert futures.forget({"model", "unknown"}) == [future.id]
        assert futures.get(other.id) is other
        futures.forget({"other"})
        with pytest.raises(Refused, match="gone"):
            await asyncio.wait_for(waiting, 1)
        assert (len(futures), futures.waiting) == (0, 0)
        futures.finish(future, reply())
        assert futures.waiting == 0
        assert futures.begin("model", 2)[1], "nothing is remembered of it"

    asyncio.run(scenario())


def test_closing_wakes_everyone() -> None:
    """When the engine stops, everyone who waits is told so; answers that are there are still given."""

    async def scenario() -> None:
        futures = Futures()
        done, _ = futures.begin("model", 1)
        future, _ = futures.begin("model", 2)
        futures.finish(done, reply())
        waiting = asyncio.ensure_future(futures.wait(future.id, 30))
        await asyncio.sleep(0.01)
        futures.close()
        with pytest.raises(Refused, match="gone"):
            await asyncio.wait_for(waiting, 1)
        assert await futures.wait(done.id, 1) == reply()

    asyncio.run(scenario())
