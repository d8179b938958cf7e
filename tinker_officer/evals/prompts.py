"""From messages and tools to the tokens of a prompt, and from sampled tokens to an answer.

Both the benchmarks and the user's own cases pass here, through the cookbook's renderer, so that a model
sees in an eval what it saw in training. Renderers that know a tool format use it; for the others tools are
declared and called in text (`text_tools`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tinker_officer.evals import text_tools
from tinker_officer.evals.calls import Call, parse_calls
from tinker_officer.evals.graders import Answer


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.renderers import Message, Renderer

    from tinker_officer.evals.cases import Case

Json = Mapping[str, Any]
_ANY_TOOL = {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}


@lru_cache(maxsize=16)
def tool_protocol(renderer: Renderer, wanted: str = "auto") -> str:
    """Return how tools are written: `native`, the renderer's own format, or the name of the text protocol.

    Args:
        renderer: of the cookbook.
        wanted: `auto` for the renderer's own format where it has one; `text` for the text protocol.
    """
    if wanted == "text":
        return text_tools.PROTOCOL
    try:
        renderer.create_conversation_prefix_with_tools([_ANY_TOOL], "")
    except NotImplementedError:
        return text_tools.PROTOCOL
    return "native"


def tools_asked(renderer: Renderer, wanted: str, cases: Iterable[Case]) -> str:
    """Return how the tools of `cases` are written, as `tool_protocol` does; `none` where no case has any."""
    return tool_protocol(renderer, wanted) if any(case.tools for case in cases) else "none"


def build_prompt(
    renderer: Renderer, messages: Sequence[Json], tools: Sequence[Json] = (), *, protocol: str = "native"
) -> tinker.ModelInput:
    """Return the prompt that asks the model for the next assistant turn.

    Args:
        renderer: of the cookbook.
        messages: role and content, tool calls in OpenAI's form; a leading system message is kept.
        tools: the functions on offer, `{"name", "description", "parameters"}`.
        protocol: as `tool_protocol` returns it.
    """
    native = not tools or protocol == "native"
    turns = [_native(message) if native else _as_text(message) for message in messages]
    if not tools:
        return _rendered(renderer, turns)
    system = ""
    if turns and turns[0]["role"] == "system":
        system, turns = _text(turns[0]["content"]), turns[1:]
    if native:
        specs = [{"description": "", "parameters": {}, **tool} for tool in tools]
        prefix = renderer.create_conversation_prefix_with_tools(specs, system)
    else:
        prefix = [{"role": "system", "content": text_tools.declare(tools, system=system)}]
    return _rendered(renderer, [*prefix, *turns])


def _rendered(renderer: Renderer, turns: list[Any]) -> tinker.ModelInput:
    prompt: tinker.ModelInput = renderer.build_generation_prompt(turns)
    return prompt


def read_answer(
    renderer: Renderer,
    sequence: tinker.SampledSequence,
    tools: Sequence[Json] = (),
    *,
    protocol: str = "native",
) -> tuple[Answer, Message]:
    """Return what was sampled as an answer, and as the renderer's message.

    Args:
        renderer: the one that built the prompt.
        sequence: what was sampled.
        tools: the functions that were on offer; without any, text is never read as a call.
        protocol: as `tool_protocol` returns it.
    """
    message, _ = renderer.parse_response(list(sequence.tokens))
    text = _text(message["content"])
    calls = tuple(
        _call(call.function.name, call.function.arguments) for call in message.get("tool_calls") or ()
    )
    if tools and not calls and protocol != "native":
        calls = tuple(parse_calls(text, parameters=text_tools.parameters_of(tools)))
    return Answer(text, calls, str(sequence.stop_reason), len(sequence.tokens)), message


def _call(name: str, arguments: str) -> Call:
    try:
        decoded = json.loads(arguments or "{}")
    except ValueError:
        decoded = None
    return Call(name, decoded if isinstance(decoded, dict) else {"": arguments})


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def _native(message: Json) -> dict[str, Any]:
    """Return a message as the cookbook has it: tool calls as its own objects."""
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    from tinker_cookbook.renderers import ToolCall

    return {
        **message,
        "tool_calls": [
            call if isinstance(call, ToolCall) else ToolCall.model_validate(call) for call in calls
        ],
    }


def _as_text(message: Json) -> dict[str, Any]:
    if message["role"] == "tool":
        told = text_tools.write_result(str(message.get("name") or ""), _text(message["content"]))
        return {"role": "user", "content": told}
    if not message.get("tool_calls"):
        return dict(message)
    calls = _native(message)["tool_calls"]
    written = text_tools.write_calls([_call(call.function.name, call.function.arguments) for call in calls])
    said = _text(message["content"])
    return {"role": message["role"], "content": f"{said}\n{written}" if said else written}
