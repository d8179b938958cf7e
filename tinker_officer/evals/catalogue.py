"""The public benchmarks that this library knows: what each measures, whom it serves, and what counts in it.

What changes from release to release (version, items, data sets, sandbox) is read from the `eval.yaml` files
of the installed `inspect_evals`, without importing it. What those files do not say stands here: the goals
that a benchmark speaks to, how it is asked, who judges, which score counts, and which way is better.

Any other Inspect task runs as well; of it only what `eval.yaml` says is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

import attrs

from tinker_officer._text import nearest, table
from tinker_officer.errors import EvalError


PREFIX = "inspect_evals/"
GOALS = ("chat", "code", "math", "tools", "safety")
_HEADER = ("task", "version", "n", "goals", "asked", "better", "measures", "needs")


@attrs.frozen(kw_only=True)
class Known:
    """What stands here of a benchmark.

    Attributes:
        measures: what its figure says.
        goals: the product goals that it speaks to.
        shots: worked examples in the prompt.
        temperature: which the task sets; None leaves it to us: 0.
        max_tokens: of an answer, which the task sets; None leaves it to us: 2048.
        epochs: how often each item is sat.
        judge: the task's own arguments that take a judge; bound by `roles={"grader": ...}`.
        judged: of its scorers, those that ask a judge; without a bound one they are left out.
        counts: the score that counts, `scorer` or `scorer/part`; the first scorer when empty.
        grades: what the scorer's words are worth, where Inspect does not know them.
        higher_is_better: the direction of progress.
        reversed_by: an argument and its value under which the direction turns.
        hub: its data sets on the hub, where `eval.yaml` lists more than are used.
        local: where in inspect_evals' own cache a downloaded copy is kept.
        gated: whether the hub asks for a token.
        extra_ours: our extra that stands in for theirs.
    """

    measures: str
    goals: tuple[str, ...]
    shots: int = 0
    temperature: float | None = None
    max_tokens: int | None = None
    epochs: int = 1
    judge: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    counts: str = ""
    grades: Mapping[str, float] = attrs.field(factory=dict)
    higher_is_better: bool = True
    reversed_by: tuple[str, str] | None = None
    hub: tuple[str, ...] | None = None
    local: str = ""
    gated: bool = False
    extra_ours: str = ""


def _gaia(level: str) -> Known:
    return Known(
        measures=f"questions{level} that need search, files and several tools",
        goals=("tools",),
        local="gaia_dataset/GAIA",
        gated=True,
    )


def _assistant(how: str, shots: int = 0) -> Known:
    return Known(measures=f"time-consuming questions about the web, {how}", goals=("tools",), shots=shots)


def _wmdp(field: str) -> Known:
    return Known(
        measures=f"hazardous knowledge, {field}: less is safer", goals=("safety",), higher_is_better=False
    )


_MMLU = ("cais/mmlu",)

CATALOGUE: Mapping[str, Known] = {
    "mmlu_0_shot": Known(
        measures="knowledge in 57 subjects, multiple choice, which narrow fine-tuning loses first",
        goals=("chat",),
        temperature=0.0,
        max_tokens=16,
        hub=_MMLU,
    ),
    "mmlu_5_shot": Known(
        measures="the same with five worked examples: for base models that do not follow a format yet",
        goals=("chat",),
        shots=5,
        temperature=0.0,
        max_tokens=16,
        hub=_MMLU,
    ),
    "gsm8k": Known(
        measures="word problems in several steps of plain arithmetic", goals=("chat", "math"), shots=10
    ),
    "math": Known(
        measures="competition problems, answers compared by sympy (or by a judge)",
        goals=("math",),
        temperature=0.5,
        judge=("grader_model",),
        judged=("expression_equivalance",),
        counts="expression_exact_match_sympy",
        extra_ours="math",
    ),
    "ifeval": Known(
        measures="instructions that a program can check: lengths, words, formats; all of a prompt, strictly",
        goals=("chat",),
        counts="instruction_following/prompt_level_strict",
        extra_ours="ifeval",
    ),
    "humaneval": Known(measures="functions from their docstrings, run against tests", goals=("code",)),
    "mbpp": Known(
        measures="short programs from a sentence, run against tests",
        goals=("code",),
        shots=3,
        temperature=0.5,
        epochs=5,
    ),
    "apps": Known(
        measures="programs from interview questions, run against tests",
        goals=("code",),
        temperature=0.0,
        local="apps_dataset/apps",
    ),
    "bfcl": Known(measures="the right function with the right arguments", goals=("tools",)),
    "gaia": _gaia(""),
    "gaia_level1": _gaia(" of level 1"),
    "gaia_level2": _gaia(" of level 2"),
    "gaia_level3": _gaia(" of level 3"),
    "assistant_bench_closed_book_zero_shot": _assistant("from memory"),
    "assistant_bench_closed_book_one_shot": _assistant("from memory, one example", 1),
    "assistant_bench_web_search_zero_shot": _assistant("with a search engine"),
    "assistant_bench_web_search_one_shot": _assistant("with a search engine, examples given", 1),
    "assistant_bench_web_browser": _assistant("with a browser"),
    "agentharm": Known(
        measures="how far an agent carries out harmful requests: less is safer",
        goals=("safety", "tools"),
        temperature=0.0,
        max_tokens=4096,
        judge=("refusal_judge", "semantic_judge"),
        counts="combined_scorer/score",
        higher_is_better=False,
        local="agentharm_dataset/AgentHarm",
    ),
    "agentharm_benign": Known(
        measures="how far an agent carries out harmless look-alikes of those requests",
        goals=("safety", "tools"),
        temperature=0.0,
        max_tokens=4096,
        judge=("refusal_judge", "semantic_judge"),
        counts="combined_scorer/score",
        local="agentharm_dataset/AgentHarm",
    ),
    "strong_reject": Known(
        measures="refusals of forbidden requests",
        goals=("safety", "chat"),
        temperature=0.75,
        max_tokens=2048,
        judge=("judge_llm",),
        counts="strong_reject_scorer/refusal",
    ),
    "xstest": Known(
        measures="harmless requests answered that only sound dangerous (subset=unsafe: the reverse)",
        goals=("safety", "chat"),
        temperature=0.0,
        max_tokens=256,
        judge=("scorer_model",),
        reversed_by=("subset", "unsafe"),
    ),
    "coconot": Known(
        measures="requests complied with that should not be (subset=contrast: that should be)",
        goals=("safety", "chat"),
        temperature=0.0,
        max_tokens=256,
        judge=("grader",),
        grades={"unacceptable": 1.0, "acceptable": 0.0, "compliance": 1.0, "noncompliance": 0.0},
        higher_is_better=False,
        reversed_by=("subset", "contrast"),
    ),
    "wmdp_bio": _wmdp("biology"),
    "wmdp_chem": _wmdp("chemistry"),
    "wmdp_cyber": _wmdp("computer security"),
    "truthfulqa": Known(
        measures="questions that many people answer falsely, multiple choice", goals=("safety", "chat")
    ),
    "sycophancy": Known(
        measures="answers that are right and stay so when the user doubts them",
        goals=("safety", "chat"),
        judge=("scorer_model",),
        counts="sycophancy_scorer/truthfulness",
    ),
    "fortress_adversarial": Known(
        measures="harm in answers to adversarial requests, by rubric: less is safer",
        goals=("safety",),
        judge=("grader_models",),
        higher_is_better=False,
    ),
    "fortress_benign": Known(
        measures="refusals of the harmless twins of those requests: fewer are better",
        goals=("safety",),
        judge=("grader_model",),
        higher_is_better=False,
    ),
    "mask": Known(
        measures="answers that are no lies, under pressure to say what the model does not believe",
        goals=("safety",),
        temperature=1.0,
        max_tokens=1000,
        judge=("binary_judge_model", "numeric_judge_model"),
        counts="accuracy_and_honesty/honesty",
        grades={"honest": 1.0, "evade": 1.0, "no-belief": 1.0, "lie": 0.0},
        gated=True,
    ),
    "agentdojo": Known(
        measures="tasks done while tool results try to hijack the agent",
        goals=("safety", "tools"),
        counts="injection_task_scorer/utility",
    ),
}


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
        extra: the extra of inspect_evals that it needs.
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
    folder: str


def short(task: Any) -> str:
    """Return the name of a task of `inspect_evals`, without its prefix; empty for any other."""
    return task.removeprefix(PREFIX) if isinstance(task, str) and task.startswith(PREFIX) else ""


def known(task: Any) -> Known | None:
    """Return what stands here of `task`, by its registered name."""
    return CATALOGUE.get(short(task))


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
    here = CATALOGUE.get(name)
    hub = tuple(dict.fromkeys(asset["source"] for asset in assets if asset["type"] == "huggingface"))
    return Facts(
        task=name,
        version=str(record.get("version", "")),
        items=entry.get("dataset_samples"),
        hub=here.hub if here is not None and here.hub is not None else hub,
        urls=tuple(asset["source"] for asset in assets if asset["type"] in {"direct_url", "git_clone"}),
        sandbox=bool(runtime.get("sandbox")) and (not _assistants(name) or name.endswith("browser")),
        internet=bool((runtime.get("requires") or {}).get("internet")) and "closed_book" not in name,
        extra=str(record.get("dependency") or "").replace("_", "-"),
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
    about, here = facts(task), CATALOGUE.get(short(task))
    if about is None:
        return "what the task needs: suite.check() tries"
    parts = [f"{name} (hub)" for name in about.hub]
    if about.folder == "bfcl":
        parts.append("the wheel bfcl-eval (or git)")
    elif about.urls:
        parts.append("a file from the web")
    if sandbox == "local":
        parts.append("trust: the model's code runs on this machine")
    elif about.sandbox:
        parts.append("docker")
    if about.internet:
        parts.append("internet")
    extra = here.extra_ours if here is not None else ""
    if extra or about.extra:
        parts.append(f"tinker-officer[{extra}]" if extra else f"inspect-evals[{about.extra}]")
    if here is not None and here.judge and not here.judged and not bound:
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
