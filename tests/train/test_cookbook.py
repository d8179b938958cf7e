"""The cookbook both ways: its datasets in our runs, our plans in its recipes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinker_cookbook.distillation import train_on_policy
from tinker_cookbook.distillation.datasets import DistillationDatasetConfig, TeacherConfig
from tinker_cookbook.preference import train_dpo
from tinker_cookbook.recipes.math_rl.arithmetic_env import ArithmeticDatasetBuilder
from tinker_cookbook.rl import train as rl_train
from tinker_cookbook.supervised import train as supervised

from tinker_officer import EpisodeCounts, LocalEngine, LoRAPlan, PairCounts, Pairs, Run, TokenCounts
from tinker_officer.errors import PlanError, RunError


def test_the_recipe_trains_on_a_plan_and_a_run_on_its_dataset_bit_for_bit(
    make_run: Callable[..., Run], engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real recipe sees the losses that our run sees on the same dataset, order, sum and schedule."""
    monkeypatch.setenv("TINKER_API_KEY", engine.token)
    plan = make_run(count=12, epochs=2, batch_size=4).plan
    config = plan.to_cookbook_config(
        tmp_path / "recipe", base_url=engine.base_url, save_every=0, lr_schedule="constant"
    )
    assert isinstance(config, supervised.Config)
    assert (config.learning_rate, config.lora_rank, config.num_epochs) == (5e-3, 4, 2)
    asyncio.run(supervised.main(config))
    records = [json.loads(line) for line in (tmp_path / "recipe" / "metrics.jsonl").read_text().splitlines()]
    theirs = [record["train_mean_nll"] for record in records if "train_mean_nll" in record]

    dataset, _ = config.dataset_builder()
    counted = LoRAPlan.for_(plan.base_model).sft(TokenCounts(examples=12, trained=99, total=999), epochs=2)
    run = Run(counted.pin(learning_rate=5e-3, rank=4), name="theirs").sft(reduction="sum", data=dataset)
    ours = (
        run.schedule("constant", warmup=0).optimizer(eps=1e-8).run(engine, tmp_path / "run", progress=False)
    )
    assert len(theirs) == ours.steps == 6
    # The recipe seeds no adapter, so only the first loss is of the same weights; all fall alike.
    first, last = ours.history()[0]["train/mean_nll"], ours.history()[-1]["train/mean_nll"]
    assert theirs[0] == pytest.approx(first, rel=1e-5)
    assert (theirs[0] > theirs[-1]) == (first > last)


def test_the_dpo_recipe_trains_on_a_plan_and_a_run_on_its_dataset(
    tiny_model: Path, engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real recipe begins where DPO begins and falls; our own DPO takes its dataset and does as well."""
    monkeypatch.setenv("TINKER_API_KEY", engine.token)
    pairs = Pairs.from_list(
        [{"prompt": f"Is {i} odd?", "chosen": "Perhaps.", "rejected": "Who asks?"} for i in range(6)]
    )
    plan = (
        LoRAPlan.for_(str(tiny_model)).dpo(pairs, dpo_beta=0.2).pin(batch_size=3, learning_rate=2e-3, rank=4)
    )
    config = plan.to_cookbook_config(
        tmp_path / "recipe", base_url=engine.base_url, num_epochs=3, save_every=0, eval_every=0
    )
    assert isinstance(config, train_dpo.Config)
    assert config.dpo_beta == 0.2
    train_dpo.main(config)
    records = [json.loads(line) for line in (tmp_path / "recipe" / "metrics.jsonl").read_text().splitlines()]
    theirs = [record["dpo_loss"] for record in records if "dpo_loss" in record]
    assert len(theirs) == 6
    assert theirs[0] == pytest.approx(np.log(2), rel=1e-3)
    assert theirs[-1] < theirs[0]
    dataset, _ = config.dataset_builder()
    assert (len(dataset), len(dataset.get_batch(0))) == (2, 6)
    counted = LoRAPlan.for_(str(tiny_model)).dpo(PairCounts(pairs=6), epochs=3, dpo_beta=0.2)
    run = Run(counted.pin(learning_rate=2e-3, rank=4), name="pairs").dpo(dataset)
    history = run.run(engine, tmp_path / "run", progress=False).history()
    assert history[0]["train/dpo_loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert history[-1]["train/dpo_loss"] < history[0]["train/dpo_loss"]


@pytest.mark.parametrize("method", ["rl", "distill"])
def test_a_plan_for_samples_is_its_recipes_configuration(
    method: str, tiny_model: Path, engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real recipe takes the plan's numbers, and its prompts from where it is told."""
    monkeypatch.setenv("TINKER_API_KEY", engine.token)
    counts = EpisodeCounts(episodes=16, group_size=2, sampled_tokens=4)
    plan = getattr(LoRAPlan.for_(str(tiny_model)), method)(counts).pin(learning_rate=2e-3, rank=4)
    sums = ArithmeticDatasetBuilder(
        batch_size=4,
        model_name_for_tokenizer=str(tiny_model),
        renderer_name="chatml",
        n_batches=2,
        include_fewshot=False,
        group_size=2,
    )
    teacher = TeacherConfig(base_model=str(tiny_model))
    prompts = {
        "rl": {"dataset_builder": sums},
        "distill": {
            "dataset_configs": [
                DistillationDatasetConfig(dataset_builder=sums, teacher_config=teacher, groups_per_batch=4)
            ]
        },
    }[method]
    with pytest.raises(PlanError, match="needs what no plan says"):
        plan.to_cookbook_config(tmp_path)
    config = plan.to_cookbook_config(
        tmp_path / "recipe", base_url=engine.base_url, max_tokens=4, eval_every=0, save_every=0, **prompts
    )
    recipe = {"rl": rl_train, "distill": train_on_policy}[method]
    assert isinstance(config, recipe.Config)
    assert (config.learning_rate, config.lora_rank) == (2e-3, 4)
    asyncio.run(recipe.main(config))
    records = [json.loads(line) for line in (tmp_path / "recipe" / "metrics.jsonl").read_text().splitlines()]
    assert [one["progress/batch"] for one in records if "progress/batch" in one] == [0, 1]


def test_a_plan_from_counts_is_no_recipe(tiny_model: Path) -> None:
    """Without data there is nothing for a recipe to train on."""
    plan = LoRAPlan.for_(str(tiny_model)).sft(TokenCounts(examples=4, trained=9, total=20))
    with pytest.raises(PlanError, match="no rows"):
        plan.to_cookbook_config("runs/recipe")


class Hollow:
    """A dataset without a trained token."""

    def __init__(self, batches: int, made: Any) -> None:
        self.batches, self.made = batches, made

    def set_epoch(self, seed: int = 0) -> None:
        """There is one order."""

    def get_batch(self, index: int) -> Any:
        """Return the same batch always."""
        del index
        return self.made

    def __len__(self) -> int:
        return self.batches


@pytest.mark.parametrize(("batches", "message"), [(0, "cannot be trained on"), (1, "nothing to train on")])
def test_an_empty_dataset_is_an_error(
    tiny_model: Path, engine: LocalEngine, tmp_path: Path, batches: int, message: str
) -> None:
    """No batch, or a batch with no datum: never an untrained final checkpoint."""
    plan = LoRAPlan.for_(str(tiny_model)).sft(TokenCounts(examples=4, trained=9, total=20))
    run = Run(plan, name="hollow").sft(data=Hollow(batches, []))
    with pytest.raises(RunError, match=message):
        run.run(engine, tmp_path / "run", progress=False)
