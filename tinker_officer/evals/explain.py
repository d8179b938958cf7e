"""A suite in words, before anything is asked: what each eval measures, and what it can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from tinker_officer._text import table
from tinker_officer.evals.specs import Spec
from tinker_officer.stats import power


# What is assumed of two models that are compared, before either was seen.
DISCORDANCE = 0.2
DEVIATION_NATS = 0.2
_HEADER = ("eval", "layer", "n", "tells apart", "measures, and what it needs")
_WIDE = 54


def explain(evals: Sequence[Spec], use_case: str = "") -> str:
    """Return what each eval measures, its items, what it can tell apart, and what it needs.

    Args:
        evals: of the suite.
        use_case: of the template that the suite was made from: what it still lacks is named.
    """
    if not evals:
        return "an empty suite: add .nll(held_out), .benchmark(...) or .product(...)"
    return (
        table([row for spec in evals for row in _rows(spec)], header=_HEADER)
        + _wanted(evals, use_case)
        + "\n\nTells apart: the smallest difference seen with power 0.8 at 95 %, if two models disagree"
        + f"\non {DISCORDANCE:.0%} of the items, or if their NLL differs by {DEVIATION_NATS} nats"
        + " (standard deviation) between\nconversations. ?: counted when the eval is loaded."
    )


def _wanted(evals: Sequence[Spec], use_case: str) -> str:
    from tinker_officer.evals.templates import wanted

    said = wanted(use_case, {spec.layer for spec in evals}) if use_case else ""
    return said and f"\n\n{said}"


def _rows(spec: Spec) -> list[tuple[str, ...]]:
    """Return an eval's lines in the table: what it measures, then what it needs."""
    needs = spec.needs
    said = [*wrap(spec.measures, _WIDE), *wrap(f"needs {needs}" if needs != "nothing else" else "", _WIDE)]
    size = "?" if spec.size is None else str(spec.size)
    first = (spec.name, spec.layer, size, _reach(spec), said[0])
    return [first, *(("", "", "", "", line) for line in said[1:])]


def _reach(spec: Spec) -> str:
    n = spec.size
    if n is None:
        return "?"
    if spec.layer == "nll":
        return f"{power.smallest_detectable_mean(n, DEVIATION_NATS):.3f} nats" if n else "nothing"
    return f"{power.smallest_detectable(n, DISCORDANCE):.3f}"
