"""Answers that outgrow the memory for keys and values, and prompts that are scored in part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest

from tinker_officer.engine import sampler as sampler_module
from tinker_officer.engine.cache import Cache
from tinker_officer.engine.lora import Adapter
from tinker_officer.engine.models import BaseModel
from tinker_officer.engine.sampler import Sampler, SampleSpec


Answers = Callable[[Sampler], dict[str, Any]]
RNG = np.random.default_rng(7)
PROMPTS = [RNG.integers(0, 97, length) for length in (5, 9, 3, 30, 9, 40)]
LONG = [SampleSpec(prompt, max_tokens=120, temperature=0, stop_tokens=()) for prompt in PROMPTS]


def _said(sampler: Sampler, answers: Answers, adapter: Adapter | None = None) -> dict[str, list[int]]:
    for index, spec in enumerate(LONG):
        sampler.add(str(index), spec, adapter)
    return {name: output.sequences[0].tokens.tolist() for name, output in answers(sampler).items()}


def test_answers_that_outgrow_the_memory_are_paused(
    base: BaseModel, trained: Adapter, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six long answers in memory for three never exceed it, and say what they say with room enough."""
    expected = _said(Sampler(base), answers, trained)
    room = Cache(base).bytes_for(3, 160)
    monkeypatch.setattr(sampler_module, "CACHE_BYTES", room)
    monkeypatch.setattr(
        sampler_module, "_headroom", lambda _limit: 8
    )  # as if answers were expected to be short
    sampler = Sampler(base)
    held, paused = [], []
    for index, spec in enumerate(LONG):
        sampler.add(str(index), spec, trained)
    found: dict[str, list[int]] = {}
    while sampler.busy:
        for name, output in sampler.step():
            assert not isinstance(output, Exception)
            found[name] = output.sequences[0].tokens.tolist()
        held += [group.cache.bytes_for(0, 0) for group in sampler._groups.values()]
        paused.append(len(sampler._paused))

    assert found == expected
    assert max(paused) > 0
    assert max(held) <= room


def test_a_paused_answer_can_be_cancelled(
    base: BaseModel, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is cancelled while it is paused never comes back, and the others end as they would have."""
    expected = _said(Sampler(base), answers)
    monkeypatch.setattr(sampler_module, "CACHE_BYTES", Cache(base).bytes_for(3, 160))
    monkeypatch.setattr(sampler_module, "_headroom", lambda _limit: 8)
    sampler = Sampler(base)
    for index, spec in enumerate(LONG):
        sampler.add(str(index), spec)
    found: dict[str, list[int]] = {}
    while not sampler._paused:
        for name, output in sampler.step():
            assert not isinstance(output, Exception)
            found[name] = output.sequences[0].tokens.tolist()
    gone = sampler._paused[0].request.name
    sampler.cancel(gone)
    found |= {name: output.sequences[0].tokens.tolist() for name, output in answers(sampler).items()}

    assert found == {name: tokens for name, tokens in expected.items() if name != gone}


def test_a_long_answer_that_left_makes_no_row_long(base: BaseModel) -> None:
    """When rows join after a long one has gone, memory is that of what is held, not of what once was."""
    cache = Cache(base)
    cache.add(1, 1000)
    cache.add(1, 7)
    for slab in cache._slabs:
        slab[1, :, :7] = 3.0
    cache.remove(0)
    cache.add(40, 20)

    for slab in cache._slabs:
        assert slab.shape[0] * slab.shape[2] <= 2 * 41 * 128
        assert (slab[0, :, :7] == 3).all()


@pytest.mark.parametrize("adapted", [False, True])
def test_the_end_of_a_prompt_is_scored_alone(
    base: BaseModel, trained: Adapter, answers: Answers, adapted: bool
) -> None:
    """The last positions alone have the numbers that they have among all, for each who asked."""
    spec = SampleSpec(PROMPTS[5], max_tokens=1, stop_tokens=(), prompt_logprobs=True)
    sampler = Sampler(base)
    adapter = trained if adapted else None
    sampler.add("all", spec, adapter)
    whole = answers(sampler)["all"].prompt_logprobs
    sampler.add("other", attrs.evolve(spec, prompt=PROMPTS[3], prompt_logprobs_last_n=4), adapter)
    sampler.add("one", attrs.evolve(spec, prompt_logprobs_last_n=1), adapter)
    sampler.add("six", attrs.evolve(spec, prompt_logprobs_last_n=6, topk_prompt_logprobs=3), adapter)
    out = answers(sampler)

    assert np.isnan(out["six"].prompt_logprobs[:-6]).all()
    np.testing.assert_allclose(out["six"].prompt_logprobs[-6:], whole[-6:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["one"].prompt_logprobs[-1:], whole[-1:], rtol=1e-5, atol=1e-6)
    assert np.isfinite(out["other"].prompt_logprobs[-4:]).all()
    assert np.isnan(out["other"].prompt_logprobs[:-4]).all()
    ids, values = out["six"].topk_prompt
    assert ids.shape == values.shape == (40, 3)
    assert (values[:-6] == -99999).all()
    assert (values[-6:, 0] >= whole[-6:] - 1e-5).all()
