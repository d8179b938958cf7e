"""Layer 1 against NumPy over the log-probabilities of another route through the engine."""

from __future__ import annotations

import json
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


def always(_answer: str, _target: str) -> bool:
    return True


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
    assert result.usage["input_tokens"] == sum(datum.model_input.length + 1 for datum in datums)
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


def test_a_training_client_is_scored_by_its_own_forward_pass(engine: LocalEngine, tiny_model: Path) -> None:
    """Before it has learned anything it has the base model's NLL, item by item; afterwards another."""
    import tinker

    suite = EvalSuite().nll(Conversations.from_list(ROWS))
    client = engine.service_client().create_lora_training_client(str(tiny_model), rank=4).result()
    base = suite.evaluate(str(tiny_model), on=engine, progress=False)["held_out"]
    found = suite.evaluate(client, on=engine, progress=False)["held_out"]
    assert [item.id for item in found.items] == [item.id for item in base.items]
    assert [item.score for item in found.items] == pytest.approx(
        [item.score for item in base.items], abs=1e-4
    )
    datum = to_datum(Conversations.from_list(ROWS)[0], renderer_for(str(tiny_model)), max_length=None)
    for _ in range(3):
        client.forward_backward([datum], "cross_entropy").result()
        client.optim_step(tinker.AdamParams(learning_rate=0.1)).result()
    card = suite.evaluate(client, on=engine, progress=False)
    live = card["held_out"]
    saved = client.save_weights_for_sampler(name="after").result().path
    kept = suite.evaluate(saved, on=engine, progress=False)["held_out"]
    assert live.value == pytest.approx(kept.value, abs=1e-4)
    assert abs(live.value - base.value) > 0.01


def test_groups_and_per_example_figures(engine: LocalEngine, tiny_model: Path) -> None:
    """Each value of a field has its own mean; the whole is their weighted mean; a wrong field is named."""
    rows = [{**row, "language": "fr" if i % 2 else "en"} for i, row in enumerate(ROWS)]
    data = Conversations.from_list(rows)
    card = EvalSuite().nll(data, by="language").evaluate(str(tiny_model), on=engine, progress=False)
    result = card["held_out"]
    groups = result.by_group()
    assert "  fr " in card.table()
    assert set(groups) == {"en", "fr"}
    for name, estimate in groups.items():
        items = [item for item in result.items if item.group == name]
        wanted = np.average([item.score for item in items], weights=[item.weight for item in items])
        assert estimate.value == pytest.approx(wanted)
        assert estimate.n == 3
    nats = sum(item.score * item.weight for item in result.items)
    assert result.extra["nats_per_example"] == pytest.approx(nats / 6)
    with pytest.raises(EvalError, match=r"no field to group by[\s\S]*language"):
        EvalSuite().nll(data, by="langauge").evaluate(str(tiny_model), on=engine, progress=False)


def test_the_gap_between_train_and_held_out(
    engine: LocalEngine, tiny_model: Path, checkpoints: tuple[str, str]
) -> None:
    """The same conversations on both sides give 0; other layers have no gap."""
    data = Conversations.from_list(ROWS)
    suite = EvalSuite().nll(data).nll(data, name="train").product("p", ROWS, grader=always, max_tokens=1)
    card = suite.evaluate(str(tiny_model), on=engine, progress=False)
    gap = card.gap()
    assert gap.value == pytest.approx(0)
    assert gap.low < 0 < gap.high
    with pytest.raises(EvalError, match="a gap is between two likelihoods"):
        card.gap(held_out="p")


def test_an_interrupted_measurement_goes_on(engine: LocalEngine, tiny_model: Path, tmp_path: Path) -> None:
    """What is in the journal is not scored again: a figure that was put there is believed."""
    suite = EvalSuite().nll(Conversations.from_list(ROWS))
    first = suite.evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["held_out"]
    (journal,) = (tmp_path / "items").glob("held_out-*.jsonl")
    probe, one, _, *rest = journal.read_text().splitlines()
    record = json.loads(one) | {"score": 9.0}
    journal.write_text("\n".join([probe, json.dumps(record), *rest]) + "\n")
    again = suite.evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False)["held_out"]
    changed = {item.id for item, old in zip(again.items, first.items, strict=True) if item.score != old.score}
    assert changed == {record["id"]}
    assert len(journal.read_text().splitlines()) == 1 + len(ROWS)
