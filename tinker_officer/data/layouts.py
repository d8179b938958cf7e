"""How a ChatML renderer puts a conversation together, so that texts can be encoded by the thousand.

A ChatML turn is three pieces that are tokenised apart: a header that is always the same, a text, and one
end token. The tokens of a conversation are those of its pieces, in order, so the texts of many
conversations can be encoded in one batch. A layout says which header and which text a message has; a
message that it does not know for certain (tool calls, thinking, `trainable`) is left to the renderer.

Only renderers whose code was read are here, by their exact class. `counting` compares each with the
renderer on a sample of every corpus all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from tinker_officer.data.messages import Json


if TYPE_CHECKING:
    from tinker_cookbook.renderers import Renderer

_KNOWN = frozenset({"role", "content", "name", "tool_call_id"})
_FRAME = "<think>\n\n</think>\n\n"  # what Qwen3 writes before an answer that did not think


@attrs.define
class Batch:
    """Messages of several conversations, after each other.

    Args:
        headers: which of the layout's headers each message has.
        trained: 1 where the text and the end token of a message are trained on.
        texts: what each message says.
        messages: how many messages each conversation has.
        letters: the length of all texts.
    """

    headers: list[int] = attrs.Factory(list)
    trained: list[int] = attrs.Factory(list)
    texts: list[str] = attrs.Factory(list)
    messages: list[int] = attrs.Factory(list)
    letters: int = 0


class Layout(Protocol):
    """The fixed pieces of a renderer, and which piece goes where."""

    @property
    def headers(self) -> tuple[tuple[int, ...], ...]:
        """The tokens of each header."""

    @property
    def end(self) -> int:
        """The token that ends a message."""

    def pieces(self, messages: Sequence[Json]) -> list[tuple[int, str]] | None:
        """Return the header and the text of each message; None for a conversation that it does not know."""


@attrs.frozen
class OurChatML:
    """`data.chatml.ChatML`: the text of a turn holds its role, but for the assistant's."""

    headers: tuple[tuple[int, ...], ...]
    end: int
    default_system: str | None

    def pieces(self, messages: Sequence[Json]) -> list[tuple[int, str]] | None:
        """Return the header and the text of each message."""
        found: list[tuple[int, str]] = []
        later = 0
        if self.default_system is not None and messages[0]["role"] != "system":
            found.append((0, f"system\n{self.default_system}"))
            later = 1
        for message in messages:
            role, content = message["role"], message["content"]
            if type(content) is not str or not message.keys() <= _KNOWN:
                return None
            found.append((2 + later, content) if role == "assistant" else (later, f"{role}\n{content}"))
            later = 1
        return found


@attrs.frozen
class Qwen3:
    """The cookbook's `Qwen3Renderer` and `Qwen3InstructRenderer`: the header holds the role."""

    headers: tuple[tuple[int, ...], ...]
    end: int
    thinking: bool

    def pieces(self, messages: Sequence[Json]) -> list[tuple[int, str]] | None:
        """Return the header and the text of each message."""
        found: list[tuple[int, str]] = []
        for index, message in enumerate(messages):
            role, content = message["role"], message["content"]
            if type(content) is not str or not message.keys() <= _KNOWN:
                return None
            if role == "tool":
                role, content = "user", f"<tool_response>\n{content}\n</tool_response>"
            found.append((2 * _ROLES.index(role) + (index > 0), content))
        if self.thinking and any(message["role"] == "user" for message in messages):
            header, content = found[-1]
            if "<think>" in content or "</think>" in content:
                return None
            found[-1] = (header, _FRAME + content.lstrip("\n"))
        return found


_ROLES = ("system", "user", "assistant")


def layout_for(renderer: Renderer) -> Layout | None:
    """Return the layout of a renderer, or None when only the renderer itself knows."""
    from tinker_cookbook.renderers.qwen3 import Qwen3InstructRenderer, Qwen3Renderer

    from tinker_officer.data.chatml import ChatML

    kind = type(renderer)
    if kind not in {ChatML, Qwen3InstructRenderer, Qwen3Renderer} or not renderer.strip_thinking_from_history:
        return None

    def encode(text: str) -> tuple[int, ...]:
        return tuple(renderer.tokenizer.encode(text, add_special_tokens=False))

    (end,) = encode("<|im_end|>")
    if kind is ChatML:
        texts = ["<|im_start|>", "\n<|im_start|>", "<|im_start|>assistant\n", "\n<|im_start|>assistant\n"]
        return OurChatML(tuple(map(encode, texts)), end, renderer.default_system)
    texts = [f"{line_end}<|im_start|>{role}\n" for role in _ROLES for line_end in ("", "\n")]
    return Qwen3(tuple(map(encode, texts)), end, thinking=kind is Qwen3Renderer)


def put(batch: Batch, layout: Layout, messages: Sequence[Json], train_on: str) -> bool:
    """Add a conversation to `batch`; return False, and add nothing, if the layout does not know it."""
    pieces = layout.pieces(messages)
    if pieces is None:
        return False
    first = 0
    if train_on == "last":
        first = 1 + max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    added = len(pieces) - len(messages)  # a system message that the renderer writes by itself
    batch.trained += [0] * added
    batch.trained += [
        int(i >= first and message["role"] == "assistant") for i, message in enumerate(messages)
    ]
    for header, text in pieces:
        batch.headers.append(header)
        batch.texts.append(text)
        batch.letters += len(text)
    batch.messages.append(len(pieces))
    return True


def fixed_tokens(layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return all fixed tokens after each other, the end token last; and how long each header is."""
    flat = [token for header in layout.headers for token in header]
    return (*flat, layout.end), tuple(len(header) for header in layout.headers)
