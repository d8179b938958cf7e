"""The pinned anchor, and limits on the further figures of a card."""

from __future__ import annotations

import math

import attrs
import pytest

from tinker_officer.errors import RegistryError
from tinker_officer.registry.gate import Gate
from tinker_officer.registry.refusal import PromotionRefused
from tinker_officer.registry.verdict import Outcome


PASS, BREACH, INCONCLUSIVE = Outcome.PASS, Outcome.BREACH, Outcome.INCONCLUSIVE
N = 1500


def scores(wrong):
    """Return 1,500 answers of which the first `wrong` are wrong."""
    return [0] * wrong + [1] * (N - wrong)


def test_many_small_losses_pass_one_by_one_and_fail_against_the_anchor(registry, card, binary):
    """Each version loses two points, which the margin allows; the fourth has lost eight, and is held back."""
    gate = Gate.not_worse(margin=0.06)
    versions = [
        registry.register(f"m{loss}", card(binary(scores(30 * loss)), target=f"m{loss}"), name="m")
        for loss in range(5)
    ]
    for version in versions:
        registry.promote(version, to="staging", gate=gate, actor="ci")
    anchored = gate.anchor(versions[0])
    for version in versions[:3]:
        registry.promote(version, to="production", gate=anchored, actor="ci")
    registry.promote(versions[3], to="production", gate=gate, actor="ci")
    with pytest.raises(PromotionRefused) as refused:
        registry.promote(versions[4], to="production", gate=anchored, actor="ci")
    lines = {line.against: line.outcome for line in refused.value.verdict.lines}
    assert lines == {"": PASS, "anchor": BREACH}
    assert "not worse (anchor)" in refused.value.verdict.explain()
    assert "the anchor m0" in refused.value.verdict.explain()
    assert "the same margins against m@1" in repr(anchored)


def test_a_gate_that_pins_an_anchor_does_not_pass_without_its_card(registry, card, binary):
    """An anchor that is unknown, was never evaluated, or sat another suite, blocks; it is never skipped."""
    good = card(binary(scores(0)), target="good")
    base = card(binary(scores(300)), target="base")
    gate = Gate.not_worse(margin=0.06).anchor("m@1")
    assert gate.decide(good, base, anchor=base).outcome is PASS
    for anchor, said in (
        (None, "m@1 has no scorecard"),
        (attrs.evolve(base, suite_digest="other"), "since the anchor sat it"),
        (attrs.evolve(base, renderer_name="other"), "for the anchor"),
    ):
        verdict = gate.decide(good, base, anchor=anchor)
        assert verdict.outcome is INCONCLUSIVE
        assert any(said in note for note in verdict.notes)
    empty = attrs.evolve(base, evals=())
    assert gate.decide(good, base, anchor=empty).outcome is INCONCLUSIVE
    version = registry.register("good", good, name="m")
    with pytest.raises(RegistryError, match="no such version"):
        registry.promote(version, to="production", gate=gate.anchor("m@7"), actor="ci")


def test_the_first_version_is_held_against_the_anchor_too(card, binary):
    """An empty channel leaves nothing to replace, but the anchor still holds."""
    gate = Gate.not_worse(margin=0.06).anchor("m@1")
    worse, anchor = card(binary(scores(300)), target="worse"), card(binary(scores(0)), target="anchor")
    assert gate.decide(worse, None, anchor=anchor).outcome is BREACH
    assert gate.decide(anchor, None, anchor=anchor).outcome is PASS


def test_an_anchor_makes_no_gate_of_an_empty_one(card, binary):
    """A gate that only pins an anchor, without a margin, has nothing to hold it by, and never passes."""
    same = card(binary(scores(0)))
    verdict = Gate().anchor("m@1").decide(same, same, anchor=card(binary(scores(0)), target="anchor"))
    assert verdict.outcome is INCONCLUSIVE
    assert any("no eval of its card has a margin" in note for note in verdict.notes)


def with_extra(result, **extra):
    return attrs.evolve(result, extra=extra)


@pytest.mark.parametrize(
    ("extra", "outcome"),
    [
        ({"ece": 0.04}, PASS),
        ({"ece": 0.06}, BREACH),
        ({"ece": 0.04, "ece_low": 0.03, "ece_high": 0.049}, PASS),
        ({"ece": 0.04, "ece_low": 0.01, "ece_high": 0.07}, INCONCLUSIVE),
        ({"ece": 0.09, "ece_low": 0.06, "ece_high": 0.12}, BREACH),
        ({"ece": math.nan}, INCONCLUSIVE),
        ({"ece": 0.04, "ece_low": 0.045, "ece_high": 0.03}, INCONCLUSIVE),
        ({"brier": 0.01}, INCONCLUSIVE),
    ],
)
def test_a_calibration_limit_holds_a_further_figure_of_the_card(card, binary, extra, outcome):
    """With an interval its end counts; without one the value does, and the line says so; NaN never passes."""
    gate = Gate().at_most("tickets/ece", 0.05)
    verdict = gate.decide(card(with_extra(binary([1, 0] * 500), **extra)), None)
    assert verdict.outcome is outcome
    line = next(line for line in verdict.lines if line.rule == "at most")
    assert line.by_value is ("ece_low" not in extra and math.isfinite(extra.get("ece", math.nan)))
    assert line.remark() or "ece_low" in extra


def test_a_safety_floor_needs_enough_refusals_to_be_shown(card, binary):
    """Twenty of twenty refused does not show 95 %; two hundred of two hundred does."""
    gate = Gate().at_least("refusals", 0.95).require("refusals", n=100)
    few, many = binary([1] * 20, name="refusals"), binary([1] * 200, name="refusals")
    assert gate.decide(card(few), None).outcome is INCONCLUSIVE
    assert gate.decide(card(many), None).outcome is PASS
