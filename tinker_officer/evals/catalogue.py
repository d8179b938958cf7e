"""The public benchmarks that this library knows: what each measures, whom it serves, and what counts in it.

What changes from release to release (version, items, data sets, sandbox) is read from the `eval.yaml` files
of the installed `inspect_evals`, without importing it. What those files do not say stands in `known`: the
goals that a benchmark speaks to, how it is asked, who judges, which score counts, and which way is better.

Any other Inspect task runs as well; of it only what `eval.yaml` says is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

import attrs

from tinker_officer._text import nearest, table
from tinker_officer.errors import EvalError
from tinker_officer.evals.known import CATALOGUE, Known


PREFIX = "inspect_evals/"
GOALS = ("chat", "code", "math", "tools", "safety")
_HEADER = ("task", "version", "n", "goals", "asked", "better", "measures", "needs")


@attrs.frozen
class Facts:
    """What the installed `inspect_evals` says of a task.

    Attributes:
        task: its name, without `inspect_evals/`.
        version: `2-A`: figures of one number can be compared, whatever the letter.
        items: how many, in full; None where it is not said.
        hub: its data sets on the hub.
        urls: files that it fetches from elsewhere.
        sandbox: whether it runs in a sandbox, docker by default.
        internet: whether its tools need the internet.
        extra: the extra of inspect_evals that it names.
        install: what it needs beside our own dependencies, as pip takes it; empty for nothing.
        folder: where it lives.
    """

    task: str
    version: str
    items: int | None
    hub: tuple[str, ...]
    urls: tuple[str, ...]
    sandbox: bool
    internet: bool
    extra: str
    install: str
    folder: str


def short(task: Any) -> str:
    """Return the name of a task of `inspect_evals`, without its prefix; empty for any other."""
    return task.removeprefix(PREFIX) if isinstance(task, str) and task.startswith(PREFIX) else ""


def known(task: Any) -> Known:
    """Return what is known of `task`, by its registered name; of any other, nothing but the defaults."""
    return CATALOGUE.get(short(task)) or Known()


@cache
def facts(task: str) -> Facts | None:
    """Return what the installed `inspect_evals` says of a task, by its registered name."""
    name = short(task)
    file = _files().get(name)
    if file is None:
        return None
    import yaml

    record = yaml.safe_load(file.read_text(encoding="utf-8"))
    entry = next(entry for entry in record["tasks"] if entry["name"] == name)
    assets = record.get("external_assets") or ()
    runtime = record.get("metadata") or {}
    here = known(task)
    hub = tuple(dict.fromkeys(asset["source"] for asset in assets if asset["type"] == "huggingface"))
    extra = str(record.get("dependency") or "").replace("_", "-")
    theirs = f"inspect-evals[{extra}]" if extra else ""
    return Facts(
        task=name,
        version=str(record.get("version", "")),
        items=entry.get("dataset_samples"),
        hub=hub if here.hub is None else here.hub,
        urls=tuple(asset["source"] for asset in assets if asset["type"] in {"direct_url", "git_clone"}),
        sandbox=bool(runtime.get("sandbox")) and (not _assistants(name) or name.endswith("browser")),
        internet=bool((runtime.get("requires") or {}).get("internet")) and "closed_book" not in name,
        extra=extra,
        install=theirs if here.install is None else here.install,
        folder=file.parent.name,
    )


def _assistants(name: str) -> bool:
    """AssistantBench has one `eval.yaml` for five tasks, and only the browser runs in a sandbox."""
    return name.startswith("assistant_bench")


@cache
def _files() -> dict[str, Path]:
    """Return the `eval.yaml` of each task of the installed `inspect_evals`, by the task's name."""
    found = util.find_spec("inspect_evals")
    files: dict[str, Path] = {}
    for place in (found.submodule_search_locations or ()) if found else ():
        for file in sorted(Path(place).glob("*/eval.yaml")):
            listed = file.read_text(encoding="utf-8").partition("\ntasks:")[2]
            names = re.findall(r"^\s*- name:\s*[\"']?([\w-]+)", listed, flags=re.MULTILINE)
            files |= dict.fromkeys(names, file)
    return files


def task_names() -> tuple[str, ...]:
    """Return the registered names of the tasks of the installed `inspect_evals`."""
    return tuple(sorted(PREFIX + name for name in _files()))


def needs(task: str, *, bound: bool = False, sandbox: str | None = None) -> str:
    """Return in words what a task needs beside a model.

    Args:
        task: its registered name.
        bound: whether a judge is bound already.
        sandbox: another sandbox than the task's own.
    """
    about, here = facts(task), known(task)
    if about is None:
        return "what the task needs: suite.check() tries"
    parts = [f"{name} (hub)" for name in about.hub]
    if about.folder == "bfcl":
        parts.append("the wheel bfcl-eval (and git, for categories of several turns)")
    elif about.urls:
        parts.append("a file from the web")
    if sandbox == "local":
        parts.append("trust: the model's code runs on this machine")
    elif about.sandbox:
        parts.append("docker")
    if about.internet:
        parts.append("internet")
    if about.install:
        parts.append(about.install)
    if here.judge and not here.judged and not bound:
        parts.append("a judge")
    return ", ".join(parts) or "nothing else"


def catalogue(goal: str | None = None) -> str:
    """Return the known benchmarks as a table, or those that speak to a goal.

    Args:
        goal: one of `chat`, `code`, `math`, `tools`, `safety`; all when None.

    Raises:
        EvalError: there is no such goal.
    """
    if goal is not None and goal not in GOALS:
        near = nearest(goal, GOALS)
        raise EvalError(
            "no benchmark speaks to such a goal",
            got=repr(goal),
            need="one of " + ", ".join(map(repr, GOALS)) + (f" (did you mean {near}?)" if near else ""),
            fix='print(EvalSuite.catalogue("tools"))',
        )
    return table(_rows(goal), header=_HEADER)


def markdown() -> str:
    """Return the whole table as Markdown."""
    lines = [_HEADER, ["---"] * len(_HEADER), *_rows(None)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _rows(goal: str | None) -> Iterable[tuple[object, ...]]:
    for name, entry in CATALOGUE.items():
        about = facts(PREFIX + name)
        if about is None or (goal is not None and goal not in entry.goals):
            continue
        yield (
            name,
            about.version,
            "?" if about.items is None else about.items,
            ", ".join(entry.goals),
            asked(entry),
            "higher" if entry.higher_is_better else "lower",
            entry.measures,
            needs(PREFIX + name),
        )


def asked(entry: Known) -> str:
    """Return how a benchmark is asked: shots, temperature, length, epochs."""
    parts = [f"{entry.shots}-shot", f"t={entry.temperature or 0:g}", f"{entry.max_tokens or 2048} tokens"]
    return ", ".join([*parts, *([f"{entry.epochs} epochs"] if entry.epochs > 1 else [])])
