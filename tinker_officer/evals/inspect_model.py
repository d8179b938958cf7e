"""Inspect's view of a Tinker sampler: `tinker_officer/<checkpoint>`.

This module imports inspect_ai, so it is itself imported only when a benchmark runs. The checkpoint stands in
the model's name *and* in its arguments: Inspect's caches, logs and `eval_set` tell two checkpoints apart by
these alone. A log can rebuild the model: without an opened target the arguments open one.
"""

from __future__ import annotations

import json
import logging
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    Content,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Logprob,
    Logprobs,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
    TopLogprob,
    get_model,
    modelapi,
)
from inspect_ai.tool import ToolCall, ToolChoice, ToolFunction, ToolInfo

from tinker_officer.errors import EvalError
from tinker_officer.evals.graders import Answer
from tinker_officer.evals.prompts import build_prompt, read_answer, tool_protocol
from tinker_officer.evals.target import Target, open_target
from tinker_officer.evals.tasks import unbound


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.renderers import Message

logger = logging.getLogger(__name__)

MAX_TOKENS = 2048
CONNECTIONS = 64
_IGNORED = ("frequency_penalty", "presence_penalty", "logit_bias", "best_of", "response_schema")
_STOPPED: dict[str, StopReason] = {"length": "max_tokens", "stop": "stop"}
_OPENED: ContextVar[Target | None] = ContextVar("tinker_officer_target", default=None)


def model_for(target: Target, config: GenerateConfig, *, tools: str = "auto") -> Model:
    """Return Inspect's model for an opened target; never one that was made before.

    Args:
        target: what is evaluated.
        config: generation settings for where neither the task nor its solver sets them.
        tools: how tools are written: `auto` or `text`.
    """
    token = _OPENED.set(target)
    try:
        model = get_model(
            f"tinker_officer/{target.name}",
            config=config,
            memoize=False,
            checkpoint=target.name,
            base_model=target.base_model,
            renderer_name=target.renderer_name,
            tools=tools,
        )
        model.api.candidate = True  # type: ignore[attr-defined]
        return model
    finally:
        _OPENED.reset(token)


class TinkerAPI(ModelAPI):
    """A Tinker sampler as an Inspect model.

    Args:
        model_name: the checkpoint's `tinker://` path, or the base model's name.
        base_url: of the Tinker service, where no target was opened; hosted Tinker when None.
        api_key: not used: the SDK reads `TINKER_API_KEY`.
        config: generation settings.
        checkpoint: as `model_name`; it is what Inspect's caches and logs record.
        base_model: the base model under the checkpoint.
        renderer_name: the renderer; the base model's usual one when None.
        tools: how tools are written: `auto` (the renderer's own format, where it has one) or `text`.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's own signature
        checkpoint: str | None = None,
        base_model: str | None = None,
        renderer_name: str | None = None,
        tools: str = "auto",
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self.checkpoint = checkpoint or model_name
        self.base_model, self.renderer_name, self.tools = base_model, renderer_name, tools
        self.used: set[str] = set()
        self.candidate = self.judged_itself = False
        self._target = _OPENED.get()

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - Inspect's own name
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Return what the checkpoint answers, with usage, stop reason and, where asked, log-probabilities.

        Raises:
            EvalError: it is the candidate, and a scorer asks it to judge.
        """
        if self.candidate and _is_scoring():
            self.judged_itself = True
            raise unbound("grader")
        target = self._target or await self._open()
        messages = [_as_json(message) for message in input]
        if config.system_message:
            messages.insert(0, {"role": "system", "content": config.system_message})
        functions = _functions(tools, tool_choice)
        protocol = tool_protocol(target.renderer, self.tools)
        prompt = build_prompt(target.renderer, messages, functions, protocol=protocol)
        params = _params(config, target)
        self._note(params, config)
        if target.context is not None and prompt.length > target.context:
            return self._overflow(prompt.length, target.context)
        started = time.monotonic()
        response = await target.client.sample(
            prompt, config.num_choices or 1, params, topk_sample_logprobs=config.top_logprobs or 0
        )
        elapsed = time.monotonic() - started
        choices = []
        for number, sequence in enumerate(response.sequences):
            read = read_answer(target.renderer, sequence, functions, protocol=protocol)
            choice = self._choice(*read, number)
            choice.logprobs = _logprobs(sequence, target) if config.logprobs else None
            choices.append(choice)
        written = sum(len(sequence.tokens) for sequence in response.sequences)
        usage = ModelUsage(
            input_tokens=prompt.length, output_tokens=written, total_tokens=prompt.length + written
        )
        return ModelOutput(model=self.model_name, choices=choices, usage=usage, time=elapsed)

    def _overflow(self, tokens: int, context: int) -> ModelOutput:
        """Return what Inspect expects of a prompt that does not fit: no answer, and why; agents act on it."""
        output = ModelOutput.from_content(self.model_name, "", stop_reason="model_length")
        output.error = f"the prompt has {tokens} tokens, the context of the model {context}"
        output.usage = ModelUsage(input_tokens=tokens, total_tokens=tokens)
        return output

    async def _open(self) -> Target:
        import tinker

        service = tinker.ServiceClient(base_url=self.base_url) if self.base_url else tinker.ServiceClient()
        self._target = await open_target(self.checkpoint, service, self.renderer_name)
        return self._target

    def _note(self, params: tinker.SamplingParams, config: GenerateConfig) -> None:
        """Remember the settings really used: those of the solver, the task and the model, merged."""
        used = {
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k,
            "max_tokens": params.max_tokens,
            "seed": params.seed,
            "num_choices": config.num_choices or 1,
            "stop_seqs": config.stop_seqs or [],
        }
        self.used.add(json.dumps(used, sort_keys=True))
        for name in _IGNORED:
            if getattr(config, name) is not None:
                logger.warning("evals.setting_ignored", extra={"officer.setting": name})

    def _choice(self, answer: Answer, message: Message, number: int) -> ChatCompletionChoice:
        calls = _tool_calls(answer, message, number)
        stopped = _STOPPED.get(answer.stop_reason, "unknown")
        return ChatCompletionChoice(
            message=ChatMessageAssistant(
                content=_content(message), tool_calls=calls or None, model=self.model_name, source="generate"
            ),
            stop_reason="tool_calls" if calls and stopped == "stop" else stopped,
        )

    async def count_text_tokens(self, text: str) -> int:
        """Return the tokens of `text`, by the model's own tokenizer (Inspect would download one)."""
        return len(self._target.renderer.tokenizer.encode(text)) if self._target else max(1, len(text) // 4)

    def max_connections(self) -> int:
        """Return how many requests may be under way at once."""
        return CONNECTIONS

    def connection_key(self) -> str:
        """Return the pool that requests are counted in: a student and its judge never share one."""
        return f"tinker_officer:{self.checkpoint}"


def _is_scoring() -> bool:
    """Return whether Inspect is past the solvers of this sample: whatever asks now is a scorer."""
    from inspect_ai.event import SpanBeginEvent
    from inspect_ai.log import transcript

    begun = (
        event.name
        for event in reversed(transcript().events)
        if isinstance(event, SpanBeginEvent) and event.name in {"solvers", "scorers"}
    )
    return next(begun, "solvers") == "scorers"


class Unbound(ModelAPI):
    """Stands in for a role that nobody bound: without it Inspect would let the candidate grade itself."""

    asked = False

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002, ARG002 - Inspect's own signature
        tools: list[ToolInfo],  # noqa: ARG002
        tool_choice: ToolChoice,  # noqa: ARG002
        config: GenerateConfig,  # noqa: ARG002
    ) -> ModelOutput:
        """Refuse.

        Raises:
            EvalError: always.
        """
        self.asked = True
        raise unbound(self.model_name)


@modelapi(name="tinker_officer")
def tinker_officer() -> type[ModelAPI]:
    """Return the class of `tinker_officer/<checkpoint>` models."""
    return TinkerAPI


@modelapi(name="tinker_officer_unbound")
def tinker_officer_unbound() -> type[ModelAPI]:
    """Return the class that stands in for judges that nobody bound."""
    return Unbound


def _as_json(message: ChatMessage) -> dict[str, Any]:
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


def _content(message: Message) -> str | list[Content]:
    if isinstance(message["content"], str):
        return message["content"]
    parts: list[Content] = []
    for part in message["content"]:
        if part["type"] == "thinking":
            parts.append(ContentReasoning(reasoning=part["thinking"]))
        elif part["type"] == "text":
            parts.append(ContentText(text=part["text"]))
    return parts


def _functions(tools: list[ToolInfo], tool_choice: ToolChoice) -> list[dict[str, Any]]:
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


def _tool_calls(answer: Answer, message: Message, number: int) -> list[ToolCall]:
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


def _params(config: GenerateConfig, target: Target) -> tinker.SamplingParams:
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


def _logprobs(sequence: tinker.SampledSequence, target: Target) -> Logprobs:
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
