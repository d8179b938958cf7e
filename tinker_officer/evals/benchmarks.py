"""Layer 2: public benchmarks, run as Inspect tasks on a Tinker sampler.

The task's own code runs unchanged: its data, its prompts, its scorer. What this module adds is what keeps the
figure honest. Every checkpoint sits the same items (`tasks`). A sample that errored counts as a wrong answer,
whatever the task's scorer would have made of it, and so does a grade that nobody can read as a number. A task
that wants a judge gets the one that was bound, or an error: never the candidate itself. What was answered
once is not asked again (`sittings`).

Inspect runs in one thread of its own with one loop, one evaluation at a time: inside another loop it would
stall it, and two at once in one process it refuses.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tinker_officer._digest import digest
from tinker_officer.errors import EvalError
from tinker_officer.evals.grades import Grades
from tinker_officer.evals.kept import open_journal
from tinker_officer.evals.prepared import Context
from tinker_officer.evals.prompts import tool_protocol
from tinker_officer.evals.results import EvalResult
from tinker_officer.evals.sittings import Ended, Sittings
from tinker_officer.evals.stopping import Stop
from tinker_officer.evals.tasks import JUDGES, Sat, epochs_of, open_judge, unbound


if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.model import Model

    from tinker_officer.evals.inspect_model import TinkerAPI
    from tinker_officer.evals.target import Target

T = TypeVar("T")

_PACKAGES = ("inspect-ai", "inspect-evals")
_SHOWN = 300


async def run_benchmark(sat: Sat, task: Task, target: Target, context: Context) -> EvalResult:
    """Return what `target` scored on a task.

    Args:
        sat: which task, and how.
        task: what `load_task` returned for it.
        target: the opened target.
        context: where Inspect's log and known samples are kept, and what the result is compared with.

    Raises:
        EvalError: the task cannot be loaded, a sample is missing, all failed, or a judge is unbound.
    """
    if sat.sandbox == "local":
        warnings.warn(
            f"{sat.name}: what the model writes runs on this machine, with your rights and your environment",
            stacklevel=2,
        )
    return await _in_thread(lambda: _sit(sat, task, target, context))


async def _sit(sat: Sat, task: Task, target: Target, context: Context) -> EvalResult:
    from inspect_ai.model import GenerateConfig, get_model

    from tinker_officer.evals.inspect_model import CONNECTIONS, model_for

    started = time.monotonic()
    shown = {str(sample.id): _input_digest(sample) for sample in task.dataset}
    settings = _settings(sat, task, target)
    journal = await open_journal(context.at, sat.name, target, settings)
    kept = Sittings(journal, shown, epochs=epochs_of(task))
    model = model_for(target, GenerateConfig(temperature=0.0), tools=sat.tools)
    api: TinkerAPI = model.api  # type: ignore[assignment]  # model_for makes no other
    roles: dict[str, Model] = {
        role: get_model(f"tinker_officer_unbound/{role}", memoize=False) for role in JUDGES
    }
    roles |= {role: open_judge(role, name) for role, name in sat.roles.items()}
    grades = Grades.of(sat, task)
    stop = Stop.of(context.against, sat.name, shown, grades, epochs_of(task))
    for sample in kept.samples:
        stop.add(sample)
        context.done()

    def listener(sample: EvalSample) -> None:
        ended = _ended(sample, shown.get(str(sample.id), ""))
        kept.add(ended, api.used)
        stop.add(ended)
        context.done()

    parts = [stop.watching(part) for part in _to_sit(task, kept.missing())]
    config = {"max_connections": CONNECTIONS, "max_tokens": sat.max_tokens, "temperature": sat.temperature}
    if parts:
        given = {name: value for name, value in config.items() if value is not None}
        logs = await _evaluate(parts, model, roles, context.at, listener, given, sat.sandbox)
        _finished(sat, api, roles, logs)
    if len(kept.samples) != len(shown) * epochs_of(task) and not stop.decided:
        raise EvalError(
            f"the samples of {sat.name!r} do not add up",
            got=f"{len(kept.samples)} samples completed or errored",
            need=f"{len(shown)} items, {epochs_of(task)} times each",
            fix="run it again; Inspect's log holds the details",
        )
    return EvalResult.from_items(
        stop.items(kept.samples),
        name=sat.name,
        layer="benchmark",
        metric="accuracy",
        settings={**settings, "scorer": grades.counts, "sampling": sorted(kept.used)},
        asked=len(shown),
        higher_is_better=grades.higher_is_better,
        bounds=(0.0, 1.0),
        extra=grades.others(kept.samples),
        usage={
            "input_tokens": sum(sample.read for sample in kept.samples),
            "output_tokens": sum(sample.tokens for sample in kept.samples),
            "seconds": time.monotonic() - started,
        },
        race=stop.found(),
    )


def _settings(sat: Sat, task: Task, target: Target) -> dict[str, Any]:
    """Return what identifies the exam, apart from its items."""
    return {
        "kind": "benchmark",
        "task": sat.task if isinstance(sat.task, str) else task.name,
        "task_version": str(task.version),
        "task_args": json.loads(json.dumps(dict(sat.task_args), default=str)),
        "dataset": task.dataset.name,
        "packages": {name: _version(name) for name in _PACKAGES},
        "epochs": epochs_of(task),
        "roles": dict(sat.roles),
        "asked": {"max_tokens": sat.max_tokens, "temperature": sat.temperature},
        "tools": tool_protocol(target.renderer, sat.tools),
        "renderer": target.renderer_name,
        "sandbox": sat.sandbox or getattr(task.sandbox, "type", None),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _to_sit(task: Task, missing: Mapping[str, int]) -> list[Task]:
    """Return the task with the items still to be sat, in parts where these are so unequally often."""
    from inspect_ai.dataset import MemoryDataset

    whole = epochs_of(task)
    if missing and len(missing) == len(task.dataset) and set(missing.values()) == {whole}:
        return [task]
    parts = []
    for epochs in sorted(set(missing.values()), reverse=True):
        samples = [sample for sample in task.dataset if missing.get(str(sample.id)) == epochs]
        part = copy(task)
        part.dataset = MemoryDataset(samples, name=task.dataset.name, location=task.dataset.location)
        if epochs != whole:
            part.epochs, part.epochs_reducer = epochs, None
        parts.append(part)
    return parts


def _finished(sat: Sat, api: TinkerAPI, roles: Mapping[str, Model], logs: list[EvalLog]) -> None:
    """Refuse an evaluation in which the candidate judged itself, or that did not come to its end."""
    from inspect_ai.model import ModelAPI

    from tinker_officer.evals.inspect_model import Unbound

    judges: dict[str, ModelAPI] = {role: judge.api for role, judge in roles.items()}
    asked = next((role for role, one in judges.items() if isinstance(one, Unbound) and one.asked), None)
    if asked or api.judged_itself:
        raise unbound(asked or "grader")
    broken = next((log for log in logs if log.status != "success"), None)
    if broken is not None or not logs:
        said = broken.error.message[:_SHOWN] if broken is not None and broken.error else "no reason given"
        raise EvalError(
            f"the evaluation of {sat.name!r} did not finish",
            got=f"{broken.status if broken is not None else 'no log'}: {said}",
            need="every sample completed or errored",
            fix="run it again; Inspect's log holds the details",
        )


async def _evaluate(
    tasks: list[Task],
    model: Model,
    roles: Mapping[str, Model],
    at: Path | None,
    listener: Callable[[EvalSample], None],
    config: Mapping[str, Any],
    sandbox: str | None,
) -> list[EvalLog]:
    """Run Inspect with what was found to be right for it, and return its logs."""
    from inspect_ai import eval_async
    from inspect_ai.util._display import init_display_type

    from tinker_officer.evals.inspect_hooks import listening

    init_display_type("none")
    with (
        tempfile.TemporaryDirectory(prefix="tinker-officer-inspect-") as scratch,
        listening(listener),
        _set_apart(),
    ):
        return await eval_async(
            tasks,
            model=model,
            model_roles=dict(roles),
            sandbox=sandbox,
            log_dir=str(at or scratch),
            log_format="eval",
            log_realtime=False,
            ctl_server=False,
            fail_on_error=False,
            score_on_error=True,
            score_display=False,
            **config,
        )


@contextmanager
def _set_apart() -> Iterator[None]:
    """Spare the garbage collector what is loaded by now: it would go through it every few hundred samples."""
    if gc.get_freeze_count():  # by somebody else, who will want it so
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _ended(sample: EvalSample, shown: str) -> Ended:
    scores = sample.scores or {}
    return Ended(
        id=str(sample.id),
        shown=shown,
        error=f"the sample errored: {sample.error.message}"[:_SHOWN] if sample.error else "",
        scores={name: _plain(score.value) for name, score in scores.items()},
        reasons={
            name: str(said)[:_SHOWN]
            for name, score in scores.items()
            if (said := score.reason or (score.explanation if _unscored(score.value) else None))
        },
        stop_reason=str(sample.output.stop_reason) if sample.output.choices else "",
        tokens=sum(usage.output_tokens for usage in sample.model_usage.values()),
        read=sum(usage.input_tokens for usage in sample.model_usage.values()),
    )


def _plain(value: Any) -> Any:
    """Return a score's value as JSON can hold it; None for one that is no number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _unscored(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


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
