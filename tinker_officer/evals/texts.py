"""What an eval asks, as text: what must not stand in the training data.

The user's turns, and for held-out conversations the answers too. Not the system's: a system prompt is the
same in training and in the exam, and says nothing about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinker_officer.evals.cases import Case, unique_ids


if TYPE_CHECKING:
    from inspect_ai import Task

    from tinker_officer.data.conversations import Conversations


def of_conversations(data: Conversations) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the id of each conversation, and what is said in it."""
    names = unique_ids(conversation.id for conversation in data)
    for conversation, name in zip(data, names, strict=True):
        yield name, _said(conversation.messages, ("user", "assistant"))


def of_cases(cases: Sequence[Case]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the id of each case, and what it asks."""
    for case in cases:
        yield case.id, _said(case.messages, ("user",))


def of_task(task: Task) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the id of each sample, and what it asks."""
    for sample in task.dataset:
        if isinstance(sample.input, str):
            yield str(sample.id), (sample.input,)
        else:
            yield str(sample.id), [message.text for message in sample.input if message.role == "user"]


def _said(messages: Iterable[Mapping[str, Any]], roles: Sequence[str]) -> list[str]:
    return [text_of(message) for message in messages if message["role"] in roles]


def text_of(message: Mapping[str, Any]) -> str:
    """Return what a message says, in one text."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", part.get("thinking", ""))) for part in content)
