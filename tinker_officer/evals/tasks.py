"""Inspect tasks by name, by file or as objects, loaded with their data and cut to the items that are sat.

The items are chosen by a hash of their ids, so that every checkpoint sits the same exam, also where a task
shuffles. A judge that was bound is handed to the task by whatever name it has there; scorers that would ask
one are left out when none is bound, so that no candidate ever grades itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer._text import nearest
from tinker_officer.errors import EvalError, OfficerError
from tinker_officer.evals import catalogue, deadline, ifeval, machine
from tinker_officer.evals.bfcl_data import seed_bfcl
from tinker_officer.evals.known import Known


if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.model import Model

# Roles that tasks give to a judge. Bound to a model that refuses, unless the user binds them.
JUDGES = ("grader", "judge", "scorer", "grader_model", "judge_model")
_LISTS = ("grader_models",)  # arguments that take several judges
_SHOWN = 300


@attrs.frozen
class Sat:
    """Which task is sat, and how; the part of a suite's benchmark that this module works on.

    Attributes:
        name: the eval's name.
        task: the task's registered name, `inspect_evals/gsm8k`; a file, `exam.py@task`; or a `Task`.
        limit: items, chosen by a hash of their ids; None for all.
        task_args: the task's own arguments.
        max_tokens: overrides the task's; None leaves it to the task, then to the default.
        temperature: overrides the task's; None leaves it to the task, then 0.
        scorer: which of the task's scores counts, `scorer` or `scorer/part`; None leaves it to the catalogue,
            then to the task's first.
        roles: models for the roles that the task asks for, by role.
        tools: how tools are written: `auto` or `text`.
        sandbox: where the model's code runs, in place of the task's own choice; None leaves it to the task.
    """

    name: str
    task: Any
    limit: int | None = None
    task_args: Mapping[str, Any] = attrs.field(factory=dict)
    max_tokens: int | None = None
    temperature: float | None = None
    scorer: str | None = None
    roles: Mapping[str, str] = attrs.field(factory=dict)
    tools: str = "auto"
    sandbox: str | None = None

    @property
    def judge(self) -> str | None:
        """The model that is bound as the judge, if one is."""
        return next((self.roles[role] for role in JUDGES if role in self.roles), None)


def load_task(sat: Sat) -> Task:
    """Return the task with its data, cut to the items that are sat.

    Raises:
        EvalError: there is no such task, or something that it needs is missing on this machine.
    """
    task = _named(sat) if isinstance(sat.task, str) else _own(sat)
    _freeze(task, sat.limit)
    if not catalogue.facts(str(sat.task)) and sat.sandbox is None and _in_docker(task):
        lack = machine.docker()
        if lack is not None:
            raise machine.refuse(sat.name, (lack,))
    for role, name in sat.roles.items():
        open_judge(role, name)
    return task


def questions_of(name: str) -> list[dict[str, Any]]:
    """Return a task's multiple-choice questions as the rows that `calibration` reads.

    Raises:
        EvalError: as for `load_task`; or it has none with one right choice.
    """
    rows = [
        {"id": str(sample.id), "input": sample.input, "choices": list(sample.choices), "target": target}
        for sample in load_task(Sat(name, name)).dataset
        if sample.choices and isinstance(sample.input, str)
        for target in [sample.target]
        if isinstance(target, str)
    ]
    if not rows:
        raise EvalError(
            f"{name!r} has no questions of one right choice",
            got="samples without choices, or with several that are right",
            need="multiple choice, such as inspect_evals/mmlu_0_shot; or cases of your own",
            fix='suite.calibration("sure", "inspect_evals/mmlu_0_shot", limit=200)',
        )
    return rows


def _named(sat: Sat) -> Task:
    name = str(sat.task)
    if catalogue.short(name) and name not in catalogue.task_names():
        near = nearest(name, catalogue.task_names())
        raise EvalError(
            "there is no such Inspect task",
            got=repr(name),
            need="the name of a registered task" + (f": did you mean {near}?" if near else ""),
            fix='suite.benchmark("inspect_evals/gsm8k", limit=200)',
        )
    lacks = machine.lacking(name, args=sat.task_args, judge=sat.judge is not None, sandbox=sat.sandbox)
    if lacks:
        raise machine.refuse(sat.name, lacks)
    try:
        if catalogue.short(name):
            return _from_inspect_evals(sat, name)
        return _from_file(sat, name) if ".py" in name else _registered(name, sat.task_args)
    except OfficerError:
        raise
    except LookupError as error:
        raise _unknown(name, error) from None
    except Exception as error:
        raise EvalError(
            f"the task {name!r} cannot be loaded on this machine",
            got=f"{type(error).__name__}: {str(error)[:_SHOWN]}",
            need="its data (cached, or a hub that can be reached) and the packages that it imports",
            fix=f"inspect eval {name} --limit 1  # shows the whole error",
        ) from error


def _unknown(task: str, error: Exception) -> EvalError:
    return EvalError(
        "there is no such Inspect task",
        got=f"{task!r} ({str(error)[:_SHOWN]})",
        need="the name of a registered task, or a file with one",
        fix='suite.benchmark("inspect_evals/gsm8k", limit=200)  # or suite.benchmark("exam.py@my_task")',
    )


def _registered(name: str, args: Mapping[str, Any]) -> Task:
    from inspect_ai.util import registry_create

    task: Task = registry_create("task", name, **args)
    return task


def _from_inspect_evals(sat: Sat, name: str) -> Task:
    if catalogue.short(name) == "bfcl":
        seed_bfcl()
    if catalogue.short(name) == "ifeval":
        ifeval.provide()
    if catalogue.short(name) == "math":
        deadline.install()
    here = catalogue.known(name)
    args = dict(sat.task_args)
    if sat.judge is not None:
        judge = open_judge("grader", sat.judge)
        args |= {key: [judge] if key in _LISTS else judge for key in here.judge if key not in args}
    with machine.no_waiting():
        task = _registered(name, args)
    if here.judged and sat.judge is None and not set(here.judge) & set(args):
        _leave_out(task, here, sat)
    return task


def _leave_out(task: Task, here: Known, sat: Sat) -> None:
    """Leave out the scorers that would ask a judge: there is none but the candidate itself."""
    if (sat.scorer or "").partition("/")[0] in here.judged:
        raise unbound("grader")
    task.scorer = [scorer for scorer in task.scorer or () if scorer_name(scorer) not in here.judged]


def scorer_name(scorer: Any) -> str:
    """Return the name of a scorer as Inspect's logs have it."""
    from inspect_ai.util import registry_info

    return str(registry_info(scorer).name).rpartition("/")[2]


def _from_file(sat: Sat, name: str) -> Task:
    from inspect_ai._eval.loader import load_tasks

    path = Path(name.partition("@")[0])
    if not path.is_file():
        raise EvalError(
            "there is no such file with an Inspect task",
            got=str(path),
            need="a Python file with a function under @task",
            fix='suite.benchmark("exam.py@my_task")',
        )
    tasks = load_tasks([name], dict(sat.task_args))
    if len(tasks) != 1:
        raise EvalError(
            f"{path.name} does not name one task",
            got=", ".join(task.name for task in tasks) or "no function under @task",
            need="one task; name it after an @",
            fix=f'suite.benchmark("{path}@{tasks[0].name if tasks else "my_task"}")',
        )
    return tasks[0]


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
    return copy(task)


def open_judge(role: str, name: str) -> Model:
    """Return the model that is bound to a role.

    Raises:
        EvalError: it cannot be opened on this machine.
    """
    from inspect_ai.model import get_model

    try:
        return get_model(name, memoize=False)
    except Exception as error:
        raise EvalError(
            f"the model in the role {role!r} cannot be opened",
            got=f"{name!r}: {' '.join(str(error).split())[:_SHOWN]}",
            need="a model of Inspect: its package installed, and its key in the environment",
            fix=f'suite.benchmark(task, roles={{"{role}": "openai/gpt-4o"}})  # and export OPENAI_API_KEY',
        ) from error


def unbound(role: str) -> EvalError:
    """Return the error of a task that asks for a role which nobody bound."""
    return EvalError(
        f"the task wants a model in the role {role!r}, and none is bound",
        got="nothing: the candidate would have graded itself",
        need="a model of your choice in that role",
        fix=f'suite.benchmark(task, roles={{"{role}": "openai/gpt-4o"}})',
    )


def epochs_of(task: Task) -> int:
    """Return how often each item is sat."""
    return task.epochs or 1


def _in_docker(task: Task) -> bool:
    places = [task.sandbox, *(sample.sandbox for sample in task.dataset)]
    return any(getattr(place, "type", None) == "docker" for place in places)


def _freeze(task: Task, limit: int | None) -> None:
    """Keep the `limit` items whose ids have the lowest hashes, in the order of their hashes."""
    from inspect_ai.dataset import MemoryDataset

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
    task.dataset = MemoryDataset(
        chosen, name=task.dataset.name, location=task.dataset.location, shuffled=False
    )
