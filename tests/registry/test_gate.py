"""The gate as a policy: what passes, what is broken, and what is never let through."""

from __future__ import annotations

import json
import math

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_officer.errors import RegistryError
from tinker_officer.registry.gate import Gate
from tinker_officer.registry.verdict import Outcome, Verdict


PASS, BREACH, INCONCLUSIVE = Outcome.PASS, Outcome.BREACH, Outcome.INCONCLUSIVE
GATE = Gate.not_worse(margin=0.02)


def flipped(scores, losses, gains):
    """Return `scores` with `losses` ones turned to zeros and `gains` zeros to ones."""
    ones = [i for i, s in enumerate(scores) if s == 1][:losses]
    zeros = [i for i, s in enumerate(scores) if s == 0][:gains]
    return [1 - s if i in ones or i in zeros else s for i, s in enumerate(scores)]


BASE = [1, 0] * 500


def test_a_clear_improvement_passes(card, binary):
    """Two hundred more right answers of a thousand pass, as a guardrail and as a success."""
    after = card(binary(flipped(BASE, 10, 210)), target="tinker://b")
    verdict = GATE.better("tickets").decide(after, card(binary(BASE)))
    assert verdict.outcome is PASS
    assert [line.rule for line in verdict.lines] == ["not worse", "better"]
    assert verdict.lines[0].high < 0


def test_a_clear_loss_is_a_breach(card, binary):
    """A hundred fewer right answers of a thousand break a two-point margin for certain."""
    verdict = GATE.decide(card(binary(flipped(BASE, 110, 10))), card(binary(BASE)))
    assert verdict.outcome is BREACH
    assert verdict.lines[0].low > 0.02


def test_what_the_items_cannot_tell_is_inconclusive_and_says_what_would_decide(card, binary):
    """With forty items, one loss decides nothing; the n that is named does decide, at the rates seen."""
    base = [1, 0] * 20
    verdict = GATE.decide(card(binary(flipped(base, 1, 1))), card(binary(base)))
    assert verdict.outcome is INCONCLUSIVE
    needed = verdict.lines[0].n_needed
    share = -(-needed // 40)
    more = [1, 0] * (20 * share)
    again = GATE.decide(card(binary(flipped(more, share, share))), card(binary(more)))
    assert 400 < needed < 4000
    assert again.outcome is PASS
    assert "items would decide" in verdict.explain()


@pytest.mark.parametrize("kind", ["binary", "nll"])
def test_ten_identical_pairs_never_pass_a_one_point_margin(card, binary, nll, kind):
    """That nothing differs in ten items shows next to nothing: where Wald fails open, this does not."""
    evals = (binary([1, 0] * 5),) if kind == "binary" else (nll([2.0 + i / 10 for i in range(10)]),)
    verdict = Gate.not_worse(margin=0.01).decide(card(*evals, target="tinker://b"), card(*evals))
    assert verdict.outcome is INCONCLUSIVE


@given(n=st.integers(1, 10), margin=st.floats(0, 0.01), right=st.integers(0, 10))
@settings(deadline=None, max_examples=60)
def test_no_ten_equal_answers_pass_a_one_point_margin(card, binary, n, margin, right):
    """However many of up to ten equal answers are right, they never show that less than a point was lost."""
    same = card(binary([1] * min(right, n) + [0] * (n - min(right, n))))
    assert Gate.not_worse(margin=margin).decide(same, same).outcome is INCONCLUSIVE


def test_an_empty_suite_an_empty_gate_and_a_missing_card_never_pass(card, binary):
    """Nothing asked, nothing answered, nothing shown: three ways to say nothing, and none is a PASS."""
    full = card(binary(BASE))
    for gate, candidate, baseline in (
        (GATE, card(), card()),
        (GATE, card(), None),
        (Gate(), full, full),
        (Gate(), full, None),
        (GATE, None, full),
        (GATE, None, None),
    ):
        assert gate.decide(candidate, baseline).outcome is INCONCLUSIVE
    assert GATE.decide(full, None, first=False).outcome is INCONCLUSIVE  # the baseline was never evaluated


def test_an_eval_without_items_never_passes(card, binary):
    """An eval that counts items which it does not hold is no evidence."""
    hollow = attrs.evolve(binary(BASE), items=())
    for candidate, baseline in ((hollow, binary(BASE)), (binary(BASE), hollow)):
        verdict = GATE.decide(card(candidate), card(baseline))
        assert verdict.outcome is INCONCLUSIVE
        assert "empty" in verdict.lines[0].why
    assert GATE.decide(card(hollow), None).outcome is INCONCLUSIVE


def spoil(result, **changes):
    return attrs.evolve(result, items=(attrs.evolve(result.items[0], **changes), *result.items[1:]))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: spoil(r, error="timed out"), "1 of 1000 items errored, first q0: timed out"),
        (lambda r: spoil(r, score=math.nan), "not finite"),
        (lambda r: spoil(r, id="other"), "unpaired: 2 items are on one card only"),
        (lambda r: spoil(r, input_digest="changed"), "was not the same question"),
        (lambda r: spoil(r, weight=3.0), "does not weigh the same"),
        (lambda r: spoil(r, score=7.0), "outside the metric's bounds"),
        (lambda r: spoil(r, weight=-1.0), "must not be negative"),
        (lambda r: spoil(r, id="q1"), "incomplete"),
        (lambda r: attrs.evolve(r, settings={**r.settings, "limit": 50}, settings_digest="x"), "(limit)"),
        (lambda r: attrs.evolve(r, metric="score"), "missing"),
        (lambda r: attrs.evolve(r, higher_is_better=False), "stale: higher_is_better"),
        (lambda r: attrs.evolve(r, name="ticket"), "did you mean 'ticket"),
    ],
)
def test_evidence_that_cannot_be_paired_never_passes(card, binary, change, why):
    """An error, a gap, another question, other settings: each blocks, and the line says which."""
    right = binary([1] * 1000)
    verdict = GATE.decide(card(change(right)), card(binary([0, 1] * 500)))
    assert verdict.outcome is INCONCLUSIVE
    assert why in verdict.lines[0].why


def test_another_suite_or_renderer_makes_the_baseline_stale(card, binary):
    """A card of another suite, or with prompts rendered another way, is no baseline."""
    better, base = card(binary([1] * 1000)), card(binary(BASE))
    assert GATE.decide(better, base).outcome is PASS
    suite = GATE.decide(attrs.evolve(better, suite_digest="suite-2"), base)
    renderer = GATE.decide(attrs.evolve(better, renderer_name="chatml"), base)
    assert (suite.outcome, renderer.outcome) == (INCONCLUSIVE, INCONCLUSIVE)
    assert "the suite changed" in suite.notes[0]
    assert "rendered by smollm2" in renderer.notes[0]


def test_lower_is_better_for_nll(card, nll):
    """A lower NLL passes, a higher one is a breach; the loss is counted in nats."""
    low = nll([1.0 + i % 10 / 10 for i in range(60)])
    high = nll([2.0 + i % 7 / 10 for i in range(60)])
    assert GATE.decide(card(low), card(high)).outcome is PASS
    broken = GATE.decide(card(high), card(low))
    assert broken.outcome is BREACH
    assert broken.lines[0].low > 0.5


def test_a_margin_of_its_own_replaces_the_common_one(card, binary, nll):
    """A guard by eval name or by metric key overrides the margin; a second one replaces the first."""
    base = card(binary(BASE), nll([2.0 + i % 10 / 10 for i in range(80)]))
    worse = card(
        binary(BASE), nll([2.03 + i % 10 / 10 + i % 3 / 1000 for i in range(80)]), target="tinker://b"
    )
    gate = Gate.not_worse(margin=0.05)
    assert gate.decide(worse, base).outcome is PASS
    assert gate.guard("held_out", margin=0.01).decide(worse, base).outcome is BREACH
    assert gate.guard("held_out/nll", margin=0.01).guard("held_out/nll", margin=0.1).guards[0].margin == 0.1
    only = Gate().guard("held_out", margin=0.05).decide(worse, base)
    assert [line.eval for line in only.lines] == ["held_out/nll"]
    assert only.outcome is PASS


def test_a_rule_about_an_eval_that_is_not_there_blocks_and_offers_the_nearest(card, binary):
    """A misspelt eval in any rule never passes, and the verdict says what was probably meant."""
    full = card(binary([1] * 1000))
    base = card(binary(BASE))
    for gate in (
        GATE.guard("tikets", margin=0.1),
        GATE.better("tikets"),
        GATE.at_least("tikets", 0.1),
        GATE.require("tikets"),
    ):
        for baseline in (base, None):
            verdict = gate.decide(full, baseline)
            assert verdict.outcome is INCONCLUSIVE
            assert any("did you mean 'tickets'" in line.why or "'tickets/accuracy'" in line.why
                       for line in verdict.lines)  # fmt: skip


def test_a_missing_success_eval_blocks_although_another_success_was_shown(card, binary):
    """One success is enough, but an eval that was asked for and is not there still blocks."""
    gate = GATE.better("tickets").better("gone")
    assert gate.decide(card(binary([1] * 1000)), card(binary(BASE))).outcome is INCONCLUSIVE


def test_one_success_of_several_is_enough_and_holm_guards_against_luck(card, binary):
    """At least one must be better, by an interval that is wider the more are asked."""
    base = card(binary(BASE, name="a"), binary(BASE, name="b"), binary(BASE, name="c"))
    lucky = flipped(BASE, 20, 36)  # better by 16 of 1000: alone just so, among three not
    after = card(binary(lucky, name="a"), binary(BASE, name="b"), binary(BASE, name="c"))
    alone, among = GATE.better("a"), GATE.better("a").better("b").better("c")
    assert alone.decide(after, base).outcome is PASS
    assert among.decide(after, base).outcome is INCONCLUSIVE
    clear = card(binary([1] * 1000, name="a"), binary(lucky, name="b"), binary(BASE, name="c"))
    verdict = among.decide(clear, base)
    found = {line.eval: line.outcome for line in verdict.lines if line.rule == "better"}
    assert verdict.outcome is PASS
    assert found == {"a/accuracy": PASS, "b/accuracy": INCONCLUSIVE, "c/accuracy": INCONCLUSIVE}


def test_a_success_that_is_surely_worse_is_a_breach(card, binary):
    """When every success metric is surely worse, the verdict is not a mere doubt."""
    gate = Gate().better("tickets")
    assert gate.decide(card(binary([0] * 1000)), card(binary(BASE))).outcome is BREACH


def test_a_floor_is_held_by_the_interval_and_not_by_the_value(card, binary):
    """Seven of ten do not show a rate of 0.6; seven hundred of a thousand do; three hundred break it."""
    gate = Gate().at_least("tickets", 0.6)
    assert gate.decide(card(binary([1] * 7 + [0] * 3)), None).outcome is INCONCLUSIVE
    assert gate.decide(card(binary([1] * 700 + [0] * 300)), None).outcome is PASS
    assert gate.decide(card(binary([1] * 300 + [0] * 700)), None).outcome is BREACH


def test_a_ceiling_is_the_mirror_of_a_floor(card, nll):
    """An NLL that surely lies below the ceiling passes, one that surely lies above it is a breach."""
    scores = [2.0 + i % 5 / 10 for i in range(100)]
    assert Gate().at_most("held_out", 2.5).decide(card(nll(scores)), None).outcome is PASS
    assert Gate().at_most("held_out", 2.0).decide(card(nll(scores)), None).outcome is BREACH
    assert Gate().at_most("held_out/nll", 2.21).decide(card(nll(scores)), None).outcome is INCONCLUSIVE


def test_a_requirement_counts_items(card, binary):
    """An eval that must have two hundred items does not pass with a hundred."""
    gate = GATE.require("tickets", n=200)
    assert gate.decide(card(binary([1] * 100)), None).outcome is INCONCLUSIVE
    assert gate.decide(card(binary([1] * 200)), None).outcome is PASS
    assert gate.require("tickets", n=50).requirements == (Gate().require("tickets", n=50).requirements)


def test_the_first_version_is_told_that_there_was_nothing_to_compare_with(card, binary):
    """With no baseline the floors decide, and the verdict says so."""
    verdict = GATE.better("tickets").decide(card(binary(BASE)), None)
    assert verdict.outcome is PASS
    assert "Nothing to compare with" in verdict.notes[0]


def test_gate_and_verdict_round_trip_through_json(card, binary, nll):
    """What is written is read back equal, unbounded figures among it."""
    gate = (
        GATE.guard("held_out", margin=0.05).better("tickets").at_least("tickets", 0.2).require("tickets", n=9)
    )
    assert Gate.from_json(gate.to_json()) == gate
    assert Gate.from_json(gate.to_json()).digest == gate.digest
    base = card(binary(BASE), nll([2.0] * 5))
    verdict = gate.decide(card(binary(flipped(BASE, 3, 9)), nll([2.0] * 5)), base)
    odd = attrs.evolve(verdict, lines=(attrs.evolve(verdict.lines[0], high=math.inf), *verdict.lines[1:]))
    for one in (verdict, odd):
        assert Verdict.from_json(one.to_json()) == one
        assert json.loads(one.to_json())["gate"] == json.loads(gate.to_json())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gate.not_worse(margin=-0.1),
        lambda: Gate.not_worse(margin=math.nan),
        lambda: Gate.not_worse(margin="2%"),
        lambda: Gate.not_worse(confidence=1.0),
        lambda: Gate().guard("", margin=0.1),
        lambda: Gate().guard("a", margin=math.inf),
        lambda: Gate().better(" "),
        lambda: Gate().at_least("a", math.nan),
        lambda: Gate().require("a", n=0),
        lambda: Gate.from_json("{"),
        lambda: Gate.from_json("[]"),
        lambda: Gate.from_json('{"margins": 1}'),
        lambda: Gate.from_json('{"margin": -1}'),
        lambda: Gate.from_json('{"limits": [{"eval": "a", "rule": "about", "value": 1}]}'),
        lambda: Verdict.from_json("[]"),
        lambda: Verdict.from_json('{"outcome": "MAYBE"}'),
    ],
)
def test_a_malformed_gate_or_verdict_fails_where_it_is_written(make):
    """Each mistake gives a four-part error at once, not when the gate is used."""
    with pytest.raises(RegistryError, match=r"(?s)got:.*need:.*fix:"):
        make()


def test_gate_and_verdict_print_well(card, binary):
    """One line as repr, a table as explain, escaped in a notebook."""
    gate = GATE.better("<b>")
    verdict = gate.decide(card(binary(BASE), target="<script>"), card(binary(BASE)))
    assert "\n" not in repr(gate) + repr(verdict)
    assert "2.  <b> better" in gate.explain()
    assert "asks nothing" in Gate().explain()
    for shown in (gate._repr_html_(), verdict._repr_html_()):
        assert "<b>" not in shown
        assert "<script>" not in shown
    assert "INCONCLUSIVE" in repr(verdict)
