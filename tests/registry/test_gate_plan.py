"""What a gate says beforehand that it can decide, held against what it then decides."""

from __future__ import annotations

import numpy as np
import pytest

from tinker_officer import EvalSuite, Gate, graders
from tinker_officer.data.conversations import Conversations
from tinker_officer.errors import RegistryError
from tinker_officer.registry.evidence import binary_loss
from tinker_officer.stats.paired import wary_difference


def suite(cases=200, held_out=50):
    rows = [{"input": f"q{i}", "output": f"a{i}"} for i in range(max(cases, held_out))]
    return (
        EvalSuite()
        .nll(Conversations.from_list(rows[:held_out]))
        .product("tickets", rows[:cases], grader=graders.includes)
    )


def test_each_rule_is_told_whether_the_items_are_enough():
    """Two hundred cases do not decide two points, but ten; held-out NLL decides 0.11 nats with fifty."""
    gate = (
        Gate.not_worse(margin=0.02)
        .guard("held_out/nll", margin=0.11)
        .better("tickets")
        .at_least("tickets", 0.6)
        .require("tickets", n=300)
        .guard("tikets", margin=0.1)
    )
    plan = gate.plan(suite())
    found = {(line.eval, line.rule): line for line in plan.lines}
    assert found["tickets", "not worse"].decides is False
    assert found["tickets", "not worse"].n_needed > 4000
    assert found["tickets", "not worse"].tells > 0.08
    assert found["held_out", "not worse"].decides is True
    assert found["tickets", "better"].decides is True
    assert 0.05 < found["tickets", "at least"].tells < 0.08
    assert found["tickets", "required"].decides is False
    assert "did you mean 'tickets'" in found["tikets", "not worse"].why
    assert not plan.decides
    assert "tickets" in str(plan)
    assert Gate().guard("tickets", margin=0.2).plan(suite()).decides


def passed(counts, n, margin):
    """Return the share of draws of (regressions, improvements, rest) whose loss ends within the margin."""
    found = {(int(b), int(c)) for b, c, _ in counts}
    ends = {(b, c): binary_loss(b, c, n, 0.95).high for b, c in found}
    return np.mean([ends[int(b), int(c)] <= margin for b, c, _ in counts])


@pytest.mark.parametrize(("n", "discordance"), [(20, 0.2), (25, 0.1), (150, 0.02), (200, 0.2), (1000, 0.1)])
def test_a_margin_that_the_plan_calls_decidable_is_decided_as_often_as_it_says(n, discordance):
    """Simulated models that are as good as the baseline pass the planned margin in 80 % of runs, no less."""
    gate = Gate.not_worse(margin=0.5)
    line = gate.plan(suite(cases=n), discordance=discordance, power=0.6).lines[1]  # two share it: 80 % each
    rng = np.random.default_rng(1)
    counts = rng.multinomial(n, [discordance / 2, discordance / 2, 1 - discordance], size=4000)
    assert passed(counts, n, line.tells) > 0.78
    assert passed(counts, n, line.tells - 1e-5) < 0.82
    exact = Gate.not_worse(margin=line.tells).plan(suite(cases=n), discordance=discordance, power=0.6)
    assert exact.lines[1].decides
    assert exact.lines[1].n_needed <= n


@pytest.mark.parametrize(("n", "discordance"), [(25, 0.3), (200, 0.2)])
def test_a_gain_that_the_plan_calls_seen_is_seen_as_often_as_it_says(n, discordance):
    """Simulated models that are better by the planned gain are called better in 80 % of runs."""
    line = Gate().better("tickets").plan(suite(cases=n), discordance=discordance).lines[-1]
    shares = [(discordance - line.tells) / 2, (discordance + line.tells) / 2, 1 - discordance]
    counts = np.random.default_rng(3).multinomial(n, shares, size=4000)
    assert abs(passed(counts, n, 0) - 0.8) < 0.02


@pytest.mark.parametrize("n", [20, 25, 50, 400])
def test_the_planned_margin_of_an_nll_is_decided_as_often_as_it_says(n):
    """Paired differences with the assumed spread show the planned margin in about 80 % of runs."""
    gate = Gate.not_worse(margin=0.5)
    line = gate.plan(suite(held_out=n), power=0.6).lines[0]  # two guardrails share what is left: 80 % each
    rng = np.random.default_rng(2)
    ends = [wary_difference(np.zeros(n), rng.normal(0, 0.2, n)).high for _ in range(1200)]
    assert abs(np.mean(np.array(ends) <= line.tells) - 0.8) < 0.03
    assert gate.plan(suite(held_out=19)).lines[0].decides is False
    needed = Gate.not_worse(margin=line.tells).plan(suite(held_out=n), power=0.6).lines[0].n_needed
    assert n - 1 <= needed <= n


def test_an_anchor_doubles_what_must_pass_and_so_the_items_needed():
    """Every guardrail is held twice, and the chance that all pass is shared among twice as many."""
    gate = Gate.not_worse(margin=0.05)
    once, twice = (one.plan(suite()).lines[1].n_needed for one in (gate, gate.anchor("m@1")))
    assert once < twice < 2 * once


def test_an_empty_gate_or_suite_decides_nothing_and_bad_assumptions_are_refused():
    """A plan with no line never says yes."""
    assert not Gate().plan(suite()).decides
    assert not Gate.not_worse().plan(EvalSuite()).decides
    assert "nothing passes" in Gate().plan(suite()).explain()
    assert Gate.not_worse(margin=0).plan(suite()).lines[0].n_needed is None
    for wrong in ({"discordance": 2}, {"deviation": float("nan")}, {"power": 1}):
        with pytest.raises(RegistryError, match="out of range"):
            Gate.not_worse().plan(suite(), **wrong)


def test_an_eval_whose_items_are_not_counted_yet_is_left_open():
    """A benchmark without a limit has an unknown size, and the plan says so rather than guess."""
    plan = Gate.not_worse().plan(EvalSuite().benchmark("mine/exam"))
    assert plan.lines[0].decides is None
    assert plan.lines[0].n_needed > 0
    assert "?" in plan.explain()
