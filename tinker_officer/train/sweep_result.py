"""SweepResult: where every trial of a sweep stands, the best first; as a table and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from tinker_officer._text import table
from tinker_officer.train.result import RunResult
from tinker_officer.train.trial import Standing


@attrs.frozen
class TrialResult:
    """What came of a trial.

    Args:
        id: a hash of its spec.
        settings: what differs between the trials, by name.
        folder: its run's folder.
        standings: where it stood after each rung that it reached.
    """

    id: str
    settings: dict[str, Any]
    folder: Path
    standings: tuple[Standing, ...] = attrs.field(repr=False)

    @property
    def last(self) -> Standing:
        """Where it stood last."""
        return self.standings[-1]

    @property
    def score(self) -> float | None:
        """The metric where it stood last; None where training broke down."""
        return self.last.score

    @property
    def whole(self) -> bool:
        """Whether it was trained to the end of its run."""
        return self.last.share >= 1 and not self.last.failed

    @property
    def result(self) -> RunResult:
        """The run itself: its checkpoints, metrics and spec.

        Raises:
            RunError: nothing was saved in it.
        """
        return RunResult.open(self.folder)


@attrs.frozen(repr=False)
class SweepResult:
    """What came of a sweep.

    Args:
        folder: the sweep's folder.
        metric: what decided.
        higher_is_better: whether more of it is better.
        trials: every trial, in the order of the grid.
        rungs: shares of a run's tokens at which the trials were judged.
    """

    folder: Path
    metric: str
    higher_is_better: bool
    trials: tuple[TrialResult, ...]
    rungs: tuple[float, ...]

    @property
    def ranked(self) -> tuple[TrialResult, ...]:
        """The trials, best first: those that went furthest, then by score."""

        def place(trial: TrialResult) -> tuple[float, float]:
            if trial.score is None:
                return (1.0, 0.0)
            return (-trial.last.share, -trial.score if self.higher_is_better else trial.score)

        return tuple(sorted(self.trials, key=place))

    @property
    def best(self) -> TrialResult:
        """The best trial that was trained to the end."""
        return self.ranked[0]

    def rows(self) -> list[dict[str, Any]]:
        """Return one record a trial, best first: settings, score, step, and how it ended."""
        return [
            {
                "trial": trial.id,
                **trial.settings,
                self.metric: trial.score,
                "step": trial.last.step,
                "trained": trial.last.share,
                "ended": _ended(trial),
            }
            for trial in self.ranked
        ]

    def explain(self) -> str:
        """Return the trials as a table, best first."""
        rows = self.rows()
        lines = [[_shown(value) for value in row.values()] for row in rows]
        better = "higher" if self.higher_is_better else "lower"
        return (
            f"{len(self.trials)} trials by {self.metric} ({better} is better), best first\n"
            f"{table(lines, header=list(rows[0]))}"
        )

    def plot(self, path: str | Path) -> Path:
        """Draw the score of each trial against what was swept; return the path.

        Args:
            path: the file to write, `.png` or `.svg`.
        """
        from tinker_officer.train.sweep_plot import draw

        return draw(self, Path(path))

    def __str__(self) -> str:
        return self.explain()

    def __repr__(self) -> str:
        best = self.best
        return (
            f"<SweepResult: {len(self.trials)} trials, "
            f"best {best.settings} with {self.metric} {_shown(best.score)}>"
        )

    def _repr_html_(self) -> str:
        from html import escape

        rows = self.rows()
        head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_shown(value))}</td>" for value in row.values()) + "</tr>"
            for row in rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _ended(trial: TrialResult) -> str:
    last = trial.last
    if last.failed:
        return last.stopped
    return last.stopped if last.share >= 1 else "left behind"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
