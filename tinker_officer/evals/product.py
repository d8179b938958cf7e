"""Layer 3: the user's own cases, answered by the model and graded.

Many requests are under way at once. A request that fails, or a grader that raises, fails its own case: the
case keeps its place, scores 0, and says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer._fields import real, whole
from tinker_officer.errors import EvalError
from tinker_officer.evals.cases import Case
from tinker_officer.evals.graders import Answer, Grader
from tinker_officer.evals.prompts import build_prompt, read_answer, tool_protocol
from tinker_officer.evals.scorecard import EvalResult, Item


if TYPE_CHECKING:
    import tinker

    from tinker_officer.evals.target import Target

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
    done: Callable[[], None] = lambda: None,
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
        done: called after each case.
        in_flight: requests under way at once.

    Raises:
        EvalError: every case failed.
    """
    gate = asyncio.Semaphore(in_flight)
    params = sampling.params(target.renderer.get_stop_sequences())
    protocol = tool_protocol(target.renderer, tools)

    async def one(case: Case) -> Item:
        async with gate:
            item = await _answer_and_grade(case, grader, params, target, protocol)
        done()
        return item

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(case)) for case in cases]
    settings = {
        "kind": "product",
        "grader": grader.to_dict(),
        "sampling": attrs.asdict(sampling),
        "tools": protocol if any(case.tools for case in cases) else "none",
    }
    return EvalResult.from_items(
        tuple(task.result() for task in tasks),
        name=name,
        layer="product",
        metric="score",
        settings=settings,
        asked=len(cases),
        bounds=(0.0, 1.0),
    )


async def _answer_and_grade(
    case: Case, grader: Grader, params: tinker.SamplingParams, target: Target, protocol: str
) -> Item:
    item = Item(case.id, 0.0, input_digest=case.input_digest, cluster=case.group)
    try:
        answer = await _answer(case, params, target, protocol)
    except Exception as error:  # noqa: BLE001 - whatever a request dies of, it is this case's error, counted
        return attrs.evolve(item, error=f"sampling failed: {type(error).__name__}: {error}"[:500])
    item = attrs.evolve(item, tokens=answer.tokens, stop_reason=answer.stop_reason)
    try:
        foreign = ":" in grader.name  # a user's function may be slow: it must not hold up the others
        graded = asyncio.to_thread(grader, answer, case.target) if foreign else None
        score = await graded if graded is not None else grader(answer, case.target)
    except Exception as error:  # noqa: BLE001 - a grader is the user's code: it may raise anything
        return attrs.evolve(item, error=f"the grader raised {type(error).__name__}: {error}"[:500])
    return attrs.evolve(item, score=score)


async def _answer(case: Case, params: tinker.SamplingParams, target: Target, protocol: str) -> Answer:
    prompt = build_prompt(target.renderer, case.messages, case.tools, protocol=protocol)
    response = await target.client.sample(prompt, 1, params)
    answer, _ = read_answer(target.renderer, response.sequences[0], case.tools, protocol=protocol)
    return answer
