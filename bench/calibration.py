"""Calibrate the learning rate on the cookbook's sweep, and say what our rate and `get_lr`'s cost on it.

    python bench/calibration.py sft_sweep_calibration.json
    python bench/calibration.py sft_sweep_calibration.json --write

Prints the rule and the table of regrets. `--write` puts the rule into `tinker_officer/plan/calibrated.json`,
the table into `docs/explanation/learning-rate.md` and the figure beside it. The sweep's rows are
`{"model", "lr", "rank", "test"}`, from tinker-cookbook's recipes/chat_sl/results/sft_sweep.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import _page
import _sweep
import attrs
import numpy as np

from tinker_officer._files import write_atomic
from tinker_officer._text import significant
from tinker_officer.plan import cookbook
from tinker_officer.plan.calibration import CalibratedRule, Judged, judge
from tinker_officer.plan.trials import Cell


HERE = Path(__file__).resolve().parent.parent
RULE = HERE / "tinker_officer/plan/calibrated.json"
FIGURE = HERE / "docs/explanation/learning-rate.svg"
SOURCE = "tinker-cookbook's sweep (recipes/chat_sl/results/sft_sweep.md: Tulu 3, batch 128, 780 steps)"
CONSTANT = 2e-4  # what tutorials take


def get_lr(cell: Cell) -> float | None:
    """Return the cookbook's rate for a cell's model."""
    return cookbook.get_lr(cell.base_model, cookbook.hidden_size(cell.base_model))


def straight(cell: Cell, rate: float) -> float:
    """Return the regret of a rate by straight lines between the losses: a check on the curve."""
    loss = np.interp(np.log(rate), np.log(cell.rates), cell.losses)
    return float(100 * (loss - min(cell.losses)) / min(cell.losses))


def rounded(rule: CalibratedRule) -> CalibratedRule:
    """Return the rule with the digits that mean something."""
    return attrs.evolve(
        rule,
        pooled=significant(rule.pooled),
        families=tuple(attrs.evolve(one, coefficient=significant(one.coefficient)) for one in rule.families),
        **{
            name: round(getattr(rule, name), 3)
            for name in ("regret", "regret_model_left_out", "regret_family_left_out")
        },
    )


Column = tuple[str, Callable[[Judged], float | None]]


def columns() -> tuple[Column, ...]:
    """Return what the table compares: a title, and a cell's regret or None."""

    def cookbooks(one: Judged) -> float | None:
        rate = get_lr(one.cell)
        return None if rate is None else float(one.cell.regret(rate))

    return (
        ("2e-4 for all", lambda one: float(one.cell.regret(CONSTANT))),
        ("`get_lr`", cookbooks),
        ("ours", lambda one: one.regret),
        ("ours, model left out", lambda one: one.regret_model_left_out),
        ("ours, family left out", lambda one: one.regret_family_left_out),
    )


def mean(judged: Sequence[Judged], of: Callable[[Judged], float | None]) -> str:
    """Return the mean of a column over cells, in percent; a dash where it has no value."""
    values = [value for value in map(of, judged) if value is not None]
    return f"{np.mean(values):.3f}" if values else "-"


def table(judged: Sequence[Judged]) -> str:
    """Return the regrets by family as a Markdown table."""
    shown = columns()
    known = [one for one in judged if get_lr(one.cell) is not None]
    interior = [one for one in judged if not one.cell.at_edge]
    at_16 = [one for one in judged if one.cell.rank >= 16]
    groups = [
        *(
            (family, [one for one in judged if one.cell.family == family])
            for family in sorted({one.cell.family for one in judged})
        ),
        ("**all**", list(judged)),
        ("all that `get_lr` knows", known),
        ("all with the best between two rates", interior),
        ("all at rank 16 and above", at_16),
    ]
    lines = [
        "| mean regret, % of the NLL | cells | " + " | ".join(title for title, _ in shown) + " |",
        "|---|---:|" + "---:|" * len(shown),
    ]
    for name, members in groups:
        cells = " | ".join(mean(members, of) for _, of in shown)
        lines.append(f"| {name} | {len(members)} | {cells} |")
    return "\n".join(lines)


def check(judged: Sequence[Judged]) -> str:
    """Return the regrets by straight lines, on the cells that get_lr knows, and the worst cells."""
    known = [(one, rate) for one in judged if (rate := get_lr(one.cell)) is not None]
    ours = np.mean([straight(one.cell, one.rate) for one, _ in known])
    theirs = np.mean([straight(one.cell, rate) for one, rate in known])
    worst = max(judged, key=lambda one: one.regret)
    return (
        f"By straight lines between the swept rates instead of the curve, on the {len(known)} cells that\n"
        f"`get_lr` knows: ours {ours:.3f} %, `get_lr` {theirs:.3f} %\n"
        "(a line lies above a convex curve, so both are overstated). Our worst cell is "
        f"{worst.cell.base_model} at rank {worst.cell.rank}: {worst.regret:.2f} %."
    )


def written(rate: float) -> str:
    """Return a rate as people write it: `6.4e-4`."""
    return f"{rate:.1e}".replace("e-0", "e-")


def rates_table(rule: CalibratedRule) -> str:
    """Return the rule's coefficients as a Markdown table."""
    lines = ["| family | rate at rank 32 | models | ranks swept |", "|---|---:|---:|---|"]
    lines.extend(
        f"| {one.name} | {written(one.coefficient)} | {one.models} | {one.ranks[0]} to {one.ranks[1]} |"
        for one in rule.families
    )
    lines.append(f"| any other | {written(rule.pooled)} | | |")
    return "\n".join(lines)


def page(rule: CalibratedRule, judged: Sequence[Judged]) -> str:
    """Return the generated part of the docs page."""
    return (
        f"learning rate = coefficient x (rank / 32)^{rule.exponent:.2f}\n\n{rates_table(rule)}\n\n"
        f"Interval: x/÷ {rule.spread:g} for a swept family, x/÷ {rule.spread_unknown:g} for any other.\n\n"
        f"{table(judged)}\n\n"
        f"{rule.cells} cells (a cell is a model at a rank); in {rule.at_edge} the lowest or highest rate "
        f"swept did best;\n{rule.skipped} more have fewer than three rates and are left out.\n\n"
        f"{check(judged)}"
    )


def draw(rule: CalibratedRule, judged: Sequence[Judged], path: Path) -> None:
    """Draw where the best rates lie beside the rule, and the mean regrets."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "calibration"
    mpl.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=(9.6, 6.0), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    others = [one.name for one in rule.families if one.name not in {"Qwen3", "Qwen3.5", "Llama 3"}]
    panels = (("Qwen3",), ("Qwen3.5",), ("Llama 3",), tuple(others))
    for number, names in enumerate(panels):
        axes = figure.add_subplot(grid[divmod(number, 3)])
        ranks = np.array([1, 128])
        for colour, name in zip(("#1f5fa8", "#c0561f", "#3b8a4a"), names, strict=False):
            cells = [one.cell for one in judged if one.cell.family == name]
            for edge, marker in ((False, "o"), (True, "^")):
                some = [cell for cell in cells if cell.at_edge is edge]
                axes.plot(
                    [cell.rank for cell in some],
                    [cell.best[0] for cell in some],
                    marker,
                    color=colour,
                    markerfacecolor="none" if edge else colour,
                    alpha=0.8,
                    markersize=5,
                )
            line = np.array([rule.rate(name, int(rank)) for rank in ranks])
            axes.plot(ranks, line, color=colour, label=name)
            axes.fill_between(ranks, line / rule.spread, line * rule.spread, color=colour, alpha=0.10)
            answers = sorted({round(answer, 6) for cell in cells if (answer := get_lr(cell)) is not None})
            for answer in answers:
                axes.axhline(answer, color="#8a8f98", linewidth=0.8, linestyle="--")
        axes.set(xscale="log", yscale="log", ylim=(7e-5, 2.2e-3), xlabel="rank")
        axes.set_title(", ".join(names), fontsize=9)
        axes.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
        if number in {0, 3}:
            axes.set_ylabel("best learning rate")
    figure.axes[0].plot([], [], color="#8a8f98", linewidth=0.8, linestyle="--", label="get_lr")
    figure.axes[0].plot([], [], "^", color="#1f5fa8", markerfacecolor="none", label="best at an edge")
    for axes in figure.axes[:4]:
        if axes in {figure.axes[0], figure.axes[3]}:
            axes.legend(fontsize=7, frameon=False)
    _bars(figure.add_subplot(grid[1, 1:]), judged)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _bars(axes: object, judged: Sequence[Judged]) -> None:
    families = sorted({one.cell.family for one in judged})
    shown = [column for column in columns() if column[0] != "2e-4 for all"]
    colours = ("#8a8f98", "#1f5fa8", "#7aa6d8", "#c0561f")
    for number, ((title, of), colour) in enumerate(zip(shown, colours, strict=True)):
        for place, family in enumerate(families):
            values = [value for one in judged if one.cell.family == family and (value := of(one)) is not None]
            height = float(np.mean(values)) if values else 0.0
            axes.bar(
                place + 0.2 * (number - 1.5), height, 0.19, color=colour,
                label=title.strip("`") if place == 0 else None,
            )  # fmt: skip
    axes.set_xticks(range(len(families)), families, fontsize=8)
    axes.set(ylabel="mean regret, % of the NLL")
    axes.legend(fontsize=7, frameon=False)


def main() -> None:
    """Fit, print, and with `--write` keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    _sweep.add_argument(parser)
    parser.add_argument("--write", action="store_true", help="write the rule, the docs table and the figure")
    parser.add_argument("--figure", type=Path, default=None, help="write the figure here (.svg or .png)")
    arguments = parser.parse_args()
    rule, judged = judge(_sweep.rows(arguments.rows), source=SOURCE)
    rule = rounded(rule)
    print(rule.explain(), table(judged), check(judged), sep="\n\n")
    if arguments.figure:
        draw(rule, judged, arguments.figure)
    if arguments.write:
        write_atomic(RULE, json.dumps(rule.to_dict(), indent=2) + "\n")
        draw(rule, judged, FIGURE)
        _page.write("learning-rate", "calibration", page(rule, judged))


if __name__ == "__main__":
    main()
