"""Conversations: loaded from everywhere, checked, split and fingerprinted."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_officer import Conversations
from tinker_officer.errors import DataError


def chat(user, assistant, **fields):
    """A row in the `messages` shape."""
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": turns, **fields}


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(str.strip)
tables = st.lists(st.tuples(texts, texts), min_size=8, max_size=40, unique=True).map(
    lambda pairs: [chat(user, assistant) for user, assistant in pairs]
)


def test_a_file_gives_its_rows_in_order(write, rows):
    """A JSONL file gives each row once, in order, with its place, its fields and an id of its content."""
    tickets = Conversations.from_jsonl(write(rows))

    assert len(tickets) == 40
    assert [c.messages[0]["content"] for c in tickets] == [f"Question {i}?" for i in range(40)]
    assert tickets[17].where == "tickets.jsonl:18"
    assert tickets[17].metadata == {"customer": "c1"}
    assert len({c.id for c in tickets}) == 40
    assert tickets[-1] == tickets[39]
    with pytest.raises(IndexError):
        tickets[40]


def test_every_source_of_the_same_rows_is_equal(write, rows, tmp_path):
    """A file, a gzip file, Parquet, a list and a dataset of the same rows have one fingerprint."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = write(rows)
    packed = tmp_path / "tickets.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tickets.parquet", row_group_size=7)
    sources = [
        Conversations.from_jsonl(plain),
        Conversations.from_jsonl(packed),
        Conversations.from_parquet(tmp_path / "tickets.parquet"),
        Conversations.from_list(rows),
        Conversations.from_dataset(datasets.Dataset.from_list(rows), progress=False),
    ]
    assert len({source.fingerprint for source in sources}) == 1
    assert all(source == sources[0] for source in sources)
    assert [c.where for c in (source[17] for source in sources)] == [
        "tickets.jsonl:18",
        "tickets.jsonl.gz:18",
        "tickets.parquet:row 18",
        "list[17]",
        sources[4][17].where,
    ]
    assert all(source[17].metadata == {"customer": "c1"} for source in sources)


def test_marks_blank_lines_and_line_ends_of_windows_are_no_problem(tmp_path, rows):
    """A byte-order mark, CRLF, blank lines and a missing last line end change nothing but line numbers."""
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join(json.dumps(row).encode() for row in rows))
    tickets = Conversations.from_jsonl(path)
    assert tickets == Conversations.from_list(rows)
    assert tickets[0].messages[0]["content"] == "Question 0?"
    assert tickets[1].where == "windows.jsonl:3"


def test_a_change_of_order_or_of_other_fields_keeps_the_fingerprint(rows):
    """The fingerprint is of what is said, whatever order it stands in."""
    shuffled = random.Random(0).sample(rows, len(rows))
    renamed = [{**row, "customer": "other"} for row in rows]
    whole = Conversations.from_list(rows).fingerprint
    assert Conversations.from_list(shuffled).fingerprint == whole
    assert Conversations.from_list(renamed).fingerprint == whole
    assert Conversations.from_list(rows[1:]).fingerprint != whole
    assert Conversations.from_list([*rows, rows[0]]).fingerprint != whole


@settings(max_examples=40, deadline=None)
@given(tables, st.randoms(use_true_random=False))
def test_any_order_of_any_rows_has_one_fingerprint(table, randomly):
    """Property: shuffling never changes the fingerprint, removing a row always does."""
    shuffled = list(table)
    randomly.shuffle(shuffled)
    assert Conversations.from_list(shuffled).fingerprint == Conversations.from_list(table).fingerprint
    assert Conversations.from_list(table[1:]).fingerprint != Conversations.from_list(table).fingerprint


@settings(max_examples=40, deadline=None)
@given(tables, tables, st.integers(0, 1000))
def test_adding_rows_moves_no_row(table, more, seed):
    """Property: every row stays on its side when others are added, and copies are never on both sides."""
    try:
        train, held = Conversations.from_list(table).split(0.4, seed=seed)
        larger_train, larger_held = Conversations.from_list([*more, *table, *table]).split(0.4, seed=seed)
    except DataError as error:
        assert "would be empty" in error.problem  # noqa: PT017 - a side of few rows may be empty by chance
        return
    assert {c.id for c in train} <= {c.id for c in larger_train}
    assert {c.id for c in held} <= {c.id for c in larger_held}
    assert not {c.id for c in larger_train} & {c.id for c in larger_held}


def test_a_split_has_the_share_that_was_asked_for():
    """Of ten thousand rows, the share held out is within four standard errors of the one asked for."""
    rows = Conversations.from_list([chat(f"q{i}", "a") for i in range(10_000)])
    for share in (0.05, 0.1, 0.5):
        train, held = rows.split(share, seed=3)
        assert len(train) + len(held) == 10_000
        assert abs(len(held) - share * 10_000) < 4 * (10_000 * share * (1 - share)) ** 0.5


def test_a_split_is_the_same_everywhere():
    """The sides are fixed by content and seed: these very rows, on any machine and in any version."""
    rows = Conversations.from_list([chat(f"q{i}", "a") for i in range(30)])
    _, held = rows.split(0.2, seed=0)
    assert [c.messages[0]["content"] for c in held] == [
        "q3",
        "q5",
        "q7",
        "q12",
        "q13",
        "q14",
        "q15",
        "q19",
        "q27",
    ]
    _, other = rows.split(0.2, seed=1)
    assert [c.id for c in other] != [c.id for c in held]


def test_splitting_a_side_again_does_not_repeat_the_first_decision():
    """Validation and test sides can be cut one after the other, with one seed."""
    rows = Conversations.from_list([chat(f"q{i}", "a") for i in range(2000)])
    rest, test = rows.split(0.2)
    train, valid = rest.split(0.2)
    assert 220 < len(valid) < 420
    assert len(train) + len(valid) + len(test) == 2000
    assert not {c.id for c in valid} & {c.id for c in test}


def test_a_grouped_split_keeps_groups_together(rows):
    """Split by a field, all rows of one value stand on one side."""
    train, held = Conversations.from_list(rows).split(0.3, seed=1, by="customer")
    assert not {c.metadata["customer"] for c in train} & {c.metadata["customer"] for c in held}
    assert len(train) + len(held) == 40


def test_copies_in_different_groups_do_not_leak(caplog):
    """A row whose copy is held out with another group is left out of training, and counted."""
    rows = [chat(f"q{i}", "a", customer=f"c{i}") for i in range(20)]
    rows += [chat(f"q{i}", "a", customer=f"d{i}") for i in range(20)]
    train, held = Conversations.from_list(rows).split(0.4, by="customer")
    left = train.splits[-1]["copies_left_out"]
    assert left > 0
    assert len(train) + len(held) + left == 40
    assert not {c.id for c in train} & {c.id for c in held}
    assert "left out" in caplog.text
    assert "left out" in train.explain()


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), "0.1", True])
def test_a_share_that_is_none_is_refused(rows, share):
    """A share that is not between 0 and 1 is refused."""
    with pytest.raises(DataError, match="above 0 and below 1"):
        Conversations.from_list(rows).split(share)


def test_a_side_that_would_be_empty_is_refused():
    """One row cannot be on both sides: the error says which side is empty, and of what."""
    one = Conversations.from_list([chat("q", "a")] * 5)
    with pytest.raises(DataError, match="side of the split would be empty"):
        one.split(0.5)


def test_a_field_that_a_row_lacks_is_refused(rows):
    """Grouping by a field that is missing names the row and the nearest field."""
    with pytest.raises(DataError, match="did you mean 'customer'"):
        Conversations.from_list(rows).split(0.5, by="costumer")


def test_a_seed_that_is_none_is_refused(rows):
    """A seed is a whole number."""
    with pytest.raises(DataError, match="seed"):
        Conversations.from_list(rows).split(0.5, seed="a")


def test_take_gives_the_first_rows(rows):
    """Taking gives the first rows, all of them when more are asked for; none is refused."""
    tickets = Conversations.from_list(rows)
    assert [c.id for c in tickets.take(3)] == [tickets[i].id for i in range(3)]
    assert len(tickets.take(1000)) == 40
    with pytest.raises(DataError, match="take"):
        tickets.take(0)


def test_a_slice_gives_rows_in_its_order(rows):
    """As a list would, with a step and from the end too; an empty one is no data."""
    tickets = Conversations.from_list(rows)
    ids = [one.id for one in tickets]
    for part in (slice(10, 20), slice(None, None, 7), slice(-3, None), slice(None, None, -1)):
        assert [one.id for one in tickets[part]] == ids[part]
    assert tickets[:10].fingerprint == tickets.take(10).fingerprint
    with pytest.raises(DataError, match="a slice needs rows"):
        _ = tickets[40:]


BAD = [
    b"{not json}",
    b'{"a": 1}',
    b"\xff\xfe",
    json.dumps(chat("q", "")).encode(),
    b'{"messages": [{"role": "user", "content": "x"}]}',
    b"[1]",
    b'{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "x"}]}',
]
REASONS = [
    "not JSON: Expecting property name enclosed in double quotes at column 2",
    "no messages: the row has 'a'",
    "not UTF-8: byte 0xff at column 1",
    "message 2 (assistant) has empty content",
    "no assistant turn: there is nothing to learn",
    "not an object but a list",
    "a text is not valid Unicode: it holds half of a surrogate pair",
]


def test_bad_rows_are_named_by_line_and_reason(write, rows):
    """The first five bad rows are named with file, line and reason, the others are counted."""
    path = write([*rows[:3], *BAD, *rows[3:]])
    with pytest.raises(DataError) as caught:
        Conversations.from_jsonl(path)
    error = caught.value
    assert error.problem == f"{path} has 7 rows that cannot be used"
    assert error.got.splitlines() == [
        *(f"tickets.jsonl:{line}: {reason}" for line, reason in zip(range(4, 9), REASONS, strict=False)),
        "and 2 more",
    ]
    assert 'on_error="quarantine"' in error.fix
    assert [found.name for found in path.parent.iterdir()] == ["tickets.jsonl"]


def test_a_file_that_ends_within_a_line_is_said_to(write, rows):
    """The last line, without its end, is named as perhaps cut off; the same line elsewhere is not."""
    path = write([b'{"messages": [', *rows])
    path.write_bytes(path.read_bytes() + b'{"messages": [{"role": "us')
    with pytest.raises(DataError) as caught:
        Conversations.from_jsonl(path)
    first, last = caught.value.got.splitlines()
    assert last.startswith(f"tickets.jsonl:{len(rows) + 2}: not JSON")
    assert last.endswith("the file ends here, within a line: it may be cut off")
    assert "ends here" not in first


def test_quarantine_is_not_advised_where_no_row_can_be_used(write):
    """A file of prompts alone asks for a look at the file: without its rows nothing would be left."""
    path = write([{"messages": [{"role": "user", "content": f"Hi {i}"}]} for i in range(7)])
    with pytest.raises(DataError, match="no assistant turn") as caught:
        Conversations.from_jsonl(path)
    assert caught.value.fix == f"look at the first lines of {path}: are these conversations?"


def test_quarantine_keeps_the_good_rows_and_loses_no_bad_one(write, rows):
    """Bad rows are copied beside the file with line, reason and every byte; good ones are loaded."""
    import base64

    path = write([*rows[:3], *BAD, *rows[3:]])
    tickets = Conversations.from_jsonl(path, on_error="quarantine")

    assert tickets == Conversations.from_list(rows)
    assert tickets.quarantined == 7
    beside = path.with_name("tickets.jsonl.quarantine.jsonl")
    kept = [json.loads(line) for line in beside.read_text().splitlines()]
    raw = [
        base64.b64decode(record["raw_base64"]) if "raw_base64" in record else record["raw"].encode()
        for record in kept
    ]
    assert raw == BAD
    assert [record["line"] for record in kept] == list(range(4, 11))
    assert [record["reason"] for record in kept] == REASONS
    assert sorted(found.name for found in path.parent.iterdir()) == sorted([path.name, beside.name])
    assert "7 rows" in tickets.explain()
    assert "7 quarantined" in repr(tickets)


def test_a_file_of_bad_rows_alone_is_refused_even_in_quarantine(write):
    """When no row is left, quarantine refuses too, and writes no file."""
    path = write(BAD)
    with pytest.raises(DataError, match="7 rows that cannot be used"):
        Conversations.from_jsonl(path, on_error="quarantine")
    assert [found.name for found in path.parent.iterdir()] == ["tickets.jsonl"]


def test_a_quarantine_that_cannot_be_written_leaves_nothing(write, rows, monkeypatch):
    """When the disk fills while bad rows are copied, the error is the disk's and no half file stays."""
    path = write([*rows, *BAD])

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="the disk is full: the quarantine could not be written"):
        Conversations.from_jsonl(path, on_error="quarantine")
    assert [found.name for found in path.parent.iterdir()] == ["tickets.jsonl"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on file size to set")
def test_a_copy_that_does_not_fit_leaves_nothing(write, rows, tmp_path):
    """When the disk refuses the unpacked copy, the error says so and no half copy stays."""
    packed = tmp_path / "t.jsonl.gz"
    packed.write_bytes(gzip.compress(write(rows * 50).read_bytes()))
    script = (
        "import errno, os, resource, signal, sys; from pathlib import Path\n"
        "from tinker_officer import Conversations, errors; from tinker_officer._files import home\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        # this limit stands for a full disk: the kernel refuses the write, by another number
        "from tinker_officer import _disk; _disk._NO_ROOM.add(errno.EFBIG)\n"
        "try: Conversations.from_jsonl(sys.argv[1])\n"
        "except errors.DataError as error: print(error.problem)\n"
        "print(list((home() / 'cache' / 'rows').iterdir()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(packed)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TINKER_OFFICER_HOME": str(tmp_path / "home")},
    )
    assert done.stdout.splitlines() == [
        "the disk is full: a copy of t.jsonl.gz could not be written",
        "[]",
    ]


def test_bad_rows_of_a_list_are_named_by_place(rows):
    """A list names its bad rows by index."""
    with pytest.raises(DataError, match=r"list\[40\]: not an object but a number"):
        Conversations.from_list([*rows, 7])


def test_a_missing_file_is_offered_the_nearest(write, rows):
    """A file that does not exist is refused, and the nearest name in the folder is the fix."""
    path = write(rows)
    with pytest.raises(DataError, match=r"did you mean 'tickets\.jsonl'") as caught:
        Conversations.from_jsonl(path.with_name("ticket.jsonl"))
    assert caught.value.fix == f"Conversations.from_jsonl({str(path)!r})"
    with pytest.raises(DataError, match="no such folder"):
        Conversations.from_jsonl(path.parent / "nowhere" / "x.jsonl")


def test_a_folder_is_offered_the_file_in_it(write, rows):
    """A folder instead of a file is refused, and the fix is a file in it."""
    path = write(rows)
    with pytest.raises(DataError, match="is a folder") as caught:
        Conversations.from_jsonl(path.parent)
    assert caught.value.fix == f"Conversations.from_jsonl({str(path)!r})"


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path, content):
    """A file without rows is said to be empty, with a row to write."""
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is empty"):
        Conversations.from_jsonl(path)
    with pytest.raises(DataError, match="is empty"):
        Conversations.from_list([])


def test_one_json_array_is_told_from_lines(tmp_path, rows):
    """A file that is one JSON array is refused with the line that loads it."""
    path = tmp_path / "tickets.json"
    path.write_text(json.dumps(rows, indent=1))
    with pytest.raises(DataError) as caught:
        Conversations.from_jsonl(path)
    assert f"Conversations.from_list(json.load(open({str(path)!r})))" in caught.value.fix


def test_a_parquet_file_is_told_from_lines(tmp_path, rows):
    """A Parquet file given to from_jsonl is refused with the call that loads it, and the other way round."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="from_parquet"):
        Conversations.from_jsonl(tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="from_jsonl"):
        Conversations.from_parquet(tmp_path / "t.jsonl")


@pytest.mark.parametrize("damage", ["cut", "garbled", "not gzip"])
def test_a_damaged_gzip_file_is_refused(tmp_path, write, rows, damage):
    """A gzip file that is cut off or garbled is refused, and no copy of half of it is kept."""
    packed = bytearray(gzip.compress(write(rows).read_bytes(), mtime=0))
    if damage == "cut":
        packed = packed[: len(packed) // 2]
    elif damage == "garbled":
        packed[len(packed) // 2] ^= 0xFF
        packed[-6] ^= 0xFF
    else:
        packed = packed[:2] + b"plain text"
    path = tmp_path / f"{damage}.jsonl.gz"
    path.write_bytes(packed)
    for _ in range(2):
        with pytest.raises(DataError, match="cannot be unpacked"):
            Conversations.from_jsonl(path)


def test_a_dataset_of_several_splits_is_refused(rows):
    """A dataset dictionary is refused with one of its splits; a stream with how to take from it."""
    import datasets

    data = datasets.Dataset.from_list(rows)
    with pytest.raises(DataError, match=r"dataset\['train'\]"):
        Conversations.from_dataset(datasets.DatasetDict(train=data))
    with pytest.raises(DataError, match="from_list"):
        Conversations.from_dataset(data.to_iterable_dataset())


@pytest.mark.parametrize("wrong", [{"on_error": "ignore"}, {"shape": "alpaca"}])
def test_unknown_settings_are_refused(write, rows, wrong):
    """A setting that does not exist is refused with those that do."""
    with pytest.raises(DataError, match="need: one of"):
        Conversations.from_jsonl(write(rows), **wrong)


@pytest.mark.parametrize("change", ["reordered", "shortened", "deleted", "edited"])
def test_a_file_that_changes_after_loading_is_an_error_not_garbage(write, rows, change):
    """A row that is no longer what was checked is refused by name; nothing else is read in its place."""
    path = write(rows)
    tickets = Conversations.from_jsonl(path)
    if change == "deleted":
        path.unlink()
    else:
        lines = path.read_bytes().splitlines(keepends=True)
        if change == "reordered":
            lines = lines[::-1]
        elif change == "shortened":
            lines = lines[:3]
        else:
            lines[20] = lines[20].replace(b"Answer", b"Anwser")
        path.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match=r"has changed since it was loaded"):
        tickets[20]


def test_appending_to_a_file_changes_nothing_that_was_loaded(write, rows):
    """Rows that were checked stay readable while others are appended."""
    path = write(rows)
    tickets = Conversations.from_jsonl(path)
    with path.open("a") as file:
        file.write(json.dumps(chat("new", "row")) + "\n")
    assert [c.messages[0]["content"] for c in tickets] == [f"Question {i}?" for i in range(40)]


def test_a_copy_survives_pickling(write, rows):
    """Conversations go to another process and read the same rows there."""
    _, held = Conversations.from_jsonl(write(rows)).split(0.3)
    again = pickle.loads(pickle.dumps(held))
    assert again == held
    assert list(again) == list(held)
    assert hash(again) == hash(held)


def test_threads_read_without_disturbing_each_other(write, rows):
    """Eight threads that read rows in different orders all get the right ones."""
    tickets = Conversations.from_jsonl(write(rows))
    wrong = []

    def read(seed: int) -> None:
        order = random.Random(seed).sample(range(40), 40)
        wrong.extend(i for i in order if tickets[i].messages[0]["content"] != f"Question {i}?")

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_summary_is_json_that_names_the_data(write, rows):
    """The summary holds source, rows, quarantine, fingerprint and split, and survives JSON."""
    path = write(rows)
    train, _ = Conversations.from_jsonl(path).split(0.25, seed=2, by="customer")
    summary = json.loads(json.dumps(train.summary()))
    assert summary == {
        "source": str(path),
        "rows": len(train),
        "quarantined": 0,
        "fingerprint": train.fingerprint,
        "split": [{"held_out": 0.25, "seed": 2, "by": "customer", "side": "train"}],
    }


def test_it_prints_well(write):
    """One line as repr, text as explain, and HTML in which a row cannot smuggle a script."""
    tickets = Conversations.from_jsonl(write([chat("<script>alert(1)</script>", "No & no")]))
    assert repr(tickets).startswith("<Conversations: 1 from ")
    assert "\n" not in repr(tickets)
    assert "tickets.jsonl:1" in tickets.explain()
    page = tickets._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "No &amp; no" in page


@pytest.mark.slow
def test_a_large_file_needs_little_memory(tmp_path):
    """Loading, splitting and walking a file of 60 MB takes less than a third of its size in memory."""
    path = tmp_path / "large.jsonl"
    filler = "x" * 6_000
    with path.open("w") as file:
        for i in range(10_000):
            file.write(json.dumps(chat(f"q{i}", filler)) + "\n")
    script = (
        "import resource, sys\n"
        "from tinker_officer import Conversations\n"
        "Conversations.from_list([{'input': 'a', 'output': 'b'}])[0]\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "train, held = Conversations.from_jsonl(sys.argv[1], progress=False).split(0.1)\n"
        "assert sum(1 for _ in train) + len(held) == 10_000; train.fingerprint\n"
        "print(peak() - before)"
    )
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert path.stat().st_size > 60e6
    assert int(done.stdout) * 1024 < 20e6
