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

A normalised message is plain JSON: `role`, `content` (text, or parts of type `text` and `thinking`) and,
where they apply, `tool_calls` (OpenAI's form, arguments as a JSON string), `tool_call_id`, `name` and
`trainable`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs


Json = dict[str, Any]


class RowError(ValueError):
    """Why a row cannot be used; the file and the line are added by whoever reads the row."""


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


# What other tools call the roles.
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
}
_MAY_BE_EMPTY = frozenset({"system", "tool"})


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


def normal_messages(messages: Iterable[Any]) -> tuple[Json, ...]:
    """Return messages in normal form.

    Raises:
        RowError: one of them is not what it must be.
    """
    return tuple(_message(message, number) for number, message in enumerate(messages, start=1))


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
                {"role": "assistant", "content": "", "tool_calls": [_loads(turn.get("value"), number)]}
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


def compact(value: Any) -> str:
    """Return `value` as JSON on one line without spaces, letters outside ASCII as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _message(message: Any, number: int) -> Json:
    """Return one message in normal form, or say what is wrong with message `number` (from 1)."""
    if not isinstance(message, Mapping):
        raise RowError(f"message {number} is not an object but {kind_of(message)}")
    role = message.get("role")
    known = _ROLES.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        raise RowError(f"message {number} has an unknown role: {role!r}")
    calls = _tool_calls(message, number)
    content = _content(message.get("content"), number, may_be_none=bool(calls))
    thinking = message.get("reasoning_content")
    if isinstance(thinking, str) and thinking:
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        content = [{"type": "thinking", "thinking": thinking}, *parts]
    if not calls and known not in _MAY_BE_EMPTY and _blank(content):
        raise RowError(f"message {number} ({known}) has empty content")
    normal: Json = {"role": known, "content": content}
    if calls:
        normal["tool_calls"] = calls
    for field in ("tool_call_id", "name"):
        if isinstance(message.get(field), str):
            normal[field] = message[field]
    trained = message.get("trainable", message.get("weight"))
    if trained is not None:
        if trained not in (0, 1):
            raise RowError(f"message {number} has the weight {trained!r}; 0 and 1 are possible")
        normal["trainable"] = bool(trained)
    return normal


def _content(content: Any, number: int, *, may_be_none: bool) -> str | list[Json]:
    """Return text, or parts when there is thinking among them; text parts alone are joined."""
    if isinstance(content, str):
        return content
    if content is None:
        if may_be_none:
            return ""
        raise RowError(f"message {number} has no content")
    if not isinstance(content, list):
        raise RowError(f"message {number} has content that is not text but {kind_of(content)}")
    parts: list[Json] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in {"text", "thinking"}:
            what = f"a part of type {kind!r}" if kind else f"a part that is {kind_of(part)}"
            raise RowError(f"message {number} has {what}; only text can be trained on here")
        if not isinstance(part.get(kind), str):
            raise RowError(f"message {number} has a {kind} part without text")
        parts.append({"type": kind, kind: part[kind]})
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _blank(content: str | list[Json]) -> bool:
    if isinstance(content, str):
        return not content.strip()
    return not any(part.get("text", "").strip() for part in content)


def _tool_calls(message: Mapping[str, Any], number: int) -> list[Json]:
    """Return the message's calls in OpenAI's form, the arguments as a JSON string."""
    calls = message.get("tool_calls") or []
    if message.get("function_call"):  # OpenAI's older form, one call
        calls = [{"function": message["function_call"]}]
    if not isinstance(calls, list):
        raise RowError(f"message {number} has tool_calls that are not a list but {kind_of(calls)}")
    return [_tool_call(call, number) for call in calls]


def _tool_call(call: Any, number: int) -> Json:
    if hasattr(call, "model_dump"):  # the cookbook's own ToolCall
        call = call.model_dump()
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RowError(f"message {number} has a tool call without a function name")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        _loads(arguments or "{}", number)
    elif arguments is None or isinstance(arguments, Mapping):
        arguments = compact(dict(arguments or {}))
    else:
        raise RowError(
            f"message {number} has tool call arguments that are {kind_of(arguments)}, not an object"
        )
    normal: Json = {
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments or "{}"},
    }
    if isinstance(call.get("id"), str):
        normal["id"] = call["id"]
    return normal


def _loads(text: Any, number: int) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, TypeError) as error:
        raise RowError(f"message {number} has a tool call that is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RowError(f"message {number} has a tool call that is {kind_of(value)}, not an object")
    return value


def tools_of(row: Mapping[str, Any]) -> tuple[Json, ...]:
    """Return the tools that a row offers the model, each `{"name", "description", "parameters"}`.

    Raises:
        RowError: they are not a list of functions with names.
    """
    tools = row.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise RowError(f"'tools' is not JSON: {error}") from error
    if not tools:
        return ()
    specs = [
        tool.get("function", tool) if isinstance(tool, Mapping) else tool for tool in as_list(tools, "tools")
    ]
    for spec in specs:
        if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
            raise RowError("'tools' has an entry without a name")
    return tuple(dict(spec) for spec in specs)


def _check_turns(messages: tuple[Json, ...]) -> None:
    if not messages:
        raise RowError("no messages: the list is empty")
    if all(message["role"] != "assistant" for message in messages):
        raise RowError("no assistant turn: there is nothing to learn")
    last = messages[-1]["role"]
    if last != "assistant":
        raise RowError(f"the last message is from {last!r}: nothing answers it")


def as_list(value: Any, field: str) -> list[Any]:
    """Return `value` as a list.

    Raises:
        RowError: it is none.
    """
    if not isinstance(value, list | tuple):
        raise RowError(f"{field!r} is not a list but {kind_of(value)}")
    return list(value)


def kind_of(value: Any) -> str:
    """Name a JSON type as JSON does."""
    if value is None:
        return "null"
    for kind, name in ((bool, "true or false"), (str, "text"), (int | float, "a number"), (list, "a list")):
        if isinstance(value, kind):
            return name
    return "an object" if isinstance(value, Mapping) else type(value).__name__
