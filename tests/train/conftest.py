"""A small run over conversations about sums, and a process that starts runs to be killed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.train.records import saved_files
from tinker_officer import Conversations, LoRAPlan, Run


Rows = Callable[..., Path]
MakeRun = Callable[..., Run]


def conversation(i: int) -> dict[str, Any]:
    """A question about a sum, with answers of different lengths."""
    answer = f"It is {2 * i}." if i % 3 else f"Two times {i} makes {2 * i}, and that is all."
    return {
        "messages": [
            {"role": "user", "content": f"What is {i} plus {i}?"},
            {"role": "assistant", "content": answer},
        ]
    }


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty conversations in a file."""
    path = tmp_path_factory.mktemp("rows") / "sums.jsonl"
    path.write_text("".join(json.dumps(conversation(i)) + "\n" for i in range(50)))
    return path


@pytest.fixture(scope="session")
def make_run(tiny_model: Path, rows: Path) -> MakeRun:
    """Return a function that makes a run over the first `count` rows."""

    def make(
        *,
        count: int = 22,
        epochs: int = 2,
        batch_size: int = 4,
        rate: float = 5e-3,
        rank: int = 4,
        **sft: Any,
    ) -> Run:
        data = Conversations.from_jsonl(rows, progress=False).take(count)
        plan = LoRAPlan.for_(str(tiny_model)).sft(data, epochs=epochs, **sft)
        return Run(plan.pin(batch_size=batch_size, learning_rate=rate, rank=rank), name="sums")

    return make


@pytest.fixture(scope="session")
def digests(engine: Any) -> Callable[[str], dict[str, str]]:
    """Return a function from a state path to the digests of its weights and optimizer."""
    return lambda state_path: saved_files(engine.root, state_path)


@pytest.fixture(scope="session")
def wires() -> Any:
    """The module `wire.py` beside this file: a proxy that goes wrong by a schedule."""
    spec = importlib.util.spec_from_file_location("wire", Path(__file__).with_name("wire.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Forge:
    """Starts runs in processes of their own, quickly: one process has imported all, and forks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forge.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},  # no threads before it forks
        )

    def start(self, run: Run, rows: Path, count: int, folder: Path, engine: Any, **more: Any) -> int:
        """Start `run` and return the process id."""
        order = {"spec": run.to_json(), "rows": str(rows), "count": count}
        return self.order(folder, engine, **order, **more)

    def order(self, folder: Path, engine: Any, **order: Any) -> int:
        """Start what is ordered and return the process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"url": engine.base_url, **order, "folder": str(folder), "token": engine.token}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    @staticmethod
    def wait(pid: int, *, timeout_s: float = 60.0) -> None:
        """Wait until the process is gone."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.005)
        raise AssertionError(f"process {pid} has not ended in {timeout_s} s")

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    """Starts runs in processes of their own."""
    made = Forge()
    yield made
    made.close()
