"""Many thousands of requests that nobody should send, and a long mixed load; for `nox -s soak`.

`SOAK_REQUESTS` (50,000) and `SOAK_MINUTES` (30) make them shorter.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st


if TYPE_CHECKING:
    import tinker

    from tinker_officer import LocalEngine

pytestmark = [pytest.mark.soak, pytest.mark.filterwarnings("ignore::FutureWarning:tinker")]
REQUESTS = int(os.environ.get("SOAK_REQUESTS", "50000"))
MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
EDGES = st.sampled_from(
    [0, -1, 1, 2**31, -(2**63), 2**63, 1e308, "", "..", "../x", "\x00", [], {}, None, True]
)


@pytest.fixture(scope="module")
def own_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    from tinker_officer import LocalEngine

    with LocalEngine(root=tmp_path_factory.mktemp("soak")) as engine:
        yield engine


def _known_good(engine: LocalEngine, model: Path) -> tuple[tinker.TrainingClient, list[tuple[str, str, Any]]]:
    """Return a client whose model every request may name, and requests that are good as they stand."""
    import tinker

    # The engine's own client is one for all, and a drawn request may have finished its session.
    service = tinker.ServiceClient(base_url=engine.base_url, api_key=engine.token)
    client = service.create_lora_training_client(str(model), rank=4).result()
    model_id, path = client.model_id, client.save_state("good").result().path
    session = model_id.partition(":")[0]
    here = {"session_id": session}
    create: dict[str, Any] = {**here, "model_seq_id": 7, "base_model": str(model)}
    create["lora_config"] = {"rank": 4, "train_mlp": True, "train_attn": True, "seed": 1}
    adam = {"learning_rate": 1e-4, "beta1": 0.9, "beta2": 0.95, "eps": 1e-12, "weight_decay": 0.0}
    sample: dict[str, Any] = {"base_model": str(model), "num_samples": 2}
    sample["prompt"] = {"chunks": [{"type": "encoded_text", "tokens": [3, 4, 5]}]}
    sample["sampling_params"] = {"max_tokens": 3, "temperature": 1.0, "top_p": 0.9, "top_k": 5, "stop": [1]}
    mine = {"model_id": model_id}
    run = f"training_runs/{model_id}"
    return client, [
        ("POST", "create_session", {"tags": [], "user_metadata": None, "sdk_version": "0.38"}),
        ("POST", "session_heartbeat", here),
        ("POST", "telemetry", {"events": [], **here}),
        ("POST", "client/config", {"sdk_version": "0.38"}),
        ("POST", "create_model", create),
        ("POST", "load_weights", {**mine, "seq_id": 3, "path": path, "optimizer": True}),
        ("POST", "optim_step", {**mine, "seq_id": 9, "adam_params": adam}),
        ("POST", "save_weights", {**mine, "seq_id": 4, "path": "name", "overwrite": True}),
        ("POST", "save_weights_for_sampler", {**mine, "seq_id": 5, "path": "s", "ttl_seconds": 60}),
        ("POST", "create_sampling_session", {**here, "sampling_session_seq_id": 1, "model_path": path}),
        ("POST", "asample", sample),
        ("POST", "retrieve_future", {"request_id": "x"}),
        ("POST", "cancel_future", {"request_id": "x"}),
        ("POST", "get_info", {"model_id": model_id}),
        ("POST", "weights_info", {"tinker_path": path}),
        ("GET", "sessions", {"limit": 3, "offset": 0}),
        ("GET", f"sessions/{session}", {}),
        ("GET", "training_runs", {"limit": 3}),
        ("GET", run, {}),
        ("GET", f"{run}/checkpoints", {}),
        ("GET", "checkpoints", {"limit": 2}),
        ("PUT", f"{run}/checkpoints/weights/good/ttl", {"ttl_seconds": 1000}),
        ("DELETE", f"{run}/checkpoints/weights/none", {}),
    ]


@st.composite
def spoilt(draw: st.DrawFn, good: Any) -> Any:
    """Draw a good value with some of its parts replaced, left out, or joined by others."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(ANYTHING)
    if kind == 1:
        return draw(EDGES)
    if isinstance(good, dict):
        value = {
            name: draw(spoilt(part)) if draw(st.integers(0, 3)) == 0 else part for name, part in good.items()
        }
        if value and draw(st.integers(0, 5)) == 0:
            del value[draw(st.sampled_from(sorted(value)))]
        if draw(st.integers(0, 5)) == 0:
            value[draw(st.text(max_size=8))] = draw(ANYTHING)
        return value
    if isinstance(good, list):
        return [draw(spoilt(part)) for part in good] * draw(st.sampled_from([1, 1, 0, 3]))
    return good


def test_no_request_breaks_the_server(own_engine: LocalEngine, tiny_model: Path) -> None:
    """Requests with spoilt parts get answers below 500 with a body, and change no number of a good client."""
    client, good = _known_good(own_engine, tiny_model)
    before = _train(client)
    process = own_engine._process
    seen: Counter[int] = Counter()
    http = httpx.Client(
        base_url=f"{own_engine.base_url}/api/v1/",
        headers={"X-API-Key": own_engine.token},
        trust_env=False,
        timeout=60,
    )
    message = _forward_backward(client)

    @settings(
        max_examples=REQUESTS,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(data=st.data())
    def requests(data: st.DataObject) -> None:
        if data.draw(st.integers(0, 3)) == 0:
            body = bytearray(message)
            for _ in range(data.draw(st.integers(1, 6))):
                body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
            cut = data.draw(st.integers(0, len(body))) if data.draw(st.booleans()) else len(body)
            kind = {"Content-Type": "application/x-protobuf"}
            answer = http.post("forward_backward", content=bytes(body[:cut]), headers=kind)
        else:
            method, path, fields = data.draw(st.sampled_from(good))
            fields = data.draw(spoilt(fields))
            if method == "GET":
                flat = fields if isinstance(fields, dict) else {}
                answer = http.get(path, params={str(name): str(value) for name, value in flat.items()})
            else:
                text = json.dumps(fields).encode()
                answer = http.request(
                    method, path, content=text, headers={"Content-Type": "application/json"}
                )
        seen[answer.status_code] += 1
        assert answer.status_code < 500, answer.text
        assert answer.content
        assert b'"category":"server"' not in answer.content, answer.text  # an error that nobody foresaw

    requests()
    assert own_engine._process is process
    assert process is not None
    assert process.poll() is None
    print(f"answers by status: {dict(sorted(seen.items()))}")
    fresh, _ = _known_good(own_engine, tiny_model)
    assert _train(fresh) == before


def test_no_request_of_the_description_breaks_the_server(own_engine: LocalEngine, tiny_model: Path) -> None:
    """Requests that fit the server's OpenAPI description, and such that just do not, are answered below 500.

    Drawn by schemathesis; half of them name a model, a session and checkpoints that exist.
    """
    import schemathesis
    from schemathesis import GenerationMode

    client, _ = _known_good(own_engine, tiny_model)
    before = _train(client)
    key = {"X-API-Key": own_engine.token}
    http = httpx.Client(base_url=own_engine.base_url, headers=key, trust_env=False, timeout=60)
    schema = schemathesis.openapi.from_dict(http.get("/openapi.json").json())
    schema = schema.exclude(path="/api/v1/forward_backward")  # protobuf: the test above spoils its bytes
    operations = [operation.ok() for operation in schema.get_all_operations()]
    path = f"tinker://{client.model_id}/weights/good"
    real = {"model_id": client.model_id, "session_id": client.model_id.partition(":")[0], "path": path}
    real |= {"base_model": str(tiny_model), "model_path": path, "tinker_path": path, "source_path": path}
    in_path = {"run": client.model_id, "kind": "weights", "name": "good", "session": real["session_id"]}
    process = own_engine._process
    seen: Counter[int] = Counter()
    each = max(1, REQUESTS // (2 * len(operations)))

    def ask(operation: Any, mode: Any) -> None:
        @settings(
            max_examples=each,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(case=operation.as_strategy(generation_mode=mode), true=st.booleans())
        def one(case: Any, true: bool) -> None:
            if true and isinstance(case.body, dict):
                case.body |= {name: value for name, value in real.items() if name in case.body}
            if true and case.method != "DELETE":
                case.path_parameters |= {n: v for n, v in in_path.items() if n in case.path_parameters}
            answer = case.call(base_url=own_engine.base_url, headers=key)
            seen[answer.status_code] += 1
            assert answer.status_code < 500, answer.text
            assert answer.content
            assert b'"category":"server"' not in answer.content, answer.text

        one()

    for operation in operations:
        ask(operation, GenerationMode.POSITIVE)
        if operation.body or operation.path_parameters or operation.query:
            ask(operation, GenerationMode.NEGATIVE)
    print(f"answers by status: {dict(sorted(seen.items()))}")
    assert own_engine._process is process
    assert process is not None
    assert process.poll() is None
    fresh, _ = _known_good(own_engine, tiny_model)
    assert _train(fresh) == before


def _datum(shift: int, length: int = 12) -> tinker.Datum:
    import tinker

    tokens = [(7 * i + shift) % 250 for i in range(length + 1)]
    inputs: Any = {"target_tokens": tokens[1:], "weights": [1.0] * length}
    return tinker.Datum(model_input=tinker.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=inputs)


def _train(client: tinker.TrainingClient) -> float:
    """Return the loss of a batch that nobody else trains on, before any step."""
    return float(client.forward([_datum(1), _datum(2)], "cross_entropy").result().metrics["loss:sum"])


def _forward_backward(client: tinker.TrainingClient) -> bytes:
    """Return a good request to train, as the SDK sends it."""
    from tinker.proto.request_conv import forward_backward_request_to_proto
    from tinker.types import ForwardBackwardInput, ForwardBackwardRequest

    given = ForwardBackwardInput(data=[_datum(1, 6)], loss_fn="cross_entropy")
    request = ForwardBackwardRequest(model_id=client.model_id, seq_id=1, forward_backward_input=given)
    return bytes(forward_backward_request_to_proto(request).SerializeToString())


def test_memory_stays_flat_under_a_mixed_load(own_engine: LocalEngine, tiny_model: Path) -> None:
    """Clients that come, train, sample, save, delete and go leave the server no larger at the end."""
    import tinker

    rng = random.Random(0)
    assert own_engine._process is not None
    resident = Path(f"/proc/{own_engine._process.pid}/statm")
    sizes: list[int] = []
    began, rounds = time.monotonic(), 0
    while time.monotonic() - began < MINUTES * 60:
        service = tinker.ServiceClient(base_url=own_engine.base_url, api_key=own_engine.token)
        client = service.create_lora_training_client(str(tiny_model), rank=rng.choice([1, 4, 16])).result()
        waiting: list[Any] = []
        for _ in range(5):
            batch = [_datum(rng.randrange(200), rng.randrange(2, 200)) for _ in range(rng.randrange(1, 9))]
            waiting.append(client.forward_backward(batch, "cross_entropy"))
            waiting.append(client.optim_step(tinker.AdamParams(learning_rate=1e-3)))
        sampler = client.save_weights_and_get_sampling_client().result()
        for _ in range(4):
            prompt = tinker.ModelInput.from_ints([rng.randrange(200) for _ in range(rng.randrange(1, 60))])
            params = tinker.SamplingParams(max_tokens=rng.randrange(1, 30))
            waiting.append(sampler.sample(prompt, rng.randrange(1, 9), params))
        waiting.append(client.save_state("kept"))
        for future in waiting:
            future.result()
        client.save_state("kept", overwrite=True).result()
        rest = tinker.RestClient(base_url=own_engine.base_url, api_key=own_engine.token)
        rest.delete_checkpoint(client.model_id, "weights/kept").result()
        service.close("success").result()
        rounds += 1
        pages = int(resident.read_text(encoding="ascii").split()[1])
        sizes.append(pages * os.sysconf("SC_PAGE_SIZE"))
    third = len(sizes) // 3
    early, late = max(sizes[third : 2 * third]), max(sizes[2 * third :])
    print(f"{rounds} rounds, resident memory {early / 1e6:.0f} MB, then {late / 1e6:.0f} MB")
    assert late < early * 1.05 + 5e6
