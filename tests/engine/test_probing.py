"""What each place of a prompt says of tokens that are not its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tinker_officer.engine.choosing import draw
from tinker_officer.engine.lora import Adapter
from tinker_officer.engine.models import BaseModel
from tinker_officer.engine.refusal import Refused
from tinker_officer.engine.sampler import Sampler, SampleSpec
from tinker_officer.engine.wire import decode_sample
from tinker_officer.errors import EngineError


Answers = Callable[[Sampler], dict[str, Any]]


def test_targets_are_scored_as_a_full_forward_does(
    base: BaseModel, trained: Adapter, answers: Answers, peft_model: Callable[..., Any]
) -> None:
    """Every id that is named has transformers' log-probability at its place, the others have zero."""
    rng = np.random.default_rng(1)
    prompt, targets = rng.integers(0, 97, 15), rng.integers(-1, 97, (14, 6))
    sampler = Sampler(base)
    sampler.add("one", SampleSpec(prompt, max_tokens=1, targets=targets), trained.snapshot())
    got = answers(sampler)["one"].target_logprobs
    with torch.no_grad():
        logits = peft_model(base, trained)(input_ids=torch.tensor(prompt)[None]).logits[0]
    expected = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(targets).clamp(min=0)).numpy()

    np.testing.assert_allclose(got, np.where(targets >= 0, expected, 0), atol=3e-5)


def test_draws_follow_the_distribution() -> None:
    """A million draws have the frequencies of softmax(logits / T), within five standard errors."""
    logits = torch.tensor([[1.0, 0.0, -1.0, 3.0], [0.0, 0.0, 0.0, -60.0]])
    count = 500_000
    random = torch.rand((2, count), generator=torch.Generator().manual_seed(0))
    tokens = draw(logits, 2.0, random)
    expected = torch.softmax(logits / 2.0, -1)
    found = torch.stack([torch.bincount(row, minlength=4) for row in tokens]) / count

    assert (found - expected).abs().max() < 5 * 0.5 / count**0.5
    assert set(draw(logits, 0.0, random)[0].tolist()) == {3}


@pytest.mark.parametrize(
    "targets", [np.zeros((3, 1), np.int64), np.full((4, 1), -1), np.full((4, 1), 97), np.full((4, 1), -2)]
)
def test_targets_that_do_not_fit_are_refused_alone(
    base: BaseModel, answers: Answers, targets: np.ndarray
) -> None:
    """Another number of rows, no id at all, or one outside the vocabulary is refused; others are answered."""
    sampler = Sampler(base)
    sampler.add("good", SampleSpec(np.arange(5), max_tokens=1))
    with pytest.raises(EngineError, match="does not fit the prompt"):
        sampler.add("bad", SampleSpec(np.arange(5), max_tokens=1, targets=targets))
    assert set(answers(sampler)) == {"good"}


@pytest.mark.parametrize(
    "tensor",
    [
        {"data": [1.5], "shape": [1, 1]},
        {"data": [1], "shape": [1]},
        {"data": [1], "shape": [2, 1]},
        {"data": [], "shape": [-1, 0]},
        {"data": [1], "shape": [10**9, 10**9], "sparse_crow_indices": [0, 1], "sparse_col_indices": [0]},
        {"data": [1], "shape": [1, 2], "sparse_crow_indices": [0, 1], "sparse_col_indices": [5]},
        {"data": [10**30], "shape": [1, 1]},
    ],
)
def test_tensors_that_contradict_themselves_are_refused(tensor: dict[str, Any]) -> None:
    """A tensor of targets that is no matrix of integers, or whose indices lead outside, is refused."""
    body = {
        "sampling_session_id": "a:sample:0",
        "prompt": {"chunks": [{"tokens": [1, 2]}]},
        "target_prompt_logprobs": tensor,
    }
    with pytest.raises(Refused, match="target_prompt_logprobs"):
        decode_sample(body)
