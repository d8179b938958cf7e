"""Tools for models that have no format of their own for them: declared in the system message, called in text.

The declaration is short, because small models are trained and run on few tokens: a line for each function,
with the names and types of its parameters (`=None` for one that may be left out) and its description.

    You can call these functions:
    area(base: integer, height: integer, unit: string = None)  # Calculate the area of a triangle.
    To call one, reply with the call alone, like name(argument=value). If none fits, reply in words.

A model that is to learn this format is trained on exactly it: `declare` writes the system message of the
training rows too. `PROTOCOL` is part of what identifies an eval, and changes with the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tinker_officer.evals.calls import Call


PROTOCOL = "text-1"

_BEFORE = "You can call these functions:"
_AFTER = "To call one, reply with the call alone, like name(argument=value). If none fits, reply in words."
_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "any"}


def declare(functions: Iterable[Mapping[str, Any]], *, system: str = "") -> str:
    """Return the system message that offers `functions` to a model.

    Args:
        functions: each `{"name", "description", "parameters": {"properties", "required"}}`, the parameters
            as JSON Schema or with BFCL's type names.
        system: what the system message says besides; it comes first.
    """
    lines = [_BEFORE, *map(_line, functions), _AFTER]
    return (system.rstrip() + "\n\n" if system.strip() else "") + "\n".join(lines)


def _line(function: Mapping[str, Any]) -> str:
    schema = function.get("parameters") or {}
    required = set(schema.get("required") or ())
    shown = ", ".join(
        f"{name}: {_type(parameter)}" + ("" if name in required else " = None")
        for name, parameter in (schema.get("properties") or {}).items()
    )
    described = " ".join(str(function.get("description") or "").split())
    return f"{function['name']}({shown})" + (f"  # {described}" if described else "")


def _type(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        return "any"
    choices = schema.get("enum")
    if isinstance(choices, Sequence) and not isinstance(choices, str) and choices:
        return " | ".join(map(repr, choices))
    kind = schema.get("type")
    if isinstance(kind, list | tuple):
        return " | ".join(map(str, kind))
    name = _TYPES.get(str(kind), str(kind or "any"))
    items = schema.get("items")
    return f"array[{_type(items)}]" if name == "array" and isinstance(items, Mapping) and items else name


def parameters_of(functions: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the parameter names of each function, in order: for calls with positional arguments."""
    return {
        str(function["name"]): list((function.get("parameters") or {}).get("properties") or {})
        for function in functions
    }


def write_calls(calls: Sequence[Call]) -> str:
    """Return calls as the protocol writes them: one a line."""
    return "\n".join(map(str, calls))


def write_result(name: str, content: str) -> str:
    """Return what a tool answered, as the user message that tells the model."""
    return f"{name or 'The function'} returned: {content}"
