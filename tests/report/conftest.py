"""A run's folder with a history, and scorecards, made by hand: real values without the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tinker_officer.evals.results import EvalResult, Item
from tinker_officer.evals.scorecard import Scorecard
from tinker_officer.train.checkpoints import Checkpoint
from tinker_officer.train.result import RunResult


def make_eval(scores, *, name: str = "tickets", nll: bool = False, notes: str = "") -> EvalResult:
    items = tuple(
        Item(f"q{i}", float(score), error=notes if i == 0 else "") for i, score in enumerate(scores)
    )
    return EvalResult.from_items(
        items,
        name=name,
        layer="nll" if nll else "product",
        metric="nll" if nll else "accuracy",
        settings={"name": name},
        asked=len(items),
        higher_is_better=not nll,
        bounds=None if nll else (0, 1),
    )


def make_card(*evals: EvalResult, target: str = "tiny") -> Scorecard:
    return Scorecard(target, "tiny", "smollm2", "s" * 64, "2026-01-01T00:00:00+00:00", evals)


@pytest.fixture
def scores() -> Callable[..., EvalResult]:
    return make_eval


@pytest.fixture
def card() -> Callable[..., Scorecard]:
    return make_card


@pytest.fixture
def result(tmp_path: Path) -> Callable[..., RunResult]:
    """Return a maker of results whose folder holds `steps` steps, each tenth with a scorecard."""

    def make(*, steps: int = 40, text: str = "", name: str = "tickets-r16") -> RunResult:
        folder = tmp_path / "run"
        (folder / "evals").mkdir(parents=True)
        with (folder / "metrics.jsonl").open("w") as file:
            for step in range(1, steps + 1):
                row = {
                    "step": step,
                    "train/mean_nll": 3 / step,
                    "train/tokens": 100,
                    "train/learning_rate": 1e-4,
                    "time/step_s": 0.5,
                }
                if step % 10 == 0:
                    evaluated = make_eval([3 / step, 3.5 / step, 2 / step], name="held_out", nll=True)
                    row["held_out/nll"] = evaluated.value
                    make_card(evaluated).save(folder / "evals" / f"step-{step:06d}.json")
                file.write(json.dumps(row) + "\n")
        checkpoint = Checkpoint(
            steps, f"tinker://a/weights/1{text}", f"tinker://a/s/1{text}", "tiny", "smollm2"
        )
        return RunResult(
            name=name,
            base_model=f"tiny{text}",
            folder=folder,
            plan={"computed": {"rank": 16, "verdict": f"ample{text}"}},
            spec={},
            spec_digest="5" * 64,
            data={"source": f"tickets.jsonl{text}", "rows": 300, "split": [{"side": f"train{text}"}]},
            steps=steps,
            metrics={f"train/mean_nll{text}": 0.1, "odd": float("nan")},
            best=checkpoint,
            last=checkpoint,
            final=checkpoint,
            checkpoints=(checkpoint,),
            stopped=f"completed{text}",
            engine={f"tinker{text}": f"0.38{text}"},
            renderer_name=f"smollm2{text}",
            training_fingerprint="f" * 64,
        )

    return make
