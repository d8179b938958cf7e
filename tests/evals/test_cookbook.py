"""The cookbook's evaluators in a suite, and a suite in the cookbook's own training loop."""

from __future__ import annotations

import asyncio
import functools
import json
from pathlib import Path
from typing import Any

import pytest
from tinker_cookbook.eval.evaluators import SamplingClientEvaluator, TrainingClientEvaluator

from tests.evals.canned import CannedClient
from tinker_officer import Conversations, EvalSuite, LocalEngine
from tinker_officer.errors import EvalError


ROWS = [{"input": f"say {i}", "output": f"it is {i}"} for i in range(8)]


class Length(SamplingClientEvaluator):
    """How long an answer is, and how much of it is a question."""

    async def __call__(self, sampling_client: Any) -> dict[str, float]:
        import tinker

        prompt = tinker.ModelInput.from_ints([5, 6, 7])
        response = await sampling_client.sample(prompt, 1, tinker.SamplingParams(max_tokens=4))
        return {"length": len(response.sequences[0].tokens), "share": 0.5}


class Vocabulary(TrainingClientEvaluator):
    """Something that only a training client knows."""

    async def __call__(self, training_client: Any) -> dict[str, float]:
        return {"rank": float(training_client.get_info().lora_rank)}


class Silent(SamplingClientEvaluator):
    """Reports nothing."""

    async def __call__(self, sampling_client: Any) -> dict[str, float]:
        return {}


@pytest.fixture
def held_out() -> Conversations:
    return Conversations.from_list(ROWS)


def test_an_evaluator_of_the_cookbook_joins_a_suite(tiny_model: Path) -> None:
    """Its figures are on the card under its name; the suite survives JSON, and another figure may count."""
    suite = EvalSuite().evaluator("mine", Length, higher_is_better=False)
    client = CannedClient(tiny_model, lambda _: "abc")
    card = suite.evaluate(client, on="http://127.0.0.1:1", progress=False)
    assert set(card.metrics()) == {"mine/length", "mine/share"}
    assert card["mine"].value > 0
    assert not card["mine"].higher_is_better
    assert "Length" in suite.explain()
    again = EvalSuite.from_json(suite.to_json())
    assert again == suite
    assert again.digest == suite.digest
    other = EvalSuite().evaluator("mine", Length, metric="share", layer="product")
    assert other.evaluate(client, on="http://127.0.0.1:1", progress=False)["mine"].value == 0.5
    assert other.digest != suite.digest


def test_one_that_measures_a_training_client_wants_one(engine: LocalEngine, tiny_model: Path) -> None:
    """A checkpoint cannot be measured by it, a training client can."""
    suite = EvalSuite().evaluator("rank", Vocabulary)
    with pytest.raises(EvalError, match="measures a training client"):
        suite.evaluate(str(tiny_model), on=engine, progress=False)
    client = engine.service_client().create_lora_training_client(str(tiny_model), rank=4, seed=0).result()
    assert suite.evaluate(client, on=engine, progress=False)["rank"].value == 4


def test_what_is_no_evaluator_is_refused(tiny_model: Path) -> None:
    """Before anything is asked; and one that reports nothing, after."""
    client = CannedClient(tiny_model, lambda _: "abc")
    assert "builds no evaluator" in str(EvalSuite().evaluator("mine", dict).check()["mine"])
    with pytest.raises(EvalError, match="did not report its figure"):
        EvalSuite().evaluator("mine", Silent).evaluate(client, on="http://127.0.0.1:1", progress=False)
    with pytest.raises(EvalError, match="layer is not known"):
        EvalSuite().evaluator("mine", Length, layer="fourth")
    with pytest.raises(EvalError, match="cannot be written as JSON"):
        EvalSuite().evaluator("mine", functools.partial(Length)).to_json()
    with pytest.raises(EvalError, match="cannot be rebuilt"):
        EvalSuite.from_json(EvalSuite().evaluator("mine", Length).to_json().replace(":Length", ":Width"))


def test_the_cookbooks_own_training_loop_asks_a_suite(
    engine: LocalEngine,
    tiny_model: Path,
    held_out: Conversations,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`supervised.train` with `suite.builders()`: every eval step reports the suite's figures, and learns."""
    import chz
    import datasets
    from tinker_cookbook.supervised import train
    from tinker_cookbook.supervised.data import SupervisedDatasetFromHFDataset
    from tinker_cookbook.supervised.types import SupervisedDataset, SupervisedDatasetBuilder

    from tinker_officer.data.render import renderer_for, to_datum
    from tinker_officer.evals import graders

    monkeypatch.setenv("TINKER_API_KEY", engine.token)
    renderer = renderer_for(str(tiny_model))

    @chz.chz
    class Rows(SupervisedDatasetBuilder):
        def __call__(self) -> tuple[SupervisedDataset, None]:
            rows = datasets.Dataset.from_list([{"row": i} for i in range(8)])
            conversations = list(held_out)

            def datum(row: dict[str, int]) -> Any:
                made = to_datum(conversations[row["row"]], renderer, max_length=64)
                assert made is not None
                return made

            return SupervisedDatasetFromHFDataset(rows, batch_size=4, map_fn=datum), None

    suite = (
        EvalSuite()
        .nll(held_out, max_length=64)
        .product("said", ROWS[:2], grader=graders.includes, max_tokens=2)
        .evaluator("length", Length)
        .evaluator("rank", Vocabulary)
    )
    config = train.Config(
        log_path=str(tmp_path),
        model_name=str(tiny_model),
        recipe_name="test",
        dataset_builder=Rows(),
        base_url=engine.base_url,
        lora_rank=4,
        learning_rate=1e-2,
        num_epochs=2,
        eval_every=1,
        save_every=0,
        evaluator_builders=suite.builders(),
    )
    asyncio.run(train.main(config))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    nll = [row["held_out/nll"] for row in rows if "held_out/nll" in row]
    assert len(nll) == 4
    assert nll[-1] < nll[0]
    assert all(
        {"said/score", "length/length", "rank/rank"} <= set(row) for row in rows if "held_out/nll" in row
    )
    assert [row["rank/rank"] for row in rows if "rank/rank" in row] == [4.0] * 4
