"""What an engine does at its limits: out of memory, too long a body without a length, open to the network."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tinker_officer.engine.guard import Guard


if TYPE_CHECKING:
    import tinker

    from tinker_officer import LocalEngine

TOKEN = "tml-" + "0" * 32


@pytest.fixture
def own_engine(tmp_path: Path) -> Iterator[LocalEngine]:
    from tinker_officer import LocalEngine

    with LocalEngine(root=tmp_path / "engine") as engine:
        yield engine


@pytest.mark.filterwarnings("ignore::FutureWarning:tinker")
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits another process, which Linux can")
def test_out_of_memory_fails_the_request_alone(own_engine: LocalEngine, oracle: Callable[..., Path]) -> None:
    """A request for which there is no memory fails with a message; the same client then trains as before."""
    import tinker

    wide = oracle(intermediate_size=8192, max_position_embeddings=4096)  # 64 KiB a token in one layer
    client = own_engine.service_client().create_lora_training_client(str(wide), rank=4).result()
    before = client.forward([_datum(12)], "cross_entropy").result().metrics["loss:sum"]
    process = own_engine._process
    assert process is not None
    used = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[0])
    used *= os.sysconf("SC_PAGE_SIZE")
    unlimited = resource.prlimit(process.pid, resource.RLIMIT_AS)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (used + 64 * 2**20, unlimited[1]))
    try:
        with pytest.raises(tinker.RequestFailedError, match=r"(?i)memory"):
            client.forward_backward([_datum(4000)], "cross_entropy").result()
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_AS, unlimited)
    assert own_engine._process is process
    assert process.poll() is None
    assert client.forward([_datum(12)], "cross_entropy").result().metrics["loss:sum"] == before


def _datum(length: int) -> tinker.Datum:
    import tinker

    tokens = [7 * i % 90 for i in range(length + 1)]
    inputs: Any = {"target_tokens": tokens[1:], "weights": [1.0] * length}
    return tinker.Datum(model_input=tinker.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=inputs)


def test_a_body_of_no_announced_length_is_cut_off() -> None:
    """A body that comes in pieces is refused with 413 as soon as it is too long, not read to its end."""
    taken, answers = [], []

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["more_body"]:
            pass

    async def receive() -> dict[str, Any]:
        taken.append(1)
        return {"type": "http.request", "body": b"x" * 40, "more_body": True}

    async def send(message: Any) -> None:
        answers.append(message)

    headers = [(b"host", b"127.0.0.1:1"), (b"x-api-key", TOKEN.encode())]
    guard = Guard(app, token=TOKEN, host="127.0.0.1", body_bytes=100)
    asyncio.run(guard({"type": "http", "path": "/api/v1/telemetry", "headers": headers}, receive, send))

    assert answers[0]["status"] == 413
    assert "at most 100 bytes" in json.loads(answers[1]["body"])["error"]
    assert len(taken) == 3


@pytest.mark.parametrize(
    "begin",
    [
        "GET /",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ",
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Long: ",
    ],
)
def test_a_head_without_end_is_cut_off(engine: LocalEngine, begin: str) -> None:
    """A line or a header that does not end is not kept for ever: the connection is closed."""
    host, _, port = engine.base_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(begin.encode())
        with pytest.raises(ConnectionError):  # noqa: PT012 - at which of them is open
            for _ in range(2000):
                connection.sendall(b"x" * 2**14)
            raise AssertionError("32 MB of headers were taken")


def test_open_to_the_network_it_warns_and_asks_for_the_token(tmp_path: Path) -> None:
    """Bound to every address it says so in a warning, and serves nobody who has no token."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tinker_officer.engine", "--host", "0.0.0.0", "--root", str(tmp_path)],
        env={**os.environ, "TINKER_OFFICER_ENGINE_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = next(line for line in process.stdout if "BASE_URL" in line).strip().rpartition(":")[2]
        url = f"http://127.0.0.1:{port}/api/v1/healthz"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(url)
        with urllib.request.urlopen(urllib.request.Request(url, headers={"X-API-Key": TOKEN})) as answer:
            assert answer.status == 200
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert "engine.open_to_network" in said
    assert TOKEN not in said
