"""Between Inspect's messages, tools and settings, and those of the renderers and the SDK.

This module imports inspect_ai, so it is itself imported only when a benchmark runs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    Content,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Logprob,
    Logprobs,
    TopLogprob,
)
from inspect_ai.tool import ToolCall, ToolChoice, ToolFunction, ToolInfo

from tinker_officer.errors import EvalError
from tinker_officer.evals.graders import Answer


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.renderers import Message

    from tinker_officer.evals.target import Target

MAX_TOKENS = 2048


def as_json(message: ChatMessage) -> dict[str, Any]:
    """Return Inspect's message as the renderers take it."""
    record: dict[str, Any] = {"role": message.role, "content": _parts(message)}
    if isinstance(message, ChatMessageAssistant) and message.tool_calls:
        record["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.function, "arguments": json.dumps(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if isinstance(message, ChatMessageTool):
        record |= {
            key: value
            for key, value in (("tool_call_id", message.tool_call_id), ("name", message.function))
            if value is not None
        }
    return record


def _parts(message: ChatMessage) -> str | list[dict[str, str]]:
    if isinstance(message.content, str):
        return message.content
    parts: list[dict[str, str]] = []
    for part in message.content:
        if isinstance(part, ContentText):
            parts.append({"type": "text", "text": part.text})
        elif isinstance(part, ContentReasoning):
            parts.append({"type": "thinking", "thinking": part.reasoning})
        else:
            raise EvalError(
                "the task shows the model something other than text",
                got=f"content of type {part.type!r}",
                need="text",
                fix="choose a task without images, audio or documents",
            )
    if message.role == "assistant" and any(part["type"] == "thinking" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts if part["type"] == "text")


def content_of(message: Message) -> str | list[Content]:
    """What a message of the renderer says, as Inspect writes it."""
    if isinstance(message["content"], str):
        return message["content"]
    parts: list[Content] = []
    for part in message["content"]:
        if part["type"] == "thinking":
            parts.append(ContentReasoning(reasoning=part["thinking"]))
        elif part["type"] == "text":
            parts.append(ContentText(text=part["text"]))
    return parts


def functions_of(tools: list[ToolInfo], tool_choice: ToolChoice) -> list[dict[str, Any]]:
    """The tools that may be called, as OpenAI describes functions."""
    if tool_choice == "none":
        return []
    only = tool_choice.name if isinstance(tool_choice, ToolFunction) else None
    return [
        {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters.model_dump(exclude_none=True),
        }
        for tool in tools
        if only in {None, tool.name}
    ]


def tool_calls(answer: Answer, message: Message, number: int) -> list[ToolCall]:
    """The calls of a message, also those that cannot be read; `number` tells their ids from others."""
    calls = [
        ToolCall(
            id=f"call_{number}_{index}",
            function=call.name,
            arguments={} if "" in call.arguments else call.arguments,
            parse_error="the arguments are not a JSON object" if "" in call.arguments else None,
        )
        for index, call in enumerate(answer.calls)
    ]
    broken = message.get("unparsed_tool_calls") or ()
    return calls + [
        ToolCall(id=f"call_{number}_{index}", function="unreadable", arguments={}, parse_error=call.error)
        for index, call in enumerate(broken, start=len(calls))
    ]


def sampling_params(config: GenerateConfig, target: Target) -> tinker.SamplingParams:
    """Inspect's settings as Tinker's."""
    import tinker

    stop = target.renderer.get_stop_sequences()
    if config.stop_seqs:  # strings and token ids cannot be mixed
        decode = target.renderer.tokenizer.decode
        stop = [*(decode([one]) if isinstance(one, int) else one for one in stop), *config.stop_seqs]
    return tinker.SamplingParams(
        temperature=0.0 if config.temperature is None else config.temperature,
        top_p=1.0 if config.top_p is None else config.top_p,
        top_k=-1 if config.top_k is None else config.top_k,
        max_tokens=config.max_tokens or MAX_TOKENS,
        seed=config.seed,
        stop=stop,
    )


def logprobs_of(sequence: tinker.SampledSequence, target: Target) -> Logprobs:
    """The log-probabilities of an answer's tokens, in nats, as Inspect writes them."""
    decode = target.renderer.tokenizer.decode
    tops = sequence.topk_logprobs or [None] * len(sequence.tokens)
    return Logprobs(
        content=[
            Logprob(
                token=decode([token]),
                logprob=logprob,
                top_logprobs=[TopLogprob(token=decode([one]), logprob=value) for one, value in top or []]
                or None,
            )
            for token, logprob, top in zip(sequence.tokens, sequence.logprobs or [], tops, strict=True)
        ]
    )
