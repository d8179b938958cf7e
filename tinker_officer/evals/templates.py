"""Suites by use-case: which public benchmarks speak to it, and why. Small, so that they are run.

A suite has three layers: whether training behaves (held-out likelihood), how the model stands in public, and
whether it does what its users want. The first and the last need your data, so a template says what they
should hold; the benchmarks in between stand here.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from tinker_officer._text import nearest
from tinker_officer.errors import EvalError
from tinker_officer.evals.specs import Benchmark


_Entry: TypeAlias = tuple[str, str, dict[str, Any]]  # task, why it is here, arguments

_CHAT: tuple[_Entry, ...] = (
    ("ifeval", "instructions that a program can check: the first thing that users notice", {}),
    ("mmlu_0_shot", "knowledge, which narrow fine-tuning loses first", {}),
    ("gsm8k", "several steps of reasoning in plain language", {}),
)
_CODE: tuple[_Entry, ...] = (
    ("humaneval", "functions from their docstrings, run against tests", {}),
    ("mbpp", "short programs from a sentence, run against tests", {}),
    ("apps", "whole programs from a problem's text, run against tests", {}),
)
_MATH: tuple[_Entry, ...] = (
    ("gsm8k", "word problems in several steps", {}),
    ("math", "competition problems, compared by sympy", {}),
)
_TOOLS: tuple[_Entry, ...] = (
    ("bfcl", "the right function with the right arguments", {"categories": "simple_python"}),
    ("gaia_level1", "questions that need several tools in turn", {}),
    ("assistant_bench_web_search_zero_shot", "long errands on the web, with a search engine", {}),
)
_SAFETY: tuple[_Entry, ...] = (
    ("truthfulqa", "whether tuning made the model repeat what people believe wrongly", {}),
    ("wmdp_bio", "hazardous knowledge in biology: it should not grow", {}),
    ("wmdp_chem", "hazardous knowledge in chemistry: it should not grow", {}),
    ("wmdp_cyber", "hazardous knowledge in computer security: it should not grow", {}),
)
_JUDGED: tuple[_Entry, ...] = (
    ("strong_reject", "whether tuning took refusals away", {}),
    ("xstest", "whether tuning made the model refuse what is harmless", {}),
    ("coconot", "whether it still says no where it should", {}),
    ("sycophancy", "whether it gives in when the user doubts a right answer", {}),
)

TEMPLATES = {"chat": _CHAT, "code": _CODE, "math": _MATH, "tools": _TOOLS}
LIMIT = 100

# What only the user can add: layer 1, and the cases of layer 3.
_CASES = {
    "chat": (
        "qa",
        """questions of your users, and what a good answer holds;
  add .safety() and .calibration("sure", "inspect_evals/mmlu_0_shot", limit=200) too""",
    ),
    "code": ("bugs", "programs of yours with a bug, and the tests that find it"),
    "math": ("problems", "problems of your field with their answers: graders.numeric"),
    "tools": ("journeys", "errands with your own tools: graders.function_call"),
}


def template(use_case: str) -> tuple[Benchmark, ...]:
    """Return the benchmarks for a use-case.

    Raises:
        EvalError: there is no such template.
    """
    if use_case not in TEMPLATES:
        near = nearest(use_case, TEMPLATES)
        raise EvalError(
            "there is no such template",
            got=repr(use_case),
            need="one of " + ", ".join(map(repr, TEMPLATES)) + (f" (did you mean {near}?)" if near else ""),
            fix='EvalSuite.template("chat")',
        )
    return _benchmarks(TEMPLATES[use_case])


def safety(judge: str | None) -> tuple[Benchmark, ...]:
    """Return the safeguards that any chat model is asked; those that need a judge only with one."""
    judged = _benchmarks(_JUDGED, roles={"grader": judge}) if judge is not None else ()
    return (*_benchmarks(_SAFETY), *judged)


def wanted(use_case: str, layers: set[str]) -> str:
    """Return what a suite for the use-case still lacks, of the layers that need the user's data."""
    lines = []
    if "nll" not in layers:
        lines.append(".nll(held_out): conversations that are not trained on; whether training behaves")
    if "product" not in layers:
        name, what = _CASES[use_case]
        lines.append(f'.product("{name}", "{name}.jsonl", grader=...): {what}')
    return "\n".join([f"A {use_case} suite also wants what only you have:", *lines]) if lines else ""


def _benchmarks(entries: tuple[_Entry, ...], roles: dict[str, str] | None = None) -> tuple[Benchmark, ...]:
    return tuple(
        Benchmark(
            name=task,
            task=f"inspect_evals/{task}",
            limit=LIMIT,
            task_args=arguments,
            roles=roles or {},
            why=why,
        )
        for task, why, arguments in entries
    )
