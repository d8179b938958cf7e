"""A run as it goes: iterated in both colours, cancelled, interrupted, and gone on with."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import tinker

from tinker_officer import LocalEngine, Run, RunResult


MakeRun = Callable[..., Run]
Digests = Callable[[str], dict[str, str]]


@pytest.fixture(scope="module")
def run(make_run: MakeRun) -> Run:
    """Twenty-four steps, with few checkpoints of its own."""
    return make_run(epochs=4).checkpoint(every=20)


@pytest.fixture(scope="module")
def whole(run: Run, engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The result of the run, never stopped."""
    return run.run(on=engine, at=tmp_path_factory.mktemp("whole") / "run", progress=False)


def test_steps_are_yielded_once_and_in_order(run: Run, engine: LocalEngine, tmp_path: Path) -> None:
    """A loop that is left and taken up again sees every step once."""
    with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
        seen = []
        for step in live:
            seen.append(step.index)
            if len(seen) == 5:
                break
        seen += [step.index for step in live]
        assert live.done
    assert seen == list(range(1, 25))


def test_the_progress_bar_leaves_what_the_loop_prints_alone(
    run: Run, engine: LocalEngine, tmp_path: Path
) -> None:
    """On a terminal each printed step has its line for itself, and of the bar only its end stays."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    with redirect_stderr(screen), run.start(on=engine, at=tmp_path / "run") as live:
        for step in live:
            screen.write(f"step {step.index}\n")
    lines = [line.rpartition("\r")[2] for line in screen.getvalue().split("\n")]
    printed = [line for line in lines if "step " in line]
    assert printed == [f"step {index}" for index in range(1, 25)]
    assert ["100%" in line for line in lines if line.startswith("sums:")] == [True]


def test_leaving_the_block_waits_for_the_end(run: Run, engine: LocalEngine, tmp_path: Path) -> None:
    """Nobody iterates, nobody asks: the run is over when the block is left."""
    with run.start(on=engine, at=tmp_path / "run", progress=False):
        pass
    assert RunResult.open(tmp_path / "run").stopped == "completed"


def test_async_iteration_leaves_the_loop_free(
    run: Run, engine: LocalEngine, whole: RunResult, digests: Digests, tmp_path: Path
) -> None:
    """Under a running loop `async for` yields every step while other tasks go on, to the same bits."""

    async def main() -> tuple[list[int], int, RunResult]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        async with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
            seen = [step.index async for step in live]
            result = await live.result_async()
        ticking.cancel()
        return seen, ticks, result

    seen, ticks, result = asyncio.run(main())
    assert seen == list(range(1, 25))
    assert ticks > 24
    assert digests(result.final.state_path) == digests(whole.final.state_path)


def test_the_blocking_calls_work_under_a_running_loop(run: Run, engine: LocalEngine, tmp_path: Path) -> None:
    """In a notebook's running loop a plain `with` and `for` train too."""

    async def cell() -> RunResult:
        await asyncio.sleep(0)
        with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
            assert [step.index for step in live][-1] == 24
            return live.result()

    assert asyncio.run(cell()).stopped == "completed"


def test_cancelled_it_saves_and_goes_on_to_the_same_bits(
    run: Run, engine: LocalEngine, whole: RunResult, digests: Digests, tmp_path: Path
) -> None:
    """cancel() stops at a step of its own with a checkpoint; the next start ends bit-identical."""
    with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
        next(step for step in live if step.index == 7)
        live.cancel()
        result = live.result()
    assert result.stopped == "cancelled"
    assert 7 <= result.steps == result.last.step <= 12
    assert result.last.sampler_path
    assert RunResult.open(tmp_path / "run").stopped == "unfinished"
    resumed = run.run(on=engine, at=tmp_path / "run", progress=False)
    assert resumed.stopped == "completed"
    assert digests(resumed.final.state_path) == digests(whole.final.state_path)


def test_cancelled_before_the_first_step_it_can_go_on(
    run: Run, engine: LocalEngine, whole: RunResult, digests: Digests, tmp_path: Path
) -> None:
    """A run cancelled at once has its first weights saved, and goes on from them."""
    live = run.start(on=engine, at=tmp_path / "run", progress=False)
    live.cancel()
    assert live.result().steps == live.result().last.step
    resumed = run.run(on=engine, at=tmp_path / "run", progress=False)
    assert digests(resumed.final.state_path) == digests(whole.final.state_path)


def test_an_exception_in_the_block_cancels(run: Run, engine: LocalEngine, tmp_path: Path) -> None:
    """What the user's code raises ends the run with a checkpoint, and is what the caller sees."""

    def use() -> None:
        with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
            for step in live:
                _ = 1 / (step.index - 3)

    with pytest.raises(ZeroDivisionError):
        use()
    result = RunResult.open(tmp_path / "run")
    assert (result.stopped, result.last.step) == ("unfinished", result.steps)


def test_a_cancelled_task_cancels_the_run(run: Run, engine: LocalEngine, tmp_path: Path) -> None:
    """Cancelling the task that iterates stops the run, with a checkpoint, before it is over."""
    first = asyncio.Event()

    async def train() -> None:
        async with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
            async for _ in live:
                first.set()

    async def main() -> None:
        task = asyncio.create_task(train())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    result = RunResult.open(tmp_path / "run")
    assert result.stopped == "unfinished"
    assert result.last.step == result.steps


def test_an_error_of_the_run_reaches_whoever_waits(run: Run, engine: LocalEngine, tmp_path: Path) -> None:
    """The server refuses the key: iterating, asking and leaving the block all raise it, with a note."""
    stranger = tinker.ServiceClient(base_url=engine.base_url, api_key="tml-another-key")
    live = run.start(on=stranger, at=tmp_path / "run", progress=False)
    with pytest.raises(tinker.AuthenticationError) as caught:
        live.result()
    assert "goes on from the last checkpoint" in "".join(caught.value.__notes__)
    assert "tml-another-key" not in "".join(caught.value.__notes__) + str(caught.value)
    with pytest.raises(tinker.AuthenticationError):
        list(live)
    with pytest.raises(tinker.AuthenticationError), live:
        pass


_SCRIPT = """
import sys, tinker
from pathlib import Path
from tinker_officer import Conversations, Run
spec, rows, count, folder, url, token = sys.argv[1:]
data = Conversations.from_jsonl(rows, progress=False).take(int(count))
run = Run.from_json(Path(spec).read_text(), data=data)
service = tinker.ServiceClient(base_url=url, api_key=token)
with run.start(on=service, at=folder, progress=False) as live:
    for step in live:
        print(step.index, flush=True)
"""


@pytest.fixture
def script(run: Run, rows: Path, engine: LocalEngine, tmp_path: Path) -> Any:
    """Return a function that starts the run in a script of its own, as a user would."""
    (tmp_path / "spec.json").write_text(run.to_json())

    def start(folder: Path) -> subprocess.Popen[str]:
        words = [tmp_path / "spec.json", rows, 22, folder, engine.base_url, engine.token]
        return subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.slow
def test_ctrl_c_saves_says_how_to_go_on_and_does(
    script: Any, run: Run, engine: LocalEngine, whole: RunResult, digests: Digests, tmp_path: Path
) -> None:
    """SIGINT in the middle: a checkpoint, the line that resumes, and then the same bits."""
    with script(tmp_path / "run") as process:
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode not in {0, None}
    assert "KeyboardInterrupt" in errors
    assert f"run.start(on=..., at='{tmp_path / 'run'}') goes on from the last checkpoint" in errors
    stopped = RunResult.open(tmp_path / "run")
    assert stopped.last.step == stopped.steps < 24
    resumed = run.run(on=engine, at=tmp_path / "run", progress=False)
    assert digests(resumed.final.state_path) == digests(whole.final.state_path)


@pytest.mark.slow
def test_ctrl_c_twice_stops_at_once(
    make_run: MakeRun,
    script: Any,
    run: Run,
    engine: LocalEngine,
    whole: RunResult,
    digests: Digests,
    tmp_path: Path,
) -> None:
    """A second SIGINT while the server does not answer ends the process; the run can still go on."""
    assert engine._process is not None
    with script(tmp_path / "run") as process:
        assert process.stdout.readline() == "1\n"
        os.kill(engine._process.pid, signal.SIGSTOP)  # the server hangs: nothing can be drained
        try:
            process.send_signal(signal.SIGINT)
            time.sleep(0.7)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            os.kill(engine._process.pid, signal.SIGCONT)
    assert "was aborted" in errors
    resumed = run.run(on=engine, at=tmp_path / "run", progress=False)
    assert digests(resumed.final.state_path) == digests(whole.final.state_path)


def test_it_prints_well(run: Run, engine: LocalEngine, tmp_path: Path) -> None:
    """While it goes and afterwards, repr is one line and a notebook gets a table."""
    with run.start(on=engine, at=tmp_path / "run", progress=False) as live:
        next(iter(live))
        assert repr(live).startswith("<LiveRun 'sums': running at step ")
        drawn = live._repr_html_()
        assert "train/mean_nll" in drawn
        assert " left</p>" in drawn or live.done
    assert repr(live) == "<LiveRun 'sums': ended at step 24>"
    result = live.result()
    assert "\n" not in repr(result)
    assert result._repr_html_().startswith("<pre>")
