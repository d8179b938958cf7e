"""The compute thread: jobs in order, owners in turn, sampling between the parts of a job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tinker_officer.engine.compute import Compute, Job


class Beside:
    """Background work that counts its steps."""

    def __init__(self, step_s: float = 0.002) -> None:
        self.left, self.step_s = 0, step_s
        self.times: list[float] = []

    @property
    def busy(self) -> bool:
        return self.left > 0

    def step(self) -> None:
        time.sleep(self.step_s)
        self.left -= 1
        self.times.append(time.perf_counter())


@pytest.fixture
def beside() -> Beside:
    return Beside()


@pytest.fixture
def compute(beside: Beside) -> Iterator[Compute]:
    thread = Compute(beside, lambda: None)
    thread.start()
    prepared = threading.Event()
    thread.call(prepared.set)
    assert prepared.wait(5.0)
    yield thread
    assert thread.stop(5.0)


class Log:
    """Jobs that write down what they do."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self.lines: list[str] = []
        self.results: list[Any] = []
        self._open = 0
        self._all = threading.Condition()

    def job(self, owner: str, name: str, parts: int = 1, *, part_s: float = 0.0, fails: bool = False) -> None:
        def work() -> Generator[None, None, str]:
            for part in range(parts):
                if part:
                    yield
                time.sleep(part_s)
                self.lines.append(f"{name}{part}")
            if fails:
                raise ValueError(name)
            return name

        def done(result: Any) -> None:
            with self._all:
                self.results.append(result)
                self._open -= 1
                self._all.notify()

        with self._all:
            self._open += 1
        self._compute.submit(Job(owner, work, done))

    def wait(self) -> None:
        with self._all:
            assert self._all.wait_for(lambda: self._open == 0, timeout=20)


def held(compute: Compute) -> Callable[[], None]:
    """Hold the thread, so that what is submitted piles up; return what lets it go."""
    gate = threading.Event()
    compute.call(lambda: gate.wait(10) and None)
    return gate.set


def test_jobs_of_one_owner_keep_their_order(compute: Compute) -> None:
    """What one model is asked is done in the order in which it was asked, each job as a whole."""
    log, go = Log(compute), held(compute)
    for name in "abc":
        log.job("model", name, parts=2)
    go()
    log.wait()
    assert log.lines == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert log.results == ["a", "b", "c"]


def test_owners_take_turns(compute: Compute) -> None:
    """A model with one job need not wait for all the jobs of another."""
    log, go = Log(compute), held(compute)
    for name in "abc":
        log.job("one", name)
    log.job("two", "x")
    go()
    log.wait()
    assert log.lines == ["a0", "x0", "b0", "c0"]


def test_a_job_that_fails_fails_alone(compute: Compute) -> None:
    """An exception is that job's result, and the next one is done."""
    log = Log(compute)
    log.job("model", "bad", fails=True)
    log.job("model", "good")
    log.wait()
    assert isinstance(log.results[0], ValueError)
    assert log.results[1] == "good"


def test_an_answer_that_cannot_be_handed_out_stops_nobody(compute: Compute) -> None:
    """When telling a result fails, which nobody foresaw, the thread goes on to the next job."""
    told = threading.Event()

    def work() -> Generator[None, None, None]:
        yield

    def fail(_result: Any) -> None:
        raise RuntimeError("nobody listens")

    compute.submit(Job("a", work, fail))
    compute.submit(Job("a", work, lambda _result: told.set()))

    assert told.wait(5.0)


def test_sampling_goes_on_between_the_parts_of_a_job(compute: Compute, beside: Beside) -> None:
    """While a long job runs, background work gets about the same time, and does not wait for its end."""
    log, go = Log(compute), held(compute)
    beside.left = 40
    log.job("model", "long", parts=10, part_s=0.02)
    go()
    log.wait()
    ended = time.perf_counter()
    before = sum(moment < ended for moment in beside.times)
    assert before >= 20, "0.2 s of parts leave room for most of 0.08 s of steps"


def test_a_job_is_not_starved_by_sampling(compute: Compute, beside: Beside) -> None:
    """While background work never ends, a job gets its half of the time."""
    log = Log(compute)
    beside.left = 10**9
    started = time.perf_counter()
    log.job("model", "short", parts=5, part_s=0.01)
    log.wait()
    beside.left = 0
    assert time.perf_counter() - started < 2.0


def test_calls_are_made_between_parts(compute: Compute) -> None:
    """A call, such as a new sampling request, does not wait for the end of a job; a bad one harms none."""
    log, go = Log(compute), held(compute)
    log.job("model", "long", parts=20, part_s=0.01)
    go()
    time.sleep(0.02)
    compute.call(lambda: 1 // 0 and None)
    compute.call(lambda: log.lines.append("call"))
    log.wait()
    assert 0 < log.lines.index("call") < 20


def test_when_it_cannot_begin_every_job_says_why() -> None:
    """If the slow imports fail, each job fails with their error, and nothing hangs."""

    def prepare() -> None:
        raise ImportError("no torch here")

    compute = Compute(Beside(), prepare)
    compute.start()
    log = Log(compute)
    for name in "ab":
        log.job("model", name)
    log.wait()
    assert [str(result) for result in log.results] == ["no torch here"] * 2
    assert compute.stop(5.0)


def test_stopping_waits_for_the_step_at_hand_only() -> None:
    """Stopping ends after the part at hand; a part that takes too long is reported."""
    compute = Compute(Beside(), lambda: None)
    compute.start()
    log = Log(compute)
    log.job("model", "first")
    log.wait()
    log.job("model", "slow", parts=100, part_s=0.3)
    time.sleep(0.1)
    assert not compute.stop(0.01)
    assert compute.stop(5.0)
    assert len(log.lines) <= 3


def test_preparing_is_not_waited_for() -> None:
    """A thread that is still importing does not hold up the end of the process."""
    compute = Compute(Beside(), lambda: time.sleep(1.0))
    compute.start()
    started = time.monotonic()
    assert not compute.stop(5.0)
    assert time.monotonic() - started < 0.5
