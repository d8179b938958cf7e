"""A card for other tools says what the card says."""

from __future__ import annotations

import pytest
import yaml

from tinker_officer.errors import EvalError
from tinker_officer.evals.export import to_columns, to_eval_results, to_markdown, to_table
from tinker_officer.evals.results import EvalResult, Item
from tinker_officer.evals.scorecard import Scorecard


def made() -> Scorecard:
    items = (Item("a", 1.0, tokens=3), Item("b", 0.0, error="boom"), Item("c", 0.5, epochs=(0.0, 1.0)))
    result = EvalResult.from_items(
        items,
        name="gsm8k",
        layer="benchmark",
        metric="accuracy",
        settings={"task_version": "2-A"},
        asked=3,
        bounds=(0.0, 1.0),
    )
    return Scorecard("m", "base", "chatml", "0" * 64, "2026-01-01T00:00:00+00:00", (result,))


def test_a_table_has_a_row_an_item() -> None:
    """Every field of every item, with its eval; pandas takes it."""
    frame = to_table(made())
    assert list(frame["id"]) == ["a", "b", "c"]
    assert list(frame["status"]) == ["completed", "errored", "completed"]
    assert list(frame["epochs"])[2] == [0.0, 1.0]
    assert set(to_columns(made())["eval"]) == {"gsm8k"}


def test_markdown_has_value_interval_and_notes() -> None:
    """A line an eval, and errors beside the figure."""
    text = to_markdown(made())
    assert "| gsm8k | accuracy | 3 | 0.5000 |" in text
    assert "1 error" in text


def test_eval_results_are_what_the_hub_reads() -> None:
    """Data set, task, value and date, with the task's version in the notes; an unknown eval is refused."""
    (entry,) = yaml.safe_load(to_eval_results(made(), {"gsm8k": ("openai/gsm8k", "gsm8k")}))
    assert entry["dataset"] == {"id": "openai/gsm8k", "task_id": "gsm8k"}
    assert entry["value"] == 0.5
    assert str(entry["date"]).startswith("2026-01-01")
    assert "task version 2-A" in entry["notes"]
    with pytest.raises(EvalError, match="cannot be published"):
        to_eval_results(made(), {"gsm8": ("openai/gsm8k", "gsm8k")})
