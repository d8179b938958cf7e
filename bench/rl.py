"""RL tokens a second, ours against the cookbook's own loop: one engine, one tiny model, one environment.

    python bench/rl.py

Both sample the same number of episodes of the same length, and train on all of them. The cookbook runs as it
is (synchronous `rl.train`); ours runs on policy, and one step behind. Tokens are those that were sampled.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import chz
import tinker
from tinker_cookbook.rl import train as recipe
from tinker_cookbook.rl.types import Env, EnvGroupBuilder, RLDataset, RLDatasetBuilder, StepResult

from tinker_officer import LocalEngine, LoRAPlan, Run
from tinker_officer.testing import tiny_model


STEPS, GROUPS, SIZE, TOKENS = 10, 8, 8, 32
RATE, RANK = 1e-3, 8


class Even(Env):
    """One turn of random length; the reward is the share of even tokens."""

    async def initial_observation(self) -> tuple[tinker.ModelInput, Any]:
        """Return a prompt that nothing but the limit ends."""
        return tinker.ModelInput.from_ints([5, 9, 12, 20]), []

    async def step(self, action: list[int], *, extra: Any = None) -> StepResult:
        """Return the share of even tokens."""
        del extra
        share = sum(token % 2 == 0 for token in action) / len(action)
        return StepResult(share, True, tinker.ModelInput.from_ints([]), [])


class Evens(EnvGroupBuilder):
    """A group of such episodes."""

    async def make_envs(self) -> Sequence[Env]:
        """Return the environments."""
        return [Even() for _ in range(SIZE)]


class Dataset(RLDataset):
    """Batches of such groups."""

    def get_batch(self, index: int) -> Sequence[EnvGroupBuilder]:
        """Return one step's groups."""
        del index
        return [Evens() for _ in range(GROUPS)]

    def __len__(self) -> int:
        return STEPS


@chz.chz
class Builder(RLDatasetBuilder):
    """Builds the dataset, as the recipe asks."""

    async def __call__(self) -> tuple[RLDataset, None]:
        """Return it, and no test set."""
        return Dataset(), None


def theirs(engine: LocalEngine, model: str, folder: Path) -> float:
    """Return the seconds that the cookbook's loop takes, from its first step to its last."""
    os.environ["TINKER_API_KEY"] = engine.token
    config = recipe.Config(
        learning_rate=RATE,
        dataset_builder=Builder(),
        model_name=model,
        recipe_name="bench",
        max_tokens=TOKENS,
        log_path=str(folder),
        eval_every=0,
        save_every=0,
        lora_rank=RANK,
        base_url=engine.base_url,
        num_groups_to_log=0,
        rollout_json_export=False,
    )
    asyncio.run(recipe.main(config))
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return sum(record.get("time/total", 0.0) for record in records)


def ours(engine: LocalEngine, model: str, folder: Path, *, lag: int) -> float:
    """Return the seconds that our loop takes, from its first step to its last."""
    plan = LoRAPlan.for_(model).rl(STEPS * GROUPS * SIZE, group_size=SIZE, groups_per_batch=GROUPS)
    run = Run(plan.pin(learning_rate=RATE, rank=RANK), name="bench").rl(
        Dataset(), max_tokens=TOKENS, max_steps_off_policy=lag
    )
    result = run.checkpoint(every=STEPS).run(engine, folder, progress=False)
    return float(sum(row["time/step_s"] for row in result.history()))


def main() -> None:
    """Time each three times in turn, and print the best of each."""
    logging.disable(logging.INFO)
    sampled = STEPS * GROUPS * SIZE * TOKENS
    with tempfile.TemporaryDirectory() as name, LocalEngine(root=Path(name) / "engine") as engine:
        folder = Path(name)
        model = str(tiny_model(folder / "tiny"))
        _ = ours(engine, model, folder / "warm", lag=0)  # loads the model, and tells the cookbook of it
        best: dict[str, float] = {}
        for turn in range(3):
            timed = {
                "cookbook": theirs(engine, model, folder / f"cookbook-{turn}"),
                "ours, on policy": ours(engine, model, folder / f"on-{turn}", lag=0),
                "ours, one step behind": ours(engine, model, folder / f"behind-{turn}", lag=1),
            }
            best = {what: min(seconds, best.get(what, seconds)) for what, seconds in timed.items()}
    began = time.strftime("%Y-%m-%d")
    print(f"{began}: {STEPS} steps of {GROUPS} x {SIZE} episodes of {TOKENS} tokens, best of 3")
    for what, seconds in best.items():
        ratio = best["cookbook"] / seconds
        print(f"{what:22s} {sampled / seconds:10,.0f} sampled tokens/s   {ratio:.2f} x the cookbook")


if __name__ == "__main__":
    main()
