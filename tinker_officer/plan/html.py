"""A plan in a notebook: the headline, two small charts, and the explanation under a fold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from tinker_officer._text import count
from tinker_officer.plan import explain


if TYPE_CHECKING:
    from tinker_officer.plan.plan import LoRAPlan

_INK, _GREY, _BAND, _DOT = "currentColor", "#8a8f98", "#7aa6d8", "#d1603d"
_WIDTH, _HEIGHT, _LEFT, _RIGHT = 560, 58, 16, 544
_LETTER = 5.2  # about the width of one, in the drawing's units


def as_html(plan: LoRAPlan) -> str:
    """Return the plan as an HTML fragment with no script and no outside resource; every text is escaped."""
    if plan.objective is None:
        return f"<pre>{escape(plan.explain())}</pre>"
    head = (
        f"rank {plan.rank} &middot; learning rate {explain.rate(plan.learning_rate)} &middot; "
        f"batch {plan.batch_size} &middot; {plan.steps:,} steps &middot; "
        f"cost {explain.money(plan.cost.total)}"
    )
    warnings = "".join(f"<li>{escape(text)}</li>" for text in plan.warnings)
    return (
        '<div style="font-family:system-ui,sans-serif;max-width:44em">'
        f"<strong>LoRAPlan</strong> for {escape(explain.purpose(plan))}: "
        f"<strong>{escape(plan.verdict)}</strong>"
        f"<br>{head}<br>{capacity_chart(plan)}{rate_chart(plan)}"
        + (f"<ul>{warnings}</ul>" if warnings else "")
        + "<details><summary>Every number and its source</summary>"
        f"<pre>{escape(plan.explain())}</pre></details></div>"
    )


def capacity_chart(plan: LoRAPlan) -> str:
    """Return an SVG of R on a logarithmic axis: where the plan stands among the four verdicts."""
    ratio = plan.decision.ratio
    low, high = min(1 / 64, ratio / 2), max(64.0, ratio * 2)
    words = ((low, "limited"), (0.25, "tight"), (1.0, "low-regret"), (4.0, "ample"), (high, ""))
    demand = plan.decision.demand
    what = "trained tokens" if demand.unit == "tokens" else "bits"
    weight = "" if demand.weight == 1 else f" ({demand.weight} for each)"
    label = (
        f"R = {explain.ratio(ratio)}: {count(plan.parameters)} parameters for "
        f"{count(plan.decision.tokens)} {what}{weight}"
    )
    return _axis(label, low, high, ratio, _bands(words, low, high))


def rate_chart(plan: LoRAPlan) -> str:
    """Return an SVG of the learning rate inside its interval, on a logarithmic axis."""
    chosen = plan.decision.learning_rate
    bottom, top = chosen.interval or (chosen.value, chosen.value)
    low, high = min(bottom, chosen.value) / 3, max(top, chosen.value) * 3
    words = ((low, ""), (bottom, "best expected here"), (top, ""), (high, ""))
    label = (
        f"learning rate {explain.rate(chosen.value)}, best expected within {explain.rate(bottom)} to "
        f"{explain.rate(top)}"
    )
    return _axis(label, low, high, chosen.value, _bands(words, low, high))


def _at(value: float, low: float, high: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * math.log(value / low) / math.log(high / low)


def _bands(words: tuple[tuple[float, str], ...], low: float, high: float) -> Iterator[str]:
    """Yield one rectangle a range, darker to the right, with its word under it."""
    for index, ((start, word), (end, _)) in enumerate(itertools.pairwise(words)):
        x, width = _at(start, low, high), _at(end, low, high) - _at(start, low, high)
        opacity = 0.15 + 0.2 * index if word else 0.08
        yield (
            f'<rect x="{x:.1f}" y="24" width="{width:.1f}" height="12" '
            f'fill="{_BAND}" opacity="{opacity:.2f}"/>'
        )
        if width >= _LETTER * len(word) > 0:  # a word that would run into its neighbour is left out
            yield (
                f'<text x="{x + width / 2:.1f}" y="50" text-anchor="middle" '
                f'fill="{_GREY}">{escape(word)}</text>'
            )


def _axis(label: str, low: float, high: float, value: float, bands: Iterator[str]) -> str:
    x = _at(value, low, high)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="11" style="display:block">'
        f'<text x="{_LEFT}" y="15" fill="{_INK}">{escape(label)}</text>{"".join(bands)}'
        f'<circle cx="{x:.1f}" cy="30" r="6" fill="{_DOT}"/></svg>'
    )
