"""Function calls as text: read from what a model wrote, and held against what was allowed.

Models write calls in three ways: as Python (`area(base=3, height=4)`, alone, in a list, or several lines),
as JSON (`{"name": "area", "arguments": {...}}`), or as JSON between `<tool_call>` tags. All three are read.
A call must *begin* the text: a sentence that mentions one makes no call.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs


_FENCE = re.compile(r"^\s*```[\w-]*\n(.*?)(?:\n\s*```.*)?$", re.DOTALL)
_TAG = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
_HEAD = re.compile(r"[A-Za-z_][\w.]*\s*\(")
_QUOTES = ('"""', "'''", '"', "'")
_LITERALS = {"true": True, "false": False, "null": None}
_PUNCTUATION = re.compile(r"[ ,./\-_*^]")


@attrs.frozen
class Call:
    """One function call: its name, and its arguments by name."""

    name: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.arguments.items())})"


def parse_calls(text: str, *, parameters: Mapping[str, Sequence[str]] | None = None) -> list[Call]:
    """Return the calls that `text` makes, in order; none when it does not begin with one.

    Args:
        text: what the model wrote; a code fence around it is taken off.
        parameters: by function name, its parameters in order, to give positional arguments their names;
            without it they are named `"0"`, `"1"` and so on.
    """
    fenced = _FENCE.match(text)
    body = (fenced.group(1) if fenced else text).strip()
    if "<tool_call>" in body:
        return [call for block in _TAG.findall(body) for call in _from_json(block)]
    if body[:1] in {"{", "["}:
        found = _from_json(body)
        if found:
            return found
    return _from_python(body, parameters or {})


def _from_json(text: str) -> list[Call]:
    try:
        value, _ = json.JSONDecoder().raw_decode(text.strip())
    except ValueError:
        return []
    calls = [_from_record(record) for record in (value if isinstance(value, list) else [value])]
    return [call for call in calls if call] if all(calls) else []


def _from_record(record: Any) -> Call | None:
    """Read `{"name", "arguments"}`, OpenAI's `{"function": {...}}`, or `{"area": {"base": 3}}`."""
    if not isinstance(record, dict):
        return None
    inner = record.get("function", record)
    if isinstance(inner, str):
        inner = {**record, "name": inner}
    name = inner.get("name") if isinstance(inner, dict) else None
    if not isinstance(name, str):
        pairs = list(record.items())
        alone = len(pairs) == 1 and isinstance(pairs[0][1], dict)
        return Call(pairs[0][0], pairs[0][1]) if alone else None
    arguments = inner.get("arguments", inner.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            return None
    return Call(name, arguments) if isinstance(arguments, dict) else None


def _from_python(text: str, parameters: Mapping[str, Sequence[str]]) -> list[Call]:
    calls: list[Call] = []
    position = len(text) - len(text.lstrip(" [\n"))
    while (head := _HEAD.match(text, position)) is not None:
        end = _closing(text, head.end())
        if end is None:
            break
        call = _read(text[position:end], parameters)
        if call is None:
            break
        calls.append(call)
        position = end
        while position < len(text) and text[position] in " ,;\n\t":
            position += 1
    return calls


def _closing(text: str, start: int) -> int | None:
    """Return the position behind the bracket that closes the one before `start`, strings passed over."""
    depth, position = 1, start
    while position < len(text):
        quote = next((mark for mark in _QUOTES if text.startswith(mark, position)), None)
        if quote:
            position = _string_end(text, position + len(quote), quote)
            continue
        depth += (text[position] in "([{") - (text[position] in ")]}")
        position += 1
        if depth == 0:
            return position
    return None


def _string_end(text: str, start: int, quote: str) -> int:
    position = start
    while position < len(text) and not text.startswith(quote, position):
        position += 2 if text[position] == "\\" else 1
    return position + len(quote)


def _read(text: str, parameters: Mapping[str, Sequence[str]]) -> Call | None:
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    if not isinstance(node, ast.Call):
        return None
    name = ast.unparse(node.func)
    names = parameters.get(name, ())
    arguments = {
        (names[i] if i < len(names) else str(i)): _value(argument) for i, argument in enumerate(node.args)
    }
    arguments |= {word.arg: _value(word.value) for word in node.keywords if word.arg is not None}
    return Call(name, arguments)


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return _LITERALS.get(node.id, node.id)
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {
            str(_value(key)): _value(item) for key, item in zip(node.keys, node.values, strict=True) if key
        }
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ast.unparse(node)


def allowed_calls(target: Any) -> list[dict[str, dict[str, list[Any]]]]:
    """Return what `target` allows, in the form of BFCL: `[{"area": {"base": [3], "unit": ["cm", ""]}}]`.

    Args:
        target: that form (or one entry of it); a call as text; or `{"name": ..., "arguments": {...}}`, whose
            values are then the only ones allowed.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(target, str):
        calls = parse_calls(target)
        if not calls:
            raise ValueError(f"the target is not a function call: {target[:80]!r}")
        return [_exactly(call) for call in calls]
    entries = target if isinstance(target, list) else [target]
    return [_allowed(entry) for entry in entries]


def _allowed(entry: Any) -> dict[str, dict[str, list[Any]]]:
    if isinstance(entry, str):
        return allowed_calls(entry)[0]
    if isinstance(entry, dict) and isinstance(entry.get("name") or entry.get("function"), str | dict):
        call = _from_record(entry)
        if call:
            return _exactly(call)
    if isinstance(entry, dict) and len(entry) == 1:
        name, arguments = next(iter(entry.items()))
        if isinstance(arguments, dict):
            return {
                name: {key: value if isinstance(value, list) else [value] for key, value in arguments.items()}
            }
    raise ValueError(f"the target is not a function call: {str(entry)[:80]!r}")


def _exactly(call: Call) -> dict[str, dict[str, list[Any]]]:
    return {call.name: {key: [value] for key, value in call.arguments.items()}}


def calls_match(
    calls: Sequence[Call], allowed: Sequence[Mapping[str, Mapping[str, list[Any]]]], *, strict: bool = False
) -> bool:
    """Return whether `calls` are what `allowed` asks for: as many, each matching another entry, in any order.

    Args:
        calls: what the model called.
        allowed: as `allowed_calls` returns it; an argument whose list holds `""` may be left out.
        strict: compare strings exactly, and names with their dots; otherwise as BFCL does, without regard
            to case, spaces and punctuation.
    """
    if len(calls) != len(allowed):
        return False
    open_entries = list(allowed)
    for call in calls:
        entry = next((one for one in open_entries if _matches(call, one, strict=strict)), None)
        if entry is None:
            return False
        open_entries.remove(entry)
    return True


def _matches(call: Call, entry: Mapping[str, Mapping[str, list[Any]]], *, strict: bool) -> bool:
    name, wanted = next(iter(entry.items()))
    same = call.name == name if strict else call.name.replace(".", "_") == name.replace(".", "_")
    if not same or any(key not in wanted for key in call.arguments):
        return False
    return all(
        _among(call.arguments[key], values, strict=strict) if key in call.arguments else "" in values
        for key, values in wanted.items()
    )


def _among(value: Any, values: Iterable[Any], *, strict: bool) -> bool:
    return any(_same(value, one, strict=strict) for one in values)


def _same(value: Any, wanted: Any, *, strict: bool) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, str) and isinstance(wanted, str):
        return value == wanted if strict else _plain(value) == _plain(wanted)
    if isinstance(value, list | tuple) and isinstance(wanted, list | tuple):
        return len(value) == len(wanted) and all(
            _same(one, other, strict=strict) for one, other in zip(value, wanted, strict=True)
        )
    if isinstance(value, dict) and isinstance(wanted, dict):  # its values may be lists of what is allowed
        return set(value) <= set(wanted) and all(
            _same(value[key], one, strict=strict)
            or (isinstance(one, list) and _among(value[key], one, strict=strict))
            if key in value
            else isinstance(one, list) and "" in one
            for key, one in wanted.items()
        )
    return bool(value == wanted)


def _plain(text: str) -> str:
    return _PUNCTUATION.sub("", text).lower().replace("'", '"')
