"""Sampling: every parameter, log-probabilities of answers and prompts, and what is sampled from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tinker


def _drawn(answer: tinker.SampleResponse) -> list[list[int]]:
    return [list(sequence.tokens) for sequence in answer.sequences]


def test_groups(sampler: tinker.SamplingClient, ask: Any) -> None:
    """num_samples answers of max_tokens tokens, each with log-probabilities and an id."""
    answer = ask.sample(sampler, count=3)
    assert [len(one) for one in _drawn(answer)] == [8, 8, 8]
    assert all(len(one.logprobs) == 8 and max(one.logprobs) <= 0 for one in answer.sequences)
    assert len({one.sequence_id for one in answer.sequences}) == 3
    assert {one.stop_reason for one in answer.sequences} == {"length"}


def test_greedy(sampler: tinker.SamplingClient, ask: Any) -> None:
    """temperature=0, top_k=1 and a tiny top_p take the likeliest token."""
    answers = [
        _drawn(ask.sample(sampler, **given)) for given in ({"temperature": 0}, {"top_k": 1}, {"top_p": 1e-6})
    ]
    assert answers[0] == answers[1] == answers[2]


def test_seeds(sampler: tinker.SamplingClient, ask: Any) -> None:
    """A seed repeats a sample."""
    first, again, other = (_drawn(ask.sample(sampler, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_stop_tokens(sampler: tinker.SamplingClient, ask: Any) -> None:
    """Token ids in stop end an answer, and belong to it."""
    free = _drawn(ask.sample(sampler, temperature=0))[0]
    stopped = ask.sample(sampler, temperature=0, stop=[free[3]]).sequences[0]
    assert list(stopped.tokens) == free[: free.index(free[3]) + 1]
    assert stopped.stop_reason == "stop"


def test_stop_strings(stirred: tinker.TrainingClient, sampler: tinker.SamplingClient, ask: Any) -> None:
    """Texts in stop end an answer."""
    tokenizer = stirred.get_tokenizer()
    free = _drawn(ask.sample(sampler, seed=3, max_tokens=24))[0]
    texts = [tokenizer.decode([token]) for token in free]
    place = next(index for index, text in enumerate(texts) if text.isascii() and text.strip())
    stopped = ask.sample(sampler, seed=3, max_tokens=24, stop=[texts[place]]).sequences[0]
    assert stopped.stop_reason == "stop"
    assert len(stopped.tokens) <= place + 1


def test_sampled_logprobs(stirred: tinker.TrainingClient, sampler: tinker.SamplingClient, ask: Any) -> None:
    """Log-probabilities of sampled tokens are those of a forward pass."""
    sequence = ask.sample(sampler, seed=4).sequences[0]
    chain = [*ask.tokens(12), *sequence.tokens]
    datum = tinker.Datum(
        model_input=tinker.ModelInput.from_ints(chain[:-1]),
        loss_fn_inputs={"target_tokens": chain[1:], "weights": [1.0] * (len(chain) - 1)},
    )
    np.testing.assert_allclose(ask.logprobs(stirred, datum)[11:], sequence.logprobs, atol=2e-2)


def test_prompt_logprobs(stirred: tinker.TrainingClient, sampler: tinker.SamplingClient, ask: Any) -> None:
    """Log-probabilities of the prompt are those of a forward pass, by sample and by compute_logprobs."""
    expected = ask.logprobs(stirred, ask.datum())[:11]
    sampled = ask.sample(sampler, given={"include_prompt_logprobs": True}).prompt_logprobs
    computed = sampler.compute_logprobs(ask.prompt()).result()
    for given in (sampled, computed):
        assert given[0] is None
        np.testing.assert_allclose(given[1:], expected, atol=2e-2)


def test_last_prompt_logprobs(sampler: tinker.SamplingClient, ask: Any) -> None:
    """prompt_logprobs_last_n scores the end of the prompt only."""
    whole = sampler.compute_logprobs(ask.prompt()).result()
    last = sampler.compute_logprobs(ask.prompt(), prompt_logprobs_last_n=4).result()
    assert last[:8] == [None] * 8
    assert last[8:] == pytest.approx(whole[8:], abs=2e-2)


def test_topk_of_the_prompt(sampler: tinker.SamplingClient, ask: Any) -> None:
    """topk_prompt_logprobs: the likeliest tokens at each place of the prompt."""
    answer = ask.sample(sampler, given={"include_prompt_logprobs": True, "topk_prompt_logprobs": 5})
    for place, (token, logprob) in enumerate(zip(ask.tokens(12), answer.prompt_logprobs, strict=True)):
        if place:
            entries = dict(answer.topk_prompt_logprobs[place])
            assert len(entries) == 5
            assert max(entries.values()) >= logprob - 1e-4
            assert entries.get(token, logprob) == pytest.approx(logprob, abs=2e-2)


def test_topk_of_the_answer(sampler: tinker.SamplingClient, ask: Any) -> None:
    """topk_sample_logprobs: the likeliest tokens at each place of the answer."""
    sequence = ask.sample(sampler, temperature=0, given={"topk_sample_logprobs": 3}).sequences[0]
    for token, logprob, entries in zip(
        sequence.tokens, sequence.logprobs, sequence.topk_logprobs, strict=True
    ):
        assert len(entries) == 3
        assert entries[0][0] == token
        assert entries[0][1] == pytest.approx(logprob, abs=1e-4)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_target_logprobs(sampler: tinker.SamplingClient, ask: Any, layout: str) -> None:
    """target_prompt_logprobs: log-probabilities of chosen tokens at chosen places of the prompt."""
    import torch

    ids = torch.full((11, 20), -1)
    ids[10, 0], ids[4, 1] = ask.tokens(12)[11], ask.tokens(12)[5]
    make = tinker.TensorData.from_torch if layout == "dense" else tinker.TensorData.from_torch_sparse
    targets = make(ids) if layout == "dense" else make(ids, pad_value=-1)
    answer = ask.sample(sampler, given={"include_prompt_logprobs": True, "target_prompt_logprobs": targets})
    got = answer.target_prompt_logprobs.to_torch()
    assert (answer.target_prompt_logprobs.sparse_crow_indices is not None) == (layout == "sparse")
    assert got[10, 0].item() == pytest.approx(answer.prompt_logprobs[11], abs=1e-3)
    assert got[4, 1].item() == pytest.approx(answer.prompt_logprobs[5], abs=1e-3)
    assert int((got != 0).sum()) == 2


def test_alternatives(sampler: tinker.SamplingClient, ask: Any) -> None:
    """prompt_alt_tokens_k: tokens drawn at every place of the prompt."""
    answer = ask.sample(sampler, temperature=0, given={"prompt_alt_tokens_k": 3, "topk_prompt_logprobs": 1})
    drawn, logprobs = (
        part.to_numpy() for part in (answer.prompt_alt_tokens.tokens, answer.prompt_alt_tokens.logprobs)
    )
    assert drawn.shape == (11, 3)
    for place in range(11):  # at temperature 0 each draw is the likeliest token
        ((token, logprob),) = answer.topk_prompt_logprobs[place + 1]
        assert set(drawn[place]) == {token}
        assert logprobs[place] == pytest.approx(logprob, abs=1e-3)
    warm = ask.sample(sampler, seed=1, given={"prompt_alt_tokens_k": 8}).prompt_alt_tokens.tokens.to_numpy()
    again = ask.sample(sampler, seed=1, given={"prompt_alt_tokens_k": 8}).prompt_alt_tokens.tokens.to_numpy()
    assert len(np.unique(warm)) > 8
    assert (warm == again).all()


def test_images(sampler: tinker.SamplingClient, refused_here: Callable[[], None]) -> None:
    """Images in a prompt."""
    refused_here()
    image = tinker.types.ImageChunk(data=b"\x89PNG", format="png", expected_tokens=4)
    sampler.sample(
        prompt=tinker.ModelInput(chunks=[image]),
        num_samples=1,
        sampling_params=tinker.SamplingParams(max_tokens=2),
    ).result()


def test_snapshots(client: tinker.TrainingClient, ask: Any) -> None:
    """A snapshot does not follow the training."""
    snapshot = client.save_weights_and_get_sampling_client().result()
    before = snapshot.compute_logprobs(ask.prompt()).result()
    ask.fit(client, steps=2)
    assert snapshot.compute_logprobs(ask.prompt()).result()[1:] == pytest.approx(before[1:], abs=1e-3)
    later = client.save_weights_and_get_sampling_client().result()
    assert later.compute_logprobs(ask.prompt()).result()[1:] != pytest.approx(before[1:], abs=1e-3)


def test_saved_weights(
    service: tinker.ServiceClient,
    stirred: tinker.TrainingClient,
    sampler: tinker.SamplingClient,
    ask: Any,
    model: str,
) -> None:
    """A sampler from a saved path, from a checkpoint of the training kind or the sampler kind."""
    expected = sampler.compute_logprobs(ask.prompt()).result()
    paths = (
        stirred.save_weights_for_sampler("contract-sampler").result().path,
        stirred.save_state("contract-state", overwrite=True).result().path,
    )
    for path in paths:
        saved = service.create_sampling_client(model_path=path).result()
        assert saved.get_base_model() == model
        assert saved.compute_logprobs(ask.prompt()).result()[1:] == pytest.approx(expected[1:], abs=2e-2)


def test_base_models(
    service: tinker.ServiceClient, new: Any, sampler: tinker.SamplingClient, model: str, ask: Any
) -> None:
    """A sampler of the base model alone."""
    base = service.create_sampling_client(base_model=model).result()
    got = base.compute_logprobs(ask.prompt()).result()
    fresh = ask.logprobs(new(), ask.datum())[:11]  # an adapter begins as nothing
    np.testing.assert_allclose(got[1:], fresh, atol=2e-2)
    assert got[1:] != pytest.approx(sampler.compute_logprobs(ask.prompt()).result()[1:], abs=1e-3)


def test_crowds(sampler: tinker.SamplingClient, ask: Any) -> None:
    """Many requests at once are all answered."""
    params = tinker.SamplingParams(max_tokens=4, stop=[])
    waiting = [
        sampler.sample(prompt=ask.prompt(4 + index % 5), num_samples=2, sampling_params=params)
        for index in range(40)
    ]
    assert all(len(one.result().sequences) == 2 for one in waiting)


@pytest.mark.parametrize(
    "given",
    [{"temperature": -1.0}, {"top_p": 0.0}, {"max_tokens": 0}, {"top_k": -5}],
    ids=lambda given: next(iter(given)),
)
def test_bad_parameters(sampler: tinker.SamplingClient, ask: Any, given: dict[str, float]) -> None:
    """A parameter out of range is refused."""
    with pytest.raises((tinker.BadRequestError, tinker.RequestFailedError, tinker.UnprocessableEntityError)):
        ask.sample(sampler, **given)


def test_handles(sampler: tinker.SamplingClient, address: tuple[str, str], ask: Any) -> None:
    """A sampler travels to another client pickled, and by its handle."""
    import pickle

    handle = sampler.get_sampler_handle()
    expected = sampler.compute_logprobs(ask.prompt()).result()
    for there in (
        pickle.loads(pickle.dumps(sampler)),
        tinker.SamplingClient.from_sampler_handle(handle, api_key=address[1]),
    ):
        assert there.compute_logprobs(ask.prompt()).result()[1:] == pytest.approx(expected[1:], abs=1e-3)
