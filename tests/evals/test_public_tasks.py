"""The real code of `inspect_evals`, offline on rows of ours: known answers are scored right."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.evals import public_data
from tests.evals.canned import CannedClient
from tinker_officer import EvalSuite, LocalEngine
from tinker_officer.errors import EvalError
from tinker_officer.evals import machine, text_tools
from tinker_officer.evals.calls import Call
from tinker_officer.evals.deadline import Deadline
from tinker_officer.evals.results import EvalResult
from tinker_officer.testing import tiny_model as make


@pytest.fixture(scope="module", autouse=True)
def seeded() -> None:
    public_data.write_all()


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose context holds five examples and a question."""
    return make(tmp_path_factory.mktemp("models") / "tiny-llama", context=8192)


def sit(tiny_model: Path, task: str, answer: Callable[[str], str], **options: Any) -> EvalResult:
    suite = EvalSuite().benchmark(f"inspect_evals/{task}", **options)
    client = CannedClient(tiny_model, answer)
    return suite.evaluate(client, on="http://127.0.0.1:1", progress=False)[task]


def asked(rows: list[dict[str, Any]], field: str, prompt: str) -> dict[str, Any]:
    """The row that a prompt asks last: examples come before it."""
    return max(rows, key=lambda row: prompt.rfind(row[field]))


def test_gsm8k_reads_the_number_at_the_end(tiny_model: Path) -> None:
    """Right with a thousands separator and without; one answer wrong; ten examples stand in the prompt."""
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        row = asked(public_data.GSM8K, "question", prompt)
        truth = row["answer"].rpartition("#### ")[2]
        return "I think so.\n\nANSWER: " + {"1,200": "1200"}.get(truth, "8" if "Ben" in prompt else truth)

    result = sit(tiny_model, "gsm8k", answer)
    assert (result.value, result.n, result.errors) == (pytest.approx(2 / 3), 3, 0)
    assert all(prompt.count("What is ") == 10 for prompt in prompts)
    assert result.settings["task_version"] == "2"
    assert result.higher_is_better


@pytest.mark.parametrize(("task", "examples"), [("mmlu_0_shot", 0), ("mmlu_5_shot", 5)])
def test_mmlu_reads_the_letter(tiny_model: Path, task: str, examples: int) -> None:
    """Two of three letters right; the five-shot version shows five examples, the other none."""
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        row = asked(public_data.MMLU, "question", prompt)
        return f"ANSWER: {'ABCD'[row['answer']] if 'star' not in row['question'] else 'A'}"

    result = sit(tiny_model, task, answer)
    assert (result.value, result.n, result.errors) == (pytest.approx(2 / 3), 3, 0)
    assert all(prompt.count("Which is number") == examples for prompt in prompts)


def test_a_benchmark_of_multiple_choice_measures_calibration(engine: LocalEngine, tiny_model: Path) -> None:
    """Its own questions and letters; one without choices is refused by name."""
    suite = EvalSuite.template("chat").only("gsm8k").calibration("sure", "inspect_evals/mmlu_0_shot")
    assert EvalSuite.from_json(suite.to_json()) == suite
    result = suite.only("sure").evaluate(str(tiny_model), on=engine, progress=False)["sure"]
    assert (result.n, result.errors, result.settings["choices"]) == (3, 0, 3)
    assert all(0.25 <= (item.confidence or 0) <= 1 for item in result.items)
    missing = EvalSuite().calibration("sure", "inspect_evals/gsm8k").check()
    assert "no questions of one right choice" in str(missing["sure"])


def test_where_less_is_better_an_error_counts_as_the_worst(tiny_model: Path) -> None:
    """One answer is right, one wrong, one never comes: it must not look like the safe one."""

    def answer(prompt: str) -> str:
        if "is a star" in prompt:
            raise RuntimeError("the line is down")
        return "ANSWER: B"

    result = sit(tiny_model, "wmdp_bio", answer)
    assert (result.value, result.n, result.errors) == (pytest.approx(2 / 3), 3, 1)
    assert not result.higher_is_better


def test_math_counts_equal_expressions_and_asks_no_judge(tiny_model: Path) -> None:
    """`(x+1)^2` is what was asked for only to sympy; both figures are on the card, and nobody judged."""
    answers = {"Add a half": r"\frac{5}{6}", "Square x": "(x+1)^2", "Twice seven": "15"}

    def answer(prompt: str) -> str:
        return "ANSWER: " + next(text for key, text in answers.items() if key in prompt)

    result = sit(tiny_model, "math", answer)
    assert result.settings["scorer"] == "expression_exact_match_sympy"
    assert (result.value, result.n, result.errors) == (pytest.approx(2 / 3), 3, 0)
    assert result.extra == {"expression_exact_match": pytest.approx(1 / 3)}


def test_math_by_a_judge_needs_one(tiny_model: Path) -> None:
    """Inspect would have taken the candidate itself, without a word."""
    with pytest.raises(EvalError, match="in the role 'grader', and none is bound"):
        sit(tiny_model, "math", lambda _: "ANSWER: 1", scorer="expression_equivalance")


@pytest.mark.parametrize(("spoil", "value"), [("", 1.0), ("    return None\n", 0.0)])
def test_canonical_humaneval_solutions_are_right_and_corrupted_ones_wrong(
    tiny_model: Path, spoil: str, value: float
) -> None:
    """Run against the real tests, in a sandbox that isolates nothing and says so."""
    problems = public_data.human_eval(8)

    def answer(prompt: str) -> str:
        return spoil + str(asked(problems, "prompt", prompt)["canonical_solution"])

    with pytest.warns(UserWarning, match="runs on this machine"):
        result = sit(tiny_model, "humaneval", answer, sandbox="local")
    assert (result.value, result.n, result.errors) == (value, 8, 0)


def test_mbpp_is_sat_five_times_and_its_reducers_are_kept(tiny_model: Path) -> None:
    """One program is right in one epoch of five: its mean is a fifth, and it passes at five."""
    seen: dict[int, int] = {}

    def answer(prompt: str) -> str:
        row = asked(public_data.MBPP, "prompt", prompt)
        seen[row["task_id"]] = seen.get(row["task_id"], 0) + 1
        wrong = row["task_id"] == 12 and seen[12] != 3
        return f"```python\n{'x = 1' if wrong else row['code']}\n```"

    with pytest.warns(UserWarning, match="runs on this machine"):
        result = sit(tiny_model, "mbpp", answer, sandbox="local")
    assert seen == {11: 5, 12: 5}
    assert (result.value, result.n, result.errors) == (pytest.approx(0.6), 2, 0)
    # pass@k = 1 - C(n - c, k) / C(n, k), with c = 5 and c = 1 of n = 5
    assert result.extra == {
        "pass_at_1": pytest.approx((1 + 1 / 5) / 2),
        "pass_at_2": pytest.approx((1 + 2 / 5) / 2),
        "pass_at_5": pytest.approx(1.0),
    }


def test_apps_runs_programs_against_their_tests(tiny_model: Path) -> None:
    """One program doubles, as asked; the other should square; an item of another level is not sat."""
    from inspect_evals.constants import INSPECT_EVALS_CACHE_PATH

    public_data.write_apps(INSPECT_EVALS_CACHE_PATH / "apps_dataset/apps")
    with pytest.warns(UserWarning, match="runs on this machine"):
        result = sit(
            tiny_model,
            "apps",
            lambda _: "```python\ndef solution(n):\n    return 2 * n\n```",
            sandbox="local",
        )
    assert {item.id: item.score for item in result.items} == {"7": 1.0, "8": 0.0}
    assert result.errors == 0


@pytest.mark.parametrize("shots", ["zero", "one"])
def test_assistant_bench_gives_partial_credit(tiny_model: Path, shots: str) -> None:
    """A number that is right, one word of two, one object of two; and nothing for silence."""
    answers = {"steps": "20", "gym": "Red Gym", "trees": '{"name": "Oak", "price": 10}'}

    def answer(prompt: str) -> str:
        last = asked(public_data.ASSISTANT, "task", prompt)["task"]
        return "The final answer is: " + next(text for key, text in answers.items() if key in last)

    task = f"assistant_bench_closed_book_{shots}_shot"
    result = sit(tiny_model, task, answer)
    scores = {item.id: item.score for item in result.items}
    assert scores == {"a": 1.0, "b": pytest.approx(0.5), "c": 0.0}  # an object is no list of objects
    assert result.extra == {"assistant_bench_scorer/is_answered": 1.0}
    silent = sit(tiny_model, task, lambda _: "The final answer is: unknown")
    assert (silent.value, silent.errors) == (0.0, 0)


def test_gaia_scores_what_its_agent_submits_and_is_refused_without_docker(tiny_model: Path) -> None:
    """Its own data, prompt, agent and scorer: a number, a name and a list right, one number wrong."""
    from inspect_evals.gaia.dataset import GAIA_DATASET_DIR
    from inspect_evals.gaia.gaia import DATASET_REVISION, gaia

    public_data.write_gaia(GAIA_DATASET_DIR, DATASET_REVISION)
    if machine.docker() is not None:
        refused = EvalSuite().benchmark("inspect_evals/gaia").check()["gaia"]
        assert "docker" in str(refused)
    with machine.no_waiting():
        task = gaia(sandbox="local")
    for sample in task.dataset:
        sample.setup = None  # makes a folder at the root of the machine
    submitted = {"How many?": "$1,200", "Who was": "ada lovelace.", "Which two": "Red,5", "And then": "18"}

    def answer(prompt: str) -> str:
        said = next(text for key, text in submitted.items() if key in prompt)
        return text_tools.write_calls([Call("submit", {"answer": said})])

    suite = EvalSuite().task(task, name="gaia", tools="text", sandbox="local")
    with pytest.warns(UserWarning, match="runs on this machine"):
        result = suite.evaluate(CannedClient(tiny_model, answer), on="http://127.0.0.1:1", progress=False)[
            "gaia"
        ]
    assert {item.id: item.score for item in result.items} == {
        "task-0": 1.0,
        "task-1": 1.0,
        "task-2": 1.0,
        "task-3": 0.0,
    }
    assert result.errors == 0


def test_ifeval_is_judged_by_the_checkers_of_the_extra(tiny_model: Path) -> None:
    """Half of the instructions of one prompt, all of the other: one prompt of two, strictly."""
    pytest.importorskip("lm_eval")

    def answer(prompt: str) -> str:
        return "No title and no comma" if "sea" in prompt else "The moon is far from here."

    result = sit(tiny_model, "ifeval", answer)
    assert result.settings["scorer"] == "instruction_following/prompt_level_strict"
    assert (result.value, result.n, result.errors) == (0.5, 2, 0)
    assert result.extra["instruction_following/inst_level_strict"] == 1.0


def test_bfcl_scores_calls_that_are_written_as_text(tiny_model: Path) -> None:
    """The true call of each question is right, and prose is wrong."""
    pytest.importorskip("bfcl_eval")
    from tinker_officer.evals.tasks import Sat, load_task

    sat = Sat("bfcl", "inspect_evals/bfcl", 6, {"categories": "simple_python"})
    samples = list(load_task(sat).dataset)
    truths = []
    for sample in samples:
        ((name, allowed),) = sample.metadata["parsed_ground_truth"][0].items()
        call = Call(name, {key: values[0] for key, values in allowed.items() if "" not in values})
        truths.append({"asked": sample.input[-1].text, "call": text_tools.write_calls([call])})

    def answer(prompt: str) -> str:
        truth = asked(truths, "asked", prompt)
        return "I would rather not." if truth is truths[0] else truth["call"]

    result = sit(tiny_model, "bfcl", answer, limit=6, tools="text", categories="simple_python")
    assert (result.value, result.n, result.errors) == (pytest.approx(5 / 6), 6, 0)


def test_a_deadline_interrupts_a_thread_that_is_not_the_main_one() -> None:
    """Signals cannot: there MATH's scorer would call every answer wrong."""
    ended: list[str] = []

    def endless() -> None:
        try:
            with Deadline(seconds=0.2):
                while True:
                    pass
        except TimeoutError:
            ended.append("interrupted")
        with Deadline(seconds=30):
            ended.append("done")

    thread = threading.Thread(target=endless)
    thread.start()
    thread.join()
    assert ended == ["interrupted", "done"]
