"""Answers that people have graded, and what they say about a judge.

A row is a case with the `answer` that was graded and its `label`, from 0 to 1::

    {"input": "Where is my order?", "answer": "No idea.", "label": 0}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tinker_officer.errors import DataError
from tinker_officer.evals.cases import Case, load_cases, rows_of
from tinker_officer.stats import bias


@attrs.frozen
class Labelled:
    """An answer that people have graded.

    Attributes:
        case: what was asked.
        answer: what was answered.
        label: people's grade, from 0 to 1.
    """

    case: Case
    answer: str
    label: float


def load_labelled(source: str | Path | Iterable[Mapping[str, Any]]) -> tuple[Labelled, ...]:
    """Return the labelled answers of `source`, a JSONL file or rows.

    Raises:
        DataError: the file is missing or empty, or a row is bad: it is named with its line.
    """
    rows = list(rows_of(source))
    where = str(source) if isinstance(source, str | Path) else "the labelled answers"
    bad = next((place for place, row in rows if not _good(row)), None)
    if bad is not None:
        raise DataError(
            f"a labelled answer in {where} cannot be used",
            got=f"{bad}: no text under 'answer', or no number from 0 to 1 under 'label'",
            need="a case with the answer that people graded, and their grade",
            fix='{"input": "Where is my order?", "answer": "No idea.", "label": 0}',
        )
    numbered = [{**row, "id": f"{number}"} for number, (_, row) in enumerate(rows)]
    cases = load_cases(numbered, need_target=False)
    return tuple(
        Labelled(case, str(row["answer"]), float(row["label"]))
        for case, (_, row) in zip(cases, rows, strict=True)
    )


def _good(row: Any) -> bool:
    if not isinstance(row, Mapping) or not isinstance(row.get("answer"), str):
        return False
    label = row.get("label")
    return isinstance(label, int | float) and 0 <= label <= 1


def corrected(
    scores: Sequence[float], verdicts: Sequence[float | None], labels: Sequence[float]
) -> dict[str, float]:
    """Return how a judge agrees with people, and the score without its errors, by metric name.

    Args:
        scores: the judge's scores of the candidate's answers.
        verdicts: its scores of the labelled answers; None where it gave none.
        labels: people's grades of them.

    Returns:
        `labelled`, `agreement`, and where they can be had `sensitivity`, `specificity`, `corrected`,
        `corrected_low` and `corrected_high`.
    """
    pairs = [(verdict, label) for verdict, label in zip(verdicts, labels, strict=True) if verdict is not None]
    found = {
        "labelled": float(len(pairs)),
        "agreement": sum(1 - abs(verdict - label) for verdict, label in pairs) / len(pairs),
    }
    binary = all(value in {0, 1} for pair in pairs for value in pair) and all(
        score in {0, 1} for score in scores
    )
    good, bad = ([verdict for verdict, label in pairs if label == kind] for kind in (1, 0))
    if binary and good and bad and scores:
        passed, failed = int(sum(good)), int(len(bad) - sum(bad))
        found |= {"sensitivity": passed / len(good), "specificity": failed / len(bad)}
        estimate = bias.rogan_gladen(int(sum(scores)), len(scores), passed, len(good), failed, len(bad))
    elif min(len(scores), len(pairs)) > 1:
        estimate = bias.corrected_mean(
            scores, [verdict for verdict, _ in pairs], [label for _, label in pairs]
        )
    else:
        return found
    if estimate.value == estimate.value:
        found["corrected"] = min(1.0, max(0.0, estimate.value))
    low, high = max(0.0, estimate.low), min(1.0, estimate.high)
    return found | {"corrected_low": low, "corrected_high": high}
