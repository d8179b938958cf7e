"""The learning rate's shapes against closed forms and the cookbook."""

from __future__ import annotations

import math

import pytest

from tinker_officer.errors import RunError
from tinker_officer.train.schedule import Schedule


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_without_warm_up_a_shape_equals_the_cookbooks(shape: str, steps: int) -> None:
    """Without warm-up, linear and cosine equal the cookbook's multipliers at every step."""
    from tinker_cookbook.utils.lr_scheduling import compute_schedule_lr_multiplier

    schedule = Schedule(shape, warmup=0.0)
    ours = [schedule.multiplier(step, steps) for step in range(1, steps + 1)]
    theirs = [compute_schedule_lr_multiplier(shape, step=step, total_steps=steps) for step in range(steps)]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_warm_up_rises_linearly_to_one_peak() -> None:
    """Ten steps with 40 % warm-up: four equal rises, one peak at the fifth, then a fall to 1/6."""
    ours = [Schedule("linear", warmup=0.4).multiplier(step, 10) for step in range(1, 11)]
    assert ours == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_cosine_is_halfway_at_the_middle() -> None:
    """The cosine passes one half at the middle of its fall, and is symmetrical about it."""
    schedule = Schedule("cosine", warmup=0.0)
    values = [schedule.multiplier(step, 8) for step in range(1, 9)]
    assert values[4] == pytest.approx(0.5)
    assert values[1] + values[7] == pytest.approx(1.0)
    assert values[1] == pytest.approx((1 + math.cos(math.pi / 8)) / 2)


def test_constant_stays_at_the_peak_after_warm_up() -> None:
    """A constant schedule warms up and then takes the peak at every step."""
    values = [Schedule("constant", warmup=0.2).multiplier(step, 10) for step in range(1, 11)]
    assert values == pytest.approx([1 / 3, 2 / 3, *[1.0] * 8])


def test_wsd_falls_at_the_end_as_linear_does() -> None:
    """Of ten steps two warm up, four stand at the peak, and four fall as a linear run of four steps."""
    values = [Schedule("wsd", warmup=0.2, decay=0.4).multiplier(step, 10) for step in range(1, 11)]
    falling = [Schedule("linear", warmup=0.0).multiplier(step, 4) for step in range(1, 5)]
    assert values == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, *falling])
    assert Schedule.from_dict({"shape": "wsd", "warmup": 0.2, "decay": 0.4}).decay == 0.4
    with pytest.raises(RunError, match="decay is out of range"):
        Schedule("wsd", decay=0.0)


@pytest.mark.parametrize("shape", ["linear", "cosine", "constant", "wsd"])
@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.5, 0.9])
@pytest.mark.parametrize("steps", [1, 2, 3, 17])
def test_every_step_trains(shape: str, warmup: float, steps: int) -> None:
    """Each step's learning rate is above zero and at most the peak, and the peak is reached."""
    values = [Schedule(shape, warmup=warmup).multiplier(step, steps) for step in range(1, steps + 1)]
    assert all(0 < value <= 1 for value in values)
    assert max(values) == 1


def test_an_unknown_shape_is_refused_where_it_is_written() -> None:
    """A misspelt shape names the nearest one."""
    with pytest.raises(RunError, match="did you mean 'linear'"):
        Schedule("liner")
    with pytest.raises(RunError, match="warmup is out of range"):
        Schedule("linear", warmup=1.0)
