"""Search: what it finds against a plain filter, what it refuses, and that no text becomes SQL."""

from __future__ import annotations

import operator
import sqlite3
from contextlib import closing

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinker_officer.errors import RegistryError
from tinker_officer.registry import search
from tinker_officer.registry.gate import Gate
from tinker_officer.registry.query import Both, Compare, Either, Not, parse, parse_order
from tinker_officer.registry.registry import Registry


FOUR_PARTS = r"(?s)got:.*need:.*fix:"


@pytest.fixture(scope="module")
def filled(tmp_path_factory, card, binary, result):
    """Six versions of two models: base models with scores, and one trained run."""
    registry = Registry.open(tmp_path_factory.mktemp("search") / "models.db")
    for number, (name, right) in enumerate([("a", 2), ("a", 6), ("b", 8), ("b", 9)]):
        source = f"org/{name}-{number}"
        scores = binary([1] * right + [0] * (10 - right), name="gsm8k")
        registry.register(source, card(scores, target=source), name=name, notes=f"it's {number}")
    registry.register("org/bare", name="c")
    run = result()
    base = registry.get("a@1")
    registry.register(run, name="c", parents={"distilled from": [base]}, data={"licence": "MIT"})
    registry.promote("b@2", to="production", gate=Gate.not_worse(), actor="ci")
    return registry


def labels(page):
    return [version.label for version in page]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["a@1", "a@2", "b@1", "b@2", "c@1", "c@2"]),
        ("name = 'a'", ["a@1", "a@2"]),
        ("evals.gsm8k.accuracy > 0.6", ["b@1", "b@2"]),
        ("evals.gsm8k.accuracy >= 0.6 AND NOT name = 'b'", ["a@2"]),
        ("name = 'a' or evals.gsm8k.accuracy > 0.85", ["a@1", "a@2", "b@2"]),
        ("NOT evals.gsm8k.accuracy > 0.6", ["a@1", "a@2", "c@1", "c@2"]),
        ("evals.gsm8k.accuracy != 0.6", ["a@1", "b@1", "b@2"]),
        ("(name = 'a' OR name = 'b') AND evals.gsm8k.n = 10 AND number <> 1", ["a@2", "b@2"]),
        ("base_model LIKE 'ORG/B%'", ["b@1", "b@2", "c@1"]),
        ("notes = 'it''s 3'", ["b@2"]),
        ("channel = 'production'", ["b@2"]),
        ("channel != 'production' AND name = 'b'", ["b@1"]),
        ("parent = 'a@1'", ["c@2"]),
        ("lora.rank = 16", ["c@2"]),
        ("data.\"licence\" = 'MIT'", ["c@2"]),
        ("metrics.train/mean_nll < 2", ["c@2"]),
        ("created > '2020-01-01' AND step >= 30", ["c@2"]),
        ("created < '2020-01-01'", []),
    ],
)
def test_a_query_finds_what_it_says(filled, query, found):
    """Text, numbers, times, channels, parents and figures, joined in every way."""
    assert sorted(labels(filled.search(query))) == found


def test_a_day_means_all_of_it(filled):
    """`=` a day is within it, `>` is after its end, `<=` is up to its end."""
    day = filled.get("a@1").created[:10]
    everything = len(filled.versions())
    for sign, expected in (("=", 6), ("!=", 0), (">", 0), (">=", 6), ("<", 0), ("<=", 6)):
        assert len(filled.search(f"created {sign} '{day}'")) == expected, sign
    moment = filled.get("a@2").created
    assert labels(filled.search(f"created = '{moment}'")) == ["a@2"]
    assert len(filled.search(f"created > '{moment}'")) == everything - 2


def test_order_and_pages(filled):
    """By a figure, by columns, newest first if nothing is said; what lacks the figure comes last."""
    best = filled.search(order_by="evals.gsm8k.accuracy desc", limit=4)
    assert labels(best) == ["b@2", "b@1", "a@2", "a@1"]
    assert best.more
    worst = filled.search(order_by="evals.gsm8k.accuracy")
    assert labels(worst)[:4] == ["a@1", "a@2", "b@1", "b@2"]
    assert labels(filled.search(order_by="name desc, number asc")) == [
        "c@1", "c@2", "b@1", "b@2", "a@1", "a@2",
    ]  # fmt: skip
    assert labels(filled.search()) == ["c@2", "c@1", "b@2", "b@1", "a@2", "a@1"]
    pages = [labels(filled.search("", order_by="name, number", limit=4, offset=offset)) for offset in (0, 4)]
    assert pages == [["a@1", "a@2", "b@1", "b@2"], ["c@1", "c@2"]]
    assert "offset=4" in str(best)
    assert filled.search("name = 'nobody'").explain() == "no version fits"
    assert best[0].label == "b@2"
    assert repr(best) == "Page(4 versions, and more)"
    assert "b@2" in best._repr_html_()


def test_a_newer_card_replaces_the_figures_of_an_older_one(tmp_path, card, binary):
    """The index holds the newest card's figure, and keeps those of evals that it does not have."""
    registry = Registry.open(tmp_path / "models.db")
    for scores in ([binary([1, 1], name="a"), binary([1, 1], name="b")], [binary([0, 1], name="a")]):
        registry.register("tiny", card(*scores))
    assert len(registry.search("evals.a.accuracy = 0.5 AND evals.b.accuracy = 1")) == 1
    assert len(registry.search("evals.a.accuracy = 1")) == 0


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("evals.gsm8k.acuracy > 0.6", "did you mean 'evals.gsm8k.accuracy'"),
        ("basemodel = 'x'", "did you mean 'base_model'"),
        ("name = 3", "name is text"),
        ("number = 'three'", "number is a number"),
        ("evals.gsm8k.accuracy = 'high'", "is a number"),
        ("data.licence = 3", "is text"),
        ("created = 'yesterday'", "comparison with a time"),
        ("created > 5", "comparison with a time"),
        ("channel < 'production'", "equal or not"),
        ("parent = 'nobody@1'", "no such version"),
        ("number LIKE 3", "text"),
        ("name", "one of ="),
        ("name = ", "a number, or text"),
        ("name = 'a' name = 'b'", "AND, OR, or the end"),
        ("(name = 'a'", "closing parenthesis"),
        ("name = 'a", "not a query"),
        ("AND name = 'a'", "a field"),
        ('name = "a"', "text in single quotes"),
        ("; DROP TABLE versions", "not a query"),
        ("name = 'a' -- x", "not a query"),
        ("(" * 60 + "name = 'a'" + ")" * 60, "within each other"),
        ("name = 'a' AND " * 2000 + "name = 'a'", "too long"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_where_it_goes_wrong(filled, query, said):
    """Unknown fields get the nearest names, wrong kinds what is needed, bad syntax a pointer to the place."""
    with pytest.raises(RegistryError, match=FOUR_PARTS) as error:
        filled.search(query)
    assert said in str(error.value)


@pytest.mark.parametrize("order", ["", "name up", "name,", "1", "name; x", "nam"])
def test_an_order_that_cannot_be_is_refused(filled, order):
    """An order is fields with asc or desc, and each must be known."""
    with pytest.raises(RegistryError, match=FOUR_PARTS):
        filled.search(order_by=order)


@pytest.mark.parametrize("page", [{"limit": 0}, {"limit": 1001}, {"limit": True}, {"offset": -1}])
def test_a_page_that_cannot_be_is_refused(filled, page):
    """A limit is from 1 to 1,000, an offset not below 0."""
    with pytest.raises(RegistryError, match="out of range"):
        filled.search(**page)


EVIL = [
    "x' OR '1'='1", "'; DROP TABLE versions; --", "%", "_", "\\", "\x00", 'a" OR 1=1 --', "%' ESCAPE '",
    "${jndi:x}", "'||(SELECT 1)||'", "\ud83d\ude00", "🙂", "' UNION SELECT * FROM events --",
]  # fmt: skip


@pytest.mark.parametrize("text", EVIL)
def test_malicious_text_is_only_ever_text(filled, text):
    """In a value, a LIKE, a field or as the whole query: it finds nothing, and harms nothing."""
    before = filled.verify()
    quoted = text.replace("'", "''")
    for query in (f"name = '{quoted}'", f"notes = '{quoted}'", f'metrics."{text}" = 1', text):
        try:
            assert labels(filled.search(query)) == []
        except (RegistryError, UnicodeEncodeError):
            continue
    assert filled.verify() == before
    assert len(filled.versions()) == 6


def test_like_takes_its_own_signs_only(filled):
    """`%` and `_` are LIKE's; a backslash takes their meaning away."""
    assert len(filled.search("notes LIKE 'it''s _'")) == 4
    assert len(filled.search("notes LIKE 'it''s \\_'")) == 0
    assert len(filled.search("notes LIKE '%'")) == 6


WORDS = st.sampled_from(["name", "evals.a.b", "lora.rank", "step"])
LITERALS = st.one_of(
    st.text(max_size=8).filter(str.isprintable), st.integers(-9, 9), st.floats(-1e6, 1e6, allow_nan=False)
)
LEAVES = st.builds(Compare, WORDS, st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "LIKE"]), LITERALS)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda a, b: Both((a, b)), inner, inner),
        st.builds(lambda a, b: Either((a, b)), inner, inner),
        st.builds(Not, inner),
    ),
    max_leaves=8,
)


def written(tree):
    """Write a tree as a query, every part in parentheses."""
    if isinstance(tree, Compare):
        quoted = (
            "'" + tree.value.replace("'", "''") + "'" if isinstance(tree.value, str) else repr(tree.value)
        )
        return f"{tree.field} {tree.sign} {quoted}"
    if isinstance(tree, Not):
        return f"NOT ({written(tree.part)})"
    sign = " AND " if isinstance(tree, Both) else " OR "
    return sign.join(f"({written(part)})" for part in tree.parts)


@given(TREES)
@settings(deadline=None, max_examples=40)
def test_what_is_written_is_read_back(tree):
    """Every tree, written out, parses to itself: nothing in a text can end it early."""
    assert parse(written(tree)) == tree


def test_and_binds_tighter_than_or_and_not_tightest():
    """As in SQL: NOT, then AND, then OR."""
    a, b, c = (Compare("step", "=", float(n)) for n in (1, 2, 3))
    assert parse("step=1 or step=2 AND not step=3") == Either((a, Both((b, Not(c)))))
    assert parse("  ") is None
    assert parse_order('evals."a.b".c DESC, name') == (("evals.a.b.c", True), ("name", False))


FIGURES = {
    "evals.all.accuracy": ((0.0,), (0.25,), (0.5,), (0.75,), (1.0,)),
    "evals.some.accuracy": ((), (0.25,), (), (0.5,), (0.25,)),
    "evals.x.y.accuracy": ((0.0, 1.0), (0.25,), (0.5,), (1.0,), ()),  # m@1 sat x.y and x/y
}
SIGNS = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip


@pytest.fixture(scope="module")
def scored(tmp_path_factory, card, binary):
    """Five versions, each with the figures that stand in its column of FIGURES."""
    registry = Registry.open(tmp_path_factory.mktemp("scored") / "models.db")
    for place in range(5):
        evals = [
            binary([1] * round(4 * value) + [0] * round(4 - 4 * value), name=name)
            for key, values in FIGURES.items()
            for value, name in zip(values[place], (key[6:-9], "x/y"), strict=False)
        ]
        registry.register(f"m{place}", card(*evals, target=f"m{place}"), name="m")
    return registry


def fits(tree, place):
    """Say whether a version fits a query, without a database."""
    if isinstance(tree, Not):
        return not fits(tree.part, place)
    if isinstance(tree, Compare):
        return any(SIGNS[tree.sign](value, tree.value) for value in FIGURES[tree.field][place])
    return (all if isinstance(tree, Both) else any)(fits(part, place) for part in tree.parts)


QUARTERS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
QUESTIONS = st.recursive(
    st.builds(Compare, st.sampled_from(list(FIGURES)), st.sampled_from(list(SIGNS)), QUARTERS),
    lambda inner: st.one_of(
        st.builds(lambda a, b: Both((a, b)), inner, inner),
        st.builds(lambda a, b: Either((a, b)), inner, inner),
        st.builds(Not, inner),
    ),
    max_leaves=4,
)


@given(QUESTIONS, st.booleans())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_query_finds_what_a_plain_filter_finds(scored, monkeypatch, tree, many):
    """NOT among them: of figures that all have, that some have, and of one that a version has twice."""
    monkeypatch.setattr(search, "_FEW", 1 if many else 5000)
    expected = [f"m@{place + 1}" for place in range(5) if fits(tree, place)]
    assert sorted(labels(scored.search(written(tree)))) == expected


def test_an_empty_registry_finds_nothing_whatever_the_field(tmp_path):
    """Before the first version no field is known, and a script that asks is not broken by that."""
    assert len(Registry.open(tmp_path / "models.db").search("evals.gsm8k.accuracy > 0.6")) == 0


def test_the_index_is_made_anew_from_the_records(filled, tmp_path):
    """Everything that search finds comes from the records alone: a rebuilt index answers the same."""
    from tinker_officer.registry import catalogue
    from tinker_officer.registry.database import open_database

    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(filled._database.path)) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    database = open_database(copy)
    with database.write() as connection:
        catalogue.rebuild(connection)
    again = Registry(database)
    for query in ("evals.gsm8k.accuracy > 0.6", "lora.rank = 16", "name = 'a'"):
        assert labels(again.search(query)) == labels(filled.search(query))
    assert attrs.asdict(again.search()) == attrs.asdict(filled.search())
