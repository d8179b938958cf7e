"""The user's own cases: what to ask, and what is wanted, from a file, a list or `Conversations`.

A row is one of::

    {"input": "Where is my order?", "output": "..."}            # "target" is as good as "output"
    {"messages": [{"role": "user", ...}], "target": ...}        # the target may be any JSON
    {"messages": [..., {"role": "assistant", ...}]}             # the last turn is the target

and may have an `id`, `tools` that the model may call, and a `group` whose cases count as one source.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs

from tinker_officer._digest import digest
from tinker_officer.data.conversations import Conversation, Conversations
from tinker_officer.data.formats import normalise
from tinker_officer.data.messages import RowError
from tinker_officer.errors import DataError


_SHOWN = 5
_GZIP = b"\x1f\x8b"


@attrs.frozen
class Case:
    """One question to the model.

    Attributes:
        id: its own `id`, or a digest of what it asks and wants.
        messages: what the model is shown.
        target: what is wanted, as the grader reads it.
        where: where it stands: `eval.jsonl:17`.
        tools: functions that the model may call.
        group: its source, when several cases share one.
    """

    id: str
    messages: tuple[dict[str, Any], ...]
    target: Any
    where: str
    tools: tuple[dict[str, Any], ...] = ()
    group: str = ""

    @property
    def input_digest(self) -> str:
        """Of what the model is shown, and of what is wanted."""
        return digest([_jsonable(list(self.messages)), list(self.tools), self.target])[:16]


def load_cases(
    source: str | Path | Iterable[Mapping[str, Any]] | Conversations, *, need_target: bool = True
) -> tuple[Case, ...]:
    """Return the cases of `source`, every one of them checked.

    Args:
        source: a JSONL file (plain or gzip), rows, or conversations whose last turn is the target.
        need_target: whether a case must say what is wanted; a judge can do without.

    Raises:
        DataError: the file is missing or empty, or rows are bad: the first are named with their lines.
    """
    if isinstance(source, Conversations):
        names = unique_ids(conversation.id for conversation in source)
        return tuple(map(_from_conversation, source, names))
    name = str(source) if isinstance(source, str | Path) else "the list"
    return _checked(rows_of(source), name, need_target=need_target)


def rows_of(source: str | Path | Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Yield each raw row with its place; a `RowError` in place of a row that is not JSON."""
    if isinstance(source, str | Path):
        return _read(Path(source))
    return ((f"row {number}", row) for number, row in enumerate(source, start=1))


def some(cases: tuple[Case, ...], limit: int | None) -> tuple[Case, ...]:
    """Return `limit` cases, chosen by a hash of their ids: the same ones for every model."""
    if limit is None or limit >= len(cases):
        return cases
    chosen = set(sorted(range(len(cases)), key=lambda i: sha256(cases[i].id.encode()).digest())[:limit])
    return tuple(case for number, case in enumerate(cases) if number in chosen)


def _read(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(_GZIP) else raw
    except OSError as error:
        raise DataError(
            "the case file cannot be read",
            got=f"{path}: {error.strerror or error}",
            need="a JSONL file, one case a line",
            fix='suite.product("tickets", "eval.jsonl", grader=graders.includes)',
        ) from None
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if line.strip():
            where = f"{path.name}:{number}"
            try:
                yield where, json.loads(line)
            except ValueError as error:
                yield where, RowError(f"not JSON: {error}")


def _checked(rows: Iterable[tuple[str, Any]], source: str, *, need_target: bool) -> tuple[Case, ...]:
    cases: dict[str, Case] = {}
    problems: list[str] = []
    for where, row in rows:
        try:
            case = _case(row, where, need_target=need_target)
        except RowError as error:
            problems.append(f"{where}: {error}")
            continue
        if case.id in cases:
            problems.append(f"{where}: the same case as {cases[case.id].where}, id {case.id!r}")
        cases[case.id] = case
    if problems:
        more = f"\nand {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"{len(problems)} of the cases in {source} cannot be used",
            got="\n".join(problems[:_SHOWN]) + more,
            need='{"input": ..., "output": ...} or {"messages": [...], "target": ...}, each case once',
            fix="mend or remove these lines",
        )
    if not cases:
        raise DataError(
            f"there are no cases in {source}",
            got="0 rows",
            need="at least one case",
            fix='{"input": "Where is my order?", "output": "on its way"}',
        )
    return tuple(cases.values())


def _case(row: Any, where: str, *, need_target: bool) -> Case:
    if isinstance(row, RowError):
        raise row
    if not isinstance(row, Mapping):
        raise RowError("not a JSON object")
    asked, target = _split(row, need_target=need_target)
    answered = normalise({**asked, "tools": row.get("tools")})
    named = row.get("id")
    if named is not None and not isinstance(named, str | int):
        raise RowError(f"the id is not text: {named!r}")
    try:
        own = digest([list(answered.messages), list(answered.tools), target])[:16]
    except (ValueError, TypeError) as error:
        raise RowError(f"the target is not JSON: {error}") from None
    return Case(
        id=own if named is None else str(named),
        messages=answered.messages[:-1],
        target=target,
        where=where,
        tools=answered.tools,
        group=str(row.get("group") or ""),
    )


def _split(row: Mapping[str, Any], *, need_target: bool) -> tuple[dict[str, Any], Any]:
    """Return the row as an answered conversation, for checking, and what is wanted of the answer."""
    marker = {"role": "assistant", "content": "?"}
    target = row.get("target", row.get("output"))
    if row.get("messages") is not None:
        messages = row["messages"]
        if not isinstance(messages, list):
            raise RowError("'messages' is not a list")
        if target is not None:
            return {"messages": [*messages, marker]}, target
        last = messages[-1] if messages else None
        if not isinstance(last, Mapping) or last.get("role") != "assistant":
            if not need_target:
                return {"messages": [*messages, marker]}, None
            raise RowError("no target: neither a 'target' nor a last turn of the assistant")
        return {"messages": messages}, _wanted(normalise({"messages": messages}).messages[-1])
    if row.get("input") is None:
        raise RowError("nothing to ask: neither 'messages' nor 'input'")
    if target is None and need_target:
        raise RowError("no target: neither 'output' nor 'target'")
    return {"input": row["input"], "output": marker["content"], "system": row.get("system")}, target


def _wanted(message: Mapping[str, Any]) -> Any:
    """Return what an assistant turn answers: its calls if it makes any, else its text."""
    calls = message.get("tool_calls")
    if calls:
        return [_function(call) for call in calls]
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def _function(call: Any) -> dict[str, Any]:
    record = call.model_dump() if hasattr(call, "model_dump") else call
    function = record["function"]
    return {"name": function["name"], "arguments": json.loads(function["arguments"] or "{}")}


def unique_ids(ids: Iterable[str]) -> Iterator[str]:
    """Yield each id, the second of its kind as `id#2` and so on: equal conversations have equal ids."""
    seen: Counter[str] = Counter()
    for name in ids:
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}#{seen[name]}"


def _from_conversation(conversation: Conversation, name: str) -> Case:
    *before, last = conversation.messages
    return Case(
        id=name,
        messages=tuple(before),
        target=_wanted(last),
        where=conversation.where,
        tools=conversation.tools,
        group=str(conversation.metadata.get("group") or conversation.id),
    )


def _jsonable(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_none=True)
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in value.items()}
    return [_jsonable(item) for item in value] if isinstance(value, list | tuple) else value
