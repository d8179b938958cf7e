"""Snapshots and saved weights that samplers sample from: kept, spilled, forgotten, never exchanged."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tinker_officer.engine import workshop as workshop_module
from tinker_officer.engine.records import TinkerPath
from tinker_officer.engine.refusal import Refused
from tinker_officer.engine.store import Store
from tinker_officer.engine.wire import Datum, ForwardBackward
from tinker_officer.engine.workshop import Weights, Workshop, adapter_key
from tinker_officer.errors import EngineError


PATH = TinkerPath("abc:train:0", "sampler_weights", "latest")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "engine")
    yield opened
    opened.close()


@pytest.fixture
def workshop(store: Store, tiny_model: Path) -> Workshop:
    """A workshop with one model in training."""
    made = Workshop(store, "float32")
    list(made.create("model", "tiny", tiny_model, {"rank": 2, "seed": 1}))
    return made


def stir(workshop: Workshop) -> None:
    workshop._training("model").trainer.adapter.flat.add_(1.0)


def flat(workshop: Workshop, tiny_model: Path, weights: Weights) -> torch.Tensor:
    return workshop._adapter_for(workshop.base("tiny", tiny_model), weights).flat


def test_a_full_disk_loses_no_snapshot(
    workshop: Workshop, store: Store, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk takes no more snapshots they stay in memory, and nobody's request fails."""
    monkeypatch.setattr(workshop_module, "_ADAPTERS_IN_MEMORY", 2)
    shutil.rmtree(store.scratch)
    for number in range(4):
        workshop.snapshot("model", str(number))
        stir(workshop)
    levels = [
        float(flat(workshop, tiny_model, Weights("tiny", tiny_model, str(number)))[0]) for number in range(4)
    ]
    assert levels == pytest.approx([levels[0] + number for number in range(4)])


def test_the_snapshots_longest_not_used_are_forgotten(
    workshop: Workshop, store: Store, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that takes a snapshot every step fills neither memory nor disk; one that is in use is kept."""
    monkeypatch.setattr(workshop_module, "_ADAPTERS_IN_MEMORY", 2)
    monkeypatch.setattr(workshop_module, "_SNAPSHOTS", 4)
    for number in range(12):
        workshop.snapshot("model", str(number))
        flat(workshop, tiny_model, Weights("tiny", tiny_model, "0"))
    assert len(list(store.scratch.iterdir())) <= 4
    with pytest.raises(Refused, match="gone"):
        flat(workshop, tiny_model, Weights("tiny", tiny_model, "5"))


def test_a_snapshot_is_taken_once(workshop: Workshop, tiny_model: Path) -> None:
    """A second snapshot under the name of the first is refused, and the first is what it was."""
    workshop.snapshot("model", "0")
    before = flat(workshop, tiny_model, Weights("tiny", tiny_model, "0")).clone()
    stir(workshop)

    with pytest.raises(EngineError, match="has its weights"):
        workshop.snapshot("model", "0")
    assert torch.equal(flat(workshop, tiny_model, Weights("tiny", tiny_model, "0")), before)


def test_a_sampler_never_gets_the_weights_that_overwrote_its_own(
    workshop: Workshop, store: Store, tiny_model: Path
) -> None:
    """Saved weights that are overwritten before they are read are gone for their sampler, not exchanged."""

    def save() -> Weights:
        generator = workshop.state("model", optimizer=False)
        next(generator)
        with pytest.raises(StopIteration) as stop:
            next(generator)
        meta, files = stop.value.value
        meta = store.save(PATH, files, meta, overwrite=True)
        return Weights("tiny", tiny_model, adapter_key(PATH, meta), PATH)

    old = save()
    stir(workshop)
    new = save()
    with pytest.raises(Refused, match="gone"):
        flat(workshop, tiny_model, old)
    assert torch.equal(flat(workshop, tiny_model, new), workshop._training("model").trainer.adapter.flat)


@pytest.mark.parametrize(("vocab", "threads"), [(97, 1), (9000, 2)])
def test_one_thread_computes_a_small_model_and_all_a_large_one(
    store: Store, oracle: Callable[..., Path], vocab: int, threads: int
) -> None:
    """In a small model a second thread is waited for longer than it helps; which it is the size decides."""
    workshop = Workshop(store, "float32")
    workshop.warm(2)
    list(workshop.create("model", "some", oracle(vocab_size=vocab), {"rank": 2, "seed": 1}))
    inputs = {"target_tokens": np.array([4, 5, 6]), "weights": np.ones(3, np.float32)}
    data = [Datum(np.array([3, 4, 5]), inputs)]
    try:
        torch.set_num_threads(3)
        list(workshop.forward_backward(ForwardBackward("model", 1, data, "cross_entropy", {}, False)))
        trained = torch.get_num_threads()
        torch.set_num_threads(3)
        list(workshop.optim_step("model", {"learning_rate": 1e-3}))
        assert (trained, torch.get_num_threads()) == (threads, threads)
    finally:
        torch.set_num_threads(1)
