"""The suite is a value: it refuses mistakes where they are written, explains itself, and survives JSON."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tinker_officer import Conversations, EvalSuite, Registry, Scorecard, graders
from tinker_officer.errors import EvalError


ROWS = [{"input": f"say {i}", "output": str(i)} for i in range(10)]


@pytest.fixture
def held_out() -> Conversations:
    return Conversations.from_list(ROWS)


def whole(held_out: Conversations) -> EvalSuite:
    return (
        EvalSuite.template("math")
        .nll(held_out, max_length=512, train_on="all")
        .benchmark("inspect_evals/bfcl", limit=50, categories="simple_python", tools="text", max_tokens=64)
        .product("tickets", "eval.jsonl", grader=graders.numeric.options(tolerance=0.1), max_tokens=32)
        .product("rows", ROWS, grader=graders.includes)
    )


def test_json_round_trip(held_out: Conversations) -> None:
    """What is read back asks the same; conversations are found again by their fingerprint."""
    suite = whole(held_out)
    again = EvalSuite.from_json(suite.to_json(), data=held_out)
    assert again == suite
    assert again.digest == suite.digest
    without = EvalSuite.from_json(suite.to_json())
    assert without.digest == suite.digest
    assert "fingerprint" in str(without.check(layers=("nll",))["held_out"])


def test_other_data_is_refused(held_out: Conversations) -> None:
    """A suite is not rebuilt on data that it was not made with."""
    other = Conversations.from_list(ROWS[:5])
    with pytest.raises(EvalError, match="is not what the suite was made with"):
        EvalSuite.from_json(whole(held_out).to_json(), data=other)


def test_conversations_as_cases_survive_json(held_out: Conversations) -> None:
    """They stay outside, under the eval's name."""
    suite = EvalSuite().product("mine", held_out, grader=graders.exact)
    again = EvalSuite.from_json(suite.to_json(), data={"mine": held_out})
    assert again.digest == suite.digest
    with pytest.raises(EvalError, match="no data"):
        EvalSuite.from_json(suite.to_json())


def test_the_digest_changes_with_what_is_asked(held_out: Conversations) -> None:
    """Another limit is another suite."""
    first, second = (EvalSuite().benchmark("inspect_evals/gsm8k", limit=limit) for limit in (10, 11))
    assert first.digest != second.digest
    assert first.digest == EvalSuite().benchmark("inspect_evals/gsm8k", limit=10).digest


def test_fluent_methods_leave_the_first_suite_alone(held_out: Conversations) -> None:
    """A suite is a value."""
    empty = EvalSuite()
    assert [spec.name for spec in empty.nll(held_out).evals] == ["held_out"]
    assert empty.evals == ()
    assert "empty suite" in empty.explain()


def test_an_explicit_eval_takes_the_place_of_the_templates(held_out: Conversations) -> None:
    """The script of the README: a template, and the same benchmark with a limit of one's own."""
    suite = EvalSuite.template("math").benchmark("inspect_evals/gsm8k", limit=7)
    assert [(spec.name, spec.size) for spec in suite.evals] == [("math", 100), ("gsm8k", 7)]


@pytest.mark.parametrize("use_case", ["chat", "code", "math", "tools"])
def test_every_template_explains_itself(use_case: str) -> None:
    """What each part measures, how many items, what it can tell apart, what it needs."""
    text = EvalSuite.template(use_case).explain()
    assert "tells apart" in text
    assert "100" in text
    assert max(map(len, text.splitlines())) <= 120


def test_explain_names_every_eval_and_the_smallest_difference(held_out: Conversations) -> None:
    """The figure is that of stats.power; what cannot be known without reading is a question mark."""
    text = whole(held_out).explain()
    for word in ("held_out", "bfcl", "tickets", "graded by numeric", "0.177", "?"):
        assert word in text
    assert repr(whole(held_out)) == "EvalSuite(gsm8k, math, held_out, bfcl, tickets, rows)"
    assert "<pre>" in whole(held_out)._repr_html_()


def test_only_and_without(held_out: Conversations) -> None:
    """Parts can be taken and removed by name, and a wrong name offers the nearest."""
    suite = whole(held_out)
    assert [spec.name for spec in suite.only("rows", "held_out").evals] == ["held_out", "rows"]
    assert len(suite.without("rows").evals) == 5
    with pytest.raises(EvalError, match=r"suite\.only\('tickets'\)"):
        suite.only("tickts")


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda data: EvalSuite().nll(data).nll(data), "two evals of the suite have one name"),
        (lambda data: EvalSuite().nll(ROWS), "must be Conversations"),
        (lambda data: EvalSuite().nll(data, name="a/b"), "cannot be used"),
        (lambda data: EvalSuite().nll(data, train_on="some"), "train_on"),
        (lambda data: EvalSuite().nll(data, max_length=0), "max_length"),
        (lambda data: EvalSuite().benchmark("inspect_evals/gsm8k", limit=0), "limit"),
        (lambda data: EvalSuite().benchmark("inspect_evals/gsm8k", temperature=-1), "temperature"),
        (lambda data: EvalSuite().benchmark("inspect_evals/gsm8k", at=Path("a")), "task_args cannot be"),
        (lambda data: EvalSuite().product("p", ROWS, grader=3), "not a grader"),
        (
            lambda data: EvalSuite().product("p", [{"input": "a", "output": {1}}], grader=graders.exact),
            "cases cannot be written",
        ),
        (
            lambda data: EvalSuite().product(
                "p", [{"input": "a", "output": "b", "id": math.nan}], grader=graders.exact
            ),
            "cases cannot be written",
        ),
        (lambda data: graders.numeric.options(tolerance={1}), "cannot be written as JSON"),
        (lambda data: EvalSuite().product("p", ROWS, grader=graders.exact, max_tokens=0), "max_tokens"),
        (lambda data: EvalSuite.template("chta"), "'chat'"),
        (lambda data: EvalSuite().nll(data).check(layers=("first",)), "no such layer"),
        (
            lambda data: EvalSuite().evaluate("x", on="http://127.0.0.1:1", progress=False),
            "nothing to evaluate",
        ),
        (lambda data: EvalSuite.from_json("{}"), "not a suite"),
        (
            lambda data: EvalSuite.from_json('{"kind": "suite", "format": 1, "evals": [{"kind": "x"}]}'),
            r"kind 'x'[\s\S]*nll, benchmark, product, judge, calibration, evaluator",
        ),
    ],
)
def test_mistakes_are_refused_where_they_are_made(build, said: str, held_out: Conversations) -> None:
    """Each names what was got, what is needed, and the fix."""
    with pytest.raises(EvalError, match=said) as caught:
        build(held_out)
    assert caught.value.fix


def test_a_layer_alone_and_a_file_for_a_folder_are_refused(held_out: Conversations, tmp_path: Path) -> None:
    """Before anything is opened or asked."""
    suite, file = EvalSuite().nll(held_out), tmp_path / "eval.jsonl"
    file.touch()
    with pytest.raises(EvalError, match=r"layers is one text[\s\S]*layers=\('nll',\)"):
        suite.evaluate("m", on="http://localhost:1", layers="nll")
    with pytest.raises(EvalError, match=r"at= is not a folder[\s\S]*eval\.jsonl"):
        suite.evaluate("m", on="http://localhost:1", at=file)


def test_everything_missing_is_said_at_once(tmp_path: Path) -> None:
    """Two evals that cannot run give one error with both reasons, before a target is opened."""
    suite = EvalSuite().product("a", str(tmp_path / "a.jsonl"), grader=graders.exact)
    suite = suite.product("b", str(tmp_path / "b.jsonl"), grader=graders.exact)
    with pytest.raises(EvalError, match=r"(?s)2 evals.*a\.jsonl.*b\.jsonl"):
        suite.evaluate("nothing", on="http://127.0.0.1:1", progress=False)


def test_the_card_is_saved_beside_the_logs(
    engine, tiny_model: Path, held_out: Conversations, tmp_path
) -> None:
    """`at` gets one scorecard an evaluation; two evaluations do not overwrite each other."""
    suite = EvalSuite().nll(held_out)
    cards = [suite.evaluate(str(tiny_model), on=engine, at=tmp_path, progress=False) for _ in range(2)]
    files = sorted(tmp_path.glob("scorecard-*.json"))
    assert [Scorecard.load(path) for path in files] == cards
    assert cards[0].versions["tinker"]
    assert cards[0].suite_digest == suite.digest


@pytest.mark.parametrize("target", [3, None])
def test_what_cannot_be_evaluated_is_said(engine, held_out: Conversations, target: object) -> None:
    """Neither a name, nor a path, nor a checkpoint."""
    with pytest.raises(EvalError, match="cannot be evaluated"):
        EvalSuite().nll(held_out).evaluate(target, on=engine, progress=False)


@pytest.mark.parametrize("target", ["no/such-model", "tinker://gone/sampler_weights/x"])
def test_what_the_service_does_not_have_is_said(engine, held_out: Conversations, target: str) -> None:
    """In four parts, with the service's own words, and no trace of its protocol."""
    with pytest.raises(EvalError, match="cannot be opened for evaluation") as refused:
        EvalSuite().nll(held_out).evaluate(target, on=engine, progress=False)
    assert target in refused.value.got
    assert "Error code" not in refused.value.got


def test_a_checkpoint_without_sampler_weights_is_said(engine, held_out: Conversations) -> None:
    """A checkpoint that was saved for resuming alone cannot be sampled."""

    class Resumable:
        sampler_path = None
        base_model = "x"

    with pytest.raises(EvalError, match="no weights for sampling"):
        EvalSuite().nll(held_out).evaluate(Resumable(), on=engine, progress=False)


def test_a_registered_base_model_is_evaluated_as_the_base_model(
    engine, tiny_model: Path, held_out: Conversations, tmp_path: Path
) -> None:
    """What stands in production may be a base model: its version is a target, and the card fits it."""
    suite = EvalSuite().nll(held_out)
    with Registry.open(tmp_path / "models.db") as registry:
        version = registry.register(str(tiny_model))
        card = suite.evaluate(version, on=engine, progress=False)
        assert card.target == str(tiny_model)
        assert registry.register(str(tiny_model), card) == version


def test_a_live_sampler_is_evaluated_under_a_name_of_its_own(
    engine, tiny_model: Path, held_out: Conversations
) -> None:
    """Two samplers without a path are never taken for one another."""
    client = engine.service_client().create_sampling_client(base_model=str(tiny_model)).result()
    first, second = (EvalSuite().nll(held_out).evaluate(client, on=engine, progress=False) for _ in range(2))
    assert first.target != second.target
    assert first["held_out"].value == pytest.approx(second["held_out"].value, abs=1e-5)


def test_importing_the_room_loads_nothing_heavy() -> None:
    """No torch, transformers or inspect_ai until something is evaluated."""
    code = (
        "import sys; from tinker_officer.evals import graders, suite, templates;"
        "heavy = 'torch', 'transformers', 'inspect_ai', 'scipy.stats', 'tinker';"
        "print([name for name in heavy if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout.replace("'", '"')) == []


def test_a_smoke_suite_asks_a_few_items_of_each(held_out: Conversations) -> None:
    """At most `n` of each; a smaller limit stays; zero is refused."""
    small = whole(held_out).benchmark("inspect_evals/mbpp", limit=2).smoke(4)
    assert {
        spec.name: spec.size for spec in small.evals if spec.name in {"held_out", "bfcl", "rows", "mbpp"}
    } == {
        "held_out": 4,
        "bfcl": 4,
        "rows": 4,
        "mbpp": 2,
    }
    with pytest.raises(EvalError, match="smoke test needs items"):
        small.smoke(0)
