"""What the pages speak of: a file of tickets, an exam, a plan, a run and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinker_officer
from tinker_officer import Conversations, EvalSuite, LocalEngine, LoRAPlan, Registry, Run, graders


Scene = dict[str, Any]
_SHOPS = ("bakery", "library", "garage", "pharmacy", "museum")
_HOURS = ("eight", "nine", "ten", "half past ten")


def _ticket(number: int) -> dict[str, Any]:
    shop, hour = _SHOPS[number % len(_SHOPS)], _HOURS[number % len(_HOURS)]
    return {
        "messages": [
            {"role": "user", "content": f"Ticket {number}: when does the {shop} open?"},
            {"role": "assistant", "content": f"The {shop} opens at {hour}."},
        ],
        "customer": f"customer-{number % 7}",
    }


def write_files(folder: Path) -> None:
    """Write `tickets.jsonl`, `eval.jsonl` and `preferences.jsonl`, which the pages name."""
    tickets = [_ticket(number) for number in range(20)]
    cases = [
        {"input": f"When does the {shop} open?", "output": hour}
        for shop, hour in zip(_SHOPS, _HOURS, strict=False)
    ]
    pairs = [
        {"prompt": f"Ticket {number}: are you open?", "chosen": "Yes, until six.", "rejected": "Who asks?"}
        for number in range(20)
    ]
    files = {"tickets.jsonl": tickets, "eval.jsonl": cases, "preferences.jsonl": pairs}
    for name, rows in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory, engine: LocalEngine, tiny_model: Path) -> Scene:
    """What a page may speak of without making it: a run that has trained, and its card."""
    folder = tmp_path_factory.mktemp("told")
    write_files(folder)
    tickets = Conversations.from_jsonl(folder / "tickets.jsonl", progress=False)
    train, held_out = tickets.split(held_out=0.2, seed=0)
    plan = LoRAPlan.for_(str(tiny_model)).sft(train, epochs=2)
    suite = (
        EvalSuite()
        .nll(held_out)
        .product("tickets", folder / "eval.jsonl", grader=graders.includes, max_tokens=8)
    )
    run = Run(plan, name="tickets-r16").evaluate(suite)
    with run.start(on=engine, at=folder / "run", progress=False) as live:
        result = live.result()
    card = suite.evaluate(result.best, on=engine)
    return {
        "base_model": str(tiny_model),
        "card": card,
        "engine": engine,
        "held_out": held_out,
        "plan": plan,
        "result": result,
        "run": run,
        "suite": suite,
        "tickets": tickets,
        "train": train,
    }


@pytest.fixture
def scene(told: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Scene]:
    """Return a function that begins a page: in a folder of its own, with a registry of its own."""

    def begin() -> Scene:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TINKER_API_KEY", "")  # a page may set it; afterwards it is as it was
        write_files(tmp_path)
        registry = Registry.open(tmp_path / "models.db")
        version = registry.register(told["result"], told["card"])
        public = {name: getattr(tinker_officer, name) for name in tinker_officer.__all__}
        return {**public, **told, "registry": registry, "version": version}

    return begin
