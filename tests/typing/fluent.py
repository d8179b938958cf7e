"""What users write, as the type checker sees it. Checked by pyright in strict mode; never run."""

from __future__ import annotations

from typing import assert_type

import tinker

from tinker_officer import (
    Conversations,
    EvalSuite,
    Gate,
    LocalEngine,
    LoRAPlan,
    Registry,
    Run,
    RunResult,
    Scorecard,
    TokenCounts,
    graders,
)
from tinker_officer.registry.values import Move


def numbers_of_a_plan_are_plain_numbers() -> None:
    """A pinned plan is a plan, and its numbers are ints, floats and words."""
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(TokenCounts(examples=9_500, trained=2_000_000, total=2_600_000))
    _ = assert_type(plan, LoRAPlan)
    _ = assert_type(plan.pin(rank=64), LoRAPlan)
    _ = assert_type(plan.rank, int)
    _ = assert_type(plan.learning_rate, float)
    plan.pin(rank=8)  # pyright: ignore[reportUnusedCallResult]  # a dropped copy is a bug, and is reported


def the_script(engine: LocalEngine | tinker.ServiceClient | str) -> None:
    """The script of the README, with the type of every step."""
    train, held_out = assert_type(
        Conversations.from_jsonl("tickets.jsonl").split(held_out=0.1, seed=0),
        tuple[Conversations, Conversations],
    )
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(train, epochs=2)
    suite = EvalSuite().nll(held_out).product("tickets", "eval.jsonl", grader=graders.includes)
    _ = assert_type(suite, EvalSuite)
    run = assert_type(
        Run(plan, name="tickets").evaluate(suite, every=50).stop_early(on="held_out/nll", patience=3), Run
    )
    with Registry.open("models.db") as registry, run.start(on=engine, at="runs/tickets") as live:
        for step in live:
            _ = assert_type(step.index, int)
        result = assert_type(live.result(), RunResult)
        card = assert_type(suite.evaluate(result.best, on=engine), Scorecard)
        version = registry.register(result, card)
        move = registry.promote(version, to="production", gate=Gate.not_worse(margin=0.02), actor="ci")
        _ = assert_type(move, Move)
