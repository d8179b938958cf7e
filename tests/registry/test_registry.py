"""The record: what is registered, where it is deployed, and what is refused."""

from __future__ import annotations

import pickle
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from tinker_officer.errors import RegistryError
from tinker_officer.plan import rates
from tinker_officer.registry.gate import Gate
from tinker_officer.registry.refusal import PromotionRefused
from tinker_officer.registry.registry import Registry
from tinker_officer.registry.verdict import Outcome


GATE = Gate.not_worse(margin=0.02)
FOUR_PARTS = r"(?s)got:.*need:.*fix:"
GOOD, FAIR, BAD = [1] * 900 + [0] * 100, [1, 0] * 500, [0] * 900 + [1] * 100


def test_a_result_is_registered_with_everything_that_made_it(registry, result, card, binary):
    """The version holds the checkpoint that the card was made on, the plan, data, figures and provenance."""
    run = result()
    version = registry.register(run, card(binary(FAIR), target=run.best.sampler_path), notes="first")
    again = registry.get(version.label)
    assert again == version
    assert hash(again) == hash(version)
    assert (version.name, version.number, version.step) == ("tickets-r16", 1, 30)
    assert version.sampler_path == run.best.sampler_path == version.target
    assert version.lora == {"rank": 16, "train_mlp": True, "train_attn": True}
    assert version.metrics["held_out/nll"] == pytest.approx(1.7)
    assert version.data["rows"] == 300
    assert version.packages["tinker"]
    assert registry.scorecards(version)[0]["tickets"].n == 1000
    assert registry.get(version.id[:8]) == version
    for text in ("tickets-r16@1", "rank 16", "tickets.jsonl", "first"):
        assert text in version.explain()


def test_past_versions_calibrate_the_next_learning_rate(registry, result):
    """Read back from the registry, runs at three rates are one curve, and its lowest point is the rule's."""
    for tag, rate, loss in (("a", 1e-4, 1.30), ("b", 2e-4, 1.25), ("c", 4e-4, 1.30)):
        run = result(fingerprint=tag * 64, tag=tag)
        computed = {"rank": 16, "learning_rate": rate, "batch_size": 8, "steps": 40}
        best = attrs.evolve(run.best, metrics={"held_out/nll": loss})
        registry.register(attrs.evolve(run, plan={**run.plan, "computed": computed}, best=best))
    rule = rates.fit(rates.Trial.from_run(version) for version in registry.versions("tickets-r16"))
    assert rule.rate("tiny", 16) == pytest.approx(2e-4, rel=0.02)


def test_the_card_says_which_checkpoint_is_registered(registry, result, card, binary):
    """A card of the final checkpoint registers the final one; a card of another model is refused."""
    run = result()
    final = registry.register(run, card(binary(FAIR), target=run.final.sampler_path))
    best = registry.register(run)
    assert (final.step, best.step) == (40, 30)
    assert final.id != best.id
    with pytest.raises(RegistryError, match="of another model"):
        registry.register(run, card(binary(FAIR), target="tinker://b/sampler_weights/9"))
    with pytest.raises(RegistryError, match="of another model"):
        registry.register("tiny", card(binary(FAIR), target="tinker://b/sampler_weights/9"))
    assert len(registry.versions()) == 2


def test_registering_twice_is_registering_once(registry, result, card, binary):
    """The same source gives the same version; a new card is attached to it, the same card is not."""
    run = result()
    first = registry.register(run)
    path = run.best.sampler_path
    assert registry.register(run, card(binary(FAIR), target=path)) == first
    assert registry.register(run, card(binary(FAIR), target=path)) == first
    assert registry.register(run, card(binary(GOOD), target=path)) == first
    assert registry.versions("tickets-r16") == (first,)
    assert len(registry.scorecards(first)) == 2
    assert registry.verify().entries == 3


def test_other_notes_or_parents_for_a_version_that_stands_are_refused(registry, result):
    """A version never changes: a second registration with other notes says so, and loses nothing."""
    base = registry.register("tiny")
    version = registry.register(result(), notes="good", parents=[base])
    assert version.parents == (base.id,)
    assert registry.register(result()) == version
    assert registry.register(result(), notes="good", parents=[base.label]) == version
    for other in ({"notes": "bad"}, {"parents": [version]}):
        with pytest.raises(RegistryError, match="never changes"):
            registry.register(result(), **other)


def test_a_card_of_other_weights_under_the_same_path_is_stale(registry, result, card, binary):
    """Retrained into the same path, a model cannot wear its predecessor's scorecard."""
    old = result()
    scores = card(binary(GOOD), target=old.best.sampler_path)
    registry.register(old, scores)
    with pytest.raises(RegistryError, match="stale"):
        registry.register(result(fingerprint="e" * 64), scores)
    assert len(registry.versions()) == 1  # nothing was half-registered


def test_the_better_moves_the_worse_is_refused_and_both_are_history(registry, models):
    """v1 goes to production, v2 is worse and refused with the evidence, v3 is better and replaces v1."""
    fair, bad, good = models
    first = registry.promote(fair, to="production", gate=GATE, actor="ci")
    assert first.outcome is Outcome.PASS
    with pytest.raises(PromotionRefused, match="tickets/accuracy") as refused:
        registry.promote(bad, to="production", gate=GATE, actor="ci")
    assert refused.value.verdict.outcome is Outcome.BREACH
    assert pickle.loads(pickle.dumps(refused.value)).verdict == refused.value.verdict
    assert registry.current("production") == fair
    move = registry.promote(good, to="production", gate=GATE, actor="ci", reason="better")
    assert move.previous == fair.id
    assert registry.current("production", name="tickets") == good
    history = registry.history("tickets", channel="production")
    assert [entry.kind for entry in history] == ["promoted", "refused", "promoted"]
    assert history[1].verdict == refused.value.verdict
    assert "refused" in str(history)
    assert "tickets  production  tickets@3" in registry.explain()
    assert registry.verify().entries == 6 + 3


def test_without_a_card_nothing_is_promoted(registry, result, card, binary):
    """A version without a scorecard is refused, also as the first; so is one judged against such a one."""
    bare = registry.register(result())
    with pytest.raises(PromotionRefused, match="no scorecard"):
        registry.promote(bare, to="production", gate=GATE, actor="ci")
    registry.promote(bare, to="production", gate=GATE, actor="ada", reason="outage", override=True)
    other = registry.register("tiny", card(binary(GOOD)), name="tickets-r16")
    with pytest.raises(PromotionRefused, match="baseline has no scorecard"):
        registry.promote(other, to="production", gate=GATE, actor="ci")


def test_the_baseline_is_judged_by_its_card_on_the_candidates_suite(registry, card, binary):
    """A baseline with cards of two suites is compared on the one that the candidate sat."""
    base = registry.register("fair", card(binary(FAIR), target="fair"), name="t")
    registry.register("fair", card(binary(BAD), target="fair", suite="suite-2"), name="t")
    registry.promote(base, to="production", gate=GATE, actor="ci")
    bad = registry.register("bad", card(binary(BAD), target="bad"), name="t")
    with pytest.raises(PromotionRefused):
        registry.promote(bad, to="production", gate=GATE, actor="ci")
    stale = registry.register("new", card(binary(GOOD), target="new", suite="suite-3"), name="t")
    with pytest.raises(PromotionRefused, match="suite changed"):
        registry.promote(stale, to="production", gate=GATE, actor="ci")


def test_an_override_needs_actor_and_reason_and_stays_on_the_card(registry, models):
    """Whoever overrides the gate is named, with the reason and the evidence, for good."""
    fair, bad, good = models
    registry.promote(fair, to="production", gate=GATE, actor="ci")
    for missing in ({"actor": "ada"}, {"actor": " ", "reason": "why"}):
        with pytest.raises(RegistryError, match=FOUR_PARTS):
            registry.promote(bad, to="production", gate=GATE, override=True, **missing)
    move = registry.promote(bad, to="production", gate=GATE, actor="ada", reason="outage", override=True)
    assert (move.kind, move.outcome) == ("overridden", Outcome.BREACH)
    registry.promote(good, to="production", gate=GATE, actor="ci")
    card = registry.card(bad)
    assert "Overridden" in card
    assert "ada" in card
    assert "outage" in card
    assert "the gate said BREACH" in card


def test_production_and_own_channels_need_a_gate_candidate_and_staging_do_not(registry, models):
    """Without a gate only the channels before production can be entered."""
    fair = models[0]
    assert registry.promote(fair, to="candidate", actor="ada").verdict is None
    assert registry.promote(fair, to="staging", actor="ada").kind == "promoted"
    for channel in ("production", "berlin"):
        with pytest.raises(RegistryError, match="without a gate"):
            registry.promote(fair, to=channel, actor="ada")
    assert registry.current("production") is None


def test_promoting_what_is_there_already_changes_nothing(registry, models):
    """A retried promotion returns the move that was made, and adds no second one."""
    move = registry.promote(models[0], to="production", gate=GATE, actor="ci")
    again = registry.promote(models[0], to="production", gate=GATE, actor="ci", expected_current=None)
    assert again == move
    assert len(registry.history()) == 1


def test_a_move_that_expected_another_current_version_is_refused(registry, models):
    """Compare-and-set: who decided on an older state must decide again."""
    fair, _, good = models
    with pytest.raises(RegistryError, match=r"(?s)does not hold what was expected.*nothing"):
        registry.promote(good, to="production", gate=GATE, actor="ci", expected_current=fair)
    registry.promote(fair, to="production", gate=GATE, actor="ci", expected_current=None)
    with pytest.raises(RegistryError, match="does not hold what was expected"):
        registry.promote(good, to="production", gate=GATE, actor="ci", expected_current=None)
    registry.promote(good, to="production", gate=GATE, actor="ci", expected_current=fair.label)
    with pytest.raises(RegistryError, match="does not hold what was expected"):
        registry.rollback("production", actor="ci", reason="slow", expected_current=fair)


def test_a_rollback_puts_the_version_before_back(registry, models):
    """Two promotions and two rollbacks: the second has nothing to fall back on, and says so."""
    fair, _, good = models
    registry.promote(fair, to="production", gate=GATE, actor="ci")
    registry.promote(good, to="production", gate=GATE, actor="ci")
    move = registry.rollback("production", actor="ada", reason="slow answers")
    assert (move.version, move.previous, move.kind) == (fair.id, good.id, "rolled back")
    assert registry.current("production") == fair
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        registry.rollback("production", actor="ada", reason="again")
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        registry.rollback("staging", actor="ada", reason="again")


def test_a_retired_version_leaves_every_channel_and_is_never_fallen_back_on(registry, models):
    """A channel that held it falls back; only an override brings it back, and it can retire again."""
    fair, bad, good = models
    registry.promote(bad, to="production", gate=GATE, actor="ci")
    registry.promote(fair, to="production", gate=GATE, actor="ci")
    registry.promote(good, to="production", gate=GATE, actor="ci")
    registry.promote(good, to="staging", actor="ci")
    registry.retire(fair, actor="ada", reason="licence")
    assert registry.current("production") == good
    registry.retire(good, actor="ada", reason="licence")
    assert registry.current("production") == bad
    assert registry.current("staging") is None
    assert registry.current("retired") == good
    assert registry.retire(good, actor="ada", reason="licence") == good
    with pytest.raises(RegistryError, match="was retired"):
        registry.promote(good, to="production", gate=GATE, actor="ci")
    with pytest.raises(RegistryError, match="retired, not promoted"):
        registry.promote(bad, to="retired", actor="ci")
    with pytest.raises(RegistryError, match="retired is not rolled back"):
        registry.rollback("retired", name="tickets", actor="ada", reason="cleared")
    registry.promote(good, to="production", gate=GATE, actor="ada", reason="cleared", override=True)
    assert registry.current("production") == good
    assert registry.current("retired") == fair
    registry.retire(good, actor="ada", reason="after all")
    assert registry.current("production") == bad
    assert registry.verify().head


def test_a_channel_name_that_looks_like_a_slip_is_refused(registry, models):
    """A typo gets the nearest names; an own channel is made by its first promotion."""
    fair = models[0]
    for wrong, shown in (
        ("prodution", "production"),
        ("Production", "letter"),
        ("a b", "letter"),
        ("", "letter"),
    ):
        with pytest.raises(RegistryError, match=shown):
            registry.promote(fair, to=wrong, gate=GATE, actor="ci")
    registry.promote(fair, to="berlin", gate=GATE, actor="ci")
    assert registry.current("berlin") == fair
    registry.promote(fair, to="production-eu", gate=GATE, actor="ci", new_channel=True)
    assert registry.current("production-eu") == fair
    with pytest.raises(RegistryError, match="'berlin'"):
        registry.promote(fair, to="berlni", gate=GATE, actor="ci")
    with pytest.raises(RegistryError, match=FOUR_PARTS):
        registry.current("PRODUCTION")


def test_a_channel_of_several_models_asks_for_a_name(registry, card, binary):
    """`current` does not guess which model is meant."""
    for name in ("a", "b"):
        version = registry.register("tiny", card(binary(FAIR)), name=name)
        registry.promote(version, to="production", gate=GATE, actor="ci")
    with pytest.raises(RegistryError, match="several models"):
        registry.current("production")
    assert registry.current("production", name="b").name == "b"
    assert registry.current("staging") is None


def test_as_of_shows_the_registry_as_it_stood(registry, models):
    """A moment between two moves shows the first alone; text without a zone is UTC."""
    fair, _, good = models
    registry.promote(fair, to="production", gate=GATE, actor="ci")
    between = registry.history()[-1].at
    time.sleep(0.002)
    registry.promote(good, to="production", gate=GATE, actor="ci")
    then = registry.as_of(between)
    assert then.current("production") == fair
    assert len(then.history()) == 1
    assert then.get("tickets@3") == good
    assert "as of" in repr(then)
    before = registry.as_of("2020-01-01")
    assert before.versions() == ()
    assert before.current("production") is None
    assert before.explain() == "nothing is registered"
    for moment in ("yesterday", 1700000000):
        with pytest.raises(RegistryError, match="not a time"):
            registry.as_of(moment)


@pytest.mark.parametrize(
    "ref", ["tickets@9", "ticket@1", "abc", "0" * 64, "", "x' OR 1=1 --", "%", "tickets@x"]
)
def test_an_unknown_version_is_named_with_what_there_is(registry, models, ref):
    """A wrong reference gives the nearest labels, and no wildcard or quote is taken for more than text."""
    with pytest.raises(RegistryError, match=r"(?s)no such version.*fix:"):
        registry.get(ref)


@pytest.mark.parametrize("name", ["", " ", " a", "a\n", "a@1", "x" * 201, "\x00"])
def test_a_name_that_cannot_be_one_is_refused(registry, name):
    """Model names are printable, trimmed and without @."""
    with pytest.raises(RegistryError, match=FOUR_PARTS):
        registry.register("tiny", name=name)


def test_a_folder_is_a_base_model_however_it_is_written(registry, card, binary):
    """A base model's folder as a Path is the version that the same folder as text is."""
    version = registry.register(Path("models/tiny"), card(binary([1, 0]), target="models/tiny"))
    assert registry.register("models/tiny") == version
    assert version.label == "tiny@1"


def test_what_is_no_source_is_refused(registry):
    """A bare checkpoint path says nothing of its training: it is not a source, nor is any other object."""
    for source in ("tinker://a/sampler_weights/1", " ", None, object()):
        with pytest.raises(RegistryError, match="cannot be registered"):
            registry.register(source)


def test_figures_that_are_not_finite_are_recorded_as_text(registry, result):
    """A NaN among the metrics neither breaks the record nor becomes a number."""
    version = registry.register(
        attrs.evolve(result(), metrics={"train/mean_nll": float("nan"), "a": [1, None]})
    )
    assert version.metrics["train/mean_nll"] == "nan"
    assert registry.get(version.id).metrics["a"] == [1, None]


def test_values_print_well(registry, models):
    """One line as repr, a table as explain, escaped in a notebook."""
    move = registry.promote(models[0], to="staging", actor="<b>ada</b>")
    for value in (registry, move, models[0], registry.history()):
        assert "\n" not in repr(value)
        assert value.explain()
        assert "<b>" not in value._repr_html_()
    assert "no moves" in registry.history("nobody").explain()
    assert registry.history()[0].at in move.explain()


def test_a_registry_is_a_context_manager(tmp_path, card, binary):
    """What one opening records, the next one finds."""
    with Registry.open(tmp_path / "new" / "models.db") as registry:
        registry.register("tiny", card(binary(FAIR)))
    with Registry.open(f"sqlite:///{tmp_path}/new/models.db") as registry:
        assert registry.get("tiny@1").base_model == "tiny"


def test_text_that_postgres_or_utf_8_cannot_hold_comes_back_or_is_refused(registry, odd_text):
    """As in PostgreSQL, which test_postgres asks the same."""
    odd_text(registry)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda registry: registry.current("prodution"), "looks like one that there is"),
        (lambda registry: registry.current(None), "cannot be a channel"),
        (lambda registry: registry.register("tiny", notes=None), "notes is not text"),
        (lambda registry: registry.promote("m@1", to="staging", actor=None), "actor is not text"),
        (
            lambda registry: registry.promote("m@1", to="staging", actor="ci", reason=None),
            "reason is not text",
        ),
        (lambda registry: registry.promote("m@1", to="staging", actor="ci", key=7), "key is not text"),
        (lambda registry: registry.promote("m@1", to="production", actor="ci", gate="strict"), "not a gate"),
    ],
)
def test_a_slip_is_met_in_words_before_anything_is_recorded(registry, ask, said):
    """A mistyped channel is not an empty one, and None is no reason that should stand for good."""
    registry.register("tiny", name="m")
    with pytest.raises(RegistryError, match=rf"(?s){said}.*got:.*need:.*fix:"):
        ask(registry)
    assert registry.verify().entries == 1


def test_what_cannot_be_read_is_told_from_what_was_not_recorded(registry):
    """A file that is gone, a record that is no JSON, text that is no UTF-8: each in our words."""
    registry.register("tiny", name="m")
    registry.close()
    path = registry._database.path
    path.rename(path.with_name("away.db"))
    with pytest.raises(RegistryError, match=r"(?s)cannot be read.*restore the file"):
        registry.versions()
    path.with_name("away.db").rename(path)
    for value, said in (("'{'", "no JSON"), ("CAST(x'ff' AS TEXT)", "decode")):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TRIGGER IF EXISTS versions_no_update")
            connection.execute(f"UPDATE versions SET record = {value}")
            connection.commit()
        with pytest.raises(RegistryError, match=rf"(?s)registry is damaged.*{said}"):
            registry.versions()
