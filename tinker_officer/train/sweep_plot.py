"""The plot of a sweep: each trial's score against the setting that was swept, a line for each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from tinker_officer.train.sweep_result import SweepResult, TrialResult

_COLOURS = ("#1f5fa8", "#c0561f", "#3b8a4a", "#7a4fa3", "#8a6d1f", "#a33b5c")
_GREY = "#8a8f98"
_WIDE = 8  # the largest over the smallest value of an axis that is drawn as a logarithm


def draw(found: SweepResult, path: Path) -> Path:
    """Draw `found` into `path`, whose ending says how, and return it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    along = _axis(found)
    lines: dict[str, list[TrialResult]] = {}
    for trial in found.trials:
        others = ", ".join(f"{name} {value}" for name, value in trial.settings.items() if name != along)
        lines.setdefault(others, []).append(trial)
    with mpl.rc_context({"svg.hashsalt": "sweep", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        for number, (name, trials) in enumerate(lines.items()):
            _line(axes, along, name, trials, _COLOURS[number % len(_COLOURS)])
        _broken(axes, along, found)
        values = sorted({trial.settings[along] for trial in found.trials}) if along else []
        if values and min(values) > 0 and max(values) / min(values) >= _WIDE:
            axes.set_xscale("log")
        if values:
            axes.set_xticks(values, [f"{value:g}" for value in values], fontsize=8)
            axes.minorticks_off()
        better = "higher" if found.higher_is_better else "lower"
        axes.set(xlabel=along or "trial", ylabel=f"{found.metric} ({better} is better)")
        axes.set_title(f"{len(found.trials)} trials; hollow ones were left behind", fontsize=10)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _axis(found: SweepResult) -> str | None:
    """Return the setting with the most values, the first of several; None when nothing was swept."""
    names = list(found.trials[0].settings)
    return max(names, key=lambda name: len({trial.settings[name] for trial in found.trials}), default=None)


def _at(along: str | None, trial: TrialResult) -> Any:
    return trial.settings[along] if along else 0


def _line(axes: Any, along: str | None, name: str, trials: list[TrialResult], colour: str) -> None:
    sound = sorted((trial for trial in trials if trial.score is not None), key=lambda one: _at(along, one))
    whole = [trial for trial in sound if trial.whole]
    left = [trial for trial in sound if not trial.whole]
    if whole:
        axes.plot(
            [_at(along, trial) for trial in whole],
            [trial.score for trial in whole],
            "o-",
            color=colour,
            label=name or None,
        )
    axes.plot(
        [_at(along, trial) for trial in left],
        [trial.score for trial in left],
        "o",
        color=colour,
        markerfacecolor="none",
        label=name if name and not whole else None,
    )


def _broken(axes: Any, along: str | None, found: SweepResult) -> None:
    broken = [trial for trial in found.trials if trial.score is None]
    for number, value in enumerate(sorted({_at(along, trial) for trial in broken})):
        axes.axvline(
            value, color=_GREY, linewidth=0.8, linestyle="--", label=None if number else "broke down"
        )
