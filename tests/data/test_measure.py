"""Token counts: exactly what training will see."""

from __future__ import annotations

import random

import attrs
import numpy as np
import pytest

from tinker_officer import Conversations, TokenCounts
from tinker_officer._files import home
from tinker_officer.data import measure, render
from tinker_officer.data.examples import Examples
from tinker_officer.errors import DataError, ModelError
from tinker_officer.testing import tiny_model as make_tiny


SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


def chat(*texts):
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]}


@pytest.fixture(scope="module")
def talk() -> Conversations:
    """Sixty conversations of many lengths, one to three exchanges, some repeated."""
    pick = random.Random(0)
    words = ["the", "a", "price", "order", "brown", "fox", "12", "345", "naïve", "🎉", "你好", "assistant"]
    rows = [
        chat(*(" ".join(pick.choices(words, k=pick.randint(1, 30))) for _ in range(2 * pick.randint(1, 3))))
        for _ in range(56)
    ]
    return Conversations.from_list([*rows, *rows[:4]])


def plain(datum):
    """A datum as lists: the SDK's tensors do not compare by value."""
    inputs = datum.loss_fn_inputs
    return datum.model_input.to_ints(), inputs["target_tokens"].data, inputs["weights"].data


def obvious(conversations, renderer, *, max_length, train_on, too_long):
    """The obvious loop: a datum a row, counted from the datum alone."""
    examples = trained = total = 0
    unique = {}
    for conversation in conversations:
        datum = render.to_datum(
            conversation, renderer, max_length=max_length, train_on=train_on, too_long=too_long
        )
        if datum is None:
            continue
        weights = tuple(datum.loss_fn_inputs["weights"].data)
        examples += 1
        trained += int(sum(weights))
        total += datum.model_input.length
        key = (tuple(datum.model_input.to_ints()), tuple(datum.loss_fn_inputs["target_tokens"].data), weights)
        unique[key] = int(sum(weights))
    return examples, trained, total, sum(unique.values()), examples - len(unique)


@pytest.mark.parametrize("model", ["tiny", pytest.param("smollm2", marks=pytest.mark.smollm2)])
@pytest.mark.parametrize("train_on", ["last", "all"])
@pytest.mark.parametrize("too_long", ["truncate", "drop"])
@pytest.mark.parametrize("max_length", [None, 120, 40])
def test_counts_equal_the_obvious_loop(tiny_model, talk, model, train_on, too_long, max_length):
    """Examples, trained, total, unique and duplicates equal those counted datum by datum."""
    name = str(tiny_model) if model == "tiny" else SMOLLM2
    settings = {"max_length": max_length, "train_on": train_on, "too_long": too_long}
    counts = talk.measure(name, **settings)
    expected = obvious(talk, render.renderer_for(name), **settings)
    assert (
        counts.examples,
        counts.trained,
        counts.total,
        counts.unique_trained,
        counts.duplicates,
    ) == expected
    assert counts.examples + counts.dropped + counts.masked == len(talk)
    assert (counts.dropped == 0) or (too_long == "drop")
    assert (counts.truncated == 0) or (too_long == "truncate")


def test_copies_are_counted_once(tiny_model):
    """A row that is there three times counts three times as trained, once as unique."""
    one = Conversations.from_list([chat("Hi", "Hello")]).measure(str(tiny_model))
    three = Conversations.from_list([chat("Hi", "Hello")] * 3).measure(str(tiny_model))
    assert three.trained == 3 * one.trained
    assert three.unique_trained == one.unique_trained == one.trained
    assert three.duplicates == 2


def test_examples_are_the_data_of_the_usable_rows(tiny_model, talk):
    """Examples hold a datum for each row that is neither dropped nor masked, as to_datum gives it."""
    renderer = render.renderer_for(str(tiny_model))
    settings = {"max_length": 60, "too_long": "drop"}
    examples = Examples.of(talk, str(tiny_model), **settings)
    expected = [render.to_datum(conversation, renderer, **settings) for conversation in talk]
    kept = [datum for datum in expected if datum is not None]

    assert 0 < len(kept) < len(talk)
    assert [plain(examples[i]) for i in range(len(examples))] == [plain(datum) for datum in kept]
    assert examples.counts == talk.measure(str(tiny_model), **settings)
    assert examples.max_length == 60
    assert examples.renderer is renderer
    assert repr(examples) == f"<Examples: {len(kept)} of 60 conversations, chatml>"


def test_without_a_limit_the_models_context_is_the_limit(tmp_path):
    """A conversation longer than the model's context is cut there, and counted."""
    model = str(make_tiny(tmp_path / "short", context=64))
    talk = Conversations.from_list([chat("Hi", "word " * 200), chat("Hi", "Hello"), chat("x " * 200, "Hi")])
    counts = talk.measure(model)
    assert counts.max_length == 64
    assert (counts.examples, counts.truncated, counts.masked, counts.dropped) == (2, 1, 1, 0)
    dropped = talk.measure(model, too_long="drop")
    assert (dropped.examples, dropped.truncated, dropped.masked, dropped.dropped) == (1, 0, 0, 2)


def test_quantiles_are_of_whole_lengths(tiny_model, talk):
    """Lengths are told before truncation: the shortest, the median, the longest."""
    renderer = render.renderer_for(str(tiny_model))
    lengths = sorted(render.example(conversation, renderer)[0].length for conversation in talk)
    shares = dict(talk.measure(str(tiny_model), max_length=40).quantiles)
    assert shares[0.0] == lengths[0]
    assert shares[1.0] == lengths[-1]
    assert shares[0.5] in {lengths[29], lengths[30]}


def test_counts_are_cached_by_what_decides_them(tmp_path, monkeypatch):
    """Asked again, in any order of rows, nothing is rendered; another tokenizer of that name is measured."""
    monkeypatch.setenv("TINKER_OFFICER_HOME", str(tmp_path / "home"))
    model = str(make_tiny(tmp_path / "model"))
    rows = [chat(f"q{i}", "a " * (i + 1)) for i in range(9)]
    first = Conversations.from_list(rows).measure(model)
    files = list((home() / "cache" / "measure").iterdir())
    assert len(files) == 1

    walked = []
    real = measure.count
    monkeypatch.setattr(measure, "count", lambda *args, **named: walked.append(1) or real(*args, **named))
    backwards = Conversations.from_list(rows[::-1])
    assert backwards.measure(model) == first
    assert backwards.measure(model, too_long="drop") == attrs.evolve(first, too_long="drop")
    assert not walked
    kept = measure.measure_rows(backwards, model)
    assert list(kept.trained) == sorted(kept.trained, reverse=True)

    assert backwards.measure(model, max_length=20) != first
    assert len(walked) == 1
    files[0].write_bytes(b"\x93NUMPY torn")
    assert backwards.measure(model) == first
    assert len(walked) == 2


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch, caplog):
    """When the cache folder cannot be made, the counts are right and a warning says so."""
    (tmp_path / "home").write_text("a file, not a folder")
    model = str(make_tiny(tmp_path / "model"))
    monkeypatch.setenv("TINKER_OFFICER_HOME", str(tmp_path / "home"))
    assert Conversations.from_list([chat("Hi", "Hello")]).measure(model).examples == 1
    assert "could not be written" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_length": 1}, "2 tokens or more"),
        ({"max_length": 1.5}, "2 tokens or more"),
        ({"max_length": True}, "2 tokens or more"),
        ({"too_long": "crop"}, "'truncate' or 'drop'"),
        ({"train_on": "first"}, "'last' or 'all'"),
    ],
)
def test_settings_that_do_not_exist_are_refused(tiny_model, talk, wrong, said):
    """A limit, a rule or a mask that does not exist is refused with those that do."""
    with pytest.raises(DataError, match=said):
        talk.measure(str(tiny_model), **wrong)


def test_an_unknown_model_is_refused(talk):
    """Measuring for a model that is nowhere is the model's error."""
    with pytest.raises(ModelError, match="cannot be found"):
        talk.measure("nobody/nothing-7b")


def test_counts_can_be_written_by_hand():
    """Three numbers are enough, and they must not contradict each other."""
    counts = TokenCounts(examples=9_500, trained=2_000_000, total=2_600_000)
    assert counts.unique_trained is None
    assert repr(counts) == "<TokenCounts: 9500 examples, 2.00M trained, 2.60M total>"
    for wrong in (
        {"trained": 3_000_000},
        {"unique_trained": 2_500_000},
        {"examples": -1},
        {"train_on": "first"},
        {"total": 2.6e6},
    ):
        with pytest.raises(DataError):
            attrs.evolve(counts, **wrong)


def test_counts_survive_json(tiny_model, talk):
    """Counts go through JSON and come back equal."""
    import json

    import cattrs

    counts = talk.measure(str(tiny_model), max_length=60)
    text = json.dumps(cattrs.unstructure(counts))
    assert cattrs.structure(json.loads(text), TokenCounts) == counts


def test_counts_print_well(tiny_model, talk):
    """Counts explain themselves, one a line, as text and in a notebook."""
    counts = talk.measure(str(tiny_model), max_length=60)
    text = counts.explain()
    assert f"{counts.unique_trained:,}" in text
    assert "examples cut at the limit (60 tokens)" in text
    assert "50%" in text
    assert counts._repr_html_().startswith("<pre>")


def test_the_identity_of_a_renderer_follows_the_tokenizers_content(tmp_path):
    """Equal folders have one identity; another vocabulary or template is another."""
    one, two = str(make_tiny(tmp_path / "one")), str(make_tiny(tmp_path / "two"))
    other = str(make_tiny(tmp_path / "other", vocab=300))
    identity = measure.renderer_identity(one, "chatml")
    assert measure.renderer_identity(two, "chatml") == identity
    assert measure.renderer_identity(other, "chatml") != identity
    assert measure.renderer_identity(one, "role_colon") != identity


def test_context_is_read_from_the_config(tmp_path, tiny_model):
    """The context is the config's; None for a model that is not here."""
    assert measure.context_length(str(tiny_model)) == 1024
    assert measure.context_length("nobody/nothing-7b") is None


def test_a_row_that_is_measured_and_then_changed_is_refused(tmp_path, tiny_model):
    """An example whose row changed after measuring is an error, not another example."""
    path = tmp_path / "t.jsonl"
    path.write_text('{"input": "Hi", "output": "Hello"}\n')
    examples = Examples.of(Conversations.from_jsonl(path), str(tiny_model))
    path.write_text('{"input": "Ho", "output": "Hello"}\n')
    with pytest.raises(DataError, match="has changed since"):
        examples[0]


def test_indices_point_at_the_rows(tiny_model):
    """The indices of examples say which conversation each is."""
    talk = Conversations.from_list([chat("Hi", "x " * 100), chat("Hi", "Hello"), chat("Ho", "Hello")])
    examples = Examples.of(talk, str(tiny_model), max_length=40, too_long="drop")
    assert np.array_equal(examples.indices, [1, 2])
