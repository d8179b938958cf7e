"""The calibrated rule: what it finds, what it says of itself, and the one that comes with the package."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from tinker_officer.errors import PlanError
from tinker_officer.plan import rates
from tinker_officer.plan.calibration import CalibratedRule, fit, judge


RATES = (2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3)


def sweep(
    coefficients: dict[str, float],
    *,
    exponent: float = 0.2,
    models: int = 3,
    scatter: float = 0.0,
    seed: int = 0,
) -> list[dict[str, object]]:
    """Rows of a made-up sweep whose best rates follow a known rule, each model off by a known chance."""
    chance = np.random.default_rng(seed)
    out: list[dict[str, object]] = []
    for family, coefficient in coefficients.items():
        for number in range(models):
            own = coefficient * math.exp(scatter * chance.standard_normal())
            for rank in (4, 32, 128):
                best = own * (rank / 32) ** exponent
                out += [
                    {
                        "model": f"{family}-{number}", "family": family, "rank": rank, "lr": rate,
                        "test": 0.6 * (1 + 0.02 * math.log(rate / best) ** 2),
                    }
                    for rate in RATES
                ]  # fmt: skip
    return out


def test_a_known_rule_is_found() -> None:
    """Coefficients and exponent come back from losses that follow them, with next to no regret."""
    rule = fit(sweep({"a": 2e-4, "b": 5e-4}, exponent=0.2))
    a, b = rule.family("a"), rule.family("b")
    assert a is not None
    assert b is not None
    assert rule.exponent == pytest.approx(0.2, abs=0.021)
    assert (a.coefficient, b.coefficient) == (pytest.approx(2e-4, rel=0.06), pytest.approx(5e-4, rel=0.06))
    assert rule.pooled == pytest.approx(math.sqrt(2e-4 * 5e-4), rel=0.05)
    assert rule.regret < 0.01
    assert (a.models, a.ranks) == (3, (4, 128))


def test_a_family_left_out_costs_what_a_hand_calculation_says() -> None:
    """Two families a factor e apart: without one, the rule for it is a factor e off, 2 % of the loss."""
    rule = fit(sweep({"a": 2e-4, "b": 2e-4 * math.e}))
    assert rule.regret_family_left_out == pytest.approx(2.0, rel=0.1)
    assert rule.regret_model_left_out is not None
    assert rule.regret_model_left_out < 0.02


def test_the_interval_holds_the_best_rate_of_models_not_seen() -> None:
    """On unseen models of the same families, the interval holds the best rate as often as it says."""
    scatter, families = 0.25, {"a": 3e-4, "b": 4e-4, "c": 2.5e-4}
    normal = NormalDist(0.0, scatter)
    held = []
    for seed in range(4):
        rule = fit(sweep(families, models=8, scatter=scatter, seed=seed))
        reach = math.log(rule.spread)
        for family, coefficient in families.items():
            off = math.log(rule.rate(family, 32) / coefficient)
            held.append(normal.cdf(off + reach) - normal.cdf(off - reach))
    assert 0.85 <= np.mean(held) <= 0.98


def test_the_regret_is_that_of_the_rates_the_rule_gives() -> None:
    """The reported mean is the mean over cells of the loss at the rule's own rate."""
    rule, judged = judge(sweep({"a": 2e-4, "b": 5e-4}, scatter=0.3))
    by_hand = [float(one.cell.regret(rule.rate(one.cell.family, one.cell.rank))) for one in judged]
    assert rule.regret == pytest.approx(np.mean(by_hand))
    assert rule.cells == len(judged) == 18


def test_the_order_of_the_rows_does_not_matter() -> None:
    """A fit is a function of the set of runs."""
    rows = sweep({"a": 2e-4, "b": 5e-4}, scatter=0.3)
    assert fit(rows) == fit(rows[::-1])


def test_one_model_is_enough_to_fit_but_not_to_judge() -> None:
    """With nothing to leave out, the errors are unknown and the interval is the wide one."""
    rule = fit(sweep({"a": 2e-4}, models=1))
    assert (rule.regret_model_left_out, rule.regret_family_left_out) == (None, None)
    assert (rule.spread, rule.spread_unknown) == (2.5, 2.5)
    assert "not known with each model left out" in rule.explain()


def test_too_few_runs_are_refused() -> None:
    """Two rates have no best between them; the error offers a pilot."""
    with pytest.raises(PlanError, match=r"plan\.pilot"):
        fit([{"model": "m", "rank": 8, "lr": rate, "test": 1.0} for rate in (1e-4, 2e-4)])


def test_a_rule_survives_json() -> None:
    """A rule written and read is the same rule; anything else is refused."""
    rule = fit(sweep({"a": 2e-4, "b": 5e-4}))
    assert CalibratedRule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    with pytest.raises(PlanError, match="not a calibrated rule"):
        CalibratedRule.from_dict({"exponent": 0.2})


def test_the_shipped_rule_meets_its_targets() -> None:
    """At most 0.15 % mean regret on the sweep, and at most 0.3 % with each family left out."""
    rule = rates.shipped()
    assert rule.regret <= 0.15
    assert rule.regret_family_left_out is not None
    assert rule.regret_family_left_out <= 0.3
    assert "tinker-cookbook" in rule.source


def test_the_docs_show_the_shipped_rule() -> None:
    """The page's coefficients are those that the package ships: both come from one command."""
    page = (Path(__file__).parents[2] / "docs/explanation/learning-rate.md").read_text("utf-8")
    for one in rates.shipped().families:
        row = re.search(rf"^\| {re.escape(one.name)} \| (\S+) \| {one.models} \|", page, re.MULTILINE)
        assert row is not None
        assert float(row.group(1)) == one.coefficient
