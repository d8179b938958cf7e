"""The state behind the routes, in this process: long waits, silent clients, failures half-way."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from tinker_officer.engine import app as routes
from tinker_officer.engine import sessions
from tinker_officer.engine.answers import failure
from tinker_officer.engine.compute import Compute, Job
from tinker_officer.engine.refusal import Refused
from tinker_officer.engine.state import State
from tinker_officer.engine.store import Store
from tinker_officer.engine.workshop import Workshop


Scenario = Callable[[State, httpx.AsyncClient], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[[Scenario], None]]:
    """A function that plays a scenario against the routes, with nothing between."""
    store = Store(tmp_path / "engine")

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[State, httpx.AsyncClient]]:
        workshop = Workshop(store, "float32")
        compute = Compute(workshop, lambda: None)
        compute.start()
        state = State(store, workshop, compute)
        transport = httpx.ASGITransport(app=routes.build(state))
        async with httpx.AsyncClient(transport=transport, base_url="http://here/api/v1/") as http:
            yield state, http
        state.close()
        compute.stop(10.0)

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            async with opened() as (state, http):
                await scenario(state, http)

        asyncio.run(main())

    yield run
    store.close()


async def answer(http: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    """Return the answer to a request that is promised one."""
    promise = await http.post(path, json=body)
    assert promise.status_code == 200, promise.text
    asked = {"request_id": promise.json()["request_id"]}
    while (got := (await http.post("retrieve_future", json=asked)).json()).get("type") == "try_again":
        pass  # the server holds a question for seconds before it says so
    return cast("dict[str, Any]", got)


async def session(http: httpx.AsyncClient) -> str:
    return (await http.post("create_session", json={"tags": []})).json()["session_id"]


async def model(http: httpx.AsyncClient, session_id: str, base_model: Path, seq: int = 0) -> str:
    created = await answer(
        http,
        "create_model",
        session_id=session_id,
        model_seq_id=seq,
        base_model=str(base_model),
        lora_config={"rank": 2},
    )
    return created["model_id"]


def test_a_long_wait_is_answered_in_between(
    play: Callable[[Scenario], None], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an answer is not ready, a poll ends with 408 and the queue's state, and a later one brings it."""
    monkeypatch.setattr(routes, "HOLD_S", 0.01)

    async def scenario(state: State, http: httpx.AsyncClient) -> None:
        gate = asyncio.Event()
        locate = state.locate

        async def slow(name: str) -> Path:
            await gate.wait()
            return await locate(name)

        state.locate = slow
        body = {"base_model": str(tiny_model), "lora_config": {"rank": 2}, "session_id": await session(http)}
        request_id = (await http.post("create_model", json=body)).json()["request_id"]
        waited = await http.post("retrieve_future", json={"request_id": request_id})
        assert (waited.status_code, waited.json()["queue_state"]) == (408, "active")
        gate.set()
        while waited.status_code == 408:
            waited = await http.post("retrieve_future", json={"request_id": request_id})
        assert waited.json()["model_id"].endswith(":train:0")

    play(scenario)


def test_a_silent_client_is_taken_for_gone(play: Callable[[Scenario], None], tiny_model: Path) -> None:
    """A session that nobody was heard of for long is ended and its model freed; a heartbeat keeps another."""

    async def scenario(state: State, http: httpx.AsyncClient) -> None:
        silent, alive = await session(http), await session(http)
        model_id = await model(http, silent, tiny_model)
        for one in state.here.sessions.values():
            one.seen -= 100
        assert (await http.post("session_heartbeat", json={"session_id": alive})).status_code == 200
        assert state.finish_idle(50) == 1
        assert (await http.post("session_heartbeat", json={"session_id": silent})).status_code == 410
        assert (await http.post("session_heartbeat", json={"session_id": alive})).status_code == 200
        assert (await http.post("get_info", json={"model_id": model_id})).status_code == 404
        assert state.compute.stop(10.0)
        with pytest.raises(Refused):
            state.workshop._training(model_id)

    play(scenario)


def test_a_creation_that_fails_leaves_no_run(play: Callable[[Scenario], None], tmp_path: Path) -> None:
    """A model that cannot be loaded fails its creation with the reason, and no training run is recorded."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "gpt2"}')
    (broken / "model.safetensors").write_bytes(b"")

    async def scenario(state: State, http: httpx.AsyncClient) -> None:
        body = {"session_id": await session(http), "base_model": str(broken), "lora_config": {"rank": 2}}
        failed = await answer(http, "create_model", **body)
        assert failed["category"] == "user"
        assert f"the weights of '{broken}' cannot be read" in failed["error"]
        assert (await http.get("training_runs")).json()["training_runs"] == []

    play(scenario)


def test_a_session_that_ends_while_a_model_is_made_keeps_nothing(
    play: Callable[[Scenario], None], tiny_model: Path
) -> None:
    """When a session is finished while its model is being made, the model is dropped."""

    async def scenario(state: State, http: httpx.AsyncClient) -> None:
        session_id = await session(http)
        body = {"session_id": session_id, "base_model": str(tiny_model), "lora_config": {"rank": 2}}
        await http.post("create_model", json=body)
        assert (await http.post(f"sessions/{session_id}/finish", json={})).status_code == 200
        await asyncio.gather(*state._tasks)
        assert state.here.models == {}
        assert state.compute.stop(10.0)
        assert state.workshop._trainings == {}

    play(scenario)


def test_a_session_that_ends_takes_its_sampling_along(
    play: Callable[[Scenario], None], tiny_model: Path
) -> None:
    """When a session is finished, nobody goes on to decode the answers that it asked for."""

    async def scenario(state: State, http: httpx.AsyncClient) -> None:
        session_id = await session(http)
        opened = await http.post(
            "create_sampling_session", json={"session_id": session_id, "base_model": str(tiny_model)}
        )
        body = {
            "sampling_session_id": opened.json()["sampling_session_id"],
            "seq_id": 0,
            "prompt": {"chunks": [{"type": "encoded_text", "tokens": [1, 2]}]},
            "sampling_params": {"max_tokens": 1000, "stop": []},
            "num_samples": 64,
        }
        promise = (await http.post("asample", json=body)).json()
        assert len(set(promise["sample_sequence_ids"])) == 64
        assert (await http.post(f"sessions/{session_id}/finish", json={})).status_code == 200
        idle = threading.Event()
        state.compute.call(lambda: None if state.workshop.busy else idle.set())
        assert await asyncio.to_thread(idle.wait, 30)

    play(scenario)


def test_a_snapshot_that_is_taken_after_its_session_ended_is_dropped(
    play: Callable[[Scenario], None], tiny_model: Path
) -> None:
    """A snapshot that was asked for just before the session was finished is nowhere afterwards."""

    async def scenario(state: State, http: httpx.AsyncClient) -> None:
        session_id = await session(http)
        model_id = await model(http, session_id, tiny_model)
        held = threading.Event()
        state.compute.call(partial(held.wait, 10))
        asked = {"model_id": model_id, "seq_id": 1, "sampling_session_seq_id": 0}
        assert (await http.post("save_weights_for_sampler", json=asked)).status_code == 200
        assert (await http.post(f"sessions/{session_id}/finish", json={})).status_code == 200
        held.set()
        for _ in range(500):
            if not state.workshop._trainings:
                break
            await asyncio.sleep(0.01)
        await state._in_compute(model_id, lambda: iter(()))
        assert not state.workshop._trainings
        assert not state.workshop._adapters
        assert not state.workshop._spilled

    play(scenario)


def test_names_that_lead_nowhere_and_ended_sessions_are_not_collected(
    play: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long life of wrong names and short sessions costs no memory."""
    monkeypatch.setattr(sessions, "_REMEMBERED", 3)

    async def scenario(state: State, http: httpx.AsyncClient) -> None:
        for number in range(6):
            session_id = await session(http)
            body = {"session_id": session_id, "base_model": f"./no/such/{number}"}
            assert (await http.post("create_sampling_session", json=body)).status_code == 400
            assert (await http.post(f"sessions/{session_id}/finish", json={})).status_code == 200
        assert state._located == {}
        assert list(state.here.sessions)[-1] == session_id
        assert len(state.here.sessions) == 3

    play(scenario)


@pytest.mark.parametrize(("limit", "status"), [("²", 400), ("x", 400), ("9" * 5000, 400), ("3", 200)])
def test_a_page_is_of_a_number(play: Callable[[Scenario], None], limit: str, status: int) -> None:
    """A limit that is no number, or one of 5,000 digits, is refused by name."""

    async def scenario(_state: State, http: httpx.AsyncClient) -> None:
        assert (await http.get("sessions", params={"limit": limit})).status_code == status

    play(scenario)


def test_a_failed_request_holds_no_memory() -> None:
    """What a request had in memory is free as soon as its failure is answered, without garbage collection."""

    class Tensor:
        pass

    held: list[weakref.ref[Tensor]] = []
    answered = threading.Event()

    def work() -> Generator[None, None, None]:
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        yield
        raise MemoryError

    def done(error: Exception) -> None:
        failure(error)
        answered.set()

    gc.disable()
    try:
        compute = Compute(Quiet(), lambda: None)
        compute.start()
        compute.submit(Job("a", work, done))
        assert answered.wait(10)
        assert compute.stop(10)
        assert held[0]() is None
    finally:
        gc.enable()


class Quiet:
    """Nothing beside the jobs."""

    busy = False

    def step(self) -> None:
        """Do nothing."""


def test_a_bug_of_ours_is_no_5xx(play: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw is a 422 with its name: the SDK would try a 5xx again for minutes."""

    async def scenario(state: State, http: httpx.AsyncClient) -> None:
        monkeypatch.setattr(state.store, "runs", lambda: 1 // 0)
        transport = httpx.ASGITransport(app=routes.build(state), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here/api/v1/") as quiet:
            broken = await quiet.get("training_runs")
        assert (broken.status_code, broken.json()["category"]) == (422, "server")
        assert "ZeroDivisionError" in broken.json()["error"]

    play(scenario)


@pytest.mark.parametrize(
    ("error", "category", "says"),
    [
        (MemoryError("no more"), b"user", b"ran out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), b"user", b"ran out of memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            b"user",
            b"ran out",
        ),
        (RuntimeError("something else"), b"server", b"RuntimeError: something else"),
    ],
)
def test_errors_are_told_apart(error: Exception, category: bytes, says: bytes) -> None:
    """Out of memory is the caller's to mend and says how; an error that nobody foresaw is ours."""
    body = failure(error).body
    assert b'"category": "' + category in body
    assert says in body
