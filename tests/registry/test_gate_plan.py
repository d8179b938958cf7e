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


@pytest.mark.parametrize(("n", "discordance"), [(200, 0.2), (1000, 0.1), (150, 0.02)])
def test_a_margin_that_the_plan_calls_decidable_is_decided_as_often_as_it_says(n, discordance):
    """Simulated models that are as good as the baseline pass the planned margin in about 80 % of runs."""
    line = Gate.not_worse(margin=0.5).plan(suite(cases=n), discordance=discordance).lines[1]
    rng = np.random.default_rng(1)
    counts = rng.multinomial(n, [discordance / 2, discordance / 2, 1 - discordance], size=1000)
    slack = 1.02 if n > 500 else 1.2  # two guardrails share the power; the plan is normal, the verdict exact
    passed = [binary_loss(int(b), int(c), n, 0.95).high <= line.tells * slack for b, c, _ in counts]
    assert np.mean(passed) > 0.75


@pytest.mark.parametrize(("n", "at_least"), [(25, 0.65), (50, 0.72)])
def test_the_planned_margin_of_an_nll_is_decided_as_often_as_it_says(n, at_least):
    """Paired differences with the assumed spread show the planned margin in about 80 % of runs, few in 70."""
    gate = Gate.not_worse(margin=0.5)
    line = gate.plan(suite(held_out=n), power=0.6).lines[0]  # two guardrails share what is left: 80 % each
    rng = np.random.default_rng(2)
    passed = [wary_difference(np.zeros(n), rng.normal(0, 0.2, n)).high <= line.tells for _ in range(600)]
    assert at_least < np.mean(passed) < 0.85
    assert gate.plan(suite(held_out=19)).lines[0].decides is False
    assert Gate.not_worse(margin=line.tells).plan(suite(), power=0.6).lines[0].n_needed == n


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
