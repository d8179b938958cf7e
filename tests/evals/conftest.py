"""Checkpoints of the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest


if TYPE_CHECKING:
    from tinker_officer import LocalEngine


@pytest.fixture(scope="session")
def checkpoints(engine: LocalEngine, tiny_model: Path) -> tuple[str, str]:
    """Two sampler paths of one training run with different weights: before and after three large steps."""
    import tinker

    client = engine.service_client().create_lora_training_client(str(tiny_model), rank=8, seed=0).result()
    first = client.save_weights_for_sampler(name="evals-a").result().path
    tokens = list(range(300, 340))
    datum = tinker.Datum(
        model_input=tinker.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": tinker.TensorData(data=tokens[1:], dtype="int64", shape=[39]),
            "weights": tinker.TensorData(data=[1.0] * 39, dtype="float32", shape=[39]),
        },
    )
    for _ in range(3):
        client.forward_backward([datum], "cross_entropy").result()
        client.optim_step(tinker.AdamParams(learning_rate=0.3)).result()
    second = client.save_weights_for_sampler(name="evals-b").result().path
    return first, second
