"""Sampling against transformers' generate, a full forward pass, and the distribution itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from tinker_officer.engine import models
from tinker_officer.engine import sampler as sampler_module
from tinker_officer.engine.cache import Cache
from tinker_officer.engine.choosing import Choice, choose, stream
from tinker_officer.engine.lora import Adapter, LoraSpec
from tinker_officer.engine.models import BaseModel, load
from tinker_officer.engine.sampler import SampleOutput, Sampler, SampleSpec
from tinker_officer.engine.trainer import Example, LossOutput, Trainer
from tinker_officer.errors import EngineError


Answers = Callable[[Sampler], dict[str, Any]]
RNG = np.random.default_rng(7)
PROMPTS = [RNG.integers(0, 97, length) for length in (5, 9, 1, 30, 9)]
FREE: dict[str, Any] = {"stop_tokens": ()}


def _logprobs(model: Any, tokens: np.ndarray) -> np.ndarray:
    """Log-probabilities `(T - 1, vocab)` of every next token, by one plain forward pass."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(tokens)[None]).logits[0]
    out: np.ndarray = logits.log_softmax(-1).numpy()
    return out[:-1]


@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("qwen3", False)])
def test_greedy_answers_are_those_of_generate(
    oracle: Callable[..., Path],
    peft_model: Callable[..., Any],
    stirred: Callable[..., Adapter],
    answers: Answers,
    family: str,
    tied: bool,
) -> None:
    """A batch of prompts of mixed length gives transformers' own greedy answers and log-probabilities."""
    base = load("tiny", oracle(family, tied=tied))
    adapter = stirred(base, LoraSpec(rank=4, seed=1))
    model = peft_model(base, adapter)
    sampler = Sampler(base)
    for index, prompt in enumerate(PROMPTS):
        spec = SampleSpec(
            prompt, max_tokens=20 + index, temperature=0, num_samples=2, prompt_logprobs=True, **FREE
        )
        sampler.add(str(index), spec, adapter)
    out = answers(sampler)

    for index, prompt in enumerate(PROMPTS):
        ids = torch.tensor(prompt)[None]
        expected = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=20 + index,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, prompt.size :].numpy()
        whole = np.concatenate([prompt, expected])
        logprobs = _logprobs(model, whole)[np.arange(whole.size - 1), whole[1:]]
        for sequence in out[str(index)].sequences:
            assert sequence.stop_reason == "length"
            assert sequence.tokens.dtype == np.int32
            np.testing.assert_array_equal(sequence.tokens, expected)
            np.testing.assert_allclose(sequence.logprobs, logprobs[prompt.size - 1 :], rtol=1e-5, atol=1e-5)
        scored = out[str(index)].prompt_logprobs
        assert np.isnan(scored[0])
        np.testing.assert_allclose(scored[1:], logprobs[: prompt.size - 1], rtol=1e-5, atol=1e-5)


def test_sampled_logprobs_are_those_of_a_full_forward(
    base: BaseModel, trained: Adapter, peft_model: Callable[..., Any], answers: Answers
) -> None:
    """Whatever temperature, top-k and top-p were, log-probabilities are the model's own at temperature 1."""
    model = peft_model(base, trained)
    sampler = Sampler(base)
    sampler.add(
        "hot", SampleSpec(PROMPTS[1], max_tokens=25, temperature=1.7, num_samples=3, seed=1, **FREE), trained
    )
    sampler.add("cut", SampleSpec(PROMPTS[3], max_tokens=25, top_k=5, top_p=0.8, seed=1, **FREE), trained)
    out = answers(sampler)

    for name, prompt in (("hot", PROMPTS[1]), ("cut", PROMPTS[3])):
        for sequence in out[name].sequences:
            whole = np.concatenate([prompt, sequence.tokens])
            expected = _logprobs(model, whole)[np.arange(whole.size - 1), whole[1:]][prompt.size - 1 :]
            np.testing.assert_allclose(sequence.logprobs, expected, rtol=1e-5, atol=1e-5)


def test_training_and_sampling_agree(
    base: BaseModel, trained: Adapter, answers: Answers, fit: Callable[..., LossOutput]
) -> None:
    """The log-probabilities of a sampled answer are those that a training forward pass gives."""
    sampler = Sampler(base)
    sampler.add("a", SampleSpec(PROMPTS[0], max_tokens=30, seed=4, **FREE), trained)
    sequence = answers(sampler)["a"].sequences[0]
    whole = np.concatenate([PROMPTS[0], sequence.tokens]).astype(np.int64)
    output = fit(Trainer(base, trained), [Example(whole[:-1], {"target_tokens": whole[1:]})], backward=False)

    np.testing.assert_allclose(
        output.outputs[0]["logprobs"][PROMPTS[0].size - 1 :], sequence.logprobs, rtol=1e-5, atol=1e-5
    )


def test_a_seed_repeats_whatever_the_batch(base: BaseModel, trained: Adapter, answers: Answers) -> None:
    """A seeded request gives the same bits alone, in company, and after other requests; samples differ."""
    spec = SampleSpec(PROMPTS[1], max_tokens=20, num_samples=4, seed=11, **FREE)
    sampler = Sampler(base)
    sampler.add("alone", spec, trained)
    alone = answers(sampler)["alone"]
    for index, prompt in enumerate(PROMPTS):
        sampler.add(f"other {index}", SampleSpec(prompt, max_tokens=9 + index, **FREE), trained)
    sampler.add("in company", spec, trained)
    company = answers(sampler)["in company"]

    assert [s.tokens.tolist() for s in alone.sequences] == [s.tokens.tolist() for s in company.sequences]
    for one, other in zip(alone.sequences, company.sequences, strict=True):
        np.testing.assert_array_equal(one.logprobs, other.logprobs)
    assert len({tuple(s.tokens.tolist()) for s in alone.sequences}) == 4


def test_without_a_seed_answers_differ(base: BaseModel, answers: Answers) -> None:
    """Two requests without a seed draw different numbers."""
    sampler = Sampler(base)
    for name in "ab":
        sampler.add(name, SampleSpec(PROMPTS[0], max_tokens=20, **FREE))
    out = answers(sampler)

    assert out["a"].sequences[0].tokens.tolist() != out["b"].sequences[0].tokens.tolist()


def test_every_adapter_answers_for_itself(
    base: BaseModel, stirred: Callable[..., Adapter], peft_model: Callable[..., Any], answers: Answers
) -> None:
    """More adapters than are kept merged run together, and each request gets its own adapter's answer."""
    adapters = [None, *(stirred(base, LoraSpec(rank=rank, seed=rank)) for rank in (2, 3, 4))]
    sampler = Sampler(base)
    for index, adapter in enumerate(adapters):
        for copy in "ab":
            spec = SampleSpec(PROMPTS[index], max_tokens=12, temperature=0, **FREE)
            sampler.add(f"{index}{copy}", spec, adapter)
    out = answers(sampler)

    for index, adapter in enumerate(adapters):
        alone = Sampler(base)
        alone.add("x", SampleSpec(PROMPTS[index], max_tokens=12, temperature=0, **FREE), adapter)
        expected = answers(alone)["x"].sequences[0].tokens.tolist()
        assert out[f"{index}a"].sequences[0].tokens.tolist() == expected
        assert out[f"{index}b"].sequences[0].tokens.tolist() == expected


def test_equal_prompts_share_a_prefill(
    base: BaseModel, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight requests with one prompt, of four samples each, run the prompt through the model once."""
    seen: list[int] = []
    real = sampler_module.hidden_states

    def spy(base: BaseModel, weights: Any, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(tokens.numel())
        return real(base, weights, tokens, *rest)

    monkeypatch.setattr(sampler_module, "hidden_states", spy)
    sampler = Sampler(base)
    for index in range(8):
        sampler.add(str(index), SampleSpec(PROMPTS[3], max_tokens=3, num_samples=4, seed=index, **FREE))
    out = answers(sampler)

    assert seen == [30, 32, 32]
    assert len(out) == 8


def test_more_samples_than_a_batch_holds(
    base: BaseModel, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request for more samples than fit is answered in full, in order, the same as in one batch."""
    spec = SampleSpec(PROMPTS[0], max_tokens=6, num_samples=11, seed=2, **FREE)
    wide = Sampler(base)
    wide.add("x", spec)
    expected = [s.tokens.tolist() for s in answers(wide)["x"].sequences]
    monkeypatch.setattr(sampler_module, "MAX_ROWS", 4)
    narrow = Sampler(base)
    narrow.add("x", spec)
    narrow.add("y", attrs.evolve(spec, num_samples=1))

    out = answers(narrow)
    assert [s.tokens.tolist() for s in out["x"].sequences] == expected
    assert out["y"].sequences[0].tokens.tolist() == expected[0]


def test_a_full_cache_makes_prompts_wait(
    base: BaseModel, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When memory for keys and values is short, requests wait their turn and all are answered."""
    monkeypatch.setattr(sampler_module, "CACHE_BYTES", 1)
    sampler = Sampler(base)
    for index, prompt in enumerate(PROMPTS):
        sampler.add(str(index), SampleSpec(prompt, max_tokens=5, temperature=0, **FREE))
    sampler.step()

    assert len(sampler._waiting) == len(PROMPTS) - 1
    assert len(answers(sampler)) == len(PROMPTS)


def test_stop_tokens(base: BaseModel, answers: Answers) -> None:
    """An answer ends with the first stop token and keeps it; the model's own by default; () disables all."""
    free = _greedy(base, answers, stop_tokens=())
    third = int(free.tokens[2])
    first = free.tokens.tolist().index(third)

    stopped = _greedy(base, answers, stop_tokens=(third,))
    assert stopped.tokens.tolist() == free.tokens[: first + 1].tolist()
    assert stopped.stop_reason == "stop"
    own = attrs.evolve(base, eos_ids=(third,))
    assert _greedy(own, answers).tokens.tolist() == stopped.tokens.tolist()
    assert _greedy(own, answers, stop_tokens=()).tokens.tolist() == free.tokens.tolist()
    assert free.stop_reason == "length"


def _greedy(base: BaseModel, answers: Answers, **more: Any) -> Any:
    sampler = Sampler(base)
    sampler.add("x", SampleSpec(PROMPTS[1], max_tokens=15, temperature=0, **more))
    return answers(sampler)["x"].sequences[0]


def test_stop_strings(tiny_model: Path, answers: Answers) -> None:
    """A stop string is found in the decoded text, also across tokens, and the answer ends right there."""
    from tokenizers import Tokenizer

    base = load("tiny", tiny_model)
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    sampler = Sampler(base)
    prompt = np.array(tokenizer.encode("user asks the assistant a question").ids)
    spec = SampleSpec(prompt, max_tokens=60, seed=5, **FREE)
    sampler.add("free", spec)
    free = answers(sampler)["free"].sequences[0].tokens.tolist()
    pieces = [tokenizer.decode(free[at : at + 2], skip_special_tokens=False) for at in range(len(free) - 1)]
    at = next(index for index in range(4, len(pieces)) if len(pieces[index]) > 2 and pieces[index].isascii())
    text = pieces[at][-3:]

    sampler.add("stopped", attrs.evolve(spec, stop_tokens=None, stop_strings=("never ", text)))
    sequence = answers(sampler)["stopped"].sequences[0]

    assert sequence.stop_reason == "stop"
    assert sequence.tokens.tolist() == free[: sequence.tokens.size]
    assert text in tokenizer.decode(sequence.tokens.tolist(), skip_special_tokens=False)
    assert text not in tokenizer.decode(sequence.tokens.tolist()[:-1], skip_special_tokens=False)


def test_answers_end_with_the_context(base: BaseModel, answers: Answers) -> None:
    """max_tokens is cut to what the context leaves, its default; a full prompt still gets one token."""
    sampler = Sampler(base)
    long = RNG.integers(0, 97, 250)
    sampler.add("cut", SampleSpec(long, max_tokens=99, **FREE))
    sampler.add("none", SampleSpec(long, **FREE))
    sampler.add("full", SampleSpec(RNG.integers(0, 97, 256), **FREE))
    out = answers(sampler)

    assert [out[name].sequences[0].tokens.size for name in ("cut", "none", "full")] == [7, 7, 1]
    assert out["cut"].sequences[0].stop_reason == "length"


def test_top_k_logprobs(
    base: BaseModel, peft_model: Callable[..., Any], trained: Adapter, answers: Answers
) -> None:
    """The likeliest tokens of every prompt and sampled position come with their log-probabilities."""
    sampler = Sampler(base)
    spec = SampleSpec(
        PROMPTS[1],
        max_tokens=5,
        seed=3,
        topk_prompt_logprobs=4,
        topk_sample_logprobs=2,
        prompt_logprobs=True,
        **FREE,
    )
    sampler.add("x", spec, trained)
    sampler.add("fewer", attrs.evolve(spec, topk_prompt_logprobs=1, topk_sample_logprobs=0), trained)
    out = answers(sampler)
    ids, values = out["x"].topk_prompt
    sequence = out["x"].sequences[0]
    expected = _logprobs(peft_model(base, trained), np.concatenate([PROMPTS[1], sequence.tokens]))

    assert ids.shape == values.shape == (9, 4)
    assert ids[0].tolist() == [0] * 4
    assert values[0].tolist() == [-99999.0] * 4
    np.testing.assert_allclose(values[1:], -np.sort(-expected[:8])[:, :4], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ids[1:], np.argsort(-expected[:8])[:, :4])
    np.testing.assert_allclose(sequence.topk[1], -np.sort(-expected[8:])[:, :2], rtol=1e-5, atol=1e-5)
    assert out["fewer"].topk_prompt[0].shape == (9, 1)
    assert out["fewer"].sequences[0].topk is None


def test_scoring_many_prompts_needs_no_cache(base: BaseModel, answers: Answers) -> None:
    """compute_logprobs of many prompts is a few packed forward passes, with nothing left to decode."""
    sampler = Sampler(base)
    for index in range(30):
        sampler.add(str(index), SampleSpec(RNG.integers(0, 97, 60), max_tokens=1, prompt_logprobs=True))
    steps = 0
    out: dict[str, SampleOutput | Exception] = {}
    while sampler.busy:
        steps += 1
        out |= dict(sampler.step())

    assert steps == 2  # 17 prompts of 60 tokens fit in 1,024
    assert all(isinstance(answer, SampleOutput) for answer in out.values())
    assert len(out) == 30


@pytest.mark.parametrize(
    ("choice", "allowed"),
    [
        (Choice(1.0, -1, 1.0), {0, 1, 2, 3}),
        (Choice(1.0, 2, 1.0), {0, 1}),
        (Choice(1.0, 1, 1.0), {0}),
        (Choice(1.0, -1, 0.75), {0, 1}),
        (Choice(1.0, -1, 0.5), {0}),
        (Choice(1.0, 3, 0.95), {0, 1, 2}),
        (Choice(2.0, -1, 1.0), {0, 1, 2, 3}),
        (Choice(0.0, -1, 1.0), {0}),
    ],
)
def test_draws_follow_the_distribution(choice: Choice, allowed: set[int]) -> None:
    """20,000 draws lie within five standard errors of the tempered, cut and renormalised distribution."""
    p = np.array([0.5, 0.3, 0.15, 0.05])
    count = 20_000
    logits = torch.tensor(np.log(p), dtype=torch.float32).expand(count, 4)
    tokens, logprobs = choose(logits, [choice] * count, [stream(9, index) for index in range(count)])
    weights = np.array([p[i] ** (1 / (choice.temperature or 1)) if i in allowed else 0.0 for i in range(4)])
    expected = weights / weights.sum()
    got = np.bincount(tokens, minlength=4) / count

    assert set(tokens.tolist()) <= allowed
    assert (abs(got - expected) <= 5 * np.sqrt(expected * (1 - expected) / count) + 1e-12).all()
    np.testing.assert_allclose(logprobs, np.log(p)[tokens], rtol=1e-4)


def test_top_p_beyond_the_short_list() -> None:
    """A flat distribution, whose top-p set is larger than the short list, is cut in the right place."""
    logits = torch.zeros(400, 1000)
    tokens, _ = choose(logits, [Choice(1.0, -1, 0.6)] * 400, [stream(1, index) for index in range(400)])

    assert 250 < len(set(tokens.tolist())) <= 600


def test_draws_are_where_the_random_numbers_fall() -> None:
    """Among many blocks of tokens a draw inverts the float64 distribution, whoever is beside it."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (90, 1000)).astype(np.float32)
    choices = [Choice((1.0, 0.5, 0.0)[row % 3], (-1, 20)[row % 2], 1.0) for row in range(90)]
    tokens, logprobs = choose(torch.from_numpy(logits), choices, [stream(row, 0) for row in range(90)])

    for row, choice in enumerate(choices):
        alone = choose(torch.from_numpy(logits[row : row + 1]), [choice], [stream(row, 0)])
        assert (alone[0][0], alone[1][0]) == (tokens[row], logprobs[row])
        wide = logits[row].astype(np.float64)
        log_p = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
        assert abs(logprobs[row] - log_p[tokens[row]]) < 1e-5
        weights = np.exp((wide - wide.max()) / (choice.temperature or 1e-6))
        if choice.top_k > 0:
            weights[weights < np.sort(weights)[-choice.top_k]] = 0
        share = np.cumsum(weights) / weights.sum()
        draw = stream(row, 0).random() if choice.temperature else 0.0
        assert share[tokens[row]] - weights[tokens[row]] / weights.sum() <= draw + 1e-5
        assert draw - 1e-5 <= share[tokens[row]]


class _Last:
    """A stream whose numbers float32 rounds up to one."""

    @staticmethod
    def random() -> float:
        return 1 - 2.0**-53


def test_a_draw_at_the_very_end_stays_inside() -> None:
    """A random number that rounds to one gives the last token that top-k leaves, never one ruled out."""
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]] * 2)
    streams: Any = [_Last(), _Last()]
    tokens, _ = choose(logits, [Choice(1.0, 2, 1.0), Choice(1.0, -1, 1.0)], streams)
    wide = torch.arange(600.0, 0, -1)[None]  # the two likeliest are far from the end of the vocabulary

    assert tokens.tolist() == [1, 3]
    assert choose(wide, [Choice(1.0, 2, 1.0)], streams[:1])[0].tolist() == [1]


def test_streams_differ_by_seed_and_sample() -> None:
    """A stream depends on seed and sample index, and on nothing else."""
    first = stream(5, 0).random(4).tolist()

    assert stream(5, 0).random(4).tolist() == first
    assert stream(5, 1).random(4).tolist() != first
    assert stream(6, 0).random(4).tolist() != first
    assert stream(None, 0).random(4).tolist() != stream(None, 0).random(4).tolist()


@pytest.mark.parametrize(
    "bad",
    [
        {"prompt": np.zeros(0, np.int64)},
        {"prompt": np.zeros(257, np.int64)},
        {"prompt": np.array([97])},
        {"prompt": np.array([-1])},
        {"prompt": np.array([0.5])},
        {"num_samples": 0},
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -2},
        {"topk_prompt_logprobs": -1},
        {"topk_sample_logprobs": 5000},
        {"stop_strings": ("",)},
    ],
)
def test_a_bad_request_is_refused_alone(base: BaseModel, answers: Answers, bad: dict[str, Any]) -> None:
    """A bad parameter raises at once, and a request beside it is answered."""
    sampler = Sampler(base)
    good = SampleSpec(PROMPTS[0], max_tokens=3)
    sampler.add("good", good)

    with pytest.raises(EngineError):
        sampler.add("bad", attrs.evolve(good, **bad))

    assert answers(sampler).keys() == {"good"}


def test_poisoned_weights_fail_alone(base: BaseModel, trained: Adapter, answers: Answers) -> None:
    """An adapter with NaN in it fails its own requests, and others are answered."""
    broken = trained.snapshot()
    broken.flat.fill_(float("nan"))
    sampler = Sampler(base)
    sampler.add("bad", SampleSpec(PROMPTS[0], max_tokens=3, num_samples=2), broken)
    sampler.add("good", SampleSpec(PROMPTS[0], max_tokens=3), trained)
    out = answers(sampler)

    assert isinstance(out["bad"], EngineError)
    assert isinstance(out["good"], SampleOutput)


def test_a_failing_step_fails_its_requests_alone(
    base: BaseModel, trained: Adapter, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a step raises, out of memory say, fails the requests in it; the sampler goes on."""
    sampler = Sampler(base)
    sampler.add("bad", SampleSpec(PROMPTS[0], max_tokens=9, stop_tokens=()), trained)
    sampler.step()
    with monkeypatch.context() as patch:
        patch.setattr(
            sampler_module, "hidden_states", lambda *_: (_ for _ in ()).throw(MemoryError("no room"))
        )
        out = dict(sampler.step())
    assert isinstance(out["bad"], MemoryError)
    assert not sampler.busy

    sampler.add("good", SampleSpec(PROMPTS[0], max_tokens=9), trained)
    assert isinstance(answers(sampler)["good"], SampleOutput)


def test_cancelled_requests_leave(base: BaseModel, answers: Answers) -> None:
    """A request cancelled while it waits or runs gives no answer; its neighbours' answers stay the same."""
    sampler = Sampler(base)
    spec = SampleSpec(PROMPTS[0], max_tokens=12, seed=3, **FREE)
    sampler.add("alone", spec)
    expected = answers(sampler)["alone"].sequences[0].tokens.tolist()
    for name in ("first", "kept", "last"):
        sampler.add(name, attrs.evolve(spec, seed=3 if name == "kept" else 8))
    sampler.add("waiting", SampleSpec(PROMPTS[1]))
    sampler.cancel("waiting")
    sampler.step()
    sampler.cancel("first")
    sampler.step()
    sampler.cancel("last")
    sampler.cancel("unknown")
    out = answers(sampler)

    assert out.keys() == {"kept"}
    assert out["kept"].sequences[0].tokens.tolist() == expected


@pytest.mark.parametrize(
    ("units", "most"), [(False, 1e-4), (True, 0.05)], ids=["without units", "with units"]
)
def test_bfloat16_samples_what_training_says(
    units: bool,
    most: float,
    monkeypatch: pytest.MonkeyPatch,
    oracle: Callable[..., Path],
    stirred: Callable[..., Adapter],
    answers: Answers,
    fit: Callable[..., LossOutput],
) -> None:
    """Bfloat16 weights: the same log-probabilities as in training, or near where products are rounded too."""
    monkeypatch.setattr(models, "bfloat16_units", lambda: units)
    base = load("tiny", oracle(), dtype="bfloat16")
    adapter = stirred(base, LoraSpec(rank=4, seed=1))
    sampler = Sampler(base)
    sampler.add("x", SampleSpec(PROMPTS[0], max_tokens=30, seed=4, **FREE), adapter)
    sequence = answers(sampler)["x"].sequences[0]
    whole = np.concatenate([PROMPTS[0], sequence.tokens]).astype(np.int64)
    output = fit(Trainer(base, adapter), [Example(whole[:-1], {"target_tokens": whole[1:]})], backward=False)

    gap = np.abs(output.outputs[0]["logprobs"][PROMPTS[0].size - 1 :] - sequence.logprobs)
    assert base.layers[0].qkv.dtype == torch.bfloat16
    assert gap.mean() < most


@pytest.mark.parametrize("asked", [{"topk_sample_logprobs": 98}, {"topk_prompt_logprobs": 98}])
def test_more_likeliest_tokens_than_there_are_fail_alone(
    base: BaseModel, answers: Answers, asked: dict[str, int]
) -> None:
    """Asking for more of the likeliest tokens than the vocabulary has is refused before it joins a batch."""
    sampler = Sampler(base)
    sampler.add("good", SampleSpec(PROMPTS[0], max_tokens=4, **FREE))
    with pytest.raises(EngineError, match=next(iter(asked))):
        sampler.add("bad", SampleSpec(PROMPTS[0], max_tokens=4, **asked))
    assert isinstance(answers(sampler)["good"], SampleOutput)


def test_stop_strings_without_a_tokenizer_fail_alone(base: BaseModel, answers: Answers) -> None:
    """Where no tokenizer can be read, a request with stop strings is refused, and its batch goes on."""
    sampler = Sampler(base)
    assert not (base.folder / "tokenizer.json").exists()
    sampler.add("good", SampleSpec(PROMPTS[0], max_tokens=4, **FREE))
    with pytest.raises(Exception, match="No such file"):
        sampler.add("bad", SampleSpec(PROMPTS[0], max_tokens=4, stop_strings=("x",)))
    assert isinstance(answers(sampler)["good"], SampleOutput)


@pytest.mark.parametrize("length", [1, 3])
def test_many_answers_of_one_request_never_stand_together(
    base: BaseModel, answers: Answers, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """However many answers are asked for, and however long the prompt, a step's rows fit the memory."""
    rows: list[int] = []

    def counted(logits: torch.Tensor, *others: Any) -> Any:
        rows.append(logits.shape[0])
        return choose(logits, *others)

    monkeypatch.setattr(sampler_module, "choose", counted)
    room = Cache(base).bytes_for(3, PROMPTS[3].size + length)
    monkeypatch.setattr(sampler_module, "CACHE_BYTES", room)
    sampler = Sampler(base)
    for name in ("a", "b"):
        sampler.add(name, SampleSpec(PROMPTS[3], max_tokens=length, num_samples=100, seed=1, **FREE))
    out = answers(sampler)
    assert max(rows) == (sampler_module.MAX_ROWS if length == 1 else 3)
    assert [len(out[name].sequences) for name in ("a", "b")] == [100, 100]


def test_memory_that_is_refused_changes_no_cache(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is no memory for more rows, those that are there stay as they were."""
    cache = Cache(base)
    cache.add(2, 5)

    for layer, slab in enumerate(cache._slabs):
        slab.fill_(layer)
    real, left = torch.zeros, [1]  # the first layer grows, the second does not

    def nearly_full(*args: Any, **options: Any) -> torch.Tensor:
        if not left.pop():
            raise MemoryError
        left.append(0)
        return real(*args, **options)

    monkeypatch.setattr(torch, "zeros", nearly_full)
    with pytest.raises(MemoryError):
        cache.add(3, 500)
    assert cache.lengths == [5, 5]
    monkeypatch.undo()
    cache.add(3, 500)
    for layer, slab in enumerate(cache._slabs):
        assert slab.shape[0] >= 5
        assert slab.shape[2] >= 500
        assert (slab[:2, :, :5] == layer).all()


def test_at_rest_no_merged_weights_are_kept(base: BaseModel, trained: Adapter, answers: Answers) -> None:
    """Training finds their memory free; what is sampled afterwards is the same, and a batch is left alone."""
    sampler = Sampler(base)
    spec = SampleSpec(PROMPTS[0], max_tokens=6, temperature=0.0, **FREE)
    sampler.add("before", spec, trained)
    sampler.step()
    sampler.rest()
    assert len(sampler._weights) == 1
    expected = answers(sampler)["before"].sequences[0].tokens.tolist()
    sampler.rest()
    assert not sampler._weights
    sampler.add("after", spec, trained)
    assert answers(sampler)["after"].sequences[0].tokens.tolist() == expected


def test_a_temperature_near_zero_takes_the_likeliest() -> None:
    """A temperature so low that dividing by it overflows is greedy, not the last token of the vocabulary."""
    tokens, _ = choose(torch.tensor([[5.0, 1.0, -1.0]]), [Choice(1e-42, -1, 1.0)], [stream(0, 0)])
    assert tokens.tolist() == [0]
