"""Does a renderer write what a model's chat template writes? Checked, token for token, not assumed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinker_officer.data.messages import Json


if TYPE_CHECKING:
    from tinker_cookbook.renderers import Renderer

# What a renderer must write as the template does. Special characters, history, and both with and without
# a system message: each has told two templates apart.
_PROBES: tuple[tuple[Json, ...], ...] = (
    ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}),
    (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 12 x 34?\n\n  Say why."},
        {"role": "assistant", "content": "408\n"},
        {"role": "user", "content": "Ça va? 你好 🎉"},
        {"role": "assistant", "content": "Très bien."},
    ),
)


def follows_template(renderer_name: str, tokenizer: Any) -> bool:
    """Whether the renderer writes what the tokenizer's chat template writes, on a few conversations."""
    from tinker_cookbook import renderers

    try:
        renderer = renderers.get_renderer(renderer_name, tokenizer)
        return all(
            tokens(renderer, probe) == template_tokens(tokenizer, probe)
            and renderer.build_generation_prompt(list(probe[:-1])).to_ints()
            == template_tokens(tokenizer, probe[:-1], generate=True)
            for probe in _PROBES
        )
    except Exception:  # noqa: BLE001 - a renderer made for other models fails in its own ways: it does not fit
        return False


def tokens(renderer: Renderer, messages: Sequence[Json]) -> list[int]:
    """Return the tokens of a whole conversation, as the renderer writes them."""
    return list(renderer.build_supervised_example(list(messages))[0].to_ints())


def template_tokens(tokenizer: Any, messages: Sequence[Json], *, generate: bool = False) -> list[int]:
    """Return the tokens of a conversation as the model's chat template writes them.

    Without the line end that many templates put after the last turn: no turn follows it, and a model
    that is trained to stop at the end of its turn is not trained to write it.
    """
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generate)
    text = text if generate else text.removesuffix("\n")
    return list(tokenizer.encode(text, add_special_tokens=False))
