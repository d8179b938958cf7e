"""A plan as a configuration of the cookbook's own training recipes: its numbers, and what data it has."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from tinker_officer.errors import PlanError
from tinker_officer.plan.pilot_arm import rows_of


if TYPE_CHECKING:
    import tinker

    from tinker_officer.plan.plan import LoRAPlan

_RECIPES = {"sft": "supervised", "prompt_distillation": "supervised", "dpo": "preference"}
# What a plan for sampled data cannot say: where its prompts come from, and how long an answer may be.
_SAMPLED = {"rl": ("dataset_builder", "max_tokens"), "distill": ("dataset_configs", "max_tokens")}


@attrs.define
class PlannedBatches:
    """A plan's rows as a cookbook `SupervisedDataset`: written in tokens, in the order of the plan's seed.

    Args:
        datums: returns the datums of a row.
        rows: the rows that are trained on.
        batch_size: rows a batch.
        seed: what the order follows from, with the epoch.
    """

    datums: Callable[[int], list[tinker.Datum]]
    rows: list[int]
    batch_size: int
    seed: int
    _epoch: int = attrs.field(init=False, default=0)

    def set_epoch(self, seed: int = 0) -> None:
        """Take the order of this epoch."""
        self._epoch = seed

    def get_batch(self, index: int) -> list[tinker.Datum]:
        """Return the datums of a batch of this epoch; of a pair the chosen one first."""
        step = self._epoch * len(self) + index + 1
        chosen = rows_of(step, examples=len(self.rows), batch_size=self.batch_size, seed=self.seed)
        return [datum for place in chosen for datum in self.datums(self.rows[place])]

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)


def recipe_config(plan: LoRAPlan, log_path: str | Path, settings: dict[str, Any]) -> Any:
    """Return the configuration of a recipe; see `LoRAPlan.to_cookbook_config`.

    Raises:
        PlanError: the plan has no rows to train on, or it lacks what a plan cannot say.
    """
    if plan.method in _SAMPLED:
        return _sampled(plan, log_path, settings)
    if plan.method not in _RECIPES or plan.data is None:
        raise PlanError(
            "this plan has no rows for a recipe of the cookbook's to train on",
            got=f"a plan for {plan.method!r}" + ("" if plan.data is not None else ", made from counts"),
            need="a plan made from data with .sft(...), .prompt_distillation(...) or .dpo(...)",
            fix="LoRAPlan.for_(base_model).sft(train).to_cookbook_config('runs/recipe')",
        )
    import chz
    from tinker_cookbook.supervised.types import ChatDatasetBuilder, ChatDatasetBuilderCommonConfig

    renderer_name, batches = _batches(plan)

    class Builder(ChatDatasetBuilder):  # type: ignore[misc]  # the cookbook is untyped here
        """Builds the plan's batches, and no test set."""

        def __call__(self) -> tuple[PlannedBatches, None]:
            return batches, None

    common = ChatDatasetBuilderCommonConfig(
        model_name_for_tokenizer=plan.base_model,
        renderer_name=renderer_name,
        max_length=plan.max_length,
        batch_size=plan.batch_size,
    )
    fields: dict[str, Any] = {
        "log_path": str(log_path),
        "model_name": plan.base_model,
        "recipe_name": f"tinker_officer_{plan.method}",
        "renderer_name": renderer_name,
        "dataset_builder": chz.chz(Builder)(common_config=common),
        "learning_rate": plan.learning_rate,
        "lora_rank": plan.rank,
        "num_epochs": plan.epochs,
    }
    if plan.method == "dpo":
        from tinker_cookbook.preference import train_dpo

        return train_dpo.Config(**{**fields, "dpo_beta": plan.objective.dpo_beta, **settings})  # type: ignore[union-attr]  # a plan for DPO
    from tinker_cookbook.supervised import train

    return train.Config(**{**fields, **settings})


def _sampled(plan: LoRAPlan, log_path: str | Path, settings: dict[str, Any]) -> Any:
    """Return the configuration of a recipe that samples what it trains on."""
    if missing := [name for name in _SAMPLED[plan.method] if name not in settings]:
        raise PlanError(
            f"a recipe for {plan.method!r} needs what no plan says",
            got="to_cookbook_config without " + " and ".join(missing),
            need=" and ".join(_SAMPLED[plan.method]),
            fix=f"plan.to_cookbook_config('runs/recipe', {missing[0]}=..., max_tokens=256)",
        )
    fields: dict[str, Any] = {
        "log_path": str(log_path),
        "model_name": plan.base_model,
        "recipe_name": f"tinker_officer_{plan.method}",
        "learning_rate": plan.learning_rate,
        "lora_rank": plan.rank,
    }
    if plan.method == "distill":
        from tinker_cookbook.distillation import train_on_policy

        weight = plan.objective.kl_penalty_coef  # type: ignore[union-attr]  # a plan for distillation
        return train_on_policy.Config(**{**fields, "kl_penalty_coef": weight, **settings})
    from tinker_cookbook.rl import train

    return train.Config(**{**fields, **settings})


def _batches(plan: LoRAPlan) -> tuple[str, PlannedBatches]:
    """Return the plan's renderer and batches."""
    from tinker_officer.data.examples import Examples
    from tinker_officer.data.pair_counts import measure_pairs
    from tinker_officer.data.pairs import Pairs
    from tinker_officer.data.render import renderer_for

    data: Any = plan.data
    rules: Any = {"max_length": plan.max_length, "too_long": plan.too_long}
    if isinstance(data, Pairs):
        pairs, known = data, measure_pairs(data, plan.base_model, renderer_name=plan.renderer_name, **rules)
        renderer = renderer_for(plan.base_model, known.renderer_name)

        def both(row: int) -> list[tinker.Datum]:
            limit: Any = {"max_length": known.max_length, "too_long": plan.too_long}
            return list(pairs[row].datums(renderer, **limit) or ())

        rows = [int(row) for row in np.flatnonzero(known.used)]
        return known.renderer_name, PlannedBatches(both, rows, plan.batch_size, plan.seed)
    examples = Examples.of(
        data, plan.base_model, train_on=plan.train_on, renderer_name=plan.renderer_name, **rules
    )
    rows = list(range(len(examples)))
    batches = PlannedBatches(lambda row: [examples[row]], rows, plan.batch_size, plan.seed)
    return examples.renderer_name, batches
