"""What no file of `inspect_evals` says of a benchmark: whom it serves, how it is asked, what counts."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


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
        install: what it needs beside our own dependencies, as pip takes it; the extra of inspect_evals when
            None.
    """

    measures: str = ""
    goals: tuple[str, ...] = ()
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
    install: str | None = None


def _gaia(level: str) -> Known:
    return Known(
        measures=f"questions{level} that need search, files and several tools",
        goals=("tools",),
        local="gaia_dataset/GAIA",
        gated=True,
    )


def _assistant(how: str, shots: int = 0) -> Known:
    return Known(
        measures=f"time-consuming questions about the web, {how}",
        goals=("tools",),
        shots=shots,
        counts="assistant_bench_scorer/score",
        install=None if how == "with a browser" else "",  # theirs is mcp, which drives the browser
    )


def _agentharm(requests: str, *, higher_is_better: bool) -> Known:
    return Known(
        measures=f"how far an agent carries out {requests}",
        goals=("safety", "tools"),
        temperature=0.0,
        max_tokens=4096,
        judge=("refusal_judge", "semantic_judge"),
        counts="combined_scorer/score",
        higher_is_better=higher_is_better,
        local="agentharm_dataset/AgentHarm",
    )


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
        install="tinker-officer[math]",
    ),
    "ifeval": Known(
        measures="instructions that a program can check: lengths, words, formats; all of a prompt, strictly",
        goals=("chat",),
        counts="instruction_following/prompt_level_strict",
        install="tinker-officer[ifeval]",
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
    "bfcl": Known(
        measures="the right function with the right arguments",
        goals=("tools",),
        install="",  # theirs is mpmath, which comes with torch
    ),
    "gaia": _gaia(""),
    "gaia_level1": _gaia(" of level 1"),
    "gaia_level2": _gaia(" of level 2"),
    "gaia_level3": _gaia(" of level 3"),
    "assistant_bench_closed_book_zero_shot": _assistant("from memory"),
    "assistant_bench_closed_book_one_shot": _assistant("from memory, one example", 1),
    "assistant_bench_web_search_zero_shot": _assistant("with a search engine"),
    "assistant_bench_web_search_one_shot": _assistant("with a search engine, examples given", 1),
    "assistant_bench_web_browser": _assistant("with a browser"),
    "agentharm": _agentharm("harmful requests: less is safer", higher_is_better=False),
    "agentharm_benign": _agentharm("harmless look-alikes of those requests", higher_is_better=True),
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
