"""A server that answers at once: what the SDK itself costs, whatever server it talks to.

It computes nothing and keeps nothing; its answers are what the engine says to the requests of
`engine.py overhead`, written down before the first.
Run as a program it prints its port, and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np

from tinker_officer.engine import wire
from tinker_officer.engine.app import CLIENT_CONFIG, DYNAMIC_CONFIG
from tinker_officer.engine.sampling import SampleOutput, SampleSequence
from tinker_officer.engine.serve import bind
from tinker_officer.engine.trainer import LossOutput


def http(body: Any) -> bytes:
    """Return a whole HTTP response, in protobuf when `body` is bytes."""
    kind = wire.PROTOBUF if isinstance(body, bytes) else "application/json"
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


LOSS = LossOutput([{"logprobs": np.zeros(3, np.float32)}], {"loss:sum": 1.0})
SAMPLE = SampleOutput((SampleSequence(np.array([4], np.int32), np.zeros(1, np.float32), "length"),))
PROMISES = {
    b"create_model": {"model_id": "s:train:0", "type": "create_model"},
    b"forward_backward": wire.encode_loss(LOSS),
    b"optim_step": {"metrics": {"grad_norm:mean": 1.0}},
    b"save_weights_for_sampler": {"sampling_session_id": "s:sample:0", "type": "save_weights_for_sampler"},
    b"asample": wire.encode_sample(
        SAMPLE, wire.decode_sample({"sampling_session_id": "s", "prompt": {"chunks": []}})
    ),
}
MODEL = {"model_name": "tiny", "tokenizer_id": "tiny"}
AT_ONCE = {
    b"client/config": http(CLIENT_CONFIG),
    b"client/dynamic_config": http(DYNAMIC_CONFIG),
    b"create_session": http({"type": "create_session", "session_id": "s"}),
    b"get_info": http({"type": "get_info", "model_data": MODEL, "model_id": "s:train:0", "is_lora": True}),
    **{path: http({"request_id": path.decode(), "sample_sequence_ids": ["0"]}) for path in PROMISES},
}
KEPT = {f'"{path.decode()}"'.encode(): http(answer) for path, answer in PROMISES.items()}
OTHER = http({"status": "accepted", "type": "session_heartbeat"})


class Connection(asyncio.Protocol):
    """One connection of the SDK."""

    def __init__(self) -> None:
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where answers go."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is there as a whole."""
        self._heard += data
        while True:
            head, end, rest = self._heard.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            if not end or len(rest) < int(length or 0):
                return
            body, self._heard = rest[: int(length or 0)], rest[int(length or 0) :]
            path = head.split(b" ", 2)[1].removeprefix(b"/api/v1/")
            if path == b"retrieve_future":
                answer = next(answer for name, answer in KEPT.items() if name in body)
            else:
                answer = AT_ONCE.get(path, OTHER)
            self._transport.write(answer)


async def main() -> None:
    """Serve until killed."""
    listening = bind("127.0.0.1", 0)
    server = await asyncio.get_running_loop().create_server(Connection, sock=listening)
    print(listening.getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
