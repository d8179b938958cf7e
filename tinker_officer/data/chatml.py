"""ChatML renderers for models that the cookbook does not know.

The cookbook's `qwen3_instruct` writes ChatML, but not every model's ChatML: some templates put a default
system message first, and all of them tokenise a turn's role and content in one piece, which matters when
the content begins with a space or a line end. `ChatML` follows the template in both. What it adds to the
templates is tool calls, written as Qwen3 writes them: a template without tools would drop them silently.

This module imports the cookbook's renderers (and so torch): import it inside functions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import tinker
from tinker_cookbook.renderers import Message, RenderContext, TrainOnWhat
from tinker_cookbook.renderers.base import RenderedMessage
from tinker_cookbook.renderers.qwen3 import Qwen3InstructRenderer


if TYPE_CHECKING:
    import torch

SMOLLM2_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
_DEFAULT_SYSTEM = re.compile(r"<\|im_start\|>system\n(.*?)<\|im_end\|>\n<\|im_start\|>user\n", re.DOTALL)


class ChatML(Qwen3InstructRenderer):  # type: ignore[misc]  # mypy does not follow the cookbook
    """ChatML as a model's own chat template writes it.

    Args:
        tokenizer: the model's.
        default_system: the system message of a conversation that has none; None for no message.
    """

    def __init__(self, tokenizer: Any, default_system: str | None = None) -> None:
        super().__init__(tokenizer)
        self.default_system = default_system

    def render_message(self, message: Message, ctx: RenderContext) -> RenderedMessage:
        """Render one turn; all but the assistant's in one piece, as the template tokenises them."""
        if message["role"] == "assistant":
            # In two pieces: when the model samples, its answer is never merged with the header's line end.
            return super().render_message(message, ctx)
        encode = self.tokenizer.encode
        start = encode(("\n" if ctx.idx else "") + "<|im_start|>", add_special_tokens=False)
        text = f"{message['role']}\n{_text(message)}"
        return RenderedMessage(
            header=tinker.EncodedTextChunk(tokens=start),
            output=[
                tinker.EncodedTextChunk(
                    tokens=encode(text, add_special_tokens=False, split_special_tokens=True)
                ),
                tinker.EncodedTextChunk(tokens=[self._end_message_token]),
            ],
        )

    def build_generation_prompt(
        self, messages: list[Message], role: str = "assistant", prefill: str | None = None
    ) -> tinker.ModelInput:
        """Return the prompt after which the model writes the next turn."""
        prompt: tinker.ModelInput = super().build_generation_prompt(
            self._with_system(messages), role, prefill
        )
        return prompt

    def build_supervised_example(
        self, messages: list[Message], train_on_what: TrainOnWhat = TrainOnWhat.LAST_ASSISTANT_MESSAGE
    ) -> tuple[tinker.ModelInput, torch.Tensor]:
        """Return tokens and weights, default system message included."""
        example: tuple[tinker.ModelInput, torch.Tensor] = super().build_supervised_example(
            self._with_system(messages), train_on_what
        )
        return example

    def _with_system(self, messages: list[Message]) -> list[Message]:
        if self.default_system is None or not messages or messages[0]["role"] == "system":
            return messages
        first = Message(role="system", content=self.default_system)
        if "trainable" in messages[0]:
            first["trainable"] = False
        return [first, *messages]


def smollm2(tokenizer: Any, _image_processor: Any = None) -> ChatML:
    """Return the renderer of SmolLM2's instruction-tuned models."""
    return ChatML(tokenizer, SMOLLM2_SYSTEM)


def chatml(tokenizer: Any, _image_processor: Any = None) -> ChatML:
    """Return a ChatML renderer with the default system message that the tokenizer's template writes."""
    return ChatML(tokenizer, default_system(tokenizer))


def default_system(tokenizer: Any) -> str | None:
    """Return the system message that the template adds to a conversation without one, if any."""
    if not tokenizer.chat_template:
        return None
    probe = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    found = _DEFAULT_SYSTEM.match(tokenizer.apply_chat_template(probe, tokenize=False))
    return found[1] if found else None


def _text(message: Message) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")
