"""The YAML at the head of a model card, which the Hugging Face Hub reads: base model, licence, results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinker_officer.registry.values import Version


if TYPE_CHECKING:
    from tinker_officer.evals.scorecard import Scorecard

_TASK = "text-generation"

# What a reader that knows no front matter could take for markup: it would show the card from here.
_MARKUP = re.compile(r"[<>|\[\]!`#*]|(?<=:)//")


def front_matter(version: Version, cards: Sequence[Scorecard]) -> str:
    """Return the front matter of a version's card, whose newest scorecard is the last of `cards`."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=_TASK,
            dataset_type=_plain(str(result.settings.get("task") or result.name)),
            dataset_name=_plain(result.name),
            metric_type=_plain(result.metric),
            metric_value=round(result.value, 6),
            metric_name=_plain(result.metric),
        )
        for result in (cards[-1].evals if cards else ())
    ]
    known: dict[str, Any] = {
        "base_model": _plain(version.base_model),
        "license": _plain(str(version.data.get("model_license") or "")) or None,
        "library_name": "peft" if version.lora else None,
        "pipeline_tag": _TASK,
        "tags": ["tinker", "tinker-officer", *(["lora"] if version.lora else [])],
    }
    if results:
        known |= {"model_name": _plain(version.name), "eval_results": results}
    data = ModelCardData(**{name: value for name, value in known.items() if value is not None})
    return f"---\n{data.to_yaml()}\n---\n\n"


def _plain(text: str) -> str:
    """Return text on one line, so that none of it can be taken for the end of the front matter."""
    return _MARKUP.sub("_", "".join(letter if letter.isprintable() else " " for letter in text))
