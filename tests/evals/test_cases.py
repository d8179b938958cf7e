"""Cases: the rows that people have, and what is said of bad ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tinker_officer import Conversations
from tinker_officer.errors import DataError
from tinker_officer.evals.cases import load_cases


USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("row", "target", "turns"),
    [
        ({"input": "Hi", "output": "Hello"}, "Hello", 1),
        ({"input": "Hi", "target": {"a": 1}}, {"a": 1}, 1),
        ({"input": "Hi", "output": "Hello", "system": "Be brief."}, "Hello", 2),
        ({"messages": [USER], "target": "Hello"}, "Hello", 1),
        ({"messages": [USER, {"role": "assistant", "content": "Hello"}]}, "Hello", 1),
        (
            {
                "messages": [
                    USER,
                    {
                        "role": "assistant",
                        "content": "",
                        "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}],
                    },
                ]
            },
            [{"name": "f", "arguments": {"x": 1}}],
            1,
        ),
    ],
)
def test_the_shapes_of_a_case(row: dict[str, Any], target: Any, turns: int) -> None:
    """What is asked and what is wanted come out of each shape."""
    (case,) = load_cases([row])
    assert case.target == target
    assert len(case.messages) == turns
    assert case.messages[-1]["role"] == "user"


def test_cases_come_from_plain_and_gzip_files_and_conversations(tmp_path: Path) -> None:
    """The same rows give the same cases, wherever they lie."""
    rows = [{"input": f"say {i}", "output": str(i)} for i in range(3)]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    plain, zipped = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz"
    plain.write_text(text)
    zipped.write_bytes(gzip.compress(text.encode()))
    first = load_cases(plain)
    assert [case.where for case in first] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"]
    assert [case.id for case in load_cases(zipped)] == [case.id for case in first]
    assert [case.input_digest for case in load_cases(rows)] == [case.input_digest for case in first]
    conversations = load_cases(Conversations.from_list(rows))
    assert [case.target for case in conversations] == ["0", "1", "2"]


def test_equal_conversations_stay_two_cases_of_one_group() -> None:
    """A repeated conversation is not lost, and does not count as a second source."""
    row = {"input": "Hi", "output": "Hello"}
    first, second = load_cases(Conversations.from_list([row, row]))
    assert first.id != second.id
    assert first.group == second.group


def test_every_bad_row_is_named_by_its_line(tmp_path: Path) -> None:
    """The first five with their reasons, the rest counted; nothing is skipped in silence."""
    path = tmp_path / "eval.jsonl"
    lines = [
        '{"input": "a", "output": "b"}',
        "{torn",
        "[]",
        '{"input": "a"}',
        '{"output": "a"}',
        '{"messages": [{"role": "user", "content": "x"}]}',
        '{"messages": "x", "target": 1}',
        '{"input": "a", "output": "b"}',
        '{"input": "a", "output": "c", "id": [1]}',
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        load_cases(path)
    said = str(caught.value)
    assert "8 of the cases" in said
    for number, reason in (
        (2, "not JSON"),
        (3, "not a JSON object"),
        (4, "no target"),
        (5, "nothing to ask"),
    ):
        assert f"eval.jsonl:{number}: {reason}" in said
    assert "and 3 more" in said


def test_a_case_twice_is_an_error() -> None:
    """Two rows of one id cannot be paired."""
    rows = [{"input": "a", "output": "b", "id": "x"}, {"input": "c", "output": "d", "id": "x"}]
    with pytest.raises(DataError, match="row 2: the same case as row 1"):
        load_cases(rows)


def test_a_missing_and_an_empty_file_are_explained(tmp_path: Path) -> None:
    """Both name the file and what is needed."""
    with pytest.raises(DataError, match="cannot be read"):
        load_cases(tmp_path / "none.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(DataError, match="there are no cases"):
        load_cases(empty)
