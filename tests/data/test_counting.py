"""The fast way of counting: the same as the renderer, row by row, or not taken."""

from __future__ import annotations

import functools
import itertools
import json
import random
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_officer import Conversations, _models
from tinker_officer.data import counting, encoders, layouts, measure, render
from tinker_officer.data.counting import Way
from tinker_officer.errors import DataError


SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
WORDS = [
    "the", "a", "price", "order", "brown", " fox", "12", "345", "naïve", "🎉", "你好", "assistant", "\n",
    "  ", "<|im_start|>", "<|im_end|>\n", "<think>", "</think>", "\r\n\t", "O'Brien's", "\u200b",
    "def f(x):\n    return",
]  # fmt: skip


renderer_of = functools.cache(render.renderer_for)


def strange(pick: random.Random) -> dict:
    """A conversation with whatever may stand in one: tools, thinking, calls, special tokens, weights."""

    def text(most=30):
        return pick.choice(["", "\n", " "]) + " ".join(pick.choices(WORDS, k=pick.randint(1, most))) + "x"

    turns = [{"role": "system", "content": pick.choice(["", text()])}] if pick.random() < 0.3 else []
    for _ in range(pick.randint(1, 3)):
        turns.append({"role": "user", "content": text()})
        if pick.random() < 0.2:
            turns.append({"role": "assistant", "content": text(5)})
            turns.append(
                {"role": "tool", "content": pick.choice(["", text()]), "name": "f", "tool_call_id": "1"}
            )
        turns.append({"role": "assistant", "content": text()})
    kind = pick.random()
    if kind < 0.05:
        turns[-1]["content"] = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "so"}]
    elif kind < 0.1:
        turns[-1] |= {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    elif kind < 0.15:
        turns[-1]["weight"] = pick.choice([0, 1])
    elif kind < 0.2:
        del turns[0 if turns[0]["role"] == "user" else 1]  # the assistant begins
    row = {"messages": turns}
    if kind > 0.95:
        row["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {"x": 1.5}}}]
    elif kind > 0.9:
        row = {"input": text(), "output": text()}
    return row


@pytest.fixture(scope="module")
def odd() -> Conversations:
    """Some hundred strange conversations, a few repeated."""
    pick = random.Random(1)
    rows = [strange(pick) for _ in range(280)]
    return Conversations.from_list([*rows, *rows[:20]])


@pytest.fixture(scope="module")
def rendered(odd):
    """What the renderer itself makes of them, once for both encoders."""
    return functools.cache(lambda *way: Way(odd, *way).rows(range(len(odd))))


@pytest.mark.parametrize("model", ["tiny", pytest.param("smollm2", marks=pytest.mark.smollm2)])
@pytest.mark.parametrize("renderer_name", [None, "qwen3_instruct", "qwen3"])
@pytest.mark.parametrize("limit", [None, 50])
@pytest.mark.parametrize("encoder_name", ["fastokens", "tokenizers"])
def test_the_fast_way_equals_the_renderer_row_by_row(
    tiny_model, odd, rendered, model, renderer_name, encoder_name, limit
):
    """Length, trained tokens and digest of every row are those of build_supervised_example."""
    if encoder_name == "fastokens":
        pytest.importorskip("fastokens")
    renderer = renderer_of(str(tiny_model) if model == "tiny" else SMOLLM2, renderer_name)
    found = {encoder.name: encoder for encoder in encoders.encoders_for(renderer.tokenizer)}
    for train_on in ("last", "all") if renderer.has_extension_property else ("last",):
        fast = Way(odd, renderer, limit, train_on, layouts.layout_for(renderer), found[encoder_name])
        assert fast.layout is not None
        assert np.array_equal(fast.rows(range(len(odd))), rendered(renderer, limit, train_on))


def test_most_rows_take_the_fast_way(tiny_model, odd, monkeypatch):
    """Only what a layout does not know for certain is left to the renderer."""
    renderer = render.renderer_for(str(tiny_model))
    way = counting.fastest(odd, renderer, limit=None, train_on="last")
    assert way.encoder is not None
    rendered = []
    real = Way.rendered
    monkeypatch.setattr(Way, "rendered", lambda *args: rendered.append(1) or real(*args))
    way.rows(range(len(odd)))
    assert 0 < len(rendered) < len(odd) / 3


def test_without_the_extra_tokenizers_counts(tiny_model, odd, monkeypatch):
    """When fastokens is not installed, tokenizers encodes, and the counts are equal."""
    renderer = render.renderer_for(str(tiny_model))
    expected = counting.count(odd, renderer, limit=None, train_on="last")
    monkeypatch.setitem(sys.modules, "fastokens", None)
    way = counting.fastest(odd, renderer, limit=None, train_on="last")
    assert way.encoder.name == "tokenizers"
    assert np.array_equal(counting.count(odd, renderer, limit=None, train_on="last"), expected)


class Forgetful(encoders.Tokenizers):
    """An encoder that is wrong about emojis."""

    name = "forgetful"

    def encode(self, texts):
        return super().encode([text.replace("🎉", "") for text in texts])


class Broken(encoders.Tokenizers):
    """An encoder that fails."""

    name = "broken"

    def encode(self, texts):
        raise RuntimeError("a pattern backtracked too far")


@pytest.mark.parametrize(
    ("wrong", "said"), [(Forgetful, "are not what ChatML writes"), (Broken, "broken failed")]
)
def test_an_encoder_that_differs_on_the_sample_is_not_used(tiny_model, odd, monkeypatch, caplog, wrong, said):
    """On any difference a warning is given, the next encoder counts, and the counts are the renderer's."""
    monkeypatch.setattr(encoders, "Fastokens", wrong)
    renderer = render.renderer_for(str(tiny_model))
    way = counting.fastest(odd, renderer, limit=None, train_on="last")
    assert said in caplog.text
    assert way.encoder.name == "tokenizers"

    monkeypatch.setattr(encoders, "Tokenizers", wrong)
    assert counting.fastest(odd, renderer, limit=None, train_on="last").encoder is None
    counted = counting.count(odd, renderer, limit=None, train_on="last")
    reference = Way(odd, renderer, None, "last")
    assert np.array_equal(counted, reference.rows(range(len(odd))))


def test_a_tokenizer_that_fastokens_cannot_read_is_left_to_tokenizers(tiny_model, caplog):
    """A tokenizer that fastokens refuses is a warning, not an error."""
    pytest.importorskip("fastokens")
    tokenizer = render.renderer_for(str(tiny_model)).tokenizer

    class Unreadable:
        class backend_tokenizer:  # noqa: N801 - the attribute's name
            @staticmethod
            def to_str():
                content = json.loads(tokenizer.backend_tokenizer.to_str())
                vocabulary = [[token, 0.0] for token in content["model"]["vocab"]]
                return json.dumps(content | {"model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary}})

    assert [encoder.name for encoder in encoders.encoders_for(Unreadable())] == ["tokenizers"]
    assert "cannot read this tokenizer" in caplog.text


def test_a_renderer_without_a_layout_counts_by_itself(tiny_model):
    """A renderer whose pieces nobody wrote down is asked, row by row."""
    rows = [{"input": f"question {i}", "output": "answer " * (i % 7 + 1)} for i in range(300)]
    talk = Conversations.from_list(rows)
    renderer = render.renderer_for(str(tiny_model), "role_colon")
    assert counting.fastest(talk, renderer, limit=None, train_on="last").encoder is None
    counted = counting.count(talk, renderer, limit=None, train_on="last")
    expected = [render.example(each, renderer)[0].length for each in talk]
    assert counted["length"].tolist() == expected


@pytest.fixture(scope="module")
def corpus() -> Conversations:
    """Sixty short conversations with many copies."""
    pick = random.Random(3)
    return Conversations.from_list(
        [
            {"input": pick.choice("abc"), "output": " ".join(pick.choices("xyz", k=pick.randint(1, 2)))}
            for _ in range(60)
        ]
    )


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 59), unique=True, max_size=8), too_long=st.sampled_from(["truncate", "drop"])
)
def test_any_partition_merges_to_the_same_counts(corpus, tiny_model, cuts, too_long):
    """Counts of parts, merged, are the counts of the whole: copies across parts are found."""
    rules = {"max_length": 26, "too_long": too_long}
    whole = measure.measure_rows(corpus, tiny_model, **rules)
    edges = [0, *sorted(cuts), len(corpus)]
    parts = [
        measure.measure_rows(corpus._select(np.arange(start, stop)), tiny_model, **rules)
        for start, stop in itertools.pairwise(edges)
    ]
    merged = measure.RowCounts.merged(parts).summed()
    assert merged == whole.summed()
    assert merged.duplicates > 10


def test_parts_under_other_rules_do_not_merge(corpus, tiny_model):
    """Parts that were measured under different rules are refused, and so are no parts."""
    for other in ({"max_length": 30}, {"max_length": 20, "train_on": "all"}):
        parts = [measure.measure_rows(corpus, tiny_model, **rules) for rules in ({"max_length": 20}, other)]
        with pytest.raises(DataError, match="cannot be merged"):
            measure.RowCounts.merged(parts)
    with pytest.raises(DataError, match="no parts"):
        measure.RowCounts.merged([])


def test_a_row_that_was_damaged_after_the_check_is_an_error_by_line(write, tiny_model):
    """A byte that changes in the middle of a file, after it was checked, is named by its line."""
    path = write([{"input": f"question {i}", "output": f"answer {i}"} for i in range(5_000)])
    talk = Conversations.from_jsonl(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"answer 2500", b"Answer 2500"))
    with pytest.raises(DataError, match=r"tickets\.jsonl:2501: other content"):
        talk.measure(tiny_model)
    path.write_bytes(content.replace(b'"question 2500"', b'"question \xff500"'))
    with pytest.raises(DataError, match=r"tickets\.jsonl:2501: not UTF-8"):
        talk.measure(tiny_model)
    path.unlink()
    with pytest.raises(DataError, match="has changed since"):
        talk.measure(tiny_model)


def test_a_damaged_row_in_a_large_file_is_refused_or_counted(write, tiny_model):
    """One bad row among thousands is an error that names it, or a counted quarantine, as asked."""
    rows = [{"input": f"question {i}", "output": f"answer {i}"} for i in range(5_000)]
    path = write([*rows[:2_500], b'{"input": "que\x00\x17', *rows[2_500:]])
    with pytest.raises(DataError, match=r"tickets\.jsonl:2501: not JSON"):
        Conversations.from_jsonl(path)
    talk = Conversations.from_jsonl(path, on_error="quarantine")
    assert talk.quarantined == 1
    assert talk.measure(tiny_model).examples == 5_000


def test_a_script_without_a_main_guard_can_measure(tmp_path, tiny_model):
    """Measuring starts no process, so a script of three lines works."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        from tinker_officer import Conversations
        rows = [{{"input": f"q{{i}}", "output": "a " * (i % 9 + 1)}} for i in range(3000)]
        print(Conversations.from_list(rows).measure({str(tiny_model)!r}, progress=True).examples)
        """)
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=120)
    assert ran.stdout == "3000\n", ran.stderr
    assert "measuring: 3000/3000 conversations" in ran.stderr


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path, tiny_model):
    """Four times the rows cost less than 200 bytes a row more at the peak."""
    script = textwrap.dedent(f"""
        import resource, sys
        from pathlib import Path
        from tinker_officer import Conversations
        path = Path(sys.argv[1]) / "rows.jsonl"
        with path.open("w") as file:
            for i in range(int(sys.argv[2])):
                file.write('{{"messages":[{{"role":"user","content":"q%d %s"}},'
                           '{{"role":"assistant","content":"a"}}]}}\\n' % (i, "word " * 8))
        Conversations.from_jsonl(path, progress=False).measure({str(tiny_model)!r}, progress=False)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    """)
    peaks = []
    for rows in (20_000, 80_000):
        command = [sys.executable, "-c", script, str(tmp_path), str(rows)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        peaks.append(int(ran.stdout))
    assert peaks[1] - peaks[0] < 200 * 60_000


def test_an_interrupted_measurement_stops_soon(tiny_model, monkeypatch):
    """When a row fails, blocks that have not begun are not counted, and the error comes at once."""
    rows = [{"input": f"question {i}", "output": "answer"} for i in range(60_000)]
    talk = Conversations.from_list(rows)
    renderer = render.renderer_for(str(tiny_model))
    way = counting.fastest(talk, renderer, limit=None, train_on="last")
    begun = []
    real = Way.rows

    def counted(self, indices):
        begun.append(indices[0])
        if indices[0] == 0:
            time.sleep(0.2)
            raise KeyboardInterrupt
        return real(self, indices)

    monkeypatch.setattr(Way, "rows", counted)
    with pytest.raises(KeyboardInterrupt):
        list(counting._blocks(way, range(len(talk)), 2))
    assert len(begun) <= 2 * 2 + 2


@pytest.mark.smollm2
def test_the_wheels_tokenizer_is_the_one_that_auto_tokenizer_loads():
    """Loading it by its class, to spare an import of 90 MB, changes neither tokens nor template."""
    from transformers import AutoTokenizer

    ours = _models.load_tokenizer(SMOLLM2)
    auto = AutoTokenizer.from_pretrained(str(_models.locate(SMOLLM2, weights=False)))
    assert type(ours) is type(auto)
    assert ours.backend_tokenizer.to_str() == auto.backend_tokenizer.to_str()
    assert (ours.chat_template, ours.special_tokens_map) == (auto.chat_template, auto.special_tokens_map)
