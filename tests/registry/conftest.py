"""Scorecards and results made by hand: real values, without the hours that training them takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import pytest

from tinker_officer.errors import RegistryError
from tinker_officer.evals.results import EvalResult, Item
from tinker_officer.evals.scorecard import Scorecard
from tinker_officer.registry.registry import Registry
from tinker_officer.registry.values import Version
from tinker_officer.train.checkpoints import Checkpoint
from tinker_officer.train.result import RunResult


def make_binary(scores: Sequence[int], *, name: str = "tickets", limit: int = 100) -> EvalResult:
    return EvalResult.from_items(
        tuple(Item(f"q{i}", float(score)) for i, score in enumerate(scores)),
        name=name,
        layer="product",
        metric="accuracy",
        settings={"grader": "includes", "limit": limit},
        asked=len(scores),
        bounds=(0, 1),
    )


def make_nll(scores: Sequence[float], *, name: str = "held_out") -> EvalResult:
    return EvalResult.from_items(
        tuple(Item(f"c{i}", score, weight=20.0 + i % 7) for i, score in enumerate(scores)),
        name=name,
        layer="nll",
        metric="nll",
        settings={},
        asked=len(scores),
        higher_is_better=False,
    )


def make_card(*evals: EvalResult, target: str = "tiny", suite: str = "suite-1") -> Scorecard:
    return Scorecard(target, "tiny", "smollm2", suite, "2026-01-01T00:00:00+00:00", evals)


def make_result(folder: Path = Path("runs/a"), *, fingerprint: str = "f" * 64, tag: str = "a") -> RunResult:
    def checkpoint(step: int) -> Checkpoint:
        path = f"tinker://{tag}/weights/{step}"
        sampler = f"tinker://{tag}/sampler_weights/{step}"
        return Checkpoint(step, path, sampler, "tiny", "smollm2", {"held_out/nll": 2.0 - step / 100})

    return RunResult(
        name="tickets-r16",
        base_model="tiny",
        folder=folder,
        plan={"base_model": "tiny", "train_mlp": True, "train_attn": True, "computed": {"rank": 16}},
        spec={"name": "tickets-r16"},
        spec_digest="5" * 64,
        data={"source": "tickets.jsonl", "rows": 300, "fingerprint": "d" * 64},
        steps=40,
        metrics={"train/mean_nll": 1.2, "train/tokens": 3000},
        best=checkpoint(30),
        last=checkpoint(40),
        final=checkpoint(40),
        checkpoints=(checkpoint(30), checkpoint(40)),
        stopped="completed",
        engine={"tinker_officer": "0.1.0"},
        renderer_name="smollm2",
        training_fingerprint=fingerprint,
    )


@pytest.fixture(scope="session")
def binary() -> Callable[..., EvalResult]:
    return make_binary


@pytest.fixture(scope="session")
def nll() -> Callable[..., EvalResult]:
    return make_nll


@pytest.fixture(scope="session")
def card() -> Callable[..., Scorecard]:
    return make_card


@pytest.fixture(scope="session")
def result() -> Callable[..., RunResult]:
    return make_result


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "models.db")


@pytest.fixture
def three(
    card: Callable[..., Scorecard], binary: Callable[..., EvalResult]
) -> Callable[[Registry], tuple[Version, ...]]:
    """What registers three versions of one model: fair, bad and good, by what their cards say."""
    scores = {"fair": [1, 0] * 500, "bad": [0] * 900 + [1] * 100, "good": [1] * 900 + [0] * 100}
    return lambda registry: tuple(
        registry.register(target, card(binary(made), target=target), name="tickets")
        for target, made in scores.items()
    )


@pytest.fixture
def models(registry: Registry, three: Callable[[Registry], tuple[Version, ...]]) -> tuple[Version, ...]:
    """The fair, the bad and the good version, in a registry of the test's own."""
    return three(registry)


def check_odd_text(registry: Registry, card: Scorecard) -> None:
    """A NUL comes back wherever people write it; half a surrogate pair is refused, and nothing kept."""
    nul, half = "a\0b", "a\ud800b"
    version = registry.register("tiny", card, name="m", notes=nul, data={"licence": nul, nul: 1})
    registry.promote(version, to="staging", actor=nul, reason=nul)
    assert (version.notes, version.data["licence"], version.data[nul]) == (nul, nul, 1)
    move = registry.history("m").moves[-1]
    assert (move.actor, move.reason) == (nul, nul)
    (result,) = registry.scorecards(version)[0].evals
    assert (result.name, result.items[0].error) == (nul, nul)
    for query in (f"notes = '{nul}'", f"notes LIKE '{nul}%'", f"data.licence = '{nul}'", "notes LIKE 'a%b'"):
        assert registry.search(query)[0] == version
    entries = registry.verify().entries
    for refused in (
        lambda: registry.register("other", name="m", notes=half),
        lambda: registry.register("other", name="m", data={half: 1}),
        lambda: registry.promote(version, to="staging", actor="ci", reason=half, key="k").reason,
        lambda: registry.rollback("staging", actor=half, reason="slow"),
        lambda: registry.hold(version, actor="ci", reason=half),
        lambda: registry.search(f"notes = '{half}'"),
        lambda: registry.history(half),
    ):
        with pytest.raises(RegistryError, match=r"(?s)got:.*need:.*fix:"):
            refused()
    with pytest.raises(RegistryError, match="cannot be registered"):
        registry.register(nul, name="m")
    assert registry.verify().entries == entries


@pytest.fixture(scope="session")
def odd_text(card: Callable[..., Scorecard], binary: Callable[..., EvalResult]) -> Callable[[Registry], None]:
    """What checks that text which PostgreSQL or UTF-8 cannot hold meets one answer in any database."""
    result = binary([1, 0], name="a\0b")
    errored = attrs.evolve(result, items=tuple(attrs.evolve(item, error="a\0b") for item in result.items))
    return lambda registry: check_odd_text(registry, card(errored))
