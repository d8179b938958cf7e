"""Messages in normal form: what every shape of row comes down to.

A normalised message is plain JSON: `role`, `content` (text, or parts of type `text` and `thinking`) and,
where they apply, `tool_calls` (OpenAI's form, arguments as a JSON string), `tool_call_id`, `name` and
`trainable`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


Json = dict[str, Any]


class RowError(ValueError):
    """Why a row cannot be used; the file and the line are added by whoever reads the row."""


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


def normal_messages(messages: Iterable[Any]) -> tuple[Json, ...]:
    """Return messages in normal form.

    Raises:
        RowError: one of them is not what it must be.
    """
    return tuple(_message(message, number) for number, message in enumerate(messages, start=1))


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
        loads(arguments or "{}", number)
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


def loads(text: Any, number: int) -> Any:
    """Return the object that a tool call of message `number` holds as JSON.

    Raises:
        RowError: it holds none.
    """
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


def compact(value: Any) -> str:
    """Return `value` as JSON on one line without spaces, letters outside ASCII as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


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
