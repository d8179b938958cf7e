"""Checkpoints of the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.evals.made import learn


if TYPE_CHECKING:
    from tinker_officer import LocalEngine


@pytest.fixture(scope="session")
def checkpoints(engine: LocalEngine, tiny_model: Path) -> tuple[str, str]:
    """Two sampler paths of one training run with different weights: before and after three large steps."""
    client = engine.service_client().create_lora_training_client(str(tiny_model), rank=8, seed=0).result()
    first = client.save_weights_for_sampler(name="evals-a").result().path
    learn(client, 3)
    second = client.save_weights_for_sampler(name="evals-b").result().path
    return first, second
