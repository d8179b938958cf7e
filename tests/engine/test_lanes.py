"""Two micro-batches at once: the same gradient, and nothing that follows a timing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinker_officer.engine import trainer as trainer_module
from tinker_officer.engine.lanes import lanes, side_by_side
from tinker_officer.engine.lora import Adapter
from tinker_officer.engine.models import BaseModel
from tinker_officer.engine.packing import micro_batches, rounds
from tinker_officer.engine.trainer import Example, LossOutput, Trainer


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch compute with two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_each_lane_has_half_of_the_threads(two_threads: None) -> None:
    """Both pieces of work run at the same time, on one of two threads each, which are given back."""
    meet = threading.Barrier(2, timeout=30)

    def work() -> int:
        meet.wait()
        return torch.get_num_threads()

    assert lanes() == 2
    assert side_by_side(work, work) == (1, 1)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("failing", [0, 1])
def test_a_lane_that_fails_is_waited_for(two_threads: None, failing: int) -> None:
    """An error of either lane is raised when both have ended, and the threads are given back."""
    ended: list[str] = []

    def fail() -> NoReturn:
        raise ValueError("poison")

    def work() -> None:
        ended.append("the other")

    with pytest.raises(ValueError, match="poison"):
        side_by_side(*((fail, work) if failing == 0 else (work, fail)))
    assert ended == ["the other"]
    assert torch.get_num_threads() == 2


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_rounds_hold_every_batch_once(lengths: list[int]) -> None:
    """No batch is lost or done twice, no second lane is much longer, and a long batch stands alone."""
    batches = micro_batches(lengths, budget=20)
    found = rounds(batches, lengths, longest=40)

    done = [batch for together in found for lane in together for batch in lane]
    assert sorted(done) == sorted(batches)
    for together in found:
        tokens = [sum(lengths[index] for batch in lane for index in batch) for lane in together]
        assert len(tokens) == 1 or (tokens[0] <= 40 and tokens[1] <= 1.125 * tokens[0])


def test_two_lanes_give_the_gradient_of_one(
    base: BaseModel,
    trained: Adapter,
    data: list[Example],
    fit: Callable[..., LossOutput],
    two_threads: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loss, log-probabilities and gradient are those of one batch after another, and repeat bit for bit."""
    at_once: list[Any] = []

    def watched(*work: Callable[[], float]) -> tuple[float, float]:
        at_once.append(work)
        return side_by_side(*work)

    def run(trainer: Trainer) -> tuple[LossOutput, torch.Tensor]:
        output = fit(trainer, data)
        return output, torch.cat([gradient.flatten() for gradient in trainer.gradient.values()])

    monkeypatch.setattr(trainer_module, "MICRO_BATCH_TOKENS", 40)
    monkeypatch.setattr(trainer_module, "side_by_side", watched)
    first, gradient = run(Trainer(base, trained))
    assert len(at_once) == 1  # the 40 tokens of one example beside the 17 + 1 and the 9 + 5 of the others
    again, repeated = run(Trainer(base, trained))
    monkeypatch.setattr(trainer_module, "lanes", lambda: 1)
    alone, expected = run(Trainer(base, trained))
    assert len(at_once) == 2

    assert first.metrics == again.metrics
    assert torch.equal(gradient, repeated)
    assert first.metrics["loss:sum"] == pytest.approx(alone.metrics["loss:sum"], rel=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))
    for one, other in zip(first.outputs, alone.outputs, strict=True):
        torch.testing.assert_close(torch.tensor(one["logprobs"]), torch.tensor(other["logprobs"]))
