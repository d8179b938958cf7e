"""Layer 3 with a judge: answers graded by another model, point by point, against a rubric.

The judge is named, always: a checkpoint or base model on the same service, or a model of Inspect's. It is
never the candidate. A judge that gives no grade is reminded once; an answer that still has none is
unscored, stays in the denominator, and says so. Where people have graded some answers, the judge grades
those too, and the card says how often it agrees, and what the score is once its errors are taken out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import attrs

from tinker_officer._service import On
from tinker_officer.errors import EvalError
from tinker_officer.evals.cases import Case
from tinker_officer.evals.graders import Answer
from tinker_officer.evals.grading import UnscoredError
from tinker_officer.evals.labels import Labelled, corrected
from tinker_officer.evals.prepared import Context
from tinker_officer.evals.product import IN_FLIGHT, Sampling, run_cases
from tinker_officer.evals.prompts import build_prompt, read_answer, tools_asked
from tinker_officer.evals.results import EvalResult, Item
from tinker_officer.evals.rubric import Rubric
from tinker_officer.evals.target import Target, open_target


if TYPE_CHECKING:
    from inspect_ai.model import Model

MAX_TOKENS = 512
Messages: TypeAlias = list[dict[str, str]]
Ask: TypeAlias = Callable[[Messages], Awaitable[str]]


async def run_judge(
    name: str,
    cases: tuple[Case, ...],
    rubric: Rubric,
    grader_model: str,
    sampling: Sampling,
    target: Target,
    *,
    labelled: tuple[Labelled, ...] = (),
    tools: str = "auto",
    context: Context | None = None,
) -> EvalResult:
    """Return what `target` scored on `cases` by the grades of a judge.

    Args:
        name: the eval's name.
        cases: what to ask; targets, where there are any, are shown to the judge as references.
        rubric: what answers are held against.
        grader_model: the judge.
        sampling: how the candidate's answers are sampled.
        target: the opened target.
        labelled: answers that people have graded.
        tools: how the cases' tools are written: `auto` or `text`.
        context: the service, where known items are kept, and what the result is compared with meanwhile.

    Raises:
        EvalError: the judge is the candidate, cannot be opened, or never gives a grade.
    """
    context = context or Context()
    usage: Counter[str] = Counter()
    ask = await open_judge(grader_model, target, context.on, usage)

    async def graded(case: Case, answer: Answer) -> float:
        return await _grade(ask, rubric, case, answer)

    verdicts = await _grade_labelled(graded, labelled)
    settings = {
        "kind": "judge",
        "judge": grader_model,
        "rubric": rubric.to_dict(),
        "sampling": attrs.asdict(sampling),
        "tools": tools_asked(target.renderer, tools, cases),
    }

    def extra(items: tuple[Item, ...]) -> Mapping[str, float]:
        scores = [item.score for item in items if item.status == "completed"]
        return corrected(scores, verdicts, [entry.label for entry in labelled]) if labelled else {}

    result = await run_cases(
        name,
        cases,
        graded,
        sampling,
        target,
        settings=settings,
        tools=tools,
        context=context,
        extra=extra,
    )
    return attrs.evolve(result, usage={**result.usage, **usage})


async def _grade(ask: Ask, rubric: Rubric, case: Case, answer: Answer) -> float:
    """Return the judge's score of one answer; it is reminded once of the form.

    Raises:
        UnscoredError: there is no readable grade in either reply.
    """
    code, messages = rubric.code(case, answer), rubric.ask(case, answer)
    reply = await ask(messages)
    score = rubric.read(reply, code)
    if score is None:
        reminder = "I could not read your grades. " + rubric.form(code)
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": reminder}]
        reply = await ask(messages)
        score = rubric.read(reply, code)
    if score is None:
        raise UnscoredError(f"the judge gave no readable grade: {reply[-120:]!r}")
    return score


async def _grade_labelled(
    graded: Callable[[Case, Answer], Awaitable[float]], labelled: tuple[Labelled, ...]
) -> list[float | None]:
    """Return the judge's score of each labelled answer, None where it gave no grade."""
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(entry: Labelled) -> float | None:
        async with gate:
            try:
                return await graded(entry.case, Answer(entry.answer))
            except UnscoredError:
                return None

    verdicts = await asyncio.gather(*(one(entry) for entry in labelled))
    if labelled and all(verdict is None for verdict in verdicts):
        raise EvalError(
            "the judge graded none of the labelled answers",
            got=f"{len(labelled)} replies without a readable grade",
            need="a judge that can write the line it is asked for",
            fix="a larger grader_model, or a shorter rubric",
        )
    return list(verdicts)


async def open_judge(grader_model: str, target: Target, on: On | None, usage: Counter[str]) -> Ask:
    """Return what asks the judge; never the candidate itself.

    `tinker://...`, a folder, or a base model of the service is asked there; `provider/model`, where the
    provider is one of Inspect's, is Inspect's. `tinker_officer/NAME` is always the service's.

    Args:
        grader_model: the judge's name.
        target: the candidate.
        on: the service.
        usage: where the judge's tokens are counted.

    Raises:
        EvalError: the judge is the candidate, or Inspect cannot open it.
    """
    if _of_inspect(grader_model):
        return _through_inspect(grader_model, usage)
    name = grader_model.removeprefix("tinker_officer/")
    if on is None:
        raise EvalError(
            "the judge has no service to be asked on",
            got=repr(grader_model),
            need="on=, or a model of Inspect's",
            fix="suite.evaluate(target, on=engine)",
        )
    judge = await open_target(name, on)
    if judge.identity == target.identity:
        raise EvalError(
            "the judge is the candidate itself",
            got=f"{grader_model!r} for both",
            need="another model: none is a fair judge of its own answers",
            fix='suite.judge("tone", cases, rubric=rubric, grader_model="openai/gpt-4o")',
        )
    return _through_tinker(judge, usage)


def _of_inspect(name: str) -> bool:
    """Return whether `name` begins with a provider that Inspect has."""
    provider, slash, _ = name.partition("/")
    if name.startswith("tinker://") or not slash or provider == "tinker_officer" or Path(name).is_dir():
        return False
    from inspect_ai._util.registry import registry_find, registry_unqualified_name

    return bool(
        registry_find(lambda info: info.type == "modelapi" and registry_unqualified_name(info) == provider)
    )


def _through_inspect(name: str, usage: Counter[str]) -> Ask:
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
        GenerateConfig,
        get_model,
    )

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    try:
        model: Model = get_model(name, memoize=False)
    except Exception as error:
        raise EvalError(
            f"Inspect cannot open the judge {name!r}",
            got=f"{type(error).__name__}: {str(error)[:300]}",
            need="its package, and its key in the environment",
            fix=f"inspect eval inspect_evals/gsm8k --limit 1 --model {name}  # shows the whole error",
        ) from error
    config = GenerateConfig(temperature=0.0, max_tokens=MAX_TOKENS)

    async def ask(messages: Messages) -> str:
        asked = [kinds[message["role"]](content=message["content"]) for message in messages]
        output = await model.generate(asked, config=config)
        if output.usage is not None:
            usage["judge_input_tokens"] += output.usage.input_tokens
            usage["judge_output_tokens"] += output.usage.output_tokens
        return output.completion

    return ask


def _through_tinker(judge: Target, usage: Counter[str]) -> Ask:
    params = Sampling(max_tokens=MAX_TOKENS).params(judge.renderer.get_stop_sequences())
    specials = [text for text in judge.renderer.tokenizer.get_added_vocab() if len(text) > 1]

    async def ask(messages: Messages) -> str:
        plain = [{**message, "content": _defused(message["content"], specials)} for message in messages]
        prompt = build_prompt(judge.renderer, plain)
        response = await judge.client.sample(prompt, 1, params)
        usage["judge_input_tokens"] += prompt.length
        usage["judge_output_tokens"] += len(response.sequences[0].tokens)
        answer, _ = read_answer(judge.renderer, response.sequences[0])
        return answer.text

    return ask


def _defused(text: str, specials: list[str]) -> str:
    """Return `text` with the tokenizer's control tokens broken up: an answer must not end its own turn."""
    for special in specials:
        if special in text:
            text = text.replace(special, f"{special[0]} {special[1:]}")
    return text
