"""Idempotency keys, holds, pruning, lineage, comparing, hooks: what else a registry does."""

from __future__ import annotations

import json

import attrs
import pytest

from tinker_officer import LocalEngine
from tinker_officer.errors import RegistryError
from tinker_officer.registry.gate import Gate
from tinker_officer.registry.refusal import PromotionRefused
from tinker_officer.registry.registry import Registry


GATE = Gate.not_worse(margin=0.02)
GOOD = [1] * 900 + [0] * 100


def test_the_same_change_asked_again_with_its_key_is_made_once(registry, models):
    """Whatever happened since: a retried promotion, rollback or refusal gives the move that was made."""
    fair, bad, good = models
    ask = {"to": "production", "gate": GATE, "actor": "ci"}
    first = registry.promote(fair, **ask, expected_current=None, key="k1")
    registry.promote(good, **ask, key="k2")
    assert registry.promote(fair, **ask, expected_current=None, key="k1") == first
    assert registry.current("production") == good
    back = registry.rollback("production", actor="ada", reason="slow", key="k3")
    assert registry.rollback("production", actor="ada", reason="slow", key="k3") == back
    assert registry.current("production") == fair
    for _ in range(2):
        with pytest.raises(PromotionRefused) as refused:
            registry.promote(bad, **ask, key="k4")
    assert [move.kind for move in registry.history()].count("refused") == 1
    assert refused.value.move == registry.history()[-1]
    assert registry.verify().entries == 6 + 4


def test_a_key_that_was_used_for_another_change_is_refused(registry, models):
    """A key names one change: with another version, channel, gate or actor it is an error, not a no-op."""
    fair, _, good = models
    registry.promote(fair, to="production", gate=GATE, actor="ci", key="k")
    for other in (
        {"version": good, "to": "production", "gate": GATE, "actor": "ci"},
        {"version": fair, "to": "berlin", "gate": GATE, "actor": "ci"},
        {"version": fair, "to": "production", "gate": Gate.not_worse(margin=0.5), "actor": "ci"},
        {"version": fair, "to": "production", "gate": GATE, "actor": "ada"},
    ):
        with pytest.raises(RegistryError, match="used for another change"):
            registry.promote(other.pop("version"), **other, key="k")
    for wrong in ("x" * 201, "a\n"):
        with pytest.raises(RegistryError, match="cannot be a key"):
            registry.promote(good, to="staging", actor="ci", key=wrong)


def test_lineage_and_relations(registry, result):
    """Parents may say how they were used; a version's ancestors are found, nearest first."""
    teacher, base = registry.register("teacher"), registry.register("tiny")
    middle = registry.register(result(tag="m"), parents=[base])
    last = registry.register(
        result(tag="l", fingerprint="1" * 64),
        parents={"distilled from": teacher, "resumed from": [middle]},
        data={"licence": "MIT", "contamination": {"items": 3, "share": 0.01}},
    )
    assert last.relations == {teacher.id: "distilled from", middle.id: "resumed from"}
    assert registry.lineage(last) == (teacher, middle, base)
    assert registry.get(last.id).data["contamination"] == {"items": 3, "share": 0.01}
    assert "distilled from" in registry.card(last)
    assert "distilled from" in last.explain()
    with pytest.raises(RegistryError, match="never changes"):
        registry.register(result(tag="l", fingerprint="1" * 64), parents={"merged from": [teacher, middle]})


def test_weights_from_elsewhere_are_known_by_their_bytes(registry, tmp_path, card, binary):
    """A folder of weights is registered with its files' digests; other bytes are another version."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_text("{}")
    ask = {"base_model": "Qwen/Qwen3-8B", "name": "outside"}
    first = registry.register(folder, card(binary([1, 0]), target=str(folder)), **ask)
    assert registry.register(folder, **ask) == first
    assert first.base_model == "Qwen/Qwen3-8B"
    assert first.target == str(folder)
    files = first.weights["files"]
    assert files["adapter_config.json"]["size_bytes"] == 2
    assert len(files["adapter_model.safetensors"]["sha256"]) == 64
    (folder / "adapter_model.safetensors").write_bytes(b"other weights")
    assert registry.register(folder, **ask).number == 2
    with pytest.raises(RegistryError, match="cannot be read"):
        registry.register(tmp_path / "nowhere", **ask)


def test_two_versions_are_compared_in_what_they_are_and_how_they_score(registry, models, result):
    """What differs is listed, the evals are paired, and what keeps them apart is said."""
    fair, _, good = models
    found = registry.compare(fair, good)
    assert {change.field for change in found.changes} >= {"base_model", "training_fingerprint"}
    assert found.scores["tickets"].estimate.value == pytest.approx(0.4)
    assert "better" in str(found)
    bare = registry.register(result())
    assert "tickets-r16@1 has no scorecard" in registry.compare(fair, bare).explain()
    assert registry.compare(fair, fair).changes == ()
    assert "They do not differ" in registry.compare(fair, fair).explain()
    assert "<pre>" in found._repr_html_()


def test_what_a_channel_a_parent_or_a_hold_needs_is_not_pruned(registry, result, card, binary):
    """Current, one rollback back, ancestors of those, held, sharing a path: kept, each with its reason."""

    def trained(tag, **more):
        run = result(tag=tag, fingerprint=tag * 64)
        scores = card(binary(GOOD), target=run.best.sampler_path)
        return registry.register(run, scores, name="m", **more)

    old, base = trained("a"), trained("b")
    before, now = trained("c", parents=[base]), trained("d")
    held, loose = trained("e"), trained("f")
    for version in (old, before, now):
        registry.promote(version, to="production", gate=Gate.not_worse(margin=0.1), actor="ci")
    registry.hold(held, actor="ada", reason="audit")
    assert registry.hold(held, actor="ada", reason="audit") == held
    found = registry.prune()
    assert [version.label for version in found.versions] == [old.label, loose.label]
    assert found.kept == {
        base.label: f"{before.label} was made from it", before.label: "production can fall back on it",
        now.label: "production holds it", held.label: "it is held",
    }  # fmt: skip
    assert registry.prune(older_than_days=1).versions == ()
    assert old.label not in {v.label for v in registry.prune(fallbacks=2).versions}
    registry.release(held, actor="ada", reason="audited")
    assert held in registry.prune().versions
    assert "not needed" in str(registry.prune())
    assert [move.kind for move in registry.history("m") if not move.channel] == ["held", "released"]
    for wrong in ({"delete": True}, {"fallbacks": -1}):
        with pytest.raises(RegistryError, match=r"no service|out of range"):
            registry.prune(**wrong)
    twin = registry.register(attrs.evolve(result(tag="d", fingerprint="d" * 64), name="twin"))
    assert twin.target == now.target
    assert "has the same checkpoint" in registry.prune().kept[twin.label]


@pytest.mark.slow
def test_what_a_service_does_not_know_or_a_stop_left_half_done_is_deleted_next_time(
    registry, engine, tiny_model, tmp_path, result
):
    """Another service deletes nothing and says so, the record stays; run again on the right one, all goes."""
    import tinker

    client = engine.service_client().create_lora_training_client(base_model=str(tiny_model), rank=4).result()
    versions, states = [], []
    for n in range(2):
        states.append(client.save_state(f"s{n}").result().path)
        sampler = client.save_weights_for_sampler(f"w{n}").result().path
        run = result(fingerprint=str(n) * 64)
        best = attrs.evolve(run.best, state_path=states[-1], sampler_path=sampler)
        versions.append(registry.register(attrs.evolve(run, best=best), name="m"))
    asked = {"delete": True, "actor": "ada", "reason": "disk"}
    with LocalEngine(root=tmp_path / "another") as another:
        done = registry.prune(another, **asked)
    assert done.deleted == ()
    assert set(done.failed) == {version.label for version in versions}
    assert "knows no such training run" in str(done)
    assert registry.versions("m") == tuple(versions)
    rest = tinker.RestClient(base_url=engine.base_url, api_key=engine.token)
    left = {one.tinker_path for one in rest.list_user_checkpoints().result().checkpoints}
    assert left >= set(states)
    with pytest.raises(RegistryError, match="checkpoint was deleted"):  # it may have been: nothing ships it
        registry.promote(versions[0], to="staging", actor="ci")

    rest.delete_checkpoint_from_tinker_path(states[0]).result()  # as if stopped between two deletions
    done = registry.prune(engine, **asked)
    assert set(done.deleted) == {version.label for version in versions}
    assert not done.failed
    left = {one.tinker_path for one in rest.list_user_checkpoints().result().checkpoints}
    assert not left & {path for version in versions for path in (version.state_path, version.sampler_path)}
    assert [move.kind for move in registry.history("m")] == ["pruning", "pruning", "pruned", "pruned"]
    assert registry.prune().versions == ()


@pytest.mark.slow
def test_pruned_checkpoints_are_gone_and_their_versions_cannot_ship(registry, tiny_model, tmp_path, result):
    """On a real server: the files go, the record stays, and a pruned version is never promoted again."""
    with LocalEngine(root=tmp_path / "store") as engine:
        client = (
            engine.service_client().create_lora_training_client(base_model=str(tiny_model), rank=4).result()
        )
        paths = [
            (client.save_state(f"s{n}").result().path, client.save_weights_for_sampler(f"w{n}").result().path)
            for n in range(2)
        ]
        versions = []
        for number, (state, sampler) in enumerate(paths):
            run = result(fingerprint=str(number) * 64)
            best = attrs.evolve(run.best, state_path=state, sampler_path=sampler)
            versions.append(registry.register(attrs.evolve(run, best=best), name="m"))
        gone, kept = versions
        registry.hold(kept, actor="ada", reason="audit")
        done = registry.prune(engine, delete=True, actor="ada", reason="disk")
        assert done.deleted == (gone.label,)
        assert not done.failed
        assert "deleted" in str(done)
        left = engine.service_client()._rest_client().list_user_checkpoints().result().checkpoints
        assert {one.tinker_path for one in left} == set(paths[1])
        assert registry.prune(engine, delete=True, actor="ada", reason="disk").versions == ()
    with pytest.raises(RegistryError, match="checkpoint was deleted"):
        registry.promote(gone, to="staging", actor="ci")
    with pytest.raises(RegistryError, match="checkpoint was deleted"):
        registry.hold(gone, actor="ada", reason="late")
    assert registry.get(gone.label) == gone
    assert [move.kind for move in registry.history("m")] == ["held", "pruning", "pruned"]
    assert registry.verify().entries == 5


def test_a_channel_never_falls_back_on_a_version_that_was_pruned(registry, result, card, binary):
    """Retiring the current version passes over those whose checkpoints are gone."""
    versions = []
    for tag in "abc":
        run = result(tag=tag, fingerprint=tag * 64)
        versions.append(registry.register(run, card(binary(GOOD), target=run.best.sampler_path), name="m"))
        registry.promote(versions[-1], to="production", gate=Gate.not_worse(margin=0.1), actor="ci")
    from tinker_officer.registry import writes

    with registry._database.write() as connection:  # as `prune` records it, before it deletes
        writes.add_move(connection, versions[1], "", "pruning", actor="ada", reason="disk")
    registry.retire(versions[2], actor="ada", reason="licence")
    assert registry.current("production") == versions[0]
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        registry.rollback("production", actor="ada", reason="slow")


def test_a_hook_gets_every_event_once_it_is_there_and_again_after_it_failed(tmp_path, card, binary):
    """A hook that raises loses nothing and stops nothing: the event comes again until it is taken."""
    path = tmp_path / "models.db"
    Registry.open(path).register("before", name="m")
    taken, failing = [], [True]

    def hook(event):
        if failing and event.action == "promoted":
            failing.clear()
            raise ConnectionError("webhook is down")
        taken.append(event)

    registry = Registry.open(path, on_event=hook)
    version = registry.register("tiny", card(binary([1, 0])), name="m")
    registry.promote(version, to="staging", actor="ci", reason="try")
    assert [event.action for event in taken] == ["registered", "scored"]
    assert registry.current("staging") == version
    assert registry.deliver() == 1
    assert [event.action for event in taken] == ["registered", "scored", "promoted"]
    assert [event.seq for event in taken] == [2, 3, 4]
    assert taken[-1].move.actor == "ci"
    assert json.loads(json.dumps(taken[-1].to_dict()))["channel"] == "staging"
    assert all(event.version == version and event.explain() for event in taken)
    Registry.open(path).retire(version, actor="ada", reason="old")  # by a process that has no hook
    assert registry.deliver() == 2
    assert Registry.open(path, on_event=hook, reader="another").deliver() == 0
    assert "withdrawn" in repr(taken[-2])
    assert "<pre>" in taken[0]._repr_html_()


def test_a_registry_that_is_only_read_changes_nothing(tmp_path, models, registry):
    """Every question is answered, every change refused, and the file keeps its bytes."""
    path = registry._database.path
    before = path.read_bytes()
    reader = Registry.open(path, read_only=True)
    assert reader.search("name = 'tickets'")[0].name == "tickets"
    assert reader.verify().entries == 6
    with pytest.raises(RegistryError, match="read only"):
        reader.register("tiny")
    with pytest.raises(RegistryError, match="read only"):
        Registry.open(path, read_only=True, on_event=print)
    assert path.read_bytes() == before
    Registry.open(path, on_event=print)  # the reader is known now, but its place could still not be kept
    with pytest.raises(RegistryError, match="read only"):
        Registry.open(path, read_only=True, on_event=print)
    with pytest.raises(RegistryError, match="no registry to read"):
        Registry.open(tmp_path / "new.db", read_only=True)
    assert not (tmp_path / "new.db").exists()
