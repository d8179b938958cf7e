"""Row shapes: what people keep conversations in, made into one.

========== ===============================================================================================
shape      a row
========== ===============================================================================================
messages   `{"messages": [{"role": ..., "content": ...}, ...], "tools": [...]}`: OpenAI's and the cookbook's
sharegpt   `{"conversations": [{"from": "human", "value": ...}, ...], "system": ...}`
prompt     `{"prompt": ..., "completion": ...}`: text, or lists of messages
instruct   `{"instruction": ..., "input": ..., "output": ...}`: the input, if any, follows the instruction
io         `{"input": ..., "output": ..., "system": ...}`
========== ===============================================================================================

An `output`, `completion` or `input` that is an object or a list is written as compact JSON
(`{"a":1}`): that is the text the model learns to write. Fields that a shape does not use are kept as the
conversation's metadata. Preference pairs are recognised, and refused: `pair_formats` reads them.

A message in normal form is as `messages` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from tinker_officer.data.messages import (
    Json,
    RowError,
    as_list,
    compact,
    kind_of,
    loads,
    normal_messages,
    tools_of,
)


@attrs.frozen
class Row:
    """A row after normalising: the messages, the tools that the model may call, and all other fields."""

    messages: tuple[Json, ...]
    tools: tuple[Json, ...]
    metadata: Json

    @property
    def content(self) -> Any:
        """What the row says, without its other fields: what its digest is of."""
        return [self.messages, self.tools] if self.tools else self.messages

    @property
    def turns(self) -> tuple[Json, ...]:
        """All of its messages."""
        return self.messages


def normalise(row: Any, shape: str | None = None) -> Row:
    """Return `row` in the one shape that everything else works on.

    Args:
        row: what a line of the file holds.
        shape: the row's shape, one of `SHAPES`; found by its fields when None.

    Raises:
        RowError: the row has no known shape, or a turn of it is not what it must be.
    """
    if not isinstance(row, Mapping):
        raise RowError(f"not an object but {kind_of(row)}")
    if shape is None:
        shape = _shape_of(row)
    required, read = SHAPES[shape]
    missing = [field for field in required if row.get(field) is None]
    if missing:
        raise RowError(f"no {' and no '.join(map(repr, missing))}, which the shape {shape!r} needs")
    messages, used = read(row)
    checked = normal_messages(messages)
    _check_turns(checked)
    return Row(messages=checked, tools=tools_of(row), metadata=metadata_of(row, used))


def metadata_of(row: Mapping[str, Any], used: Iterable[str]) -> Json:
    """Return the fields of `row` that its shape does not use."""
    known = {*used, "tools"}
    return {str(key): value for key, value in row.items() if key not in known}


def _shape_of(row: Mapping[str, Any]) -> str:
    if row.get("chosen") is not None and row.get("rejected") is not None:
        raise RowError("a preference pair ('chosen', 'rejected'): load it with Pairs, for DPO, not for SFT")
    for shape, (required, _) in SHAPES.items():
        if all(row.get(field) is not None for field in required):
            return shape
    fields = ", ".join(map(repr, row)) or "no fields"
    if isinstance(row.get("text"), str):
        raise RowError("raw text ('text') without turns: nothing says what the model is to write")
    raise RowError(f"no messages: the row has {fields[:120]}")


def _from_messages(row: Mapping[str, Any]) -> tuple[list[Any], set[str]]:
    return as_list(row["messages"], "messages"), {"messages"}


def _from_sharegpt(row: Mapping[str, Any]) -> tuple[list[Any], set[str]]:
    turns = sharegpt_turns(as_list(row["conversations"], "conversations"))
    return with_system(row, turns), {"conversations", "system"}


def sharegpt_turns(said: Sequence[Any]) -> list[Any]:
    """Return ShareGPT's turns (`from`, `value`) as messages.

    Raises:
        RowError: a turn is not an object, or holds a call that is not JSON.
    """
    turns = []
    for number, turn in enumerate(said, start=1):
        if not isinstance(turn, Mapping):
            raise RowError(f"turn {number} is not an object but {kind_of(turn)}")
        if "from" not in turn and "role" in turn:  # some files mix the two
            turns.append(turn)
        elif turn.get("from") == "function_call":
            turns.append(
                {"role": "assistant", "content": "", "tool_calls": [loads(turn.get("value"), number)]}
            )
        else:
            turns.append({"role": turn.get("from"), "content": turn.get("value")})
    return turns


def _from_prompt(row: Mapping[str, Any]) -> tuple[list[Any], set[str]]:
    before = turns_of(row["prompt"], "user")
    return with_system(row, [*before, *turns_of(row["completion"], "assistant")]), {
        "prompt",
        "completion",
        "system",
    }


def _from_instruction(row: Mapping[str, Any]) -> tuple[list[Any], set[str]]:
    asked = _text(row["instruction"])
    if row.get("input"):
        asked += "\n\n" + _text(row["input"])
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": _text(row["output"])}]
    return with_system(row, turns), {"instruction", "input", "output", "system"}


def _from_io(row: Mapping[str, Any]) -> tuple[list[Any], set[str]]:
    turns = [*turns_of(row["input"], "user"), {"role": "assistant", "content": _text(row["output"])}]
    return with_system(row, turns), {"input", "output", "system"}


_Reader = Callable[[Mapping[str, Any]], tuple[list[Any], set[str]]]

# Tried in this order: the fields that each needs, and how it is read.
SHAPES: dict[str, tuple[tuple[str, ...], _Reader]] = {
    "messages": (("messages",), _from_messages),
    "sharegpt": (("conversations",), _from_sharegpt),
    "prompt": (("prompt", "completion"), _from_prompt),
    "instruct": (("instruction", "output"), _from_instruction),
    "io": (("input", "output"), _from_io),
}


def with_system(row: Mapping[str, Any], turns: list[Any]) -> list[Any]:
    """Return `turns` after the row's system message, if it has one."""
    system = row.get("system")
    return [{"role": "system", "content": system}, *turns] if system else turns


def turns_of(value: Any, role: str) -> list[Any]:
    """Return `value` as messages: a list of messages as it is, anything else as one message of `role`."""
    if (
        isinstance(value, list)
        and value
        and all(isinstance(turn, Mapping) and "role" in turn for turn in value)
    ):
        return value
    return [{"role": role, "content": _text(value)}]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else compact(value)


def _check_turns(messages: tuple[Json, ...]) -> None:
    if not messages:
        raise RowError("no messages: the list is empty")
    if all(message["role"] != "assistant" for message in messages):
        raise RowError("no assistant turn: there is nothing to learn")
    last = messages[-1]["role"]
    if last != "assistant":
        raise RowError(f"the last message is from {last!r}: nothing answers it")
