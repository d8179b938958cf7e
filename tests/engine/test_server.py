"""The life of the server process: it starts, it is found, it ends, also when nobody ends it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tinker_officer import LocalEngine
from tinker_officer.errors import EngineError


if TYPE_CHECKING:
    import tinker


@pytest.fixture
def own_engine(tmp_path: Path) -> Iterator[LocalEngine]:
    """An engine of the test's own, which it may kill."""
    with LocalEngine(root=tmp_path / "engine") as running:
        yield running


def eventually(condition: Callable[[], Any], *, within_s: float = 20.0) -> Any:
    """Return the first truthy value of `condition`."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
    return value


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def request(engine: LocalEngine, path: str = "/api/v1/healthz", **headers: str) -> tuple[int, dict[str, Any]]:
    """Return the status and body of a plain GET with the right token, unless a header says otherwise."""
    sent = {"X-API-Key": engine.token, **headers}
    try:
        with urllib.request.urlopen(urllib.request.Request(engine.base_url + path, headers=sent)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def datum(shift: int = 0, length: int = 12) -> tinker.Datum:
    import tinker

    tokens = [(7 * i + shift) % 250 for i in range(length + 1)]
    return tinker.Datum(
        model_input=tinker.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": [1.0] * length},
    )


def train(client: tinker.TrainingClient, steps: range) -> list[float]:
    """Return the loss of each step."""
    import tinker

    losses = []
    for step in steps:
        forward = client.forward_backward([datum(step), datum(step + 5)], "cross_entropy")
        client.optim_step(tinker.AdamParams(learning_rate=1e-2, weight_decay=0.01)).result()
        losses.append(forward.result().metrics["loss:sum"])
    return losses


def test_it_starts_and_ends_with_the_with_block(tmp_path: Path) -> None:
    """A LocalEngine answers inside its `with` block, and its process is gone after it."""
    with LocalEngine(root=tmp_path) as engine:
        assert request(engine) == (200, {"status": "ok"})
        pid = engine._process.pid
        assert is_running(pid)
    assert not is_running(pid)


def test_starting_twice_changes_nothing(own_engine: LocalEngine) -> None:
    """A second start, and a second stop, do nothing."""
    url = own_engine.base_url
    assert own_engine.start() is own_engine
    assert own_engine.base_url == url
    own_engine.stop()
    own_engine.stop()


def test_the_client_is_the_same_each_time(own_engine: LocalEngine) -> None:
    """`service_client` returns one client, which `_service.connect` finds too."""
    from tinker_officer._service import connect

    assert own_engine.service_client() is own_engine.service_client() is connect(own_engine)


def test_importing_the_engine_loads_no_torch() -> None:
    """`import tinker_officer.engine` loads neither torch nor the SDK."""
    code = "import sys, tinker_officer.engine; print({'torch', 'tinker', 'uvicorn'} & sys.modules.keys())"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "set()"


def test_the_token_is_in_no_repr_and_no_log(
    tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The token appears in no repr, no explanation, no log record, no command line and no file."""
    caplog.set_level(logging.DEBUG)
    with LocalEngine(root=tmp_path) as engine:
        client = engine.service_client().create_lora_training_client(str(tiny_model), rank=2).result()
        client.save_state("a").result()
        assert len(engine.token) == len("tml-") + 64
        shown = repr(engine) + engine.explain() + engine._repr_html_() + repr(engine._settings) + caplog.text
        shown += Path(f"/proc/{engine._process.pid}/cmdline").read_text()
        shown += "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert engine.token not in shown


def test_a_port_in_use_is_named(own_engine: LocalEngine, tmp_path: Path) -> None:
    """A second engine on the same port fails with the port and a way out."""
    port = int(own_engine.base_url.rpartition(":")[2])
    with pytest.raises(EngineError, match=f"port {port} is in use") as caught:
        LocalEngine(port=port, root=tmp_path / "other").start()
    assert "LocalEngine(port=0)" in caught.value.fix
    assert request(own_engine)[0] == 200


def test_a_root_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A root that is a file is refused with its path."""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(EngineError, match="folder cannot be used") as caught:
        LocalEngine(root=tmp_path / "file").start()
    assert str(tmp_path / "file") in str(caught.value.got)


def test_a_model_that_cannot_be_loaded_fails_the_start(tmp_path: Path) -> None:
    """An unknown `model=` fails at start, with the model's own message, and leaves no process."""
    engine = LocalEngine(root=tmp_path, model="./no/such/model")
    with pytest.raises(EngineError, match="cannot be found"):
        engine.start()
    assert repr(engine).startswith("<LocalEngine not started")


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path, tiny_model: Path) -> None:
    """Asked for a GPU on a machine without one, the engine says so at the start, and leaves no process."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU that is here cannot be missing")
    engine = LocalEngine(root=tmp_path, device="cuda", model=str(tiny_model))
    with pytest.raises(EngineError, match="no GPU"):
        engine.start()
    assert repr(engine).startswith("<LocalEngine not started")


def test_the_last_words_of_a_server_that_fails_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server process cannot even begin, the error shows what it wrote to standard error."""
    (tmp_path / "uvicorn.py").write_text("raise ImportError('this uvicorn is a fake')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineError, match="did not start") as caught:
        LocalEngine(root=tmp_path / "engine").start()
    assert "this uvicorn is a fake" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"port": 70_000}, "port is out of range"),
        ({"port": -1}, "port is out of range"),
        ({"threads": 0}, "threads is out of range"),
        ({"dtype": "float8"}, "dtype is not known"),
        ({"device": "gpu"}, "device is not one"),
        ({"token": "tml-short"}, "token is not usable"),
        ({"token": "x" * 40}, "token is not usable"),
    ],
)
def test_bad_arguments_fail_where_they_are_written(arguments: dict[str, Any], problem: str) -> None:
    """A bad argument fails in the constructor, before any process is started."""
    with pytest.raises(EngineError, match=problem):
        LocalEngine(**arguments)


def test_an_engine_that_is_not_started_says_so() -> None:
    """Asking an engine that does not run for a client names `with`."""
    with pytest.raises(EngineError, match="not started") as caught:
        LocalEngine().service_client()
    assert "with LocalEngine()" in caught.value.fix


def test_the_server_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL of the parent ends the server, also while a forked child of the parent lives on."""
    code = textwrap.dedent(
        """
        import os, sys, time
        from tinker_officer import LocalEngine
        engine = LocalEngine(root=sys.argv[1]).start()
        if os.fork() == 0:  # inherits the pipe to the server
            os.write(1, f"{os.getpid()}\\n".encode())  # in one piece: two processes write
            time.sleep(60)
        os.write(1, f"{engine._process.pid}\\n".encode())
        time.sleep(60)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    fork, server = sorted(pids, key=lambda pid: "--supervised" in Path(f"/proc/{pid}/cmdline").read_text())
    try:
        parent.kill()
        parent.wait()
        assert is_running(fork)
        eventually(lambda: not is_running(server))
    finally:
        os.kill(fork, signal.SIGKILL)
        parent.stdout.close()


def test_ctrl_c_is_the_parents(own_engine: LocalEngine) -> None:
    """The SIGINT that Ctrl-C sends to every process of a terminal leaves the server to its parent."""
    os.kill(own_engine._process.pid, signal.SIGINT)
    time.sleep(0.3)
    assert request(own_engine)[0] == 200
    assert own_engine._restarts == []


def test_the_server_ends_soon_on_sigterm(tmp_path: Path) -> None:
    """SIGTERM ends a server that nobody supervises within seconds, with a clean status."""
    server, settings = serving(tmp_path)
    assert settings["TINKER_API_KEY"].startswith("tml-")
    started = time.monotonic()
    server.terminate()
    out, err = server.communicate(timeout=20)
    assert (server.returncode, err) == (0, "")
    assert "stopped" in out
    assert time.monotonic() - started < 5


def serving(root: Path, *arguments: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """Start `python -m tinker_officer.engine`; return the process and the settings that it prints."""
    command = [sys.executable, "-m", "tinker_officer.engine", "--root", str(root), *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    settings: dict[str, str] = {}
    for line in server.stdout:
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").strip().partition("=")
            settings[name] = value
        if "Ctrl-C" in line:
            break
    return server, settings


def test_the_command_serves_any_tinker_program(tmp_path: Path, tiny_model: Path) -> None:
    """The command prints the two settings that any Tinker program needs; Ctrl-C ends it cleanly."""
    server, settings = serving(tmp_path, "--model", str(tiny_model), "--port", "0")
    program = textwrap.dedent(
        """
        import sys, tinker
        client = tinker.ServiceClient()
        sampler = client.create_sampling_client(base_model=sys.argv[1]).result()
        print(len(sampler.compute_logprobs(tinker.ModelInput.from_ints([1, 2, 3])).result()))
        """
    )
    try:
        shown = subprocess.run(
            [sys.executable, "-c", program, str(tiny_model)],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert shown.stdout.strip() == "3", shown.stderr
        assert set(settings) == {"TINKER_BASE_URL", "TINKER_API_KEY"}
    finally:
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=20)
    assert (server.returncode, err) == (0, "")
    assert "stopped" in out


def test_the_command_explains_what_is_wrong(tmp_path: Path) -> None:
    """A model that is nowhere, or a port in use, ends the command with status 1 and a four-part message."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, problem in (
            (["--model", "./nowhere"], "cannot be found"),
            (["--port", str(port)], "in use"),
        ):
            server, _ = serving(tmp_path, *arguments)
            _, err = server.communicate(timeout=30)
            assert server.returncode == 1
            assert problem in err
            assert "fix:" in err
            assert "Traceback" not in err


def test_a_dead_server_is_started_again_and_waiting_clients_get_an_error(
    own_engine: LocalEngine, tiny_model: Path
) -> None:
    """After SIGKILL of the server, a waiting `result()` raises within seconds and saved states load again."""
    import tinker

    service = own_engine.service_client()
    client = service.create_lora_training_client(str(tiny_model), rank=4, seed=1).result()
    path = client.save_state("kept").result().path
    sampler = client.save_weights_and_get_sampling_client().result()
    long = tinker.SamplingParams(max_tokens=900, temperature=1.0, stop=[])
    prompt = tinker.ModelInput.from_ints([1, 2, 3])
    waiting = sampler.sample(prompt=prompt, num_samples=8, sampling_params=long)
    url, pid = own_engine.base_url, own_engine._process.pid
    time.sleep(0.3)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises((tinker.TinkerError, RuntimeError)):
        waiting.result(timeout=60)
    eventually(lambda: own_engine._process is not None and own_engine._process.pid != pid)
    assert own_engine.base_url == url
    with pytest.raises(tinker.NotFoundError, match="create_training_client_from_state"):
        client.forward([datum()], "cross_entropy").result(timeout=60)
    again = own_engine.service_client().create_training_client_from_state_with_optimizer(path).result()
    assert again.forward([datum()], "cross_entropy").result().metrics["loss:sum"] > 0


def test_a_server_that_keeps_dying_is_given_up(
    own_engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that cannot be kept alive leaves an engine that is not started, and a closed client."""
    from tinker_officer.engine import server

    monkeypatch.setattr(server, "_RESTARTS", 0)
    client = own_engine.service_client()
    holder = client._get_session_holder()
    os.kill(own_engine._process.pid, signal.SIGKILL)
    eventually(lambda: own_engine._process is None)
    with pytest.raises(EngineError, match="not started"):
        own_engine.service_client()
    eventually(lambda: holder._closed)


def test_saved_state_goes_on_bit_for_bit_in_another_engine(tmp_path: Path, tiny_model: Path) -> None:
    """Saved, SIGKILLed and loaded by a new engine on the same root, training goes on bit for bit."""
    with LocalEngine(root=tmp_path / "one") as engine:
        whole = engine.service_client().create_lora_training_client(str(tiny_model), rank=4, seed=3).result()
        uninterrupted = train(whole, range(6))
    killed = LocalEngine(root=tmp_path / "two").start()
    client = killed.service_client().create_lora_training_client(str(tiny_model), rank=4, seed=3).result()
    first = train(client, range(3))
    path = client.save_state("half").result().path
    killed._stopping.set()  # no supervisor's restart: as if the parent were killed too
    os.kill(killed._process.pid, signal.SIGKILL)
    with LocalEngine(root=tmp_path / "two") as engine:
        resumed = engine.service_client().create_training_client_from_state_with_optimizer(path).result()
        rest = train(resumed, range(3, 6))
    killed.stop()
    assert first + rest == uninterrupted


def test_two_engines_share_a_root(tmp_path: Path, tiny_model: Path) -> None:
    """Engines side by side on one root share checkpoints, and neither sweeps the other's scratch."""
    with LocalEngine(root=tmp_path) as one, LocalEngine(root=tmp_path) as other:
        client = one.service_client().create_lora_training_client(str(tiny_model), rank=2).result()
        path = client.save_state("shared").result().path
        there = other.service_client().create_training_client_from_state(path).result()
        assert there.forward([datum()], "cross_entropy").result().metrics["loss:sum"] > 0
        assert len(list((tmp_path / "scratch").glob("*.lock"))) == 2
    assert list((tmp_path / "scratch").iterdir()) == []


def test_scratch_of_a_killed_engine_is_swept(tmp_path: Path) -> None:
    """What a killed engine left half-written is removed by the next one on its root."""
    killed = LocalEngine(root=tmp_path).start()
    killed._stopping.set()
    os.kill(killed._process.pid, signal.SIGKILL)
    killed._process.wait()
    left = next((tmp_path / "scratch").glob("*/"))
    (left / "half").write_bytes(b"0" * 100)
    with LocalEngine(root=tmp_path):
        assert not left.exists()
    killed.stop()


def test_stopping_wakes_whoever_waits(tmp_path: Path, tiny_model: Path) -> None:
    """A thread that waits for a sample gets an error when the engine is stopped, and does not hang."""
    import tinker

    engine = LocalEngine(root=tmp_path).start()
    sampler = engine.service_client().create_sampling_client(base_model=str(tiny_model)).result()
    caught: list[BaseException] = []

    def wait() -> None:
        long = tinker.SamplingParams(max_tokens=900, temperature=1.0, stop=[])
        try:
            prompt = tinker.ModelInput.from_ints([1])
            sampler.sample(prompt=prompt, num_samples=16, sampling_params=long).result(timeout=60)
        except Exception as error:  # noqa: BLE001 - which one is the SDK's choice
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.5)
    engine.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert caught


def test_a_proxy_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With HTTP_PROXY set to a dead proxy, the client reaches the engine all the same."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setenv("no_proxy", "example.org")
    with LocalEngine(root=tmp_path) as engine:
        assert engine.service_client().holder.get_session_id()
        assert os.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost"


def test_a_forked_child_does_not_end_its_parents_engine(own_engine: LocalEngine) -> None:
    """`stop` in a forked child leaves the parent's server alone."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            own_engine.stop()
        os._exit(0)
    os.waitpid(pid, 0)
    assert request(own_engine)[0] == 200
