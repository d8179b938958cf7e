"""A real pilot: short runs on the embedded engine, interrupted, resumed, refused."""

from __future__ import annotations

import asyncio
import json
import math
import random
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tinker_officer import Conversations, LoRAPlan, TokenCounts
from tinker_officer._journal import Journal
from tinker_officer.errors import PlanError
from tinker_officer.plan.pilot import arm_steps, piloted, run_pilot, run_pilot_async
from tinker_officer.plan.pilot_arm import ADAM, diverged, multiplier, rows_of
from tinker_officer.plan.pilot_fit import Arm, PilotFit
from tinker_officer.train.order import Order
from tinker_officer.train.schedule import Schedule
from tinker_officer.train.settings import Adam
from tinker_officer.train.sft import scale


if TYPE_CHECKING:
    from tinker_officer import LocalEngine

STEPS = 12
COLOURS = ("red", "green", "blue", "black", "white", "amber", "ivory", "teal")


@pytest.fixture(scope="module")
def split() -> tuple[Conversations, Conversations]:
    chance = random.Random(0)
    rows = []
    for number in range(120):
        first, second = chance.choice(COLOURS), chance.choice(COLOURS)
        answer = f"after {first} comes {second}"
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": f"{number}: what comes after {first}? ({second})"},
                    {"role": "assistant", "content": answer},
                ]
            }
        )
    return Conversations.from_list(rows).split(held_out=0.2)


@pytest.fixture(scope="module")
def plan(tiny_model: Path, split: tuple[Conversations, Conversations]) -> LoRAPlan:
    """A plan whose rate is where a tiny random model learns, which is higher than a real one's."""
    return LoRAPlan.for_(str(tiny_model)).sft(split[0]).pin(rank=4, learning_rate=2e-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pilot") / "whole"


@pytest.fixture(scope="module")
def fit(
    plan: LoRAPlan, split: tuple[Conversations, Conversations], engine: LocalEngine, folder: Path
) -> PilotFit:
    return run_pilot(plan, *split, on=engine, at=folder, steps=STEPS, progress=False)


def test_a_pilot_measures_the_rate_on_the_data(fit: PilotFit, plan: LoRAPlan) -> None:
    """Six arms or more run, the best is inside its interval, and the plan takes the rate from the pilot."""
    ended = [arm for arm in fit.arms if arm.nll is not None]
    assert len(fit.arms) >= 6
    assert fit.refused is None, fit.explain()
    assert fit.doubts == ("arms of 12 steps: short runs favour higher rates",)
    assert fit.learning_rate is not None
    assert fit.interval is not None
    assert fit.interval[0] * 1.24 <= fit.learning_rate <= fit.interval[1] / 1.24
    best = min(ended, key=lambda arm: arm.nll or math.inf)
    assert best.learning_rate / 2 <= fit.learning_rate <= best.learning_rate * 2
    assert best.nll is not None
    assert best.nll < fit.start_nll
    settled = piloted(plan, fit)
    assert settled.learning_rate == pytest.approx(fit.learning_rate, rel=0.05)
    assert settled.decision.learning_rate.source.startswith("pilot: ")
    assert settled.decision.learning_rate.interval == pytest.approx(fit.interval, rel=0.05)
    assert not settled.decision.learning_rate.pinned


def test_two_replicates_at_the_centre_differ_by_chance_alone(fit: PilotFit) -> None:
    """The centre runs twice, from two seeds; the losses differ, and that is the noise at the least."""
    centre = [arm for arm in fit.arms if arm.learning_rate == 2e-2]
    assert [arm.replicate for arm in centre] == [0, 1]
    first, second = (arm.nll for arm in centre)
    assert first is not None
    assert second is not None
    assert first != second
    assert fit.noise >= abs(first - second) / math.sqrt(2) * 0.999


def test_a_finished_pilot_is_not_run_again(
    fit: PilotFit, plan: LoRAPlan, split: tuple[Conversations, Conversations], folder: Path
) -> None:
    """The same call returns the same fit at once, without a service."""
    again = run_pilot(plan, *split, on="no service at all", at=folder, steps=STEPS, progress=False)
    assert again == fit


def test_an_interrupted_pilot_ends_as_if_it_had_not_been(
    fit: PilotFit,
    plan: LoRAPlan,
    split: tuple[Conversations, Conversations],
    engine: LocalEngine,
    tmp_path: Path,
) -> None:
    """Cancelled after some steps, it goes on from the states saved, and every arm has the same loss."""
    at = tmp_path / "cut"

    async def cut() -> None:
        task = asyncio.create_task(
            run_pilot_async(plan, *split, on=engine, at=at, steps=STEPS, progress=False)
        )
        while not any("state" in record for record in _records(at)):
            await asyncio.sleep(0.01)
            assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cut())
    assert not (at / "result.json").exists()
    before = len(_records(at))
    again = run_pilot(plan, *split, on=engine, at=at, steps=STEPS, progress=False)
    whole = sum(1 for record in _records(at.parent / "cut") if "step" in record)
    assert before > 0
    assert whole < 2 * STEPS * len(again.arms)  # nothing began again from the first step
    assert [arm.nll for arm in again.arms] == pytest.approx([arm.nll for arm in fit.arms], rel=1e-5)


def test_arms_that_diverge_are_stopped_and_all_of_them_is_an_error(
    plan: LoRAPlan, split: tuple[Conversations, Conversations], engine: LocalEngine, tmp_path: Path
) -> None:
    """At absurd rates every arm ends before its last step, and the error says how each went."""
    with pytest.raises(PlanError, match="every arm of the pilot diverged") as caught:
        run_pilot(
            plan.pin(learning_rate=1.0),
            *split, on=engine, at=tmp_path, steps=40, progress=False,
        )  # fmt: skip
    assert "rose from" in str(caught.value) or "not finite" in str(caught.value)
    ended = [record["ended"] for record in _records(tmp_path) if "ended" in record]
    assert len(ended) == 6
    assert all(one["losses"] is None and one["steps"] < 40 for one in ended)


def test_the_door_of_the_plan_leads_here(
    fit: PilotFit,
    plan: LoRAPlan,
    split: tuple[Conversations, Conversations],
    folder: Path,
    engine: LocalEngine,
) -> None:
    """`plan.pilot` returns a plan with the fit, which survives JSON."""
    settled = plan.pilot(*split, on=engine, at=folder, steps=STEPS, progress=False)
    assert not settled.decision.learning_rate.pinned
    assert settled.pilot_fit == fit
    assert LoRAPlan.from_json(settled.to_json()).pilot_fit == fit


def test_the_plot_and_the_text_show_every_arm(fit: PilotFit, folder: Path, tmp_path: Path) -> None:
    """The folder has an SVG that parses; another ending writes another format; the text has each rate."""
    assert ET.parse(folder / "pilot.svg").getroot().tag.endswith("svg")
    assert fit.plot(tmp_path / "pilot.png").read_bytes().startswith(b"\x89PNG")
    for arm in fit.arms:
        assert f"{arm.learning_rate:.2e}" in fit.explain()


def test_another_pilots_folder_is_refused(
    fit: PilotFit, plan: LoRAPlan, split: tuple[Conversations, Conversations], folder: Path
) -> None:
    """A folder holds one pilot: other steps, another rank or other data need another folder."""
    assert fit.steps == STEPS
    with pytest.raises(PlanError, match="differs in steps"):
        run_pilot(plan, *split, on="none", at=folder, steps=STEPS + 1, progress=False)


def test_wrong_data_is_refused_before_anything_runs(
    plan: LoRAPlan, split: tuple[Conversations, Conversations], tmp_path: Path
) -> None:
    """Data that the plan was not made for, a held-out set that is trained on, and steps of 0."""
    train, held_out = split
    with pytest.raises(PlanError, match="not what the plan was made for"):
        run_pilot(plan, held_out, train, on="none", at=tmp_path)
    with pytest.raises(PlanError, match="judged on what it trains on"):
        run_pilot(plan, train, train, on="none", at=tmp_path)
    with pytest.raises(PlanError, match="steps is out of range"):
        run_pilot(plan, train, held_out, on="none", at=tmp_path, steps=0)


def test_a_refused_fit_leaves_the_plan_as_it_was() -> None:
    """The plan keeps its rate and its pins, carries the record, and doubts aloud."""
    base = LoRAPlan.for_("Qwen/Qwen3-8B").sft(TokenCounts(examples=9_500, trained=2_000_000, total=2_600_000))
    refused = PilotFit(
        base_model="Qwen/Qwen3-8B", rank=16, batch_size=16, steps=100, start_nll=1.2, held_out=50,
        arms=(Arm(5e-4, 0, 100, 1.0),), learning_rate=None, interval=None, curvature=None, noise=1e-4,
        refused="the best rate is the lowest that was tried, 1.3e-4",
    )  # fmt: skip
    kept = piloted(base, refused)
    assert kept.learning_rate == base.learning_rate
    assert any("settles nothing: the best rate is the lowest" in doubt
               for doubt in kept.decision.learning_rate.doubts)  # fmt: skip
    with pytest.raises(PlanError, match="settled no learning rate"):
        refused.sourced(16, exponent=0.2)
    assert "No rate is taken from it" in refused.explain()


def test_a_pilots_rate_moves_with_the_rank() -> None:
    """A fit at rank 16 used at rank 64 is moved by the rank exponent, and says so."""
    found = PilotFit(
        base_model="m", rank=16, batch_size=16, steps=100, start_nll=1.2, held_out=50, arms=(),
        learning_rate=2e-4, interval=(1.5e-4, 2.6e-4), curvature=0.1, noise=1e-4, lowest=0.9,
    )  # fmt: skip
    moved = found.sourced(64, exponent=0.25)
    assert moved.value == pytest.approx(2e-4 * math.sqrt(2), rel=0.02)
    assert any("ran at rank 16" in doubt for doubt in moved.doubts)
    assert found.sourced(16, exponent=0.25).doubts == ()
    assert PilotFit.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(PlanError, match="not a pilot's result"):
        PilotFit.from_dict({"rank": 1})


def test_an_arm_is_a_tenth_of_the_run_and_at_least_100_steps() -> None:
    """Never more than the run itself."""
    assert [arm_steps(steps) for steps in (30, 100, 600, 5_000)] == [30, 100, 100, 500]


def test_an_arm_trains_as_a_run_does() -> None:
    """Order, schedule and optimizer are those of the train room, which the plan room may not import."""
    schedule, adam = Schedule(), Adam()
    for steps in (1, 7, 100, 333):
        for step in range(1, steps + 1):
            assert multiplier(step, steps) == schedule.multiplier(step, steps)
    order = Order(np.arange(53), batch_size=8, epochs=3, seed=5)
    for step in range(1, order.steps + 1):
        assert tuple(rows_of(step, examples=53, batch_size=8, seed=5)) == order.batch(step)
    assert {name: getattr(adam, name) for name in ADAM} == ADAM
    assert (adam.weight_decay, adam.grad_clip_norm) == (0.0, 0.0)
    [scaled] = scale([np.array([0.0, 1.0, 1.0])], "token")
    assert scaled.tolist() == [0.0, 0.5, 0.5]


def test_an_arm_is_stopped_when_its_smoothed_loss_rises() -> None:
    """0.3 above the start, after a tenth of the steps; a single bad batch is not enough."""
    calm = dict.fromkeys(range(1, 101), 1.0)
    assert diverged(calm, 100, 100, 1.0) is None
    assert diverged({**calm, 50: 2.0}, 50, 100, 1.0) is None
    risen = {**calm, **dict.fromkeys(range(40, 51), 1.4)}
    assert diverged(risen, 50, 100, 1.0) is not None
    assert diverged(risen, 50, 100, 1.2) is None  # the first batch was an easy one
    assert diverged(dict.fromkeys(range(1, 10), 9.0) | {1: 1.0}, 9, 100, 1.0) is None  # too early


def _records(at: Path) -> list[dict[str, Any]]:
    return [record for file in sorted(at.glob("arms/*.jsonl")) for record in Journal(file)]
