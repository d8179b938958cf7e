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
from typing import TYPE_CHECKING

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
    get_model,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from tinker_officer.evals.graders import Answer
from tinker_officer.evals.inspect_messages import (
    as_json,
    content_of,
    functions_of,
    logprobs_of,
    sampling_params,
    tool_calls,
)
from tinker_officer.evals.prompts import build_prompt, read_answer, tool_protocol
from tinker_officer.evals.target import Target, open_target
from tinker_officer.evals.tasks import unbound


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.renderers import Message

logger = logging.getLogger(__name__)

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
        model.api.candidate = True  # type: ignore[attr-defined]  # it is a TinkerAPI, by its name
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
        messages = [as_json(message) for message in input]
        if config.system_message:
            messages.insert(0, {"role": "system", "content": config.system_message})
        functions = functions_of(tools, tool_choice)
        protocol = tool_protocol(target.renderer, self.tools)
        prompt = build_prompt(target.renderer, messages, functions, protocol=protocol)
        params = sampling_params(config, target)
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
            choice.logprobs = logprobs_of(sequence, target) if config.logprobs else None
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
        calls = tool_calls(answer, message, number)
        stopped = _STOPPED.get(answer.stop_reason, "unknown")
        return ChatCompletionChoice(
            message=ChatMessageAssistant(
                content=content_of(message),
                tool_calls=calls or None,
                model=self.model_name,
                source="generate",
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
        tools: list[ToolInfo],  # noqa: ARG002 - the same
        tool_choice: ToolChoice,  # noqa: ARG002 - the same
        config: GenerateConfig,  # noqa: ARG002 - the same
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
