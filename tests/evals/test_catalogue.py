"""The benchmarks that are known: they exist, are what `inspect_evals` says, and say what they lack."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from tinker_officer import EvalSuite, graders
from tinker_officer.errors import DataError, EvalError
from tinker_officer.evals import catalogue, machine
from tinker_officer.evals.catalogue import CATALOGUE, PREFIX, facts
from tinker_officer.evals.hub_cache import write_rows
from tinker_officer.evals.templates import TEMPLATES


def registered() -> dict[str, object]:
    """The tasks that `inspect_evals` really registers, by name."""
    import inspect_evals._registry as registry
    from inspect_ai.util import registry_info

    tasks = {}
    for value in vars(registry).values():
        try:
            info = registry_info(value)
        except ValueError:
            continue
        if info.type == "task":
            tasks[info.name] = value
    return tasks


def test_every_known_benchmark_exists_with_the_arguments_that_we_use() -> None:
    """By the registry itself; judges, reversals and template arguments are arguments of the task."""
    tasks = registered()
    assert {PREFIX + name for name in CATALOGUE} <= set(tasks)
    assert set(catalogue.task_names()) <= set(tasks)
    for name, known in CATALOGUE.items():
        has = set(inspect.signature(tasks[PREFIX + name]).parameters)
        assert set(known.judge) <= has, name
        assert known.reversed_by is None or known.reversed_by[0] in has, name


def test_what_is_read_from_the_installed_files_is_right() -> None:
    """Against figures that were read by eye: versions, items, and what is needed."""
    assert facts(PREFIX + "gsm8k") == catalogue.Facts(
        task="gsm8k",
        version="2-A",
        items=1319,
        hub=("openai/gsm8k",),
        urls=(),
        sandbox=False,
        internet=False,
        extra="",
        install="",
        folder="gsm8k",
    )
    found = {name: facts(PREFIX + name) for name in CATALOGUE}
    assert all(about is not None and about.version and about.items for about in found.values())
    docker = {name for name, about in found.items() if about is not None and about.sandbox}
    browser = "assistant_bench_web_browser"
    gaia = {"gaia", "gaia_level1", "gaia_level2", "gaia_level3"}
    assert docker == {"humaneval", "mbpp", "apps", "agentdojo", browser, *gaia}
    assert facts("inspect_evals/gsm8") is None
    assert facts("gsm8k") is None


def test_the_table_can_be_asked_for_a_goal() -> None:
    """All, those of a goal, and the nearest goal for a slip."""
    assert all(name in EvalSuite.catalogue() for name in CATALOGUE)
    tools = EvalSuite.catalogue("tools")
    assert "bfcl" in tools
    assert "gsm8k" not in tools
    with pytest.raises(EvalError, match="did you mean 'tools'"):
        EvalSuite.catalogue("tool")


def test_the_page_shows_the_table_as_it_is_now() -> None:
    """`python bench/catalogue.py --write` brings it up to date."""
    page = Path(__file__).parents[2] / "docs" / "explanation" / "benchmarks.md"
    assert catalogue.markdown() in page.read_text(encoding="utf-8")


def test_templates_hold_what_the_doctrine_asks_for() -> None:
    """And what only the user has is named until it is there; every part can be taken out."""
    names = {use: [spec.name for spec in EvalSuite.template(use).evals] for use in TEMPLATES}
    assert names == {
        "chat": ["ifeval", "mmlu_0_shot", "gsm8k"],
        "code": ["humaneval", "mbpp", "apps"],
        "math": ["gsm8k", "math"],
        "tools": ["bfcl", "gaia_level1", "assistant_bench_web_search_zero_shot"],
    }
    suite = EvalSuite.template("chat")
    assert ".nll(held_out)" in suite.explain()
    assert '.product("qa"' in suite.explain()
    for use in TEMPLATES:
        for name in re.findall(r"graders\.(\w+)", EvalSuite.template(use).explain()):
            assert name in graders.BUILT_IN
    assert '.product("qa"' not in suite.product("qa", "qa.jsonl", grader=str.__eq__).explain()
    assert suite.without("ifeval", "gsm8k").evals == (suite.evals[1],)
    assert EvalSuite.from_json(suite.to_json()) == suite


def test_safety_asks_about_refusals_only_with_a_judge() -> None:
    """Without one it asks what needs none, and the direction of each is known."""
    free = EvalSuite().safety()
    assert [spec.name for spec in free.evals] == ["truthfulqa", "wmdp_bio", "wmdp_chem", "wmdp_cyber"]
    judged = EvalSuite().safety(judge="openai/gpt-4o")
    assert {"strong_reject", "xstest", "coconot", "sycophancy"} < {spec.name for spec in judged.evals}
    assert CATALOGUE["wmdp_bio"].higher_is_better is False


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of its own, which are empty, whatever other tests have put into the shared ones."""
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "INSPECT_EVALS_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


@pytest.mark.usefixtures("no_data")
def test_what_is_missing_is_named() -> None:
    """The data set, docker, a package, a judge: each with what to do, and nothing is asked of a network."""
    suite = (
        EvalSuite.template("tools")
        .benchmark("inspect_evals/xstest")
        .benchmark("inspect_evals/apps")
        .benchmark("inspect_evals/strong_reject", judge_llm="openai/gpt-4o")
        .without("bfcl")
    )
    found = suite.check()
    missing = {name: str(error) for name, error in found.items()}
    assert set(missing) == {spec.name for spec in suite.evals}
    assert "the data set gaia-benchmark/GAIA is not in the cache" in missing["gaia_level1"]
    assert "with a token that was granted access" in missing["gaia_level1"]
    assert "no judge is bound" in missing["xstest"]
    assert "docker" in missing["apps"] or machine.docker() is None
    assert "no copy of https://raw.githubusercontent.com" in missing["strong_reject"]
    assert "no judge" not in missing["strong_reject"]
    assert all(said in str(found) for said in missing.values())
    assert str(found).endswith(f"0 of {len(missing)} evals can run: nothing can be asked yet")
    assert EvalSuite().check() == {}
    assert str(EvalSuite().check()) == "nothing is missing: 0 of 0 evals can run on this machine"


def test_missing_packages_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours where we have one, else that of `inspect_evals`."""
    there = machine._installed
    monkeypatch.setattr(machine, "_installed", lambda name: "antlr4" not in name and there(name))
    (lack,) = [one for one in machine.lacking(PREFIX + "math") if "antlr4" in one.got]
    assert lack.fix == "python -m pip install 'tinker-officer[math]'"
    monkeypatch.setattr(machine, "_installed", lambda _name: False)
    lacks = machine.lacking(PREFIX + "agentdojo", sandbox="local")
    assert [one.fix for one in lacks] == ["python -m pip install 'inspect-evals[agentdojo]'"]


def test_bfcl_needs_the_wheel_and_no_extra() -> None:
    """Its extra of `inspect_evals` is mpmath, which torch brings; git fetches only what has several turns."""
    from importlib import metadata

    assert machine._requirements("bfcl") == ["mpmath"]
    assert "mpmath" in " ".join(metadata.requires("sympy") or ())
    assert "sympy" in " ".join(metadata.requires("torch") or ())
    assert "inspect-evals" not in catalogue.needs(PREFIX + "bfcl")


def test_a_task_that_is_not_there_offers_the_nearest() -> None:
    """Without importing anything heavy."""
    missing = EvalSuite().benchmark("inspect_evals/gsm8").benchmark("exams/end.py@a").check()
    assert "did you mean 'inspect_evals/gsm8k'" in str(missing["gsm8"])
    assert "no such file" in str(missing["a"])


def test_a_cached_data_set_is_found_by_any_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` writes names in snake case, the hub with two hyphens, `inspect_evals` elsewhere."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("INSPECT_EVALS_CACHE_DIR", str(tmp_path / "evals"))
    assert not machine.cached("Owner/MATH-light")
    write_rows("Owner/MATH-light", {"test": [{"a": 1}]})
    assert machine.cached("Owner/MATH-light")
    (tmp_path / "hub" / "datasets--owner--other").mkdir(parents=True)
    assert machine.cached("owner/other")
    assert not machine.cached("x/GAIA", "gaia_dataset/GAIA")
    (tmp_path / "evals" / "gaia_dataset" / "GAIA" / "2023").mkdir(parents=True)
    assert machine.cached("x/GAIA", "gaia_dataset/GAIA")


@pytest.mark.parametrize(
    ("name", "splits"), [("gsm8k", {"test": [{"a": 1}]}), ("a/b", {"test": []}), ("a/b", {})]
)
def test_rows_that_cannot_be_written_are_refused(name: str, splits: dict) -> None:
    """No owner, no rows, no splits."""
    with pytest.raises(DataError, match="cannot be written into the cache"):
        write_rows(name, splits)
