"""Whether a model knows what it knows: its confidence in each answer, against whether the answer is right.

Confidence is read off, never asked for. Of a question with choices it is the probability that the model
gives to its own choice, among the letters. Of an open question it is the share of sampled answers that
agree with the one that is given most often; two answers agree when the grader passes one with the other as
its target.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from tinker_officer.data.messages import RowError
from tinker_officer.errors import DataError, EvalError
from tinker_officer.evals.cases import Case, load_cases, rows_of
from tinker_officer.evals.graders import Answer, Grader
from tinker_officer.evals.grading import GradingError, grade
from tinker_officer.evals.kept import Kept, open_journal
from tinker_officer.evals.prepared import Context
from tinker_officer.evals.product import IN_FLIGHT, Sampling
from tinker_officer.evals.prompts import build_prompt, read_answer
from tinker_officer.evals.results import EvalResult, Item
from tinker_officer.stats import calibration


if TYPE_CHECKING:
    from tinker_officer.evals.target import Target

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ASKED = "Answer with the letter of the right choice alone."
_RIGHT = 0.5  # half right is right
_FEWEST = 2  # one answer has no spread


@attrs.frozen
class Question:
    """A case whose answer's confidence is measured.

    Attributes:
        case: what is asked; of a question with choices the target is the right one's letter.
        choices: how many choices there are; 0 for an open question.
    """

    case: Case
    choices: int = 0


def load_questions(source: str | Path | Iterable[Any]) -> tuple[Question, ...]:
    """Return the questions of a JSONL file or of rows; those with `choices` become multiple choice.

    A row is a case, or `{"input": ..., "choices": ["Paris", "Rome"], "target": "A"}`; the target may also
    be the number of the choice, from 0, or its text.

    Raises:
        DataError: the file is missing or empty, or rows are bad: the first is named with its line.
    """
    rows: list[Any] = []
    counts: list[int] = []
    for where, row in rows_of(source):
        try:
            asked, count = _question(row)
        except RowError as error:
            raise DataError(
                "a question cannot be used",
                got=f"{where}: {error}",
                need='{"input": ..., "choices": [...], "target": "A"}, or a case without choices',
                fix="mend or remove this line",
            ) from None
        rows.append(asked)
        counts.append(count)
    return tuple(map(Question, load_cases(rows), counts))


def _question(row: Any) -> tuple[Any, int]:
    if isinstance(row, RowError):
        raise row
    if not isinstance(row, Mapping) or row.get("choices") is None:
        return row, 0
    choices, target = row["choices"], row.get("target", row.get("output"))
    if not isinstance(choices, list) or not 1 < len(choices) <= len(LETTERS):
        raise RowError(f"'choices' must be a list of 2 to {len(LETTERS)}")
    letters = LETTERS[: len(choices)]
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(choices):
        right = letters[target]
    elif isinstance(target, str) and target in letters and len(target) == 1:
        right = target
    elif target in choices:
        right = letters[choices.index(target)]
    else:
        raise RowError(f"the target is none of the choices: {target!r}")
    listed = "\n".join(f"{letter}) {choice}" for letter, choice in zip(letters, choices, strict=True))
    rest = {key: value for key, value in row.items() if key not in {"choices", "target", "output"}}
    return {**rest, "input": f"{row.get('input')}\n\n{listed}\n\n{_ASKED}", "target": right}, len(choices)


async def run_calibration(
    name: str,
    questions: tuple[Question, ...],
    grader: Grader,
    samples: int,
    sampling: Sampling,
    target: Target,
    *,
    context: Context | None = None,
) -> EvalResult:
    """Return how well the confidence of `target` matches what comes of it.

    Args:
        name: the eval's name.
        questions: what to ask.
        grader: what is right, and when two open answers agree.
        samples: answers sampled to an open question.
        sampling: how they are sampled.
        target: the opened target.
        context: where known items are kept.

    Raises:
        EvalError: every question failed.
    """
    context = context or Context()
    gate = asyncio.Semaphore(IN_FLIGHT)
    settings = {
        "kind": "calibration",
        "grader": grader.to_dict(),
        "samples": samples,
        "sampling": attrs.asdict(sampling),
        "choices": sum(question.choices > 0 for question in questions),
    }
    kept = Kept(await open_journal(context.at, name, target, settings))
    usage: Counter[str] = Counter()
    started = time.monotonic()

    async def one(question: Question) -> Item:
        case = question.case
        item = kept.get(case.id, case.input_digest)
        if item is None:
            async with gate:
                item = await _measured(question, grader, samples, sampling, target, usage)
            kept.add(item)
        context.done()
        return item

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(question)) for question in questions]
    items = tuple(task.result() for task in tasks)
    return EvalResult.from_items(
        items,
        name=name,
        layer="product",
        metric="brier",
        settings=settings,
        asked=len(questions),
        higher_is_better=False,
        bounds=(0.0, 1.0),
        extra=figures(items),
        usage={**usage, "seconds": time.monotonic() - started},
    )


async def _measured(
    question: Question,
    grader: Grader,
    samples: int,
    sampling: Sampling,
    target: Target,
    usage: Counter[str],
) -> Item:
    case = question.case
    item = Item(case.id, 1.0, input_digest=case.input_digest, cluster=case.group)
    try:
        if question.choices:
            confidence, correct = await _among_letters(question, target, usage)
        else:
            confidence, correct = await _by_agreement(case, grader, samples, sampling, target, usage)
    except Exception as error:  # noqa: BLE001 - whatever a question dies of, it is its own error, counted
        return attrs.evolve(item, error=f"{type(error).__name__}: {error}"[:500], status="errored")
    score = (confidence - correct) ** 2
    return attrs.evolve(item, score=score, confidence=confidence, correct=correct)


async def _among_letters(question: Question, target: Target, usage: Counter[str]) -> tuple[float, float]:
    """Return the probability of the likeliest letter among the letters, and whether it is the right one."""
    import tinker

    letters = LETTERS[: question.choices]
    prompt = build_prompt(target.renderer, question.case.messages).to_ints()
    written = [target.renderer.tokenizer.encode(letter, add_special_tokens=False) for letter in letters]
    found = await asyncio.gather(
        *(
            target.client.compute_logprobs(tinker.ModelInput.from_ints([*prompt, *tokens]))
            for tokens in written
        )
    )
    usage["input_tokens"] += sum(len(prompt) + len(tokens) for tokens in written)
    nats = [
        math.fsum(value for value in logprobs[-len(tokens) :] if value is not None)
        for logprobs, tokens in zip(found, written, strict=True)
    ]
    weights = np.exp(np.array(nats) - max(nats))
    chosen = int(weights.argmax())
    return float(weights[chosen] / weights.sum()), float(letters[chosen] == question.case.target)


async def _by_agreement(
    case: Case, grader: Grader, samples: int, sampling: Sampling, target: Target, usage: Counter[str]
) -> tuple[float, float]:
    """Return the share of sampled answers that agree with the commonest, and whether that one is right."""
    prompt = build_prompt(target.renderer, case.messages, case.tools)
    params = sampling.params(target.renderer.get_stop_sequences())
    response = await target.client.sample(prompt, samples, params)
    usage["input_tokens"] += prompt.length
    usage["output_tokens"] += sum(len(sequence.tokens) for sequence in response.sequences)
    answers = [read_answer(target.renderer, sequence, case.tools)[0] for sequence in response.sequences]
    votes = [[await _agree(grader, one, other) for other in answers] for one in answers]
    counts = [sum(row) for row in votes]
    commonest = counts.index(max(counts))
    right = await grade(grader, answers[commonest], case.target)
    return counts[commonest] / len(answers), float(right >= _RIGHT)


async def _agree(grader: Grader, one: Answer, other: Answer) -> bool:
    if one.text == other.text:
        return True
    try:
        return await grade(grader, one, other.text) >= _RIGHT
    except GradingError:  # an answer that is no target, such as one without a number
        return False


def measured(result: EvalResult) -> tuple[list[float], list[float]]:
    """Return the confidence of each answer, and whether it was right.

    Raises:
        EvalError: the result has none.
    """
    return _pairs(result.items, result.name)


def _pairs(items: Sequence[Item], name: str = "this eval") -> tuple[list[float], list[float]]:
    known = [item for item in items if item.confidence is not None and item.correct is not None]
    if len(known) < _FEWEST:
        raise EvalError(
            f"{name!r} measured no confidence" if not known else f"{name!r} measured one confidence alone",
            got=f"{len(known)} of {len(items)} items with a confidence",
            need=f"an eval that .calibration(...) added, with at least {_FEWEST} answers",
            fix='suite.calibration("sure", "questions.jsonl")',
        )
    return [float(item.confidence or 0) for item in known], [float(item.correct or 0) for item in known]


def figures(items: Sequence[Item]) -> dict[str, float]:
    """Return what the confidences say, by metric name."""
    if sum(item.confidence is not None for item in items) < _FEWEST:
        return {}
    sure, right = _pairs(items)
    parts = calibration.decompose(sure, right)
    error, over = calibration.calibration_error(sure, right), calibration.overconfidence(sure, right)
    return {
        "accuracy": sum(right) / len(right),
        "confidence": sum(sure) / len(sure),
        "overconfidence": over.value,
        "overconfidence_low": over.low,
        "overconfidence_high": over.high,
        "ece": error.value,
        "ece_low": error.low,
        "ece_high": error.high,
        "reliability": parts.reliability,
        "resolution": parts.resolution,
        "uncertainty": parts.uncertainty,
        "area_under_risk_coverage": calibration.area_under_risk_coverage(sure, right),
    }


def in_words(result: EvalResult) -> str:
    """Return what a reader should make of a calibration result, in a sentence or two."""
    found = result.extra
    measured(result)
    sure, right = found["confidence"], found["accuracy"]
    if found["overconfidence_low"] > 0:
        said = f"overconfident: {sure:.0%} sure on average, and right in {right:.0%}"
    elif found["overconfidence_high"] < 0:
        said = f"underconfident: {sure:.0%} sure on average, and right in {right:.0%}"
    else:
        said = f"neither over- nor underconfident on the whole, as far as {result.n} answers show"
    curve = (
        "; its confidence follows what comes of it"
        if not found["ece_low"]
        else (
            f"; its confidence is off by {found['ece']:.2f} [{found['ece_low']:.2f}, {found['ece_high']:.2f}]"
        )
    )
    return said + curve


def diagram(result: EvalResult, path: str | Path) -> Path:
    """Draw the reliability diagram and the risk-coverage curve of a calibration result, and return the path.

    Args:
        result: what `.calibration(...)` measured.
        path: `.png`, `.svg` or `.pdf`.

    Raises:
        EvalError: the result has no confidences.
    """
    from matplotlib.figure import Figure

    from tinker_officer.stats import intervals

    sure, right = (np.array(values) for values in measured(result))
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, curve = figure.subplots(1, 2)
    parts = calibration.bins(sure)
    rates = [intervals.wilson(float(right[part].sum()), len(part)) for part in parts]
    at = [float(sure[part].mean()) for part in parts]
    values = [rate.value for rate in rates]
    spread = [
        [max(0.0, rate.value - rate.low) for rate in rates],
        [max(0.0, rate.high - rate.value) for rate in rates],
    ]
    left.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="calibrated")
    left.errorbar(
        at, values, yerr=spread, fmt="o", markersize=4, capsize=2, label="bins, with 95 % intervals"
    )
    left.set(
        xlabel="confidence",
        ylabel="share right",
        xlim=(0, 1),
        ylim=(0, 1),
        title=in_words(result).split(":")[0],
    )
    left.legend(loc="upper left", frameon=False)
    coverage, risk = calibration.risk_coverage(sure, right)
    curve.step(coverage, risk, where="post")
    curve.axhline(1 - right.mean(), color="0.7", linewidth=1)
    curve.set(
        xlabel="share answered, the most confident first", ylabel="share wrong", xlim=(0, 1), ylim=(0, None)
    )
    figure.savefig(Path(path), dpi=150)
    return Path(path)
