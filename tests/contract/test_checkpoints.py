"""Checkpoints: saved, loaded, exported, published, copied, listed and deleted."""

from __future__ import annotations

import urllib.request
from typing import Any

import numpy as np
import pytest
import tinker


def _listed(rest: tinker.RestClient, client: tinker.TrainingClient) -> dict[str, Any]:
    found = rest.list_checkpoints(client.model_id).result().checkpoints
    return {checkpoint.tinker_path: checkpoint for checkpoint in found}


def test_state_with_the_optimizer(
    service: tinker.ServiceClient, client: tinker.TrainingClient, ask: Any
) -> None:
    """A client from state with the optimizer goes on as the first one does."""
    ask.fit(client, steps=2)
    path = client.save_state("here").result().path
    copy = service.create_training_client_from_state_with_optimizer(path).result()
    assert ask.fit(copy, steps=3) == pytest.approx(ask.fit(client, steps=3), rel=1e-3)


def test_state_without_the_optimizer(
    service: tinker.ServiceClient, client: tinker.TrainingClient, ask: Any
) -> None:
    """A client from state without the optimizer has the weights, and a fresh optimizer."""
    ask.fit(client, steps=2)
    path = client.save_state("here").result().path
    copy = service.create_training_client_from_state(path).result()
    np.testing.assert_allclose(ask.logprobs(copy, ask.datum()), ask.logprobs(client, ask.datum()), atol=1e-3)
    assert ask.fit(copy, steps=3)[-1] != pytest.approx(ask.fit(client, steps=3)[-1], rel=1e-6)


@pytest.mark.parametrize("optimizer", [True, False], ids=["with-optimizer", "weights-only"])
def test_loading_in_place(client: tinker.TrainingClient, ask: Any, optimizer: bool) -> None:
    """load_state takes a client back."""
    ask.fit(client)
    path = client.save_state("back").result().path
    there = ask.logprobs(client, ask.datum())
    ask.fit(client, steps=2)
    (client.load_state_with_optimizer(path) if optimizer else client.load_state(path)).result()
    np.testing.assert_allclose(ask.logprobs(client, ask.datum()), there, atol=1e-3)


def test_names(client: tinker.TrainingClient) -> None:
    """A name is taken once, unless overwrite=True."""
    path = client.save_state("once").result().path
    with pytest.raises((tinker.ConflictError, tinker.BadRequestError, tinker.RequestFailedError)):
        client.save_state("once").result()
    assert client.save_state("once", overwrite=True).result().path == path


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden"], ids=["up", "slash", "empty", "hidden"])
def test_bad_names(client: tinker.TrainingClient, name: str) -> None:
    """A name that leads elsewhere is refused."""
    with pytest.raises((tinker.APIStatusError, tinker.RequestFailedError)):
        client.save_state(name).result()


def test_listing(client: tinker.TrainingClient, rest: tinker.RestClient) -> None:
    """Checkpoints are listed with their kind and size, of a run and of the user."""
    state = client.save_state("one").result().path
    sampler = client.save_weights_for_sampler("two").result().path
    listed = _listed(rest, client)
    assert {path: one.checkpoint_type for path, one in listed.items()} == {
        state: "training",
        sampler: "sampler",
    }
    assert all(one.size_bytes > 0 for one in listed.values())
    everything = rest.list_user_checkpoints(limit=100).result().checkpoints
    assert {state, sampler} <= {one.tinker_path for one in everything}


def test_deleting(service: tinker.ServiceClient, client: tinker.TrainingClient) -> None:
    """A deleted checkpoint is gone, whether it was named by path or by run and name."""
    rest = service.create_rest_client()
    path, other = (client.save_state(name).result().path for name in ("gone", "too"))
    rest.delete_checkpoint_from_tinker_path(path).result()
    rest.delete_checkpoint(client.model_id, "weights/too").result()
    assert not {path, other} & _listed(rest, client).keys()
    with pytest.raises((tinker.NotFoundError, tinker.RequestFailedError)):
        client.load_state(path).result()


def test_time_to_live(client: tinker.TrainingClient, rest: tinker.RestClient) -> None:
    """A time to live is given when saving, set and taken back."""
    path = client.save_state("short", ttl_seconds=3600).result().path
    assert _listed(rest, client)[path].expires_at is not None
    rest.set_checkpoint_ttl_from_tinker_path(path, None).result()
    assert _listed(rest, client)[path].expires_at is None
    rest.set_checkpoint_ttl_from_tinker_path(path, 7200).result()
    assert _listed(rest, client)[path].expires_at is not None


def test_publishing(client: tinker.TrainingClient, rest: tinker.RestClient) -> None:
    """A checkpoint is published and unpublished."""
    path = client.save_state("shown").result().path
    rest.publish_checkpoint_from_tinker_path(path).result()
    assert _listed(rest, client)[path].public
    rest.unpublish_checkpoint_from_tinker_path(path).result()
    assert not _listed(rest, client)[path].public


def test_weights_info(new: Any, rest: tinker.RestClient, model: str) -> None:
    """Base model, rank and layers of a checkpoint."""
    path = new(rank=8, train_unembed=False).save_state("what").result().path
    info = rest.get_weights_info_by_tinker_path(path).result()
    assert (info.base_model, info.is_lora, info.lora_rank) == (model, True, 8)
    assert (info.train_attn, info.train_mlp, info.train_unembed) == (True, True, False)


@pytest.mark.parametrize("kind", ["training", "sampler"])
def test_copying(
    service: tinker.ServiceClient,
    stirred: tinker.TrainingClient,
    rest: tinker.RestClient,
    ask: Any,
    kind: str,
) -> None:
    """copy_weights makes a checkpoint of its own, of the same kind."""
    save = stirred.save_state if kind == "training" else stirred.save_weights_for_sampler
    path = save(f"copied-{kind}").result().path
    copied = rest.copy_weights(path, "local", ttl_seconds=3600).result()
    assert copied != path
    assert rest.get_training_run_by_tinker_path(copied).result().lora_rank == 4
    rest.delete_checkpoint_from_tinker_path(path).result()
    sampler = service.create_sampling_client(model_path=copied).result()
    expected = ask.logprobs(stirred, ask.datum())[:11]
    np.testing.assert_allclose(sampler.compute_logprobs(ask.prompt()).result()[1:], expected, atol=2e-2)


def test_external_weights(stirred: tinker.TrainingClient, rest: tinker.RestClient) -> None:
    """save_weights_external, and one signed address a file."""
    path = stirred.save_weights_external("export").result().path
    urls = rest.get_external_weights_urls(path).result().urls
    assert {"adapter_model.safetensors", "adapter_config.json"} <= urls.keys()
    with urllib.request.urlopen(urls["adapter_config.json"]) as answer:
        assert b'"r"' in answer.read()
    assert rest.get_training_run_by_tinker_path(path).result().training_run_id == stirred.model_id
    rest.delete_checkpoint_from_tinker_path(path).result()


def test_encrypted_weights(stirred: tinker.TrainingClient, rest: tinker.RestClient) -> None:
    """save_weights_external encrypts to age recipients."""
    import pyrage

    identity = pyrage.x25519.Identity.generate()
    path = (
        stirred.save_weights_external("sealed", age_encryption_recipients=[str(identity.to_public())])
        .result()
        .path
    )
    urls = rest.get_external_weights_urls(path).result().urls
    assert all(name.endswith(".age") for name in urls)
    with urllib.request.urlopen(urls["adapter_config.json.age"]) as answer:
        assert b'"r"' in pyrage.decrypt(answer.read(), [identity])
    rest.delete_checkpoint_from_tinker_path(path).result()
