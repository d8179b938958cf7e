"""Suites by use-case: which public benchmarks speak to it, and why. Small, so that they are run.

Left out on purpose, each for a reason: IFEval (its checker is not on the package index), MATH (its first
scorer is a model, so it needs a judge: `.benchmark("inspect_evals/math", roles={"grader": ...})`), GAIA and
AssistantBench (they browse the internet).
"""

from __future__ import annotations

from typing import Any, TypeAlias

from tinker_officer._text import nearest
from tinker_officer.errors import EvalError
from tinker_officer.evals.specs import Benchmark


_Entry: TypeAlias = tuple[str, str, dict[str, Any]]  # task, why it is here, arguments

_CHAT: tuple[_Entry, ...] = (
    ("mmlu_0_shot", "knowledge, which narrow fine-tuning loses first", {}),
    ("gsm8k", "several steps of reasoning in plain language", {}),
)
_MATH: tuple[_Entry, ...] = (("gsm8k", "word problems in several steps", {}),)
_CODE: tuple[_Entry, ...] = (
    ("humaneval", "functions from their docstrings, run against tests", {}),
    ("mbpp", "short programs from a sentence, run against tests", {}),
)
_TOOLS: tuple[_Entry, ...] = (
    ("bfcl", "the right function with the right arguments", {"categories": "simple_python"}),
)

TEMPLATES = {"chat": _CHAT, "code": _CODE, "math": _MATH, "tools": _TOOLS}
LIMIT = 100


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
    return tuple(
        Benchmark(
            name=task,
            task=f"inspect_evals/{task}",
            limit=LIMIT,
            task_args=arguments,
            why=why,
            from_template=True,
        )
        for task, why, arguments in TEMPLATES[use_case]
    )
