"""The plots: what they draw, and what they leave out."""

from __future__ import annotations

import math

import matplotlib as mpl
import pytest

from tinker_officer.report import plots


def rows(count):
    return [{"step": i, "train/mean_nll": 1 / i, "train/learning_rate": 1e-4} for i in range(1, count + 1)]


def test_nothing_to_draw_gives_no_plot():
    """Without a finite figure there is no plot, rather than an empty one."""
    assert plots.training([], []) == ""
    assert plots.training([{"step": 1, "train/mean_nll": math.nan}], [plots.Curve("a", ())]) == ""
    assert plots.differences([]) == ""


def test_a_training_plot_says_what_it_draws():
    """Curves are named in text that stays text, with the base's own fonts."""
    curve = plots.Curve(
        "held_out/nll $x$", (plots.Point(0, 2.0, (1.9, 2.1)), plots.Point(3, 1.0, (-math.inf, 2)))
    )
    svg = plots.training(rows(5), [curve])
    assert svg.startswith("<svg")
    for text in ("held_out/nll $x$, 95 % interval", "train, smoothed", "learning rate", "system-ui"):
        assert text in svg
    assert "train, smoothed" not in plots.training(rows(2), [])
    assert "learning rate" not in plots.training([{"step": 1, "train/mean_nll": 1.0}], [])
    assert "95 % interval" not in plots.training([], [plots.Curve("held_out/nll", (plots.Point(0, 2.0),))])


def test_a_reward_is_drawn_with_the_spread_of_its_episodes():
    """The axis says what is watched; an NLL that was evaluated meanwhile has no place on it."""
    earned = [{"step": i, "rl/reward_mean": i / 10, "rl/reward_std": 0.3} for i in range(1, 9)]
    svg = plots.training(earned, [plots.Curve("held_out/nll", (plots.Point(0, 2.0),))])
    for text in ("reward", "episodes, ± 1 sd", "train, smoothed"):
        assert text in svg
    assert "held_out/nll" not in svg
    assert plots.measure(earned).caption == "Reward: higher is better. Below it, the learning rate."
    assert "NLL, nats a token: lower is better" in plots.measure([]).caption
    assert "reverse KL" in plots.training([{**row, "distill/teacher_kl": 1.0} for row in earned], [])


def test_plots_are_the_same_every_time_and_change_no_setting():
    """The same figures give the same bytes, and the user's matplotlib stays as it was."""
    before = dict(mpl.rcParams)
    assert plots.training(rows(30), []) == plots.training(rows(30), [])
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("values", [[5.0], [1.0, 2.0], [2.0] * 100, [float(i) for i in range(200)]])
def test_smoothing_keeps_straight_lines_and_the_ends(values):
    """A line stays the line that it is: the mean is centred, and lags behind nothing."""
    assert plots.smoothed(values) == pytest.approx(values)
