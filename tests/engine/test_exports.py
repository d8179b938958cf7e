"""What leaves the engine: signed addresses are good for one file and an hour, and copies are made once."""

from __future__ import annotations

import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import tinker

from tinker_officer.engine.exports import Signer, encrypted, parse_recipients
from tinker_officer.engine.records import TinkerPath
from tinker_officer.engine.refusal import Refused


if TYPE_CHECKING:
    from tinker_officer import LocalEngine

PATH = TinkerPath("run:train:0", "external_weights", "export")


def test_an_address_is_good_for_one_file_of_one_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signed address opens its own file until it expires; changed in any part it opens nothing."""
    signer = Signer()
    urls, expires = signer.urls("http://127.0.0.1:1/", PATH, ("a.json", "b.json"))
    query = urls["a.json"].partition("?")[2]
    later = query.replace("expires=", "expires=1")
    signer.check(PATH, "a.json", query)

    for path, name, given in (
        (PATH, "b.json", query),
        (TinkerPath("run:train:0", "weights", "export"), "a.json", query),
        (PATH, "a.json", later),
        (PATH, "a.json", query[:-1]),
        (PATH, "a.json", query.replace("signature=", "signature=%C3%A9")),
        (PATH, "a.json", "expires=x&signature=y"),
        (PATH, "a.json", ""),
    ):
        with pytest.raises(Refused, match="not signed"):
            signer.check(path, name, given)
    with pytest.raises(Refused, match="not signed"):
        Signer().check(PATH, "a.json", query)
    monkeypatch.setattr("time.time", lambda: expires.timestamp() + 1)
    with pytest.raises(Refused, match="no longer good"):
        signer.check(PATH, "a.json", query)


def test_nothing_but_external_weights_is_fetched(engine: LocalEngine, tiny_model: Path) -> None:
    """A saved state has no addresses, and a file is not served without a signature, key or not."""
    client = engine.service_client().create_lora_training_client(str(tiny_model), rank=2).result()
    path = client.save_weights_external("out").result().path.removeprefix("tinker://")
    client.save_state("kept").result()
    at = f"{engine.base_url}/api/v1/files/{path}/adapter_config.json"
    for headers in ({}, {"X-API-Key": engine.token}):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(at, headers=headers))
    with httpx.Client(trust_env=False, headers={"X-API-Key": engine.token}) as http:
        state = f"{engine.base_url}/api/v1/training_runs/{client.model_id}/checkpoints/weights/kept"
        refused = http.get(f"{state}/external_weights_urls")
    assert refused.status_code == 400
    assert "only external weights" in refused.json()["error"]


def test_a_copy_that_is_asked_for_twice_is_made_once(engine: LocalEngine, tiny_model: Path) -> None:
    """The SDK sends one idempotency key with every try; another key makes another copy."""
    client = engine.service_client().create_lora_training_client(str(tiny_model), rank=2).result()
    source = client.save_state("first").result().path

    def copy(key: str) -> str:
        with httpx.Client(trust_env=False) as http:
            answer = http.post(
                f"{engine.base_url}/api/v1/copy_weights",
                headers={"X-API-Key": engine.token, "X-Idempotency-Key": key},
                json={"source_path": source, "destination_project_id": "local"},
            )
        return str(answer.raise_for_status().json()["tinker_path"])

    keys = [uuid.uuid4().hex for _ in range(2)]
    assert copy(keys[0]) == copy(keys[0]) != copy(keys[1])
    rest = tinker.RestClient(base_url=engine.base_url, api_key=engine.token)
    run = rest.get_training_run_by_tinker_path(copy(keys[0])).result()
    assert run.last_checkpoint.tinker_path == copy(keys[0])


@pytest.mark.parametrize("given", [[], ["age1x"] * 11, "age1x", [1]])
def test_recipients_are_a_short_list_of_texts(given: object) -> None:
    """What is no list of up to ten public keys is refused."""
    with pytest.raises(Refused, match="age_encryption_recipients"):
        parse_recipients(given)


def test_a_key_that_is_none_is_refused() -> None:
    """A text that is no public key is refused, and nothing is written."""
    with pytest.raises(Refused, match="age_encryption_recipients"):
        encrypted({"a": b"1"}, ["age1nonsense"])
