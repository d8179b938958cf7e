"""The report of a run: one HTML file with everything in it, to be read anywhere and printed.

It shows what the run's folder, its scorecards and the gate's verdict say, and computes nothing of its own.
What is missing is left out or said to be missing. Every text is escaped by the template; only our own plots
are not. The page forbids itself scripts and outside resources.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinker_officer._files import write_atomic
from tinker_officer._text import count, duration
from tinker_officer.errors import EvalError, PlanError
from tinker_officer.registry.values import number, pairs
from tinker_officer.registry.verdict import HEADER, Verdict, figure
from tinker_officer.report import plots


if TYPE_CHECKING:
    from tinker_officer.evals.comparison import Comparison
    from tinker_officer.evals.results import EvalResult
    from tinker_officer.evals.scorecard import Scorecard
    from tinker_officer.train.result import RunResult

Row = tuple[str, ...]

_DECISIONS = {
    "PASS": "The gate lets it pass.",
    "BREACH": "The gate refuses it: something surely got worse by more than it may.",
    "INCONCLUSIVE": "The gate refuses it: the evidence does not decide.",
}


def write(
    path: str | Path, result: RunResult, *, cards: Sequence[Scorecard] = (), verdict: Verdict | None = None
) -> Path:
    """Write the report of `result` to `path` in one step, and return the path.

    Args:
        path: the file to write; its folder is made if need be.
        result: the run.
        cards: scorecards, earlier ones first: the first is compared with the last.
        verdict: a gate's decision, if one was asked.

    Raises:
        OSError: the file cannot be written; an older one stays as it was.
    """
    write_atomic(Path(path), page(result, cards=cards, verdict=verdict))
    return Path(path)


def page(result: RunResult, *, cards: Sequence[Scorecard] = (), verdict: Verdict | None = None) -> str:
    """Return the report as HTML."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    template = resources.files("tinker_officer.report").joinpath("template.html").read_text("utf-8")
    history = result.history()
    comparison, trouble = _compared(cards)
    sources = _plan_rows(result)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        result=result,
        headline=_headline(comparison, cards),
        tiles=_tiles(result, history),
        decision=_DECISIONS.get(verdict.outcome, "") if verdict else "",
        verdict=verdict,
        verdict_header=HEADER,
        plan_rows=sources[0],
        plan_notes=sources[1],
        plan_text=sources[2],
        data_rows=_data_rows(result),
        training=Markup(plots.training(history, _curves(result, history))),  # noqa: S704 - our own SVG
        caption=plots.measure(history).caption,
        figures=_figures(result),
        evals=_eval_rows(cards[-1]) if cards else [],
        differences=_difference_rows(comparison),
        plot=Markup(plots.differences(comparison.rows)) if comparison else "",  # noqa: S704 - our own SVG
        cards=cards,
        trouble=trouble,
        facts=_facts(result),
    )


def _compared(cards: Sequence[Scorecard]) -> tuple[Comparison | None, str]:
    if len(cards) < 2:  # noqa: PLR2004 - before and after
        return None, ""
    try:
        return cards[0].compare(cards[-1]), ""
    except EvalError as error:
        return None, str(error)


def _headline(comparison: Comparison | None, cards: Sequence[Scorecard]) -> list[str]:
    if comparison is None:
        said = "Nothing was evaluated." if not cards else "There is nothing to compare the scores with."
        return [said]
    order = {"product": 0, "benchmark": 1, "nll": 2}
    rows = sorted(comparison.rows, key=lambda row: order.get(row.before.layer, 3))
    return [
        f"{row.name} {row.before.metric}: {figure(row.before.value)} before, {figure(row.after.value)} after,"
        f" {row.verdict} ({figure(row.estimate.value, signed=True)}, 95 % interval "
        f"{figure(row.estimate.low, signed=True)} to {figure(row.estimate.high, signed=True)})"
        for row in rows
    ]


def _tiles(result: RunResult, history: Sequence[dict[str, Any]]) -> list[Row]:
    watched = plots.measure(history)
    values = [row[watched.key] for row in history if number(row.get(watched.key))]
    trained = sum(row["train/tokens"] for row in history if number(row.get("train/tokens")))
    taken = sum(row["time/step_s"] for row in history if number(row.get("time/step_s")))
    rank = (result.plan.get("computed") or {}).get("rank")
    tiles = [
        ("steps", f"{result.steps:,}", result.stopped),
        ("trained tokens", count(trained) if trained else "", "over all epochs"),
        ("LoRA rank", str(rank or ""), ""),
        (
            watched.name,
            f"{values[-1]:.3f}" if values else "",
            f"from {values[0]:.3f}" if values else "",
        ),
        ("training", duration(taken) if taken else "", "without evaluations" if taken else ""),
    ]
    return [tile for tile in tiles if tile[1]]


def _plan_rows(result: RunResult) -> tuple[list[Row], Sequence[str], str]:
    """Return the plan's numbers with their sources, its warnings, and its whole explanation."""
    from tinker_officer.plan import explain
    from tinker_officer.plan.plan import LoRAPlan

    try:
        plan = LoRAPlan.from_dict(result.plan)
        if plan.objective is None:
            raise _no_objective(result)
        decision = plan.decision
        rows: list[Row] = [
            ("trained tokens", f"{decision.tokens:,}", explain.tokens_source(plan)),
            ("rank", str(decision.rank.value), decision.rank.source),
            ("learning rate", explain.rate(decision.learning_rate.value), decision.learning_rate.source),
            ("batch size", str(decision.batch_size.value), decision.batch_size.source),
            ("steps", f"{decision.steps.value:,}", decision.steps.source),
            ("adapted layers", explain.placement(plan), f"{decision.parameters:,} parameters"),
            ("verdict", decision.verdict, explain.meaning(plan)),
            ("cost", explain.money(decision.cost.total), explain.cost_source(plan)),
        ]
        return rows, plan.warnings, plan.explain()
    except PlanError:
        computed = result.plan.get("computed") or result.plan
        return [(key, str(value), "") for key, value in computed.items() if _flat(value)], (), ""


def _no_objective(result: RunResult) -> PlanError:
    return PlanError(
        "the plan of this run says nothing of its data",
        got=f"the plan in {result.folder}",
        need="a plan with an objective",
        fix="plan.sft(train)",
    )


def _data_rows(result: RunResult) -> list[Row]:
    rows: list[Row] = [(key, str(value)) for key, value in result.data.items() if _flat(value)]
    splits = result.data.get("split") or []
    return rows + [("split", pairs(split)) for split in splits if isinstance(split, dict)]


def _flat(value: Any) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _curves(result: RunResult, history: Sequence[dict[str, Any]]) -> list[plots.Curve]:
    """Return the NLL that was evaluated during training, with intervals from the cards of the run."""
    names = dict.fromkeys(key for row in history for key in row if _is_nll(key))
    spans = _intervals(result, [row["step"] for row in history if any(name in row for name in names)])
    return [
        plots.Curve(
            name,
            tuple(
                plots.Point(row["step"], float(row[name]), spans.get((row["step"], name)))
                for row in history
                if number(row.get(name)) and math.isfinite(row[name])
            ),
        )
        for name in names
    ]


def _is_nll(key: str) -> bool:
    return key.endswith("/nll") and not key.startswith(("train/", "time/"))


def _intervals(result: RunResult, steps: Sequence[int]) -> dict[tuple[int, str], tuple[float, float]]:
    from tinker_officer.evals.scorecard import Scorecard
    from tinker_officer.train.folder import RunFolder

    files, found = RunFolder(Path(result.folder)), {}
    for step in steps:
        if files.card_path(step).exists():
            for one in Scorecard.load(files.card_path(step)).evals:
                found[step, f"{one.name}/{one.metric}"] = one.interval
    return found


def _figures(result: RunResult) -> list[Row]:
    return [(key, f"{value:,.6g}") for key, value in sorted(result.metrics.items()) if number(value)]


def _eval_rows(card: Scorecard) -> list[Row]:
    return [_eval_row(result) for result in card.evals]


def _eval_row(one: EvalResult) -> Row:
    direction = "higher" if one.higher_is_better else "lower"
    return (
        one.name, one.metric, f"{one.n:,}", figure(one.value), _span(one.interval), direction, one.layer,
        one.notes(),
    )  # fmt: skip


def _difference_rows(comparison: Comparison | None) -> list[Row]:
    return [
        (
            f"{row.name}/{row.before.metric}",
            f"{row.before.n:,}",
            f"{figure(row.before.value)} {_span(row.before.interval)}",
            f"{figure(row.after.value)} {_span(row.after.interval)}",
            f"{figure(row.estimate.value, signed=True)} {_span(row.estimate.interval)}",
            row.verdict,
            "; ".join(filter(None, (row.before.notes(), row.after.notes()))),
        )
        for row in (comparison.rows if comparison else ())
    ]


def _span(interval: tuple[float, float]) -> str:
    return f"[{figure(interval[0])}, {figure(interval[1])}]"


def _facts(result: RunResult) -> list[Row]:
    return list(_named_facts(result))


def _named_facts(result: RunResult) -> Iterator[Row]:
    yield "run folder", str(result.folder)
    for name, checkpoint in (("best", result.best), ("final", result.final)):
        yield f"{name} checkpoint", f"step {checkpoint.step}"
        if checkpoint.sampler_path:
            yield f"{name} sampler_path", checkpoint.sampler_path
        yield f"{name} state_path", checkpoint.state_path
    yield "renderer", result.renderer_name
    yield "spec digest", result.spec_digest
    yield "training fingerprint", result.training_fingerprint
    for name, value in sorted(result.engine.items()):
        yield name, str(value)
