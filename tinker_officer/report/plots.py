"""The report's plots, as SVG that stands inside a page: no script, no font file, no outside reference."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tinker_officer.evals.comparison import Difference

INK, MUTED, FAINT = "#1f2430", "#6b7280", "#d8dce3"
TRAIN, HELD_OUT, RATE = "#9db7dd", "#c2410c", "#6b7280"
SMOOTH = "#1d4ed8"
BETTER, WORSE, UNCLEAR = "#15803d", "#b91c1c", "#6b7280"

_STYLE: dict[str, Any] = {
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": "#eceef2",
    "legend.fontsize": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}
_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
_LONGEST = 22


@attrs.frozen
class Point:
    """One evaluation during training: the step after which it was made, its value and interval."""

    step: int
    value: float
    interval: tuple[float, float] | None = None


@attrs.frozen
class Curve:
    """An NLL that was evaluated during training."""

    label: str
    points: tuple[Point, ...]


@attrs.frozen
class Measure:
    """What a method is watched by: its metric, its name, what the axis says, and how far episodes spread."""

    key: str
    name: str
    axis: str
    spread: str | None = None

    @property
    def caption(self) -> str:
        """What is drawn, and which way is better; only a reward has a spread, and is to rise."""
        better = "lower" if self.spread is None else "higher"
        return f"{self.axis[0].upper()}{self.axis[1:]}: {better} is better. Below it, the learning rate."


MEASURES = (
    Measure("train/mean_nll", "train NLL", "NLL, nats a token"),
    Measure("train/dpo_loss", "DPO loss", "DPO loss, nats a pair"),
    Measure("train/reward_loss", "ranking loss", "ranking loss, nats a pair"),
    Measure("distill/teacher_kl", "KL to the teacher", "reverse KL to the teacher, nats a token"),
    Measure("rl/reward_mean", "mean reward", "reward", spread="rl/reward_std"),
)


def measure(history: Sequence[dict[str, Any]]) -> Measure:
    """Return what a run is watched by, from the metrics that it has."""
    return next((one for one in MEASURES if any(one.key in row for row in history)), MEASURES[0])


def smoothed(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and its neighbours, over a twentieth of the run: it lags behind nothing.

    Args:
        values: one a step, finite. At the ends the window shrinks, so that it stays centred.
    """
    half = max(1, len(values) // 40)
    sums = np.concatenate(([0.0], np.cumsum(values)))
    places = np.arange(len(values))
    reach = np.minimum(half, np.minimum(places, len(values) - 1 - places))
    means = (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)
    return [float(mean) for mean in means]


def training(history: Sequence[dict[str, Any]], curves: Sequence[Curve]) -> str:
    """Return the plot of training: loss or reward by step, raw and smoothed, evaluations, learning rate.

    Of a reward, the band is a standard deviation of single episodes to both sides of the mean, smoothed. A
    loss that is no NLL, and a reward, have an axis of their own, so evaluated NLL is not drawn beside them.

    Args:
        history: one record a step, as `RunResult.history` gives them.
        curves: NLL evaluated meanwhile.

    Returns:
        SVG; empty when there is nothing to draw.
    """
    watched = measure(history)
    curves = curves if watched is MEASURES[0] else ()
    rows = [row for row in history if _finite(row.get(watched.key))]
    rates = [
        (row["step"], row["train/learning_rate"])
        for row in history
        if _finite(row.get("train/learning_rate"))
    ]
    if not rows and not any(curve.points for curve in curves):
        return ""
    with _styled() as figure_of:
        figure = figure_of(7.6, 4.0 if rates else 3.2)
        if rates:
            above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
            _learning_rate(below, rates)
        else:
            above = below = figure.subplots()
        _losses(above, rows, watched, curves)
        below.set_xlabel("step")
        return _svg(figure, "training")


def _losses(axes: Axes, rows: Sequence[dict[str, Any]], watched: Measure, curves: Sequence[Curve]) -> None:
    if rows:
        steps, values = [row["step"] for row in rows], [row[watched.key] for row in rows]
        if watched.spread is not None:
            spread = np.array(smoothed([row.get(watched.spread, 0.0) for row in rows]))
            middle = np.array(smoothed(values))
            axes.fill_between(
                steps,
                middle - spread,
                middle + spread,
                color=TRAIN,
                alpha=0.25,
                linewidth=0,
                label="episodes, ± 1 sd",
            )
        axes.plot(steps, values, color=TRAIN, linewidth=0.9, label="train, by step")
        if len(rows) > 2:  # noqa: PLR2004 - an average of two says nothing
            axes.plot(steps, smoothed(values), color=SMOOTH, linewidth=1.8, label="train, smoothed")
    for number, curve in enumerate(curves):
        xs = [point.step for point in curve.points]
        ys = [point.value for point in curve.points]
        spans = [point.interval or (point.value, point.value) for point in curve.points]
        low = [y - end if math.isfinite(end) else 0.0 for y, (end, _) in zip(ys, spans, strict=True)]
        high = [end - y if math.isfinite(end) else 0.0 for y, (_, end) in zip(ys, spans, strict=True)]
        axes.errorbar(
            xs,
            ys,
            yerr=np.clip([low, high], 0, None),
            color=HELD_OUT,
            linestyle=("-", "--", ":")[number % 3],
            linewidth=1.2,
            marker="o",
            markersize=4.5,
            capsize=2.5,
            label=curve.label + (", 95 % interval" if any(point.interval for point in curve.points) else ""),
        )
    axes.set_ylabel(watched.axis)
    axes.grid(axis="y")
    axes.legend(loc="best" if watched.spread else "upper right")
    axes.margins(x=0.02)


def _learning_rate(axes: Axes, rates: Sequence[tuple[int, float]]) -> None:
    steps, values = zip(*rates, strict=True)
    axes.plot(steps, values, color=RATE, linewidth=1.4)
    axes.fill_between(steps, values, color=RATE, alpha=0.12, linewidth=0)
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=False)
    axes.locator_params(axis="y", nbins=3)


def differences(rows: Sequence[Difference]) -> str:
    """Return the plot of each eval before and after, and of the paired difference between them.

    Returns:
        SVG; empty when there are no rows.
    """
    if not rows:
        return ""
    with _styled() as figure_of:
        figure = figure_of(7.6, 0.5 + 0.85 * len(rows))
        grid = figure.subplots(len(rows), 2, squeeze=False, width_ratios=(1, 1))
        for row, (left, right) in zip(rows, grid, strict=True):
            colour = {"better": BETTER, "worse": WORSE}.get(row.verdict, UNCLEAR)
            _dumbbell(left, row, colour)
            low, high = _drawn(row.estimate.value, (row.estimate.low, row.estimate.high))
            right.axvline(0, color=MUTED, linewidth=0.9)
            right.plot((low, high), (0, 0), color=colour, linewidth=2.2, solid_capstyle="butt")
            right.plot(row.estimate.value, 0, "o", color=colour, markersize=6)
            _bare(right)
            right.set_title(row.verdict, loc="right", color=colour, fontsize=8.5)
        grid[0][0].set_title("before (hollow), after (filled)")
        grid[0][1].set_title("paired difference")
        return _svg(figure, "differences")


def _dumbbell(axes: Axes, row: Difference, colour: str) -> None:
    for height, result, filled in ((0.5, row.before, False), (-0.5, row.after, True)):
        shade = colour if filled else MUTED
        axes.plot(_drawn(result.value, result.interval), (height, height), color=shade, linewidth=2.2)
        axes.plot(
            result.value,
            height,
            "o",
            color=shade,
            markerfacecolor=shade if filled else "white",
            markersize=6,
        )
    _bare(axes)
    name = row.name if len(row.name) <= _LONGEST else row.name[: _LONGEST - 1] + "\u2026"
    axes.set_ylabel(f"{name}\n{row.before.metric}", rotation=0, ha="right", va="center", color=INK)


def _bare(axes: Axes) -> None:
    axes.set_yticks([])
    axes.set_ylim(-1.1, 1.1)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=5)
    axes.margins(x=0.08)


def _drawn(value: float, interval: tuple[float, float]) -> tuple[float, float]:
    low, high = interval
    return (low if math.isfinite(low) else value), (high if math.isfinite(high) else value)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class _styled:  # noqa: N801 - used as a function: `with _styled() as figure_of`
    """Our style for one plot; matplotlib's own settings come back afterwards. No display is needed."""

    def __enter__(self) -> Any:
        import matplotlib as mpl
        from matplotlib.figure import Figure

        self._context = mpl.rc_context(_STYLE)
        self._context.__enter__()
        return lambda width, height: Figure(figsize=(width, height), layout="constrained")

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)


def _svg(figure: Figure, name: str) -> str:
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": name}):
        out = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    body = out.getvalue()
    body = body[body.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"'DejaVu Sans'[^;\"]*", _FONT, body)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)  # two plots on a page would share these names
    return re.sub(r'(<svg\b[^>]*?) width="[^"]*" height="[^"]*"', r"\1", body, count=1)
