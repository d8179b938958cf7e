"""The plot of a pilot: the arms' held-out losses against the learning rate, the parabola, the interval."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np


if TYPE_CHECKING:
    from tinker_officer.plan.pilot_fit import PilotFit

_ARM, _FIT, _BAND, _GREY = "#1f5fa8", "#c0561f", "#7aa6d8", "#8a8f98"


def draw(fit: PilotFit, path: Path) -> Path:
    """Draw `fit` into `path`, whose ending says how, and return it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "pilot", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        _arms(axes, fit)
        _answer(axes, fit)
        axes.set(xscale="log", xlabel="learning rate", ylabel="held-out NLL, nats a token")
        rates = sorted({arm.learning_rate for arm in fit.arms})
        axes.set_xticks(rates, [f"{rate:.1e}".replace("e-0", "e-") for rate in rates], fontsize=8)
        axes.minorticks_off()
        axes.set_title(
            f"Pilot of {Path(fit.base_model).name}: rank {fit.rank}, {fit.steps} steps an arm", fontsize=10
        )
        axes.legend(fontsize=8, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _arms(axes: Any, fit: PilotFit) -> None:
    ended = [(arm.learning_rate, arm.nll) for arm in fit.arms if arm.nll is not None]
    if ended:
        axes.plot(*zip(*ended, strict=True), "o", color=_ARM, label="arms")
        lowest, highest = min(nll for _, nll in ended), max(nll for _, nll in ended)
        if fit.start_nll <= highest + (highest - lowest):  # else it would flatten the arms
            axes.axhline(fit.start_nll, color=_GREY, linewidth=0.8, linestyle=":", label="before training")
    for number, arm in enumerate(arm for arm in fit.arms if arm.nll is None):
        axes.axvline(
            arm.learning_rate, color=_GREY, linewidth=0.8, linestyle="--",
            label="stopped" if number == 0 else None,
        )  # fmt: skip


def _answer(axes: Any, fit: PilotFit) -> None:
    if fit.learning_rate is None or fit.interval is None or fit.curvature is None or fit.lowest is None:
        axes.text(
            0.5, 0.96, f"refused: {fit.refused}", transform=axes.transAxes, ha="center", va="top", fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},  # over the line of the untrained loss
        )  # fmt: skip
        return
    low, high = fit.interval
    axes.axvspan(low, high, color=_BAND, alpha=0.25, label=f"best rate, {low:.1e} to {high:.1e}")
    middle = math.log(fit.learning_rate)
    x = np.linspace(middle - math.log(2.5), middle + math.log(2.5), 200)
    axes.plot(
        np.exp(x), fit.lowest + 0.5 * fit.curvature * (x - middle) ** 2, color=_FIT,
        label=f"parabola, lowest at {fit.learning_rate:.1e}",
    )  # fmt: skip
