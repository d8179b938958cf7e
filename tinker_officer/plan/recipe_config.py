"""A plan as a configuration of the cookbook's own training recipes, data and all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer.data.order import Order
from tinker_officer.errors import PlanError


if TYPE_CHECKING:
    import tinker

    from tinker_officer.plan.plan import LoRAPlan

_RECIPES = {"sft": "supervised", "prompt_distillation": "supervised", "dpo": "preference"}


@attrs.define
class PlannedBatches:
    """A plan's rows as a cookbook `SupervisedDataset`: written in tokens, in the order of the plan's seed.

    Args:
        datums: returns the datums of a row.
        order: which rows make up which batch.
    """

    datums: Callable[[int], list[tinker.Datum]]
    order: Order
    _epoch: int = attrs.field(init=False, default=0)

    def set_epoch(self, seed: int = 0) -> None:
        """Take the order of this epoch."""
        self._epoch = seed

    def get_batch(self, index: int) -> list[tinker.Datum]:
        """Return the datums of a batch of this epoch; of a pair the chosen one first."""
        rows = self.order.batch(self._epoch * len(self) + index + 1)
        return [datum for row in rows for datum in self.datums(row)]

    def __len__(self) -> int:
        return self.order.steps_per_epoch


def recipe_config(plan: LoRAPlan, log_path: str | Path, settings: dict[str, Any]) -> Any:
    """Return the configuration of a recipe; see `LoRAPlan.to_cookbook_config`.

    Raises:
        PlanError: the plan has no rows to train on.
    """
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

        return known.renderer_name, PlannedBatches(both, _order(plan, np.flatnonzero(known.used)))
    examples = Examples.of(
        data, plan.base_model, train_on=plan.train_on, renderer_name=plan.renderer_name, **rules
    )
    order = _order(plan, np.arange(len(examples)))
    return examples.renderer_name, PlannedBatches(lambda row: [examples[row]], order)


def _order(plan: LoRAPlan, rows: npt.NDArray[np.intp]) -> Order:
    return Order(rows, plan.batch_size, plan.epochs, plan.seed)
