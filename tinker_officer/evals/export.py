"""A scorecard for other tools: a table of items, Markdown, and Hugging Face's `.eval_results` YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer._text import nearest
from tinker_officer.errors import EvalError
from tinker_officer.evals.results import Item, span


if TYPE_CHECKING:
    from tinker_officer.evals.scorecard import Scorecard


def to_columns(card: Scorecard) -> dict[str, list[Any]]:
    """Return every item of every eval, column by column: `eval`, `metric`, and the fields of `Item`."""
    rows = [(result, item) for result in card.evals for item in result.items]
    columns: dict[str, list[Any]] = {
        "eval": [result.name for result, _ in rows],
        "metric": [result.metric for result, _ in rows],
    }
    for field in attrs.fields(Item):
        values = [getattr(item, field.name) for _, item in rows]
        columns[field.name] = [list(value) if isinstance(value, tuple) else value for value in values]
    return columns


def to_table(card: Scorecard) -> Any:
    """Return every item of every eval as a data frame: of pandas where it is installed, else of polars.

    Raises:
        EvalError: neither is installed.
    """
    columns = to_columns(card)
    try:
        import pandas as pd
    except ImportError:
        try:
            import polars as pl
        except ImportError:
            raise EvalError(
                "there is no library for data frames",
                got="neither pandas nor polars",
                need="one of them, or plain columns: to_columns(card)",
                fix="pip install pandas",
            ) from None
        return pl.DataFrame(columns)
    return pd.DataFrame(columns)


def to_markdown(card: Scorecard) -> str:
    """Return the card as a Markdown table, with what was evaluated above it."""
    lines = [
        f"`{card.target}`, base model `{card.base_model}`, renderer `{card.renderer_name}`, {card.created}",
        "",
        "| eval | metric | n | value | 95 % interval | notes |",
        "|---|---|---:|---:|---|---|",
    ]
    lines += [
        f"| {result.name} | {result.metric} | {result.n} | {result.value:.4f} | {span(result.interval)} "
        f"| {result.notes()} |"
        for result in card.evals
    ]
    return "\n".join(lines) + "\n"


def to_eval_results(card: Scorecard, datasets: Mapping[str, tuple[str, str]]) -> str:
    """Return YAML for a model's `.eval_results/` folder on the Hugging Face hub.

    Args:
        card: the scorecard.
        datasets: the hub's data set and task of each eval to publish: `{"gsm8k": ("openai/gsm8k", "gsm8k")}`.

    Raises:
        EvalError: the card has no such eval, or it was not asked whole.

    Source:
        The hub's specification, through `huggingface_hub.EvalResultEntry`.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    names = [result.name for result in card.evals]
    entries = []
    for name, (dataset_id, task_id) in datasets.items():
        if name not in card or card[name].statuses()["cancelled"]:
            raise EvalError(
                f"{name!r} cannot be published",
                got="an eval that was stopped early" if name in card else f"a card of {', '.join(names)}",
                need="an eval of the card, asked whole",
                fix=f"name it as the card does: {nearest(name, names) or repr(names[0])}",
            )
        result = card[name]
        settings = result.settings
        said = [
            f"{result.metric} over {result.n} items",
            f"95 % interval {span(result.interval)}",
            result.notes(),
        ]
        if "task_version" in settings:
            said.append(f"task version {settings['task_version']}")
        entries.append(
            EvalResultEntry(
                dataset_id=dataset_id,
                task_id=task_id,
                value=round(result.value, 6),
                date=card.created,
                notes="; ".join(part for part in said if part),
            )
        )
    return str(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True))
