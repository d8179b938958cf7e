"""Pairs: preferences in every usual shape, checked, split, rendered and counted."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from tinker_officer import Conversations, PairCounts, Pairs
from tinker_officer.data import render
from tinker_officer.data.messages import RowError
from tinker_officer.data.pair_counts import measure_pairs
from tinker_officer.data.pair_formats import normalise
from tinker_officer.errors import DataError


USER = {"role": "user", "content": "What is 2 + 2?"}
GOOD, BAD = {"role": "assistant", "content": "4."}, {"role": "assistant", "content": "5."}
TOOL = {"role": "tool", "content": "4"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}
EXPECTED = ((USER,), (GOOD,), (BAD,))
BEFORE = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: What is 2 + 2?\n\nAssistant:"


def pair(number):
    """A pair whose answers differ in length."""
    return {"prompt": f"Question {number}?", "chosen": f"Answer {number}.", "rejected": "No " * (number + 1)}


@pytest.fixture
def rows():
    """Forty pairs of eight customers, all different."""
    return [{**pair(i), "customer": f"c{i % 8}"} for i in range(40)]


def parts(row, shape=None):
    made = normalise(row, shape)
    return made.prompt, made.chosen, made.rejected


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "What is 2 + 2?", "chosen": "4.", "rejected": "5."},
        {"question": "What is 2 + 2?", "chosen": "4.", "rejected": "5."},
        {"instruction": "What is 2 + 2?", "chosen": "4.", "rejected": "5."},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [USER], "chosen": GOOD, "rejected": BAD},
        {"prompt": "What is 2 + 2?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {
            "chosen": "\n\nHuman: What is 2 + 2?\n\nAssistant: 4.",
            "rejected": "\n\nHuman: What is 2 + 2?\n\nAssistant: 5.",
        },
        {"prompt": "\n\nHuman: What is 2 + 2?\n\nAssistant:", "chosen": " 4.", "rejected": "5."},
        {
            "conversations": [{"from": "human", "value": "What is 2 + 2?"}],
            "chosen": {"from": "gpt", "value": "4."},
            "rejected": {"from": "gpt", "value": "5."},
        },
        {
            "comparison": {"prompt_conversation": [USER], "completion_A": [BAD], "completion_B": [GOOD]},
            "label": "B",
        },
    ],
)
def test_every_usual_shape_is_the_same_pair(row):
    """Text, messages, TRL's, UltraFeedback's, HH's, ShareGPT's and the cookbook's forms say one thing."""
    made = normalise(row)
    stripped = [
        tuple({**message, "content": message["content"].strip()} for message in side)
        for side in (made.prompt, made.chosen, made.rejected)
    ]
    assert tuple(stripped) == EXPECTED


def test_the_cookbooks_own_comparison_is_read():
    """A list of `LabeledComparison` objects loads as it is."""
    from tinker_cookbook.preference.types import Comparison, LabeledComparison

    comparison = Comparison(prompt_conversation=[USER], completion_A=[GOOD], completion_B=[BAD])
    labelled = LabeledComparison(comparison=comparison, label="A")
    pairs = Pairs.from_list([labelled, labelled.swap()])
    assert [(p.prompt, p.chosen, p.rejected) for p in pairs] == [EXPECTED, EXPECTED]
    assert pairs.duplicates == 1


def test_hh_is_read_as_the_cookbook_reads_it():
    """Anthropic's text becomes the comparison that the cookbook's own recipe makes of it."""
    from tinker_cookbook.recipes.preference.datasets import hhh_example_to_comparison

    row = {"chosen": f"{HH} 4, since 2 + 2 = 4.\nSure.", "rejected": f"{HH} 5."}
    theirs = hhh_example_to_comparison(row)
    made = normalise(row)
    assert list(made.prompt) == theirs.comparison.prompt_conversation
    assert list(made.chosen) == theirs.comparison.completion_A
    assert list(made.rejected) == theirs.comparison.completion_B


def test_a_system_message_and_tools_stay_with_the_prompt():
    """The system text leads the prompt, also where the two conversations only begin alike; tools are kept."""
    system = {"role": "system", "content": "Be exact."}
    row = {"system": "Be exact.", "question": "What is 2 + 2?", "chosen": "4.", "rejected": "5.", "id": 7}
    assert parts(row) == ((system, USER), (GOOD,), (BAD,))
    assert normalise(row).metadata == {"id": 7}
    whole = {"system": "Be exact.", "chosen": [USER, GOOD], "rejected": [USER, BAD]}
    assert parts(whole) == ((system, USER), (GOOD,), (BAD,))
    assert normalise({**row, "tools": [{"name": "add"}]}).tools == ({"name": "add"},)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "Hi", "chosen": "a", "rejected": "a"}, "nothing is preferred"),
        ({"prompt": "Hi", "chosen": "a", "rejected": " "}, "rejected: message 1 .* empty content"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "prompt: message 1 .* empty content"),
        ({"prompt": "Hi", "chosen": "a"}, "no pair .* the row has 'prompt', 'chosen'"),
        ({"prompt": "Hi", "completion": "a"}, "load it with Conversations"),
        ({"messages": [USER, GOOD]}, "load it with Conversations"),
        ({"chosen": "a", "rejected": "b"}, "no prompt that it answers"),
        ({"chosen": [USER, GOOD], "rejected": [*BEFORE, USER, BAD]}, "no prompt: nothing that a user says"),
        ({"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "chosen begins with 'user'"),
        (
            {"chosen": [*BEFORE, USER, GOOD], "rejected": [BEFORE[0], BAD]},
            "chosen holds a user turn",
        ),
        ({"chosen": [USER], "rejected": [USER, BAD]}, "chosen is empty"),
        ({"prompt": "Hi", "chosen": [GOOD, TOOL], "rejected": "b"}, "last message of chosen is from 'tool'"),
        ({"comparison": {"prompt_conversation": [USER]}, "label": "Tie"}, "a tie"),
        ({"comparison": {"prompt_conversation": [USER]}, "label": "C"}, "the label is 'C'"),
        ({"comparison": {"prompt_conversation": [USER]}, "label": "A"}, "'completion_A' is not a list"),
        ("text", "not an object"),
    ],
)  # fmt: skip
def test_a_row_that_is_no_pair_says_why(row, said):
    """Ties, equal or empty answers, one answer only, answers to different questions: each has its reason."""
    with pytest.raises(RowError, match=said):
        normalise(row)


def test_pairs_come_from_everywhere_and_are_equal(write, rows, tmp_path):
    """A file, Parquet, a list and a dataset of the same pairs have one fingerprint; places name the row."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    sources = [
        Pairs.from_jsonl(write(rows, "pairs.jsonl")),
        Pairs.from_parquet(tmp_path / "pairs.parquet"),
        Pairs.from_list(rows),
        Pairs.from_dataset(datasets.Dataset.from_list(rows), progress=False),
    ]
    assert len({source.fingerprint for source in sources}) == 1
    assert all(source == sources[0] for source in sources)
    assert sources[0][17].where == "pairs.jsonl:18"
    assert sources[1][17].where == "pairs.parquet:row 18"
    assert sources[0][17].metadata == {"customer": "c1"}
    assert pickle.loads(pickle.dumps(sources[0])) == sources[0]
    assert sources[0] != Conversations.from_list([{"input": "a", "output": "b"}])


def test_a_swapped_pair_is_another_pair(rows):
    """The fingerprint tells chosen from rejected."""
    swapped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    assert Pairs.from_list(swapped).fingerprint != Pairs.from_list(rows).fingerprint


def test_bad_rows_are_named_or_put_aside(write, rows):
    """Bad pairs are named by line with an example of a good one, or quarantined and counted."""
    path = write([*rows[:2], {"prompt": "Hi", "chosen": "a", "rejected": "a"}, b"{torn", rows[3]], "p.jsonl")
    with pytest.raises(DataError) as caught:
        Pairs.from_jsonl(path)
    said = str(caught.value)
    for part in (
        "2 rows that cannot be used",
        "p.jsonl:3: chosen and rejected are the same",
        "p.jsonl:4: not",
    ):
        assert part in said
    assert '"rejected": "5."' in said
    assert "Pairs.from_jsonl" in said
    pairs = Pairs.from_jsonl(path, on_error="quarantine")
    assert (len(pairs), pairs.quarantined) == (3, 2)
    aside = [json.loads(line) for line in path.with_name("p.jsonl.quarantine.jsonl").read_text().splitlines()]
    assert [row["line"] for row in aside] == [3, 4]


def test_conversations_point_to_pairs_and_pairs_to_conversations(write, rows):
    """Loading with the wrong class says which is right."""
    with pytest.raises(DataError, match="load it with Pairs"):
        Conversations.from_jsonl(write(rows))
    with pytest.raises(DataError, match="load it with Conversations"):
        Pairs.from_list([{"input": "Hi", "output": "Hello"}])


def test_pairs_are_split_like_conversations(rows):
    """A pair stays on its side; groups stay together; the summary names the side."""
    pairs = Pairs.from_list(rows)
    train, held = pairs.split(0.3, seed=1, by="customer")
    assert len(train) + len(held) == 40
    assert not {p.metadata["customer"] for p in train} & {p.metadata["customer"] for p in held}
    assert train.summary()["split"][0]["side"] == "train"
    assert len(pairs.take(3)) == 3


def test_a_changed_row_is_refused(write, rows):
    """A pair that is no longer what was checked is an error that names it."""
    path = write(rows)
    pairs = Pairs.from_jsonl(path)
    path.write_bytes(path.read_bytes().replace(b"Answer 3.", b"Anwser 3."))
    with pytest.raises(DataError, match=r"tickets.jsonl has changed[\s\S]*tickets.jsonl:4"):
        pairs[3]


def test_a_pair_prints_well(rows):
    """Prompt, chosen and rejected are shown, as text and as a table in which nothing is smuggled."""
    text = Pairs.from_list(rows).explain()
    assert "chosen:" in text
    assert "40" in text
    page = Pairs.from_list([{**rows[0], "chosen": "<script>"}])._repr_html_()
    assert "chosen: assistant" in page
    assert "<script>" not in page


def test_only_the_answer_is_trained_on(tiny_model):
    """Both datums share the prompt with weight 0, also a call and its result that the prompt ends in."""
    renderer = render.renderer_for(str(tiny_model))
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}],
    }
    prompt = [*BEFORE, USER, call, {"role": "tool", "content": "4"}]
    for row in ({"prompt": prompt, "chosen": "4.", "rejected": "5, no?"}, pair(3)):
        (one,) = Pairs.from_list([row])
        chosen, rejected = one.datums(renderer)
        for datum, answer in ((chosen, one.chosen), (rejected, one.rejected)):
            targets = np.array(datum.loss_fn_inputs["target_tokens"].data)
            weights = np.array(datum.loss_fn_inputs["weights"].data)
            trained = renderer.tokenizer.decode(targets[weights > 0].tolist())
            assert trained.removesuffix("<|im_end|>") == answer[0]["content"]
        # What comes before the answers is the same in both, token for token.
        begin = int(np.argmax(np.array(chosen.loss_fn_inputs["weights"].data) > 0))
        assert chosen.model_input.to_ints()[: begin + 1] == rejected.model_input.to_ints()[: begin + 1]


@pytest.mark.parametrize("too_long", ["truncate", "drop"])
@pytest.mark.parametrize("max_length", [None, 90, 60])
@pytest.mark.parametrize("size", [40, 250])
def test_counts_equal_the_obvious_loop(tiny_model, max_length, too_long, size):
    """Pairs, total, truncated, dropped, masked and duplicates equal those counted datum by datum."""
    rows = [pair(i % 60) if i % 3 else {**pair(i), "prompt": "word " * (i % 50 + 1)} for i in range(size)]
    pairs = Pairs.from_list([*rows, *rows[:4], {**rows[5], "chosen": rows[5]["rejected"], "rejected": "x"}])
    renderer = render.renderer_for(str(tiny_model))
    counts = pairs.measure(str(tiny_model), max_length=max_length, too_long=too_long)
    limit = counts.max_length
    expected = {"pairs": 0, "total": 0, "truncated": 0, "dropped": 0, "masked": 0, "duplicates": 0}
    seen = set()
    for one in pairs:
        lengths = [
            render.example(one.conversation(side), renderer)[0].length for side in ("chosen", "rejected")
        ]
        datums = one.datums(renderer, max_length=limit, too_long=too_long)
        over = limit is not None and max(lengths) > limit
        if datums is None:
            expected["dropped" if over and too_long == "drop" else "masked"] += 1
            continue
        expected["pairs"] += 1
        expected["truncated"] += over
        expected["total"] += sum(datum.model_input.length for datum in datums)
        key = tuple(
            (tuple(datum.loss_fn_inputs["target_tokens"].data), tuple(datum.loss_fn_inputs["weights"].data))
            for datum in datums
        )
        expected["duplicates"] += key in seen
        seen.add(key)
    assert {name: getattr(counts, name) for name in expected} == expected
    if max_length == 60:
        assert counts.dropped or counts.masked
    used = measure_pairs(pairs, str(tiny_model), max_length=max_length, too_long=too_long).used
    assert int(used.sum()) == counts.pairs


def test_counts_print_well(tiny_model, rows):
    """Counts explain themselves, one a line."""
    counts = Pairs.from_list(rows).measure(str(tiny_model))
    assert f"{counts.total:,}" in counts.explain()
    assert counts._repr_html_().startswith("<pre>")
    assert PairCounts(pairs=3).explain()
