"""A teacher's answers: learned without its prompt, kept, and not asked twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinker_officer import LocalEngine, LoRAPlan, Run
from tinker_officer.errors import RunError
from tinker_officer.train.teacher import Teacher


QUESTIONS = ["What is 1 plus 1?", [{"role": "user", "content": "And 2 plus 2?"}], "And 3 plus 3?"]


def taught(run: Run, engine: LocalEngine, folder: Path) -> str:
    """Train a model whose answers end; an untrained one talks on."""
    return str(run.run(engine, folder, progress=False).final.sampler_path)


def test_answers_are_data_without_the_teachers_prompt(
    make_run: object, tiny_model: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    """Rows hold question and answer, no system message; asking again adds nothing, another prompt does."""
    model = taught(make_run(epochs=6, rate=2e-2), engine, tmp_path / "teacher")
    teacher = Teacher(model, "Answer briefly.", str(tiny_model), max_tokens=64, samples=2, temperature=0.2)
    path = tmp_path / "answers.jsonl"
    rows = teacher.answers(QUESTIONS, on=engine, at=path)
    assert {message["role"] for row in rows for message in row.messages} == {"user", "assistant"}
    written = path.read_bytes()
    assert len(teacher.answers(QUESTIONS, on=engine, at=path)) == len(rows)
    assert path.read_bytes() == written
    path.write_bytes(written[: written.index(b"\n") + 1])  # as if it had been killed behind the first
    assert teacher.answers(QUESTIONS, on=engine, at=path).fingerprint == rows.fingerprint
    again = Teacher(model, "Answer at length.", str(tiny_model), max_tokens=64, temperature=0.2)
    assert len(again.answers(QUESTIONS, on=engine, at=path)) > len(rows)

    plan = LoRAPlan.for_(str(tiny_model)).prompt_distillation(rows, epochs=2)
    history = (
        Run(plan.pin(learning_rate=1e-2, rank=4), name="student")
        .run(engine, tmp_path / "student", progress=False)
        .history()
    )
    assert history[-1]["train/mean_nll"] < history[0]["train/mean_nll"]


def test_a_question_ends_with_the_user(tiny_model: Path, engine: LocalEngine, tmp_path: Path) -> None:
    """What nobody asked is refused."""
    with pytest.raises(RunError, match="no user's message"):
        Teacher(str(tiny_model)).answers(
            [[{"role": "system", "content": "Hi"}]], on=engine, at=tmp_path / "answers.jsonl"
        )
