"""Layer 3: the user's own cases, answered by the model and graded.

Many requests are under way at once. A request that fails, or a grader that raises, fails its own case: the
case keeps its place, scores 0, and says why. What is graded is kept at once, so that an evaluation which is
interrupted goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from tinker_officer._fields import real, whole
from tinker_officer.errors import EvalError
from tinker_officer.evals.cases import Case
from tinker_officer.evals.graders import Answer, Grader
from tinker_officer.evals.grading import TIMEOUT_S, UnscoredError, grade
from tinker_officer.evals.kept import Kept, open_journal
from tinker_officer.evals.prepared import Context
from tinker_officer.evals.prompts import build_prompt, read_answer, tool_protocol, tools_asked
from tinker_officer.evals.results import EvalResult, Item


if TYPE_CHECKING:
    import tinker

    from tinker_officer.evals.target import Target

Grading: TypeAlias = Callable[[Case, Answer], Awaitable[float]]
IN_FLIGHT = 64
_FIX = 'suite.product("tickets", "eval.jsonl", grader=graders.includes, max_tokens=64)'


@attrs.frozen
class Sampling:
    """How answers are sampled: temperature 0 unless asked otherwise, so that a run can be repeated."""

    max_tokens: int = attrs.field(default=256, validator=whole(1, error=EvalError, fix=_FIX))
    temperature: float = attrs.field(default=0.0, validator=real(0, error=EvalError, fix=_FIX))
    top_p: float = attrs.field(default=1.0, validator=real(0, 1, error=EvalError, fix=_FIX, open_low=True))
    seed: int = 0

    def params(self, stop: Any) -> tinker.SamplingParams:
        """Return these as the SDK's parameters, with the renderer's stop sequences."""
        import tinker

        return tinker.SamplingParams(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=stop,
        )


async def run_product(
    name: str,
    cases: tuple[Case, ...],
    grader: Grader,
    sampling: Sampling,
    target: Target,
    *,
    tools: str = "auto",
    timeout_s: float = TIMEOUT_S,
    context: Context | None = None,
    in_flight: int = IN_FLIGHT,
) -> EvalResult:
    """Return what `target` scored on `cases`.

    Args:
        name: the eval's name.
        cases: what to ask.
        grader: how to grade.
        sampling: how to sample.
        target: the opened target.
        tools: how the cases' tools are written: `auto` or `text`.
        timeout_s: how long a grading function of the user's may take for one answer, in seconds.
        context: where known items are kept, and what the result is compared with meanwhile.
        in_flight: requests under way at once.

    Raises:
        EvalError: every case failed.
    """

    async def graded(case: Case, answer: Answer) -> float:
        return await grade(grader, answer, case.target, timeout_s=timeout_s)

    settings = {
        "kind": "product",
        "grader": grader.to_dict(),
        "sampling": attrs.asdict(sampling),
        "tools": tools_asked(target.renderer, tools, cases),
    }
    return await run_cases(
        name,
        cases,
        graded,
        sampling,
        target,
        settings=settings,
        tools=tools,
        context=context or Context(),
        in_flight=in_flight,
    )


async def run_cases(
    name: str,
    cases: tuple[Case, ...],
    graded: Grading,
    sampling: Sampling,
    target: Target,
    *,
    settings: Mapping[str, Any],
    context: Context,
    tools: str = "auto",
    in_flight: int = IN_FLIGHT,
    extra: Callable[[tuple[Item, ...]], Mapping[str, float]] = lambda _: {},
) -> EvalResult:
    """Return what `target` scored on `cases`, each answer graded by the coroutine `graded`.

    Args:
        name: the eval's name.
        cases: what to ask.
        graded: returns the score of an answer, from 0 to 1; raises `UnscoredError` where none can be had.
        sampling: how to sample.
        target: the opened target.
        settings: what identifies the exam.
        context: where known items are kept, and what the result is compared with meanwhile.
        tools: how the cases' tools are written: `auto` or `text`.
        in_flight: requests under way at once.
        extra: further figures, from the items.

    Raises:
        EvalError: every case failed.
    """
    gate = asyncio.Semaphore(in_flight)
    params = sampling.params(target.renderer.get_stop_sequences())
    protocol = tool_protocol(target.renderer, tools)
    shown = [(case.id, case.group, case.input_digest) for case in cases]
    race = context.against.race(name, shown) if context.against is not None else None
    kept = Kept(await open_journal(context.at, name, target, settings))
    usage: Counter[str] = Counter()
    started = time.monotonic()

    async def one(case: Case) -> Item:
        async with gate:
            if race is not None and race.decided:
                item = race.cancelled(case.id, case.input_digest, case.group)
            else:
                known = kept.get(case.id, case.input_digest)
                item = known or await _answer_and_grade(case, graded, params, target, protocol, usage)
                if known is None:
                    kept.add(item)
                if race is not None:
                    race.add(item.id, item.score)
        context.done()
        return item

    order = race.order(cases, lambda case: case.id) if race is not None else cases
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(case)) for case in order]
    items = tuple(task.result() for task in tasks)
    return EvalResult.from_items(
        items,
        name=name,
        layer="product",
        metric="score",
        settings=settings,
        asked=len(cases),
        bounds=(0.0, 1.0),
        extra=extra(items),
        usage={**usage, "seconds": time.monotonic() - started},
        race=race.found() if race is not None else None,
    )


async def _answer_and_grade(
    case: Case,
    graded: Grading,
    params: tinker.SamplingParams,
    target: Target,
    protocol: str,
    usage: Counter[str],
) -> Item:
    item = Item(case.id, 0.0, input_digest=case.input_digest, cluster=case.group)
    try:
        answer = await _answer(case, params, target, protocol, usage)
    except Exception as error:  # noqa: BLE001 - whatever a request dies of, it is this case's error, counted
        why = f"sampling failed: {type(error).__name__}: {error}"[:500]
        return attrs.evolve(item, error=why, status="errored")
    item = attrs.evolve(item, tokens=answer.tokens, stop_reason=answer.stop_reason)
    try:
        return attrs.evolve(item, score=await graded(case, answer))
    except UnscoredError as error:
        return attrs.evolve(item, error=f"unscored: {error}"[:500], status="unscored")
    except Exception as error:  # noqa: BLE001 - grading is the user's code, or a judge's: its own case's error
        return attrs.evolve(item, error=str(error)[:500] or repr(error), status="errored")


async def _answer(
    case: Case, params: tinker.SamplingParams, target: Target, protocol: str, usage: Counter[str]
) -> Answer:
    prompt = build_prompt(target.renderer, case.messages, case.tools, protocol=protocol)
    response = await target.client.sample(prompt, 1, params)
    answer, _ = read_answer(target.renderer, response.sequences[0], case.tools, protocol=protocol)
    usage["input_tokens"] += prompt.length
    usage["output_tokens"] += answer.tokens
    return answer
