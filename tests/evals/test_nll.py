"""Layer 1 against NumPy over the log-probabilities of another route through the engine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tinker_officer import Conversations, EvalSuite
from tinker_officer.data.render import renderer_for, to_datum
from tinker_officer.errors import EvalError


if TYPE_CHECKING:
    from tinker_officer import LocalEngine

ROWS = [{"input": f"what is {i} and {i}?", "output": "it is " + "so " * (i + 1)} for i in range(6)]


def test_nll_equals_numpy_over_a_training_clients_forward(engine: LocalEngine, tiny_model: Path) -> None:
    """Sum of weighted nats over sum of weights, from `forward` instead of `compute_logprobs`, to 1e-4."""
    data = Conversations.from_list(ROWS)
    card = EvalSuite().nll(data).evaluate(str(tiny_model), on=engine, progress=False)

    renderer = renderer_for(str(tiny_model))
    datums = [to_datum(conversation, renderer, max_length=None) for conversation in data]
    client = engine.service_client().create_lora_training_client(str(tiny_model), rank=4).result()
    outputs = client.forward(datums, "cross_entropy").result().loss_fn_outputs
    nats = weight = 0.0
    for datum, output in zip(datums, outputs, strict=True):
        weights = np.array(datum.loss_fn_inputs["weights"].data)
        nats -= float(weights @ np.array(output["logprobs"].data))
        weight += float(weights.sum())
    result = card["held_out"]
    assert result.value == pytest.approx(nats / weight, abs=1e-4)
    assert sum(item.weight for item in result.items) == weight
    assert card.metrics()["held_out/perplexity"] == pytest.approx(math.exp(nats / weight), rel=1e-3)
    assert not result.higher_is_better


def test_bits_per_byte_are_nats_over_the_trained_text(engine: LocalEngine, tiny_model: Path) -> None:
    """The bytes are those of what is trained on: the answers and what ends a turn."""
    data = Conversations.from_list(ROWS)
    result = EvalSuite().nll(data).evaluate(str(tiny_model), on=engine, progress=False)["held_out"]
    nats = sum(item.score * item.weight for item in result.items)
    size = nats / math.log(2) / result.extra["bits_per_byte"]
    answers = sum(len(row["output"].strip()) for row in ROWS)
    assert answers <= size <= answers + len(ROWS) * 20


def test_every_conversation_keeps_its_place(engine: LocalEngine, tiny_model: Path) -> None:
    """Repeated conversations are two items of one cluster; one cut to nothing has no weight, but is there."""
    long = {"input": "why? " * 60, "output": "because"}
    data = Conversations.from_list([*ROWS, ROWS[0], long])
    suite = EvalSuite().nll(data, max_length=48)
    result = suite.evaluate(str(tiny_model), on=engine, progress=False)["held_out"]
    assert result.n == len(ROWS) + 2
    assert min(item.weight for item in result.items) == 0
    assert len({item.cluster for item in result.items}) == len(ROWS) + 1


def test_nothing_to_train_on_is_an_error(engine: LocalEngine, tiny_model: Path) -> None:
    """A limit that cuts every answer away is said, not averaged."""
    data = Conversations.from_list(ROWS)
    with pytest.raises(EvalError, match="nothing in 'held_out' is trained on"):
        EvalSuite().nll(data, max_length=3).evaluate(str(tiny_model), on=engine, progress=False)


def test_a_trained_checkpoint_scores_otherwise(
    engine: LocalEngine, tiny_model: Path, checkpoints: tuple[str, str]
) -> None:
    """Checkpoint A has the base model's NLL, B another; base model and renderer come from the service."""
    suite = EvalSuite().nll(Conversations.from_list(ROWS))
    base = suite.evaluate(str(tiny_model), on=engine, progress=False)
    first, second = (suite.evaluate(path, on=engine, progress=False) for path in checkpoints)
    assert first.base_model == base.base_model
    assert first["held_out"].value == pytest.approx(base["held_out"].value, abs=1e-5)
    difference = first.compare(second)["held_out"]
    assert difference.verdict == "worse"
    assert difference.estimate.low > 0
