"""Shapes of preference pairs: what people keep them in, made into one.

========== ===============================================================================================
shape      a row
========== ===============================================================================================
prompt     `{"prompt": ..., "chosen": ..., "rejected": ...}`: each text, a message, or a list of messages;
           the prompt may be called `question`, `instruction` or `input`
sharegpt   `{"conversations": [{"from": "human", "value": ...}], "chosen": ..., "rejected": ...}`
whole      `{"chosen": ..., "rejected": ...}`: two conversations that begin alike, as lists of messages or
           as text with paragraphs that begin with "Human:" and "Assistant:" (Anthropic's HH)
comparison the cookbook's `LabeledComparison`, as an object or as JSON: `comparison` with
           `prompt_conversation`, `completion_A` and `completion_B`, and a `label`
========== ===============================================================================================

A pair in normal form is a prompt and two answers to it, each a list of messages. Where an answer repeats
the prompt (UltraFeedback's do), the prompt is cut off. An answer is what the assistant writes, tool results
included, up to its last turn: two conversations that part before their last user turn are refused, because
their difference is not the assistant's alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from tinker_officer.data.formats import metadata_of, sharegpt_turns, turns_of, with_system
from tinker_officer.data.messages import Json, RowError, as_list, kind_of, normal_messages, tools_of


_PROMPTS = ("prompt", "question", "instruction", "input")
_HH = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}
_SIDES = {"A": ("completion_A", "completion_B"), "B": ("completion_B", "completion_A")}


@attrs.frozen
class PairRow:
    """A pair in normal form: a prompt, the better answer and the worse one, and all other fields."""

    prompt: tuple[Json, ...]
    chosen: tuple[Json, ...]
    rejected: tuple[Json, ...]
    tools: tuple[Json, ...]
    metadata: Json

    @property
    def content(self) -> Any:
        """What the pair says, without its other fields: what its digest is of."""
        said = [self.prompt, self.chosen, self.rejected]
        return [*said, self.tools] if self.tools else said

    @property
    def turns(self) -> tuple[Json, ...]:
        """All of its messages, on all sides."""
        return (*self.prompt, *self.chosen, *self.rejected)


def normalise(row: Any, shape: str | None = None) -> PairRow:
    """Return `row` in the one shape that everything else works on.

    Args:
        row: what a line of the file holds, or a `LabeledComparison`.
        shape: the row's shape, one of `SHAPES`; found by its fields when None.

    Raises:
        RowError: the row is no pair of a known shape, or a turn of it is not what it must be.
    """
    if hasattr(row, "comparison") and hasattr(row, "label"):  # the cookbook's own
        row = {"comparison": vars(row.comparison), "label": row.label}
    if not isinstance(row, Mapping):
        raise RowError(f"not an object but {kind_of(row)}")
    shape = shape or _shape_of(row)
    required, read = SHAPES[shape]
    missing = [field for field in required if row.get(field) is None]
    if missing:
        raise RowError(f"no {' and no '.join(map(repr, missing))}, which the shape {shape!r} needs")
    before, better, worse = read(row)
    prompt = _named(with_system(row, before), "prompt")
    chosen, rejected = (
        _after(prompt, _named(answer, name)) for answer, name in ((better, "chosen"), (worse, "rejected"))
    )
    if not before:
        shared, chosen, rejected = _parted(chosen, rejected)
        prompt = (*prompt, *shared)
    _check(prompt, chosen, rejected)
    return PairRow(prompt, chosen, rejected, tools_of(row), metadata_of(row, _USED[shape]))


def _shape_of(row: Mapping[str, Any]) -> str:
    for shape, (required, _) in SHAPES.items():
        if all(row.get(field) is not None for field in required) and (
            shape != "prompt" or any(row.get(name) is not None for name in _PROMPTS)
        ):
            return shape
    fields = ", ".join(map(repr, row)) or "no fields"
    if any(row.get(field) is not None for field in ("messages", "completion", "output")):
        raise RowError("one answer, not a pair: that is for SFT; load it with Conversations")
    raise RowError(f"no pair ('chosen' and 'rejected'): the row has {fields[:120]}")


_Parts = tuple[list[Any], list[Any], list[Any]]


def _from_comparison(row: Mapping[str, Any]) -> _Parts:
    comparison, label = row["comparison"], row["label"]
    if label == "Tie":
        raise RowError("a tie: neither answer is preferred")
    if label not in _SIDES:
        raise RowError(f"the label is {label!r}; 'A' and 'B' are possible")
    if not isinstance(comparison, Mapping):
        raise RowError(f"'comparison' is not an object but {kind_of(comparison)}")
    before, better, worse = (
        as_list(comparison.get(name), name) for name in ("prompt_conversation", *_SIDES[label])
    )
    return before, better, worse


def _from_sharegpt(row: Mapping[str, Any]) -> _Parts:
    said = sharegpt_turns(as_list(row["conversations"], "conversations"))
    return said, _answer(row["chosen"]), _answer(row["rejected"])


def _from_prompt(row: Mapping[str, Any]) -> _Parts:
    name = next((name for name in _PROMPTS if row.get(name) is not None), None)
    if name is None:
        raise RowError(f"no prompt ({', '.join(map(repr, _PROMPTS))}), which the shape 'prompt' needs")
    value = row[name]
    asked = _hh(value) if isinstance(value, str) and _HH.match(value) else turns_of(value, "user")
    if asked[-1:] == [{"role": "assistant", "content": ""}]:  # "... Assistant:" asks for the answer
        asked = asked[:-1]
    return asked, _answer(row["chosen"]), _answer(row["rejected"])


def _from_whole(row: Mapping[str, Any]) -> _Parts:
    for name in ("chosen", "rejected"):
        if isinstance(row[name], str) and not _HH.match(row[name]):
            raise RowError(f"{name!r} is text, and there is no prompt that it answers")
    return [], _answer(row["chosen"]), _answer(row["rejected"])


# Tried in this order: the fields that each needs, and how it is read.
SHAPES: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], _Parts]]] = {
    "comparison": (("comparison", "label"), _from_comparison),
    "sharegpt": (("conversations", "chosen", "rejected"), _from_sharegpt),
    "prompt": (("chosen", "rejected"), _from_prompt),
    "whole": (("chosen", "rejected"), _from_whole),
}
_USED = {
    "comparison": ("comparison", "label", "system"),
    "sharegpt": ("conversations", "chosen", "rejected", "system"),
    "prompt": (*_PROMPTS, "chosen", "rejected", "system"),
    "whole": ("chosen", "rejected", "system"),
}


def _answer(value: Any) -> list[Any]:
    """Return an answer's messages: text is the assistant's turn, or a whole conversation as HH writes it."""
    if isinstance(value, str) and _HH.match(value):
        return _hh(value)
    if isinstance(value, Mapping) and ("role" in value or "from" in value):
        value = [value]
    if isinstance(value, list) and value and all(isinstance(t, Mapping) and "from" in t for t in value):
        return sharegpt_turns(value)
    return turns_of(value, "assistant")


def _hh(text: str) -> list[Any]:
    _, *parts = _HH.split(text)
    return [
        {"role": _HH_ROLES[role], "content": said.strip()}
        for role, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _named(messages: list[Any], name: str) -> tuple[Json, ...]:
    """Return messages in normal form; an error says whose they are."""
    try:
        return normal_messages(messages)
    except RowError as error:
        raise RowError(f"{name}: {error}") from error


def _after(prompt: tuple[Json, ...], answer: tuple[Json, ...]) -> tuple[Json, ...]:
    """Return `answer` without the prompt that it repeats, with its system message or without."""
    asked = tuple(message for message in prompt if message["role"] != "system")
    for repeated in (prompt, asked):
        if repeated and answer[: len(repeated)] == repeated:
            return answer[len(repeated) :]
    return answer


def _parted(
    chosen: tuple[Json, ...], rejected: tuple[Json, ...]
) -> tuple[tuple[Json, ...], tuple[Json, ...], tuple[Json, ...]]:
    """Return the turns that two conversations share up to where the assistant's answers part."""
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    return chosen[:same], chosen[same:], rejected[same:]


def _check(prompt: tuple[Json, ...], chosen: tuple[Json, ...], rejected: tuple[Json, ...]) -> None:
    if chosen == rejected:
        raise RowError("chosen and rejected are the same: nothing is preferred")
    if not any(message["role"] == "user" for message in prompt):
        raise RowError("no prompt: nothing that a user says stands before both answers")
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer:
            raise RowError(f"{name} is empty: there is no answer")
        if answer[0]["role"] != "assistant":
            raise RowError(f"{name} begins with {answer[0]['role']!r}, not with an answer to the prompt")
        if any(message["role"] == "user" for message in answer):
            raise RowError(f"{name} holds a user turn: what is preferred must be the assistant's alone")
        if answer[-1]["role"] != "assistant":
            raise RowError(f"the last message of {name} is from {answer[-1]['role']!r}: nothing answers it")
