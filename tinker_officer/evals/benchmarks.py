"""Layer 2: public benchmarks, run as Inspect tasks on a Tinker sampler.

The task's own code runs unchanged: its data, its prompts, its scorer. What this module adds is what keeps the
figure honest. The items are chosen by a hash of their ids, so that every checkpoint sits the same exam, also
where a task shuffles. A sample that errored scores 0 and is counted, whatever the task's scorer would have
made of it. A task that wants a judge gets the one that was bound, or an error: never the candidate itself.

Inspect runs in one thread of its own with one loop, one evaluation at a time: inside another loop it would
stall it, and two at once in one process it refuses.
"""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
import threading
from collections.abc import Callable, Coroutine, Mapping
from copy import copy
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from tinker_officer._digest import digest
from tinker_officer._text import nearest
from tinker_officer.errors import EvalError, OfficerError
from tinker_officer.evals.bfcl_data import seed_bfcl
from tinker_officer.evals.prompts import tool_protocol
from tinker_officer.evals.scorecard import EvalResult, Item


if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.scorer import Score

    from tinker_officer.evals.target import Target

T = TypeVar("T")

# Roles that tasks give to a judge. Bound to a model that refuses, unless the user binds them.
JUDGES = ("grader", "judge", "scorer", "grader_model", "judge_model")
# What the best-known tasks need, for `explain`; `check` finds out for real.
NEEDS = {
    "inspect_evals/bfcl": "the wheel bfcl-eval (or git)",
    "inspect_evals/gsm8k": "the HF hub or its cache",
    "inspect_evals/mmlu_0_shot": "the HF hub or its cache",
    "inspect_evals/mmlu_5_shot": "the HF hub or its cache",
    "inspect_evals/humaneval": "the HF hub, and docker",
    "inspect_evals/mbpp": "the HF hub, and docker",
    "inspect_evals/math": "the HF hub, antlr4, a judge",
}
_SHOWN = 300


@attrs.frozen
class Sat:
    """Which task is sat, and how; the part of a suite's benchmark that this module works on.

    Attributes:
        name: the eval's name.
        task: the task's registered name, `inspect_evals/gsm8k`; or a `Task`.
        limit: items, chosen by a hash of their ids; None for all.
        task_args: the task's own arguments.
        max_tokens: overrides the task's; None leaves it to the task, then to the default.
        temperature: overrides the task's; None leaves it to the task, then 0.
        scorer: which of the task's scorers counts; its first when None.
        roles: models for the roles that the task asks for, by role.
        tools: how tools are written: `auto` or `text`.
    """

    name: str
    task: Any
    limit: int | None
    task_args: Mapping[str, Any]
    max_tokens: int | None
    temperature: float | None
    scorer: str | None
    roles: Mapping[str, str]
    tools: str


def load_task(sat: Sat) -> Task:
    """Return the task with its data, cut to the items that are sat.

    Raises:
        EvalError: there is no such task, or its data or a package that it needs is missing.
    """
    if not isinstance(sat.task, str):
        return _own(sat)
    from inspect_ai.util import registry_create

    if sat.task.partition("/")[2] == "bfcl":
        seed_bfcl()
    try:
        task = registry_create("task", sat.task, **sat.task_args)
    except OfficerError:
        raise
    except LookupError as error:
        raise _unknown(sat.task, error) from None
    except Exception as error:
        known = _names()
        if known and sat.task not in known:
            raise _unknown(sat.task, error) from None
        raise EvalError(
            f"the task {sat.task!r} cannot be loaded on this machine",
            got=f"{type(error).__name__}: {str(error)[:_SHOWN]}",
            need="its data (cached, or a hub that can be reached) and the packages that it imports",
            fix=f"inspect eval {sat.task} --limit 1  # shows the whole error",
        ) from error
    _freeze(task, sat.limit)
    return task


def _own(sat: Sat) -> Task:
    """Return a copy of the user's task: the suite's own stays as it was."""
    from inspect_ai import Task

    task = sat.task() if callable(sat.task) and not isinstance(sat.task, Task) else sat.task
    if not isinstance(task, Task):
        raise EvalError(
            "this is not an Inspect task",
            got=repr(sat.task)[:_SHOWN],
            need="an inspect_ai.Task, or a function that returns one",
            fix="suite.task(my_task())",
        )
    task = copy(task)
    _freeze(task, sat.limit)
    return task


def epochs_of(task: Task) -> int:
    """Return how often each item is sat."""
    return task.epochs or 1


def _unknown(task: str, error: Exception) -> EvalError:
    near = nearest(task, _names())
    return EvalError(
        "there is no such Inspect task",
        got=f"{task!r} ({str(error)[:_SHOWN]})",
        need="the name of a registered task" + (f": did you mean {near}?" if near else ""),
        fix='suite.benchmark("inspect_evals/gsm8k", limit=200)',
    )


@cache
def _names() -> tuple[str, ...]:
    """Return the names of the tasks that inspect_evals registers."""
    import inspect_evals._registry as registry
    from inspect_ai.util import registry_info

    names = []
    for value in vars(registry).values():
        try:
            info = registry_info(value)
        except ValueError:
            continue
        if info.type == "task":
            names.append(info.name)
    return tuple(sorted(names))


def _freeze(task: Task, limit: int | None) -> None:
    """Keep the `limit` items whose ids have the lowest hashes, in the order of their hashes."""
    samples = list(task.dataset)
    for number, sample in enumerate(samples, start=1):
        if sample.id is None:
            if getattr(task.dataset, "shuffled", False):
                raise EvalError(
                    "the task shuffles items that have no ids",
                    got=f"{len(samples)} items without ids, shuffled",
                    need="ids, or a fixed order: otherwise two checkpoints sit different exams",
                    fix="pass the task's own argument that turns shuffling off",
                )
            sample.id = number
    chosen = sorted(samples, key=lambda sample: sha256(str(sample.id).encode()).digest())[:limit]
    from inspect_ai.dataset import MemoryDataset

    task.dataset = MemoryDataset(
        chosen, name=task.dataset.name, location=task.dataset.location, shuffled=False
    )


async def run_benchmark(
    sat: Sat, task: Task, target: Target, *, at: Path | None, done: Callable[[], None] = lambda: None
) -> EvalResult:
    """Return what `target` scored on a task; Inspect's own log is kept in `at`.

    Args:
        sat: which task, and how.
        task: what `load_task` returned for it.
        target: the opened target.
        at: folder for Inspect's log; None keeps none.
        done: called after each sample.

    Raises:
        EvalError: the task cannot be loaded, a sample is missing, all failed, or a judge is unbound.
    """
    return await _in_thread(lambda: _sit(sat, task, target, at, done))


async def _sit(sat: Sat, task: Task, target: Target, at: Path | None, done: Callable[[], None]) -> EvalResult:
    from inspect_ai.model import GenerateConfig, Model, get_model

    from tinker_officer.evals.inspect_model import CONNECTIONS, TinkerAPI, Unbound, model_for, unbound

    shown = {str(sample.id): _input_digest(sample) for sample in task.dataset}
    model = model_for(target, GenerateConfig(temperature=0.0), tools=sat.tools)
    roles: dict[str, Model] = {
        role: get_model(f"tinker_officer_unbound/{role}", memoize=False) for role in JUDGES
    }
    roles |= {role: get_model(name, memoize=False) for role, name in sat.roles.items()}
    asked = {"max_tokens": sat.max_tokens, "temperature": sat.temperature}
    ended: list[_Ended] = []

    def listener(sample: EvalSample) -> None:
        ended.append(_ended(sample))
        done()

    config = {
        "max_connections": CONNECTIONS,
        **{key: value for key, value in asked.items() if value is not None},
    }
    log = await _evaluate(task, model, roles, at, listener, config)
    for role, judge in roles.items():
        if isinstance(judge.api, Unbound) and judge.api.asked:
            raise unbound(role)
    if not isinstance(model.api, TinkerAPI) or log.status != "success":
        raise EvalError(
            f"the evaluation of {sat.name!r} did not finish",
            got=f"{log.status}: {log.error.message[:_SHOWN] if log.error else 'no reason given'}",
            need="every sample completed or errored",
            fix="run it again; Inspect's log holds the details",
        )
    scorer = sat.scorer or (log.eval.scorers[0].name if log.eval.scorers else "")
    if len(ended) != len(shown) * epochs_of(task):
        raise EvalError(
            f"the samples of {sat.name!r} do not add up",
            got=f"{len(ended)} samples completed or errored",
            need=f"{len(shown)} items, {epochs_of(task)} times each",
            fix="run it again; Inspect's log holds the details",
        )
    settings = {
        "kind": "benchmark",
        "task": sat.task if isinstance(sat.task, str) else task.name,
        "task_version": str(task.version),
        "task_args": json.loads(json.dumps(dict(sat.task_args), default=str)),
        "packages": dict(log.eval.packages),
        "scorer": scorer,
        "epochs": epochs_of(task),
        "roles": dict(sat.roles),
        "sampling": sorted(model.api.used),
        "tools": tool_protocol(target.renderer, sat.tools),
    }
    return EvalResult.from_items(
        _items(ended, scorer, shown),
        name=sat.name,
        layer="benchmark",
        metric="accuracy",
        settings=settings,
        asked=len(shown),
        bounds=(0.0, 1.0),
    )


async def _evaluate(
    task: Task,
    model: Any,
    roles: Mapping[str, Any],
    at: Path | None,
    listener: Callable[[EvalSample], None],
    config: Mapping[str, Any],
) -> EvalLog:
    """Run Inspect with what was found to be right for it, and return its log."""
    from inspect_ai import eval_async
    from inspect_ai.util._display import init_display_type

    from tinker_officer.evals.inspect_hooks import listening

    init_display_type("none")
    with tempfile.TemporaryDirectory(prefix="tinker-officer-inspect-") as scratch, listening(listener):
        logs = await eval_async(
            task,
            model=model,
            model_roles=dict(roles),
            log_dir=str(at or scratch),
            log_format="eval",
            log_realtime=False,
            ctl_server=False,
            fail_on_error=False,
            score_on_error=True,
            score_display=False,
            **config,
        )
    return logs[0]


@attrs.frozen
class _Ended:
    """What is kept of a sample when it ends."""

    id: str
    error: str
    scores: dict[str, Score]
    stop_reason: str
    tokens: int


def _ended(sample: EvalSample) -> _Ended:
    return _Ended(
        id=str(sample.id),
        error=f"the sample errored: {sample.error.message}"[:_SHOWN] if sample.error else "",
        scores=dict(sample.scores or {}),
        stop_reason=str(sample.output.stop_reason) if sample.output.choices else "",
        tokens=sum(usage.output_tokens for usage in sample.model_usage.values()),
    )


def _items(ended: list[_Ended], scorer: str, shown: Mapping[str, str]) -> tuple[Item, ...]:
    """Return one item a sample id: the mean over its epochs, 0 for an epoch that errored or has no score."""
    by_id: dict[str, list[_Ended]] = {}
    for sample in ended:
        by_id.setdefault(sample.id, []).append(sample)
    return tuple(_item(name, epochs, scorer, shown.get(name, "")) for name, epochs in by_id.items())


def _item(name: str, epochs: list[_Ended], scorer: str, shown: str) -> Item:
    scored = [_score(sample, scorer) for sample in epochs]
    reasons = [sample.stop_reason for sample in epochs]
    cut = next((reason for reason in reasons if reason in {"max_tokens", "model_length"}), reasons[0])
    return Item(
        id=name,
        score=sum(score for score, _ in scored) / len(scored),
        tokens=sum(sample.tokens for sample in epochs),
        stop_reason=cut,
        error="; ".join(dict.fromkeys(error for _, error in scored if error)),
        input_digest=shown,
    )


def _score(sample: _Ended, scorer: str) -> tuple[float, str]:
    """Return the score of one sample, or 0 and why there is none."""
    if sample.error:
        return 0.0, sample.error
    if scorer not in sample.scores:
        return 0.0, f"unscored by {scorer!r}: there is {', '.join(sample.scores) or 'no score'}"
    return _value(sample.scores[scorer])


def _value(score: Score) -> tuple[float, str]:
    from inspect_ai.scorer import value_to_float

    if isinstance(score.value, Mapping) or (isinstance(score.value, list | tuple) and len(score.value) != 1):
        return 0.0, "the scorer returns several values: choose another with scorer="
    value = float(value_to_float()(score.value))
    if not math.isfinite(value):
        return 0.0, f"unscored: {score.reason or score.explanation or 'the scorer gave no value'}"[:_SHOWN]
    return value, ""


def _input_digest(sample: Any) -> str:
    """Return a digest of what a sample asks and wants, without the ids that Inspect draws for messages."""
    asked = sample.input
    if not isinstance(asked, str):
        asked = [[message.role, message.text] for message in asked]
    metadata = json.loads(json.dumps(sample.metadata or {}, default=str, sort_keys=True))
    return digest([asked, sample.choices, sample.target, str(metadata)])[:16]


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="tinker-officer-inspect", daemon=True).start()
    return loop


@cache
def _turn() -> asyncio.Lock:
    return asyncio.Lock()


async def _in_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what `work` returns, run on Inspect's own loop, when it is our turn; cancelling reaches it."""

    async def alone() -> T:
        async with _turn():
            return await work()

    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(alone(), _loop()))
