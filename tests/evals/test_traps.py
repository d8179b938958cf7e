"""The nine traps of today's stack: each gave a wrong figure without a word, and is right or loud here."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.evals.canned import CannedClient
from tests.evals.made import made, sit
from tinker_officer import EvalSuite, LocalEngine
from tinker_officer.errors import EvalError


def test_trap_1_the_generate_cache_tells_checkpoints_apart(
    engine: LocalEngine, checkpoints: tuple[str, str], tmp_path: Path
) -> None:
    """With Inspect's cache on, checkpoint B answers as it does without: never with A's answers."""
    from inspect_ai.log import read_eval_log
    from inspect_ai.solver import generate

    said: dict[tuple[str, bool], list[str]] = {}
    for path in checkpoints:
        for cached in (True, False):
            folder = tmp_path / f"{path[-1]}-{cached}"
            sit(made(solver=[generate(cache=cached)]), engine, path, at=folder)
            (log,) = folder.glob("*.eval")
            said[path, cached] = [
                sample.output.completion for sample in read_eval_log(str(log)).samples or []
            ]
    first, second = checkpoints
    assert said[first, True] == said[first, False]
    assert said[second, True] == said[second, False]
    assert said[first, True] != said[second, True]


def test_trap_2_the_log_names_the_checkpoint_in_name_and_args(
    engine: LocalEngine, checkpoints: tuple[str, str], tmp_path: Path
) -> None:
    """What Inspect compares two runs by differs between two checkpoints."""
    from inspect_ai.log import read_eval_log

    for path in checkpoints:
        folder = tmp_path / path.rpartition("/")[2]
        sit(made(), engine, path, at=folder)
        (log,) = folder.glob("*.eval")
        spec = read_eval_log(str(log), header_only=True).eval
        assert spec.model == f"tinker_officer/{path}"
        assert spec.model_args["checkpoint"] == path


def test_trap_3_errored_samples_stay_in_the_denominator(engine: LocalEngine, tiny_model: Path) -> None:
    """Two of five raise: both right ones among them count as wrong, and are named."""
    result = sit(made(fails=(0, 1)), engine, tiny_model)
    assert (result.value, result.n, result.errors) == (0.4, 5, 2)
    assert [item.id for item in result.items if "the solver broke" in item.error] == ["q0", "q1"]


def test_trap_3_all_samples_failing_is_an_error(engine: LocalEngine, tiny_model: Path) -> None:
    """Inspect calls it a success without results; here it is said."""
    with pytest.raises(EvalError, match=r"every sample of 'made' failed[\s\S]*the solver broke"):
        sit(made(fails=(0, 1, 2, 3, 4)), engine, tiny_model)


def test_trap_4_a_candidate_never_grades_itself(engine: LocalEngine, tiny_model: Path) -> None:
    """A model-graded task without a bound grader is an error that names the role."""
    from inspect_ai.scorer import model_graded_qa

    with pytest.raises(EvalError, match="in the role 'grader', and none is bound"):
        sit(made(scorer=model_graded_qa()), engine, tiny_model)


def test_trap_5_of_two_scorers_the_named_one_counts(engine: LocalEngine, tiny_model: Path) -> None:
    """The first by default, another by name; one that does not exist scores nothing."""
    from inspect_ai.scorer import includes

    both = [made().scorer[0], includes()]
    assert sit(made(scorer=both), engine, tiny_model).settings["scorer"] == "even"
    other = sit(made(scorer=both), engine, tiny_model, scorer="includes")
    assert other.settings["scorer"] == "includes"
    with pytest.raises(EvalError, match="unscored by 'none'"):
        sit(made(scorer=both), engine, tiny_model, scorer="none")


def test_trap_6_settings_of_the_solver_come_first_and_are_recorded(
    engine: LocalEngine, tiny_model: Path
) -> None:
    """What the suite asks for yields to what the solver passes; the card holds what was used."""
    from inspect_ai.solver import generate

    result = sit(made(solver=[generate(temperature=0.5, max_tokens=2)]), engine, tiny_model)
    (used,) = map(json.loads, result.settings["sampling"])
    assert (used["temperature"], used["max_tokens"]) == (0.5, 2)


def test_trap_7_a_shuffled_task_gives_every_checkpoint_the_same_items(
    engine: LocalEngine, tiny_model: Path
) -> None:
    """Four of twelve items, chosen by their ids and not by their order; more items keep the first ones."""
    plain = sit(made(12), engine, tiny_model, limit=4)
    shuffled = sit(made(12, shuffled=True), engine, tiny_model, limit=4)
    more = sit(made(12), engine, tiny_model, limit=6)
    ids = {item.id for item in plain.items}
    assert {item.id for item in shuffled.items} == ids
    assert ids < {item.id for item in more.items}
    assert plain.settings_digest == shuffled.settings_digest


def canned(tiny_model: Path, task: Any, answer: str = "4", *, cut: bool = False, **options: Any) -> Any:
    """The result of a task that a model of known answers sat, and that model."""
    client = CannedClient(tiny_model, lambda _: answer, cut=cut)
    suite = EvalSuite().task(task, **options)
    return suite.evaluate(client, on="http://127.0.0.1:1", progress=False)["made"], client


def test_trap_2_eval_set_asks_a_second_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    """In the folder of the first, Inspect's own `eval_set` takes it for another model, and asks it."""
    from inspect_ai import eval_set
    from inspect_ai.model import GenerateConfig

    from tinker_officer.evals.inspect_model import model_for
    from tinker_officer.evals.target import open_target

    for _ in range(2):
        client = CannedClient(tiny_model, lambda _: "4")
        target = asyncio.run(open_target(client, "http://127.0.0.1:1"))
        model = model_for(target, GenerateConfig())
        done, _ = eval_set(
            made(2), str(tmp_path), model=model, display="none", ctl_server=False, log_dir_allow_dirty=True
        )
        assert done
        assert len(client.prompts) == 2


def test_trap_4_a_scorer_that_asks_whoever_is_there_does_not_get_the_candidate(tiny_model: Path) -> None:
    """`get_model()` in a scorer is the candidate: what MATH and sycophancy do when no judge is named."""
    from inspect_ai.model import get_model
    from inspect_ai.scorer import Score, accuracy, scorer

    @scorer(metrics=[accuracy()])
    def asks_itself():
        async def score(state, target):
            return Score(value="yes" in (await get_model().generate("Is it right?")).completion)

        return score

    with pytest.raises(EvalError, match="the candidate would have graded itself"):
        canned(tiny_model, made(scorer=asks_itself()), "yes")


def test_trap_5_other_scorers_parts_and_truncation_are_on_the_card(tiny_model: Path) -> None:
    """The cookbook's evaluator keeps one scorer's metrics, and says of every answer that it ended itself."""
    from inspect_ai.scorer import Score, accuracy, includes, scorer

    @scorer(metrics=[{"*": [accuracy()]}])
    def parts():
        async def score(state, target):
            return Score(value={"long": "C", "short": "I"})

        return score

    both = [made().scorer[0], includes(), parts()]
    result, _ = canned(tiny_model, made(scorer=both), cut=True)
    assert result.value == 0.6
    assert result.extra == {"includes": pytest.approx(0.2), "parts/long": 1.0, "parts/short": 0.0}
    assert result.truncated == 5
    chosen, _ = canned(tiny_model, made(scorer=both), scorer="parts/long")
    assert (chosen.value, chosen.settings["scorer"], chosen.truncated) == (1.0, "parts/long", 0)


def test_trap_5_two_evals_of_one_data_set_do_not_collide(tiny_model: Path) -> None:
    """Metrics are called by the eval, not by its data set, which two versions of MMLU share."""
    suite = EvalSuite().task(made(), name="zero").task(made(scorer=made().scorer), name="five", limit=2)
    card = suite.evaluate(CannedClient(tiny_model, lambda _: "x"), on="http://127.0.0.1:1", progress=False)
    assert set(card.metrics()) == {"zero/accuracy", "five/accuracy"}
    assert (card["zero"].n, card["five"].n) == (5, 2)


def test_trap_6_the_task_s_own_settings_are_used_and_recorded(tiny_model: Path) -> None:
    """Solver, then suite, then task, then our default; what came of it is sent, and on the card."""
    from inspect_ai.model import GenerateConfig

    config = GenerateConfig(temperature=0.7, top_p=0.9, seed=11)
    result, client = canned(tiny_model, made(config=config), max_tokens=33)
    (used,) = map(json.loads, result.settings["sampling"])
    assert (used["temperature"], used["top_p"], used["seed"], used["max_tokens"]) == (0.7, 0.9, 11, 33)
    assert {(one.temperature, one.max_tokens) for one in client.params} == {(0.7, 33)}


def test_trap_8_two_scorers_of_one_name_have_a_figure_each(tiny_model: Path) -> None:
    """Inspect tells them apart by a suffix; both are on the card, and each can be the one that counts."""
    from inspect_ai.scorer import includes

    scorers = [includes(), includes(ignore_case=False)]
    result, _ = canned(tiny_model, made(scorer=scorers), "4")
    assert (result.settings["scorer"], result.value) == ("includes", pytest.approx(0.2))
    assert result.extra == {"includes1": pytest.approx(0.2)}
    again, _ = canned(tiny_model, made(scorer=scorers), "4", scorer="includes1")
    assert again.value == pytest.approx(0.2)


def test_trap_9_a_student_and_its_judge_have_pools_of_their_own(tiny_model: Path) -> None:
    """And as many requests are under way as we say, not the ten to a hundred that Inspect would settle on."""
    from tinker_officer.evals.inspect_model import CONNECTIONS, TinkerAPI

    first, second = (TinkerAPI(name, checkpoint=name) for name in ("tinker://a", "tinker://b"))
    assert first.connection_key() != second.connection_key()
    client = CannedClient(tiny_model, lambda _: "4", delay=0.2, together=CONNECTIONS)
    EvalSuite().task(made(2 * CONNECTIONS)).evaluate(client, on="http://127.0.0.1:1", progress=False)
    assert client.busiest == CONNECTIONS
