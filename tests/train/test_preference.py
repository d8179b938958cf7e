"""DPO and the reward model: losses against NumPy, a reference that is kept, and models that learn."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tinker_officer import LocalEngine, LoRAPlan, Pairs, Run
from tinker_officer.train.preference import Dpo, _bradley_terry, dpo_metrics
from tinker_officer.train.reference import REFERENCE
from tinker_officer.train.rewards import Reward


RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """A right answer and an evasive one, sixteen times."""
    return Pairs.from_list(
        [
            {"prompt": f"What is {i} plus {i}?", "chosen": f"It is {2 * i}.", "rejected": f"Who knows {i}?"}
            for i in range(16)
        ]
    )


def test_dpo_is_the_formula_of_its_paper() -> None:
    """Loss, accuracy and margin equal -log sigmoid(beta * difference of log-ratios), pair by pair."""
    sums, reference, beta = RNG.normal(-40, 5, 8), RNG.normal(-40, 5, 8), 0.3
    losses, right, margins = [], [], []
    for chosen in range(0, 8, 2):
        rejected = chosen + 1
        ratio = (sums[chosen] - reference[chosen]) - (sums[rejected] - reference[rejected])
        losses.append(-math.log(1 / (1 + math.exp(-beta * ratio))))
        right.append(ratio > 0)
        margins.append(beta * ratio)
    got = dpo_metrics(sums, reference, beta=beta)
    assert got["dpo_loss"] == pytest.approx(np.mean(losses), rel=1e-12)
    assert got["accuracy"] == np.mean(right)
    assert got["margin"] == pytest.approx(np.mean(margins), rel=1e-12)
    assert got["chosen_reward"] - got["rejected_reward"] == pytest.approx(got["margin"], rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_loss_that_is_differentiated_is_the_loss_that_is_reported(scale: float) -> None:
    """Value and gradient of the pairwise loss equal NumPy's, also where a sigmoid would overflow."""
    scores = torch.tensor(RNG.normal(0, scale, 6), dtype=torch.float64, requires_grad=True)
    loss = _bradley_terry(list(scores))
    loss.backward()
    margins = (scores[0::2] - scores[1::2]).detach().numpy()
    assert loss.item() == pytest.approx(np.logaddexp(0, -margins).mean(), rel=1e-12)
    slope = -np.exp(-np.logaddexp(0, margins)) / len(margins)
    assert scores.grad is not None
    np.testing.assert_allclose(scores.grad[0::2], slope, rtol=1e-9)
    np.testing.assert_allclose(scores.grad[1::2], -slope, rtol=1e-9)


def test_dpo_learns_and_goes_on_from_the_same_reference(
    tiny_model: Path, pairs: Pairs, engine: LocalEngine, tmp_path: Path
) -> None:
    """The first loss is ln 2; a stopped run ends like one never stopped, its reference computed once."""
    plan = LoRAPlan.for_(str(tiny_model)).dpo(pairs, epochs=2, dpo_beta=0.5)
    run = Run(plan.pin(batch_size=4, learning_rate=2e-3, rank=4), name="dpo").checkpoint(every=2)
    assert run.objective == Dpo(beta=0.5)
    whole = run.run(engine, tmp_path / "whole", progress=False)
    history = whole.history()
    assert history[0]["train/dpo_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert history[-1]["train/dpo_loss"] < 0.3
    assert history[-1]["train/accuracy"] == 1.0
    kept = [json.loads(line) for line in (tmp_path / "whole" / REFERENCE).read_text().splitlines()]
    assert len(kept) == len({record["datum"] for record in kept}) == 32

    with run.start(on=engine, at=tmp_path / "halves", progress=False) as live:
        for step in live:
            if step.index == 3:
                live.cancel()
                break
    before = (tmp_path / "halves" / REFERENCE).read_text()
    halves = run.run(engine, tmp_path / "halves", progress=False)
    after = (tmp_path / "halves" / REFERENCE).read_text()
    assert after.startswith(before)
    assert len(after.splitlines()) == 32
    assert sorted(after.splitlines()) == sorted(json.dumps(one, separators=(",", ":")) for one in kept)
    named = [key for key in history[0] if key.startswith("train/")]
    assert [[row[key] for key in named] for row in halves.history()] == [
        [row[key] for key in named] for row in history
    ]


def test_a_reward_model_scores_the_better_answer_higher(
    tiny_model: Path, pairs: Pairs, engine: LocalEngine, tmp_path: Path
) -> None:
    """After training, the scores of an unseen pair stand the right way round."""
    plan = LoRAPlan.for_(str(tiny_model)).reward_model(pairs, epochs=2)
    run = Run(plan.pin(batch_size=4, learning_rate=2e-3, rank=4), name="reward")
    result = run.run(engine, tmp_path / "run", progress=False)
    assert result.metrics["train/accuracy"] == 1.0
    reward = Reward.open(result.best, on=engine)

    def score(answer: str) -> float:
        return reward.score(
            [{"role": "user", "content": "What is 40 plus 40?"}, {"role": "assistant", "content": answer}]
        )

    margin = score("It is 80.") - score("Who knows 40?")
    assert margin > 1.0
    sure = reward.prefers("What is 40 plus 40?", "It is 80.", over="Who knows 40?")
    assert sure == pytest.approx(1 / (1 + math.exp(-margin)), rel=1e-4)
