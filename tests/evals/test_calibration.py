"""Confidence is read off the model, and held against what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tinker_officer import EvalSuite, Scorecard, graders
from tinker_officer.data.render import renderer_for
from tinker_officer.errors import DataError, EvalError
from tinker_officer.evals.calibration import diagram, figures, in_words, load_questions
from tinker_officer.evals.results import EvalResult, Item


if TYPE_CHECKING:
    from tinker_officer import LocalEngine

CHOICES = [
    {
        "input": f"Which is {i}?",
        "choices": [str(i + j) for j in range(4)],
        "target": "ABCD"[i % 4],
        "id": f"q{i}",
    }
    for i in range(6)
]


def made(sure: list[float], right: list[float]) -> EvalResult:
    items = tuple(
        Item(f"q{i:03d}", (c - y) ** 2, confidence=c, correct=y)
        for i, (c, y) in enumerate(zip(sure, right, strict=True))
    )
    options: dict[str, Any] = {"layer": "product", "metric": "brier", "settings": {}, "bounds": (0.0, 1.0)}
    return EvalResult.from_items(
        items, name="sure", asked=len(items), higher_is_better=False, extra=figures(items), **options
    )


def test_confidence_among_letters_is_the_softmax_of_their_likelihoods(
    engine: LocalEngine, tiny_model: Path
) -> None:
    """Each letter's log-probability after the prompt, through the SDK by hand, for one question."""
    import tinker

    card = EvalSuite().calibration("sure", CHOICES).evaluate(str(tiny_model), on=engine, progress=False)
    result = card["sure"]
    question = next(question for question in load_questions(CHOICES) if question.case.id == "q2")
    renderer = renderer_for(str(tiny_model))
    client = engine.service_client().create_sampling_client(base_model=str(tiny_model)).result()
    prompt = renderer.build_generation_prompt(list(question.case.messages)).to_ints()
    nats = []
    for letter in "ABCD":
        tokens = renderer.tokenizer.encode(letter, add_special_tokens=False)
        logprobs = client.compute_logprobs(tinker.ModelInput.from_ints([*prompt, *tokens])).result()
        nats.append(sum(logprobs[-len(tokens) :]))
    shares = np.exp(nats) / np.exp(nats).sum()
    item = next(item for item in result.items if item.id == "q2")
    assert item.confidence == pytest.approx(shares.max(), abs=1e-4)
    assert item.correct == float("ABCD"[int(shares.argmax())] == "C")
    assert item.score == pytest.approx((item.confidence - item.correct) ** 2)
    assert result.extra["accuracy"] == pytest.approx(np.mean([item.correct for item in result.items]))
    assert Scorecard.from_json(card.to_json()) == card
    assert card.compare(card)["sure"].verdict == "no clear difference"


def test_confidence_of_open_answers_is_agreement(engine: LocalEngine, tiny_model: Path) -> None:
    """A model that babbles agrees with itself hardly ever; a grader that passes all makes it always agree."""

    def whatever(_answer: str, _target: str) -> bool:
        return True

    rows = [{"input": f"say {i}", "output": str(i)} for i in range(3)]
    for grader, confidence, correct in ((graders.exact, 1 / 4, 0.0), (whatever, 1.0, 1.0)):
        suite = EvalSuite().calibration("sure", rows, grader=grader, samples=4, max_tokens=6)
        result = suite.evaluate(str(tiny_model), on=engine, progress=False)["sure"]
        assert {item.correct for item in result.items} == {correct}
        assert all(item.confidence == pytest.approx(confidence) for item in result.items)
        assert 0 < result.usage["output_tokens"] <= 3 * 4 * 6


def test_it_is_said_in_words_and_drawn(tmp_path: Path) -> None:
    """90 % sure and right in half: overconfident; the other way round: underconfident; else neither."""
    rng = np.random.default_rng(0)
    high, low, middle = (
        rng.uniform(0.85, 0.95, 200),
        rng.uniform(0.25, 0.35, 200),
        rng.uniform(0.2, 0.95, 200),
    )
    half = np.tile([0.0, 1.0], 100)
    over, under = made(high.tolist(), half.tolist()), made(low.tolist(), half.tolist())
    honest = made(middle.tolist(), (rng.random(200) < middle).astype(float).tolist())
    assert in_words(over).startswith("overconfident: 90% sure on average, and right in 50%")
    assert in_words(under).startswith("underconfident: 30%")
    assert "neither over- nor underconfident" in in_words(honest)
    assert honest.extra["ece_low"] == 0 < over.extra["ece_low"] < 0.4 < over.extra["ece_high"]
    drawn = diagram(over, tmp_path / "sure.png")
    assert drawn.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(EvalError, match="one confidence alone"):
        in_words(made([0.9], [1.0]))
    with pytest.raises(EvalError, match="measured no confidence"):
        in_words(
            EvalResult.from_items(
                (Item("a", 1.0),), name="x", layer="product", metric="score", settings={}, asked=1
            )
        )


def test_choices_are_read_in_three_ways_and_bad_ones_are_named(tmp_path: Path) -> None:
    """By letter, number and text; a target among none of them by its line."""
    row = {"input": "Capital of France?", "choices": ["Rome", "Paris"]}
    for target in ("B", 1, "Paris"):
        (question,) = load_questions([{**row, "target": target}])
        assert (question.case.target, question.choices) == ("B", 2)
        assert "B) Paris" in question.case.messages[0]["content"]
    path = tmp_path / "q.jsonl"
    lines = [
        '{"input": "a", "choices": ["x", "y"], "target": "A"}',
        '{"input": "b", "choices": ["x"], "target": 0}',
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"q\.jsonl:2"):
        load_questions(path)
    with pytest.raises(DataError, match="none of the choices"):
        load_questions([{**row, "target": "Berlin"}])


def test_the_suite_survives_json() -> None:
    """Grader, samples, sampling and rows come back."""
    suite = EvalSuite().calibration("sure", CHOICES, grader=graders.numeric, samples=5, limit=3)
    again = EvalSuite.from_json(suite.to_json())
    assert again.digest == suite.digest
    assert again.evals == suite.evals
