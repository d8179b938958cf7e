"""What leaves a registry and comes back: JSON, Markdown, front matter, PEFT, MLflow, signed heads."""

from __future__ import annotations

import hashlib
import json
import subprocess

import attrs
import numpy as np
import pytest

from tinker_officer.errors import RegistryError
from tinker_officer.registry.gate import Gate
from tinker_officer.registry.registry import Registry


GATE = Gate.not_worse(margin=0.02)
EVIL = "<script>alert(1)</script> | [x](http://e) `a`"


@pytest.fixture
def told(registry, result, card, binary, nll):
    """A registry in which everything that there is has happened once."""
    base = registry.register("org/tiny", card(binary([1, 0] * 500), target="org/tiny"), name="m")
    run = result()
    evals = (binary([1] * 900 + [0] * 100), nll([2.0 + i / 50 for i in range(50)]))
    tuned = registry.register(run, card(*evals, target=run.best.sampler_path), name="m", parents=[base])
    registry.promote(base, to="production", gate=GATE, actor="ci", key="k1")
    registry.promote(tuned, to="production", gate=Gate().better("tickets"), actor="ci")
    registry.hold(base, actor="ada", reason="audit")
    registry.rollback("production", actor="ada", reason="slow")
    return registry


def test_json_round_trips_hash_for_hash(told, tmp_path):
    """What is written out and read back is the same registry: log, versions, cards, moves, keys."""
    path = told.to_json(tmp_path / "all.json")
    again = Registry.from_json(path, at=tmp_path / "again.db")
    assert again.verify() == told.verify()
    assert again.versions() == told.versions()
    assert again.history().moves == told.history().moves
    assert again.scorecards("m@2") == told.scorecards("m@2")
    assert again.to_json(tmp_path / "twice.json").read_bytes() == path.read_bytes()
    assert again.search("evals.tickets.accuracy > 0.6").versions == (told.get("m@2"),)
    same = again.promote("m@1", to="production", gate=GATE, actor="ci", key="k1")
    assert same == told.history()[0]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: lines[1:], "first line"),
        (lambda lines: [lines[0], "not json"], "line 2"),
        (lambda lines: [*lines, '{"table": "diary"}'], "no row of a registry"),
        (lambda lines: [lines[0], lines[1].replace('"name": "m"', '"name": "x"'), *lines[2:]], "was changed"),
        (lambda lines: [line for line in lines if '"refused"' not in line][:-1], "removed|outside"),
    ],
)
def test_json_that_was_tampered_with_is_refused_and_nothing_is_written(told, tmp_path, spoil, said):
    """The log decides: an edit, a cut or another file leaves the new registry empty."""
    lines = told.to_json(tmp_path / "all.json").read_text("utf-8").splitlines()
    (tmp_path / "bad.json").write_text("\n".join(spoil(lines)) + "\n", encoding="utf-8")
    with pytest.raises(RegistryError, match=said):
        Registry.from_json(tmp_path / "bad.json", at=tmp_path / "new.db")
    assert Registry.open(tmp_path / "new.db").versions() == ()
    with pytest.raises(RegistryError, match="not empty"):
        Registry.from_json(tmp_path / "all.json", at=told._database.path)
    with pytest.raises(RegistryError, match="not a registry's JSON"):
        Registry.from_json(tmp_path / "nowhere.json", at=tmp_path / "new.db")


def test_models_md_says_what_is_deployed_and_escapes_every_name(told, tmp_path):
    """Channels first, then every version with its scores, then the head; a name cannot become markup."""
    told.register("evil", name=EVIL, notes=EVIL)
    shown = told.to_markdown(tmp_path / "MODELS.md").read_text("utf-8")
    assert "| m | production | m\\@1 | `org/tiny` |" in shown
    assert "accuracy 0.9000" in shown
    assert told.verify().head in shown
    assert "<script" not in shown
    assert "http://" not in shown
    assert (
        Registry.open(tmp_path / "new.db").to_markdown(tmp_path / "M.md").read_text().count("deployed") == 1
    )


def test_the_front_matter_is_what_the_hub_reads(told, registry):
    """huggingface_hub reads our card's results back; a malicious name stays text."""
    from huggingface_hub import ModelCard

    data = ModelCard(told.card("m@2"), ignore_metadata_errors=False).data
    assert data.base_model == "tiny"
    assert data.library_name == "peft"
    found = {(one.dataset_name, one.metric_type): one.metric_value for one in data.eval_results}
    assert found["tickets", "accuracy"] == pytest.approx(0.9)
    evil = registry.register("x\n---\n# y", name=EVIL)
    assert "<script" not in told.card(evil)
    assert ModelCard(told.card(evil)).data.base_model.startswith("x")


@pytest.mark.slow
def test_a_trained_adapter_leaves_in_peft_format_and_says_the_same_there(
    registry, engine, tiny_model, tmp_path, result, monkeypatch
):
    """Downloaded and converted by the cookbook, PEFT's model gives the engine's log-probabilities."""
    import peft
    import tinker
    import torch
    import transformers

    tokens = list(range(3, 20))
    weights = dict.fromkeys(("weights",), tinker.TensorData.from_numpy(np.ones(16, np.float32)))
    target = tinker.TensorData.from_numpy(np.array(tokens[1:]))
    datum = tinker.Datum(
        model_input=tinker.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs=weights | {"target_tokens": target},
    )
    service = engine.service_client()
    client = service.create_lora_training_client(base_model=str(tiny_model), rank=4).result()
    before = _logprobs(client, datum)
    for _ in range(3):
        client.forward_backward([datum], "cross_entropy").result()
        client.optim_step(tinker.AdamParams(learning_rate=0.02)).result()
    asked = _logprobs(client, datum)
    assert np.abs(asked - before).max() > 0.01

    sampler, state = client.save_weights_for_sampler("w").result().path, client.save_state("s").result().path
    run = attrs.evolve(result(), base_model=str(tiny_model))
    best = attrs.evolve(run.best, sampler_path=sampler, state_path=state, base_model=str(tiny_model))
    version = registry.register(attrs.evolve(run, best=best), name="m")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError):
        registry.export_peft(version, to=tmp_path / "peft", adapter=tmp_path / "empty")
    monkeypatch.setenv("TINKER_API_KEY", engine.token)
    folder = registry.export_peft(version, to=tmp_path / "peft", base_url=engine.base_url, actor="ada")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["empty", "peft"]

    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, str(folder))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens[:-1]])).logits[0].log_softmax(-1)
    given = logits.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].numpy()
    np.testing.assert_allclose(given, asked, atol=1e-4)

    move = registry.history("m")[-1]
    assert move.kind == "exported"
    found = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert move.detail["files"]["adapter_model.safetensors"]["sha256"] == found
    with pytest.raises(RegistryError, match="written over"):
        registry.export_peft(version, to=folder)
    with pytest.raises(RegistryError, match="no adapter"):
        registry.export_peft(registry.register("tiny"), to=tmp_path / "other")


def _logprobs(client, datum):
    """What the engine's model says of each target."""
    (found,) = client.forward([datum], "cross_entropy").result().loss_fn_outputs
    return found["logprobs"].to_numpy()


def test_the_head_is_written_after_the_log_was_verified(told, tmp_path):
    """The file holds the head that `verify` gives, and a later registry is held against it."""
    found = json.loads(told.export_head(tmp_path / "head.json").read_text("utf-8"))
    assert found["head"] == told.verify(known_head=found["head"]).head
    assert found["entries"] == told.verify().entries


def test_a_signed_head_holds_and_a_changed_one_does_not(told, tmp_path):
    """With an elliptic-curve key and no network; another file or another key is refused."""
    pytest.importorskip("model_signing", reason="the extra signing is not installed")
    from tinker_officer.registry.signing import verify_head

    for name in ("key", "other"):
        new = [
            "openssl",
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            f"{tmp_path}/{name}.pem",
        ]
        subprocess.run(new, check=True, capture_output=True)
        public = [
            "openssl",
            "ec",
            "-in",
            f"{tmp_path}/{name}.pem",
            "-pubout",
            "-out",
            f"{tmp_path}/{name}.pub",
        ]
        subprocess.run(public, check=True, capture_output=True)
    path = told.export_head(tmp_path / "head.json", private_key=tmp_path / "key.pem")
    assert verify_head(path, public_key=tmp_path / "key.pub") == told.verify().head
    with pytest.raises(RegistryError, match="does not hold"):
        verify_head(path, public_key=tmp_path / "other.pub")
    path.write_text(path.read_text().replace('"head": "', '"head": "0'))
    with pytest.raises(RegistryError, match="does not hold"):
        verify_head(path, public_key=tmp_path / "key.pub")
    with pytest.raises(RegistryError, match="key cannot be used"):
        told.export_head(tmp_path / "again.json", private_key=tmp_path / "nowhere.pem")


def test_mlflow_mirrors_versions_figures_and_channels_one_way(told, tmp_path):
    """What is new is added once, aliases follow the channels, and what others set in MLflow is left alone."""
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert told.to_mlflow(uri) == 2
    assert told.to_mlflow(uri) == 0
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    current = client.get_model_version_by_alias("m", "production")
    assert current.tags["tinker_officer.id"] == told.current("production").id
    tuned = next(one for one in client.search_model_versions("name = 'm'") if one.tags["label"] == "m@2")
    assert client.get_run(tuned.run_id).data.metrics["tickets/accuracy"] == pytest.approx(0.9)
    client.set_registered_model_alias("m", "theirs", tuned.version)
    told.promote("m@2", to="production", gate=GATE, actor="ci")
    told.register("org/other", name="n/x")
    assert told.to_mlflow(uri) == 1
    assert client.get_model_version_by_alias("m", "production").tags["label"] == "m@2"
    assert client.get_model_version_by_alias("m", "theirs").version == tuned.version
    assert client.get_registered_model("n_x").aliases == {}
