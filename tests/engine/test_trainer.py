"""Training against plain transformers + PEFT, torch.optim.AdamW, and itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor

from tinker_officer.engine import decoder, head
from tinker_officer.engine.lora import Adapter, LoraSpec
from tinker_officer.engine.losses import LOSSES
from tinker_officer.engine.models import BaseModel, load
from tinker_officer.engine.packing import micro_batches
from tinker_officer.engine.sampler import Sampler, SampleSpec
from tinker_officer.engine.trainer import AdamSettings, Example, LossOutput, Trainer
from tinker_officer.errors import EngineError


Fit = Callable[..., LossOutput]
STEP = AdamSettings(learning_rate=1e-2)


def _reference(model: Any, data: list[Example]) -> tuple[list[np.ndarray], float, dict[str, Tensor]]:
    """Log-probabilities, loss and gradients of plain PEFT, one example at a time, by autograd."""
    logprobs, loss = [], torch.zeros(())
    for example in data:
        logits = model(input_ids=torch.tensor(example.tokens)[None]).logits[0].log_softmax(-1)
        chosen = logits.gather(1, torch.tensor(example.inputs["target_tokens"])[:, None])[:, 0]
        logprobs.append(chosen.detach().numpy())
        loss = loss - (chosen * torch.tensor(example.inputs["weights"])).sum()
    loss.backward()
    gradients = {
        name.replace(".default", ""): weight.grad
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.grad is not None
    }
    return logprobs, loss.item(), gradients


def _relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_loss_and_every_gradient_are_those_of_peft(
    oracle: Callable[..., Path],
    peft_model: Callable[..., Any],
    stirred: Callable[..., Adapter],
    data: list[Example],
    fit: Fit,
    family: str,
    tied: bool,
    packed: bool,
) -> None:
    """Loss, log-probabilities and every LoRA gradient equal transformers + PEFT to 1e-5, packed and alone."""
    base = load("tiny", oracle(family, tied=tied))
    adapter = stirred(base, LoraSpec(rank=4, seed=1))
    expected_logprobs, expected_loss, expected = _reference(peft_model(base, adapter), data)

    trainer = Trainer(base, adapter)
    outputs = [fit(trainer, data)] if packed else [fit(trainer, [example]) for example in data]
    logprobs = [output["logprobs"] for part in outputs for output in part.outputs]

    assert sum(part.metrics["loss:sum"] for part in outputs) == pytest.approx(expected_loss, rel=1e-5)
    for got, wanted in zip(logprobs, expected_logprobs, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    assert trainer.gradient.keys() == expected.keys()
    assert max(_relative(trainer.gradient[name], expected[name]) for name in expected) < 1e-5


@pytest.mark.parametrize(
    "off",
    [
        {"train_mlp": False},
        {"train_attn": False},
        {"train_unembed": False},
        {"train_mlp": False, "train_attn": False},
    ],
)
def test_gradients_with_fewer_layers(
    base: BaseModel,
    peft_model: Callable[..., Any],
    stirred: Callable[..., Adapter],
    data: list[Example],
    fit: Fit,
    off: dict[str, bool],
) -> None:
    """Gradients equal PEFT's when only some layers have a LoRA."""
    adapter = stirred(base, LoraSpec(rank=4, seed=1, **off))
    _, _, expected = _reference(peft_model(base, adapter), data)
    trainer = Trainer(base, adapter)
    fit(trainer, data)

    assert trainer.gradient.keys() == expected.keys()
    assert max(_relative(trainer.gradient[name], expected[name]) for name in expected) < 1e-5


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that tiny examples take the paths of large ones: chunks, layers recomputed."""
    monkeypatch.setattr(head, "CHUNK_LOGITS", 1)
    monkeypatch.setattr(head, "KEPT_LOGITS", 1)
    monkeypatch.setattr(decoder, "RECOMPUTE_TOKENS", 1)


def test_large_batches_take_other_paths_to_the_same_gradient(
    base: BaseModel, trained: Adapter, data: list[Example], fit: Fit, small_limits: None
) -> None:
    """Recomputed layers, chunked logits and attention in blocks change nothing beyond rounding."""
    blocked = Trainer(base, trained)
    one = fit(blocked, data)
    with pytest.MonkeyPatch.context() as undo:
        undo.setattr(head, "CHUNK_LOGITS", 8_000_000)
        undo.setattr(head, "KEPT_LOGITS", 32_000_000)
        undo.setattr(decoder, "RECOMPUTE_TOKENS", 2048)
        plain = Trainer(base, trained)
        two = fit(plain, data)

    assert one.metrics["loss:sum"] == pytest.approx(two.metrics["loss:sum"], rel=1e-6)
    assert all(_relative(blocked.gradient[name], value) < 1e-5 for name, value in plain.gradient.items())


def _policy_data() -> list[Example]:
    """Rollouts of several lengths: prompts without advantages, some with thresholds, one with no signal."""
    rng = np.random.default_rng(2)
    data = []
    for length, prompt in ((20, 7), (9, 2), (3, 0), (30, 11), (6, 6)):
        sampled = np.arange(length) >= prompt
        data.append(
            Example(
                rng.integers(0, 97, length),
                {
                    "target_tokens": rng.integers(0, 97, length),
                    "logprobs": np.where(sampled, -rng.random(length) * 6, 0).astype(np.float32),
                    "advantages": np.where(sampled, rng.normal(size=length), 0).astype(np.float32),
                    "sequence_ratio_mask": sampled.astype(np.float32),
                },
            )
        )
    return data


def _policy_loss(name: str, p: Tensor, example: Example) -> Tensor:
    """A policy loss of one rollout, as Tinker's documentation writes it."""
    q, a, mask = (
        torch.tensor(example.inputs[key]) for key in ("logprobs", "advantages", "sequence_ratio_mask")
    )
    ratio = torch.exp(p - q)
    if name == "importance_sampling":
        return -(ratio * a).sum()
    if name == "dro":
        return -(p * a - 0.5 * 0.05 * (p - q) ** 2).sum()
    if name == "cispo":
        return -(torch.clamp(ratio, 0.8, 1.2).detach() * p * a).sum()
    if name == "gspo":
        of_sequence = (p.detach() - q)[mask != 0].mean() if mask.any() else torch.tensor(0.0)
        ratio = torch.exp(of_sequence + p - p.detach())
    return -torch.min(ratio * a, torch.clamp(ratio, 0.8, 1.2) * a).sum()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "cross_entropy"])
def test_policy_losses_and_their_gradients_are_those_of_peft(
    base: BaseModel,
    peft_model: Callable[..., Any],
    stirred: Callable[..., Adapter],
    fit: Fit,
    name: str,
    packed: bool,
) -> None:
    """Every policy loss and its gradient equal plain PEFT's with the documented formula, to 1e-5."""
    data = _policy_data()
    adapter = stirred(base, LoraSpec(rank=4, seed=1))
    model, expected_loss = peft_model(base, adapter), torch.zeros(())
    for example in data:
        logits = model(input_ids=torch.tensor(example.tokens)[None]).logits[0].log_softmax(-1)
        chosen = logits.gather(1, torch.tensor(example.inputs["target_tokens"])[:, None])[:, 0]
        expected_loss = expected_loss + _policy_loss(name, chosen, example)
    expected_loss.backward()
    expected = {
        key.replace(".default", ""): weight.grad
        for key, weight in model.named_parameters()
        if weight.requires_grad
    }

    needs = ("target_tokens", *LOSSES[name].needs)
    sent = [Example(one.tokens, {key: one.inputs[key] for key in needs}) for one in data]
    trainer = Trainer(base, adapter)
    outputs = [fit(trainer, sent, name)] if packed else [fit(trainer, [one], name) for one in sent]

    assert sum(part.metrics["loss:sum"] for part in outputs) == pytest.approx(expected_loss.item(), rel=1e-5)
    assert max(_relative(trainer.gradient[key], value) for key, value in expected.items()) < 1e-5


def test_a_sequence_ratio_needs_a_token_to_be_of(base: BaseModel, trained: Adapter, fit: Fit) -> None:
    """A rollout with advantages whose ratio would be a mean over nothing is refused, and changes nothing."""
    needs = ("target_tokens", *LOSSES["gspo"].needs)
    example = Example(_policy_data()[0].tokens, {key: _policy_data()[0].inputs[key] for key in needs})
    bad = attrs.evolve(example, inputs={**example.inputs, "sequence_ratio_mask": np.zeros(20, np.float32)})
    trainer = Trainer(base, trained)

    with pytest.raises(EngineError, match="sequence_ratio_mask without a token"):
        fit(trainer, [example, bad], "gspo")
    assert not trainer.gradient


def test_several_targets_a_position(base: BaseModel, trained: Adapter, fit: Fit) -> None:
    """Targets `(T, K)` give log-probabilities `(T, K)`, and the gradient of K examples of one target."""
    rng = np.random.default_rng(1)
    tokens, targets = rng.integers(0, 97, 12), rng.integers(0, 97, (12, 3))
    weights = rng.random((12, 3)).astype(np.float32)
    wide, narrow = Trainer(base, trained), Trainer(base, trained)
    other = Example(tokens[:4], {"target_tokens": tokens[1:5]})
    together = fit(wide, [Example(tokens, {"target_tokens": targets, "weights": weights}), other])
    apart = fit(
        narrow,
        [
            *(Example(tokens, {"target_tokens": targets[:, k], "weights": weights[:, k]}) for k in range(3)),
            other,
        ],
    )

    for k in range(3):
        np.testing.assert_allclose(
            together.outputs[0]["logprobs"][:, k], apart.outputs[k]["logprobs"], rtol=1e-5, atol=1e-5
        )
    assert together.outputs[1]["logprobs"].shape == (4,)
    assert max(_relative(wide.gradient[name], value) for name, value in narrow.gradient.items()) < 1e-5


def test_weights_default_to_one(base: BaseModel, trained: Adapter, fit: Fit) -> None:
    """Without weights, every target counts once."""
    example = Example(np.arange(9), {"target_tokens": np.arange(9) + 1})
    output = fit(Trainer(base, trained), [example])

    assert output.metrics["loss:sum"] == pytest.approx(-output.outputs[0]["logprobs"].sum(), rel=1e-5)


def test_results_do_not_depend_on_company(base: BaseModel, trained: Adapter, fit: Fit) -> None:
    """A datum's log-probabilities do not depend, beyond 1e-5, on what it is packed with."""
    rng = np.random.default_rng(6)
    crowd = [
        Example(rng.integers(0, 97, n), {"target_tokens": rng.integers(0, 97, n)})
        for n in rng.integers(1, 90, 25)
    ]
    trainer = Trainer(base, trained)
    together = fit(trainer, crowd, backward=False).outputs

    for example, output in zip(crowd, together, strict=True):
        alone = fit(trainer, [example], backward=False).outputs[0]
        np.testing.assert_allclose(output["logprobs"], alone["logprobs"], rtol=1e-5, atol=1e-5)


def test_micro_batches_are_a_function_of_the_lengths() -> None:
    """Every example is in one micro-batch, none exceeds the budget but one that does so alone."""
    lengths = [100, 700, 30, 30, 412, 512, 1]
    batches = micro_batches(lengths, budget=512)

    assert batches == micro_batches(list(lengths), budget=512)
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert all(sum(lengths[index] for index in batch) <= 512 for batch in batches if len(batch) > 1)
    assert (1,) in batches


def test_forward_leaves_no_gradient(base: BaseModel, trained: Adapter, data: list[Example], fit: Fit) -> None:
    """A forward pass alone gives the same numbers and adds no gradient."""
    trainer = Trainer(base, trained)
    forward = fit(trainer, data, backward=False)

    assert trainer.gradient == {}
    assert forward.metrics["loss:sum"] == pytest.approx(fit(trainer, data).metrics["loss:sum"], rel=1e-6)


def test_gradients_add_up_until_the_step(
    base: BaseModel, trained: Adapter, data: list[Example], fit: Fit
) -> None:
    """Two requests before a step weigh as much as one with all the data, and the step forgets them."""
    apart, together = Trainer(base, trained), Trainer(base, trained.snapshot())
    fit(apart, data[:2])
    fit(apart, data[2:])
    fit(together, data)

    assert max(_relative(apart.gradient[n], value) for n, value in together.gradient.items()) < 1e-5
    apart.optim_step(STEP)
    assert apart.gradient == {}


def test_a_step_without_gradient_is_refused(base: BaseModel, trained: Adapter) -> None:
    """The step behind a failed forward_backward does not move the weights."""
    before = trained.flat.clone()

    with pytest.raises(EngineError, match="no gradient"):
        Trainer(base, trained).optim_step(STEP)

    assert torch.equal(trained.flat, before)


@pytest.mark.parametrize("clip", [0.0, 0.5, 1e9])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_torch_adamw(
    base: BaseModel, trained: Adapter, data: list[Example], fit: Fit, clip: float, decay: float
) -> None:
    """Over several steps, weights follow torch.optim.AdamW with clip_grad_norm_, and the norm is reported."""
    weights = {name: tensor.clone().requires_grad_() for name, tensor in trained.tensors().items()}
    reference = torch.optim.AdamW(weights.values(), lr=3e-3, betas=(0.8, 0.9), eps=1e-8, weight_decay=decay)
    settings = AdamSettings(3e-3, beta1=0.8, beta2=0.9, eps=1e-8, weight_decay=decay, grad_clip_norm=clip)
    trainer = Trainer(base, trained)
    for turn in range(4):
        fit(trainer, data[turn:])
        for name, gradient in trainer.gradient.items():
            weights[name].grad = gradient.clone()
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), clip or float("inf"))
        reference.step()
        metrics = trainer.optim_step(settings)
        assert metrics["grad_norm:mean"] == pytest.approx(float(norm), rel=1e-5)

    for name, tensor in trained.tensors().items():
        torch.testing.assert_close(tensor, weights[name].detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "bad",
    [
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"beta1": 1.0},
        {"beta2": 1.0},
        {"eps": float("inf")},
        {"weight_decay": -0.1},
    ],
)
def test_bad_adam_settings_are_refused(bad: dict[str, float]) -> None:
    """A setting of the optimizer that is out of range is refused and named."""
    with pytest.raises(EngineError, match=next(iter(bad))):
        AdamSettings(**bad)


def _run(
    base: BaseModel, data: list[Example], fit: Fit, steps: int, *, between: Callable[[Trainer], None]
) -> Trainer:
    trainer = Trainer(base, Adapter.create(base, LoraSpec(rank=4, seed=5)))
    for _ in range(steps):
        fit(trainer, data)
        between(trainer)
        trainer.optim_step(STEP)
    return trainer


def test_training_repeats_bit_for_bit(base: BaseModel, data: list[Example], fit: Fit) -> None:
    """The same requests give the same bits, whatever the global random state is."""
    first = _run(base, data, fit, 3, between=lambda _: torch.manual_seed(1))
    second = _run(base, data, fit, 3, between=lambda _: torch.manual_seed(2))

    assert torch.equal(first.adapter.flat, second.adapter.flat)


def test_sampling_in_between_changes_nothing(base: BaseModel, data: list[Example], fit: Fit) -> None:
    """Sampling between micro-batches and between steps leaves training bit-identical."""
    quiet = _run(base, data, fit, 3, between=lambda _: None)
    noisy = Trainer(base, Adapter.create(base, LoraSpec(rank=4, seed=5)))
    sampler = Sampler(base)
    for turn in range(3):
        sampler.add(
            f"{turn}", SampleSpec(np.arange(5), max_tokens=8, temperature=0.7), noisy.adapter.snapshot()
        )
        fit(noisy, data)
        while sampler.busy:
            sampler.step()
        noisy.optim_step(STEP)

    assert torch.equal(quiet.adapter.flat, noisy.adapter.flat)


def test_sampling_may_run_between_micro_batches(base: BaseModel, trained: Adapter) -> None:
    """A long request pauses after each micro-batch, and another trainer's work then changes nothing."""
    rng = np.random.default_rng(3)
    long = [Example(rng.integers(0, 97, 200), {"target_tokens": rng.integers(0, 97, 200)}) for _ in range(6)]
    calm, busy = Trainer(base, trained.snapshot()), Trainer(base, trained.snapshot())
    for _ in calm.forward_backward(long, "cross_entropy"):
        pass
    pauses = 0
    for _ in busy.forward_backward(long, "cross_entropy"):
        pauses += 1
        for _ in Trainer(base, trained.snapshot()).forward_backward(long[:1], "cross_entropy"):
            pass

    assert pauses == 2
    assert all(torch.equal(busy.gradient[name], value) for name, value in calm.gradient.items())


def test_saved_state_continues_bit_for_bit(base: BaseModel, data: list[Example], fit: Fit) -> None:
    """A trainer restored half-way, tensors in another order, ends with the bits of one never stopped."""
    whole = _run(base, data, fit, 4, between=lambda _: None)
    half = _run(base, data, fit, 2, between=lambda _: None)
    weights, optimizer = half.state_tensors()
    again = Trainer(base, Adapter.create(base, LoraSpec(rank=4, seed=99)))
    again.load_state_tensors(dict(reversed(weights.items())), dict(reversed(optimizer.items())))
    for _ in range(2):
        fit(again, data)
        again.optim_step(STEP)

    assert torch.equal(whole.adapter.flat, again.adapter.flat)


def test_loading_without_optimizer_begins_a_fresh_one(base: BaseModel, data: list[Example], fit: Fit) -> None:
    """Weights alone restore the weights; the first step is then Adam's first, and any gradient is gone."""
    half = _run(base, data, fit, 2, between=lambda _: None)
    weights, _ = half.state_tensors()
    fit(half, data)
    half.load_state_tensors(weights, None)
    fresh = Trainer(base, Adapter.from_tensors(base, half.adapter.spec, weights))
    assert half.gradient == {}
    for trainer in (half, fresh):
        fit(trainer, data)
        trainer.optim_step(STEP)

    assert torch.equal(half.adapter.flat, fresh.adapter.flat)


@pytest.mark.parametrize("fault", ["weights", "exp_avg", "step"])
def test_a_state_that_does_not_fit_changes_nothing(
    base: BaseModel, data: list[Example], fit: Fit, fault: str
) -> None:
    """A state with a tensor missing is refused, and the trainer is as before."""
    trainer = _run(base, data, fit, 2, between=lambda _: None)
    weights, optimizer = trainer.state_tensors()
    before = trainer.state_tensors()
    torn_weights = (
        dict(list(weights.items())[1:]) if fault == "weights" else {n: t * 2 for n, t in weights.items()}
    )
    gone = {"exp_avg": f"exp_avg.{next(iter(weights))}", "step": "step"}.get(fault, "")
    torn = {name: tensor for name, tensor in optimizer.items() if name != gone}

    with pytest.raises(EngineError):
        trainer.load_state_tensors(torn_weights, torn)

    for got, expected in zip(trainer.state_tensors(), before, strict=True):
        assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


GOOD = Example(np.arange(6), {"target_tokens": np.arange(6), "weights": np.ones(6, np.float32)})
BAD: dict[str, Any] = {
    "no data": [],
    "an empty sequence": [attrs.evolve(GOOD, tokens=np.zeros(0, np.int64))],
    "an over-long sequence": [Example(np.zeros(257, np.int64), {"target_tokens": np.zeros(257, np.int64)})],
    "an id beyond the vocabulary": [attrs.evolve(GOOD, tokens=np.array([0, 1, 2, 3, 4, 97]))],
    "a negative id": [attrs.evolve(GOOD, tokens=np.array([0, 1, 2, 3, 4, -1]))],
    "ids that are no integers": [attrs.evolve(GOOD, tokens=np.arange(6.0))],
    "a target beyond the vocabulary": [Example(np.arange(6), {"target_tokens": np.arange(6) + 95})],
    "no targets": [Example(np.arange(6), {"weights": np.ones(6, np.float32)})],
    "targets of another length": [Example(np.arange(6), {"target_tokens": np.arange(5)})],
    "weights of another length": [
        Example(np.arange(6), {"target_tokens": np.arange(6), "weights": np.ones(5, np.float32)})
    ],
    "NaN weights": [
        Example(np.arange(6), {"target_tokens": np.arange(6), "weights": np.full(6, np.nan, np.float32)})
    ],
    "infinite weights": [
        Example(np.arange(6), {"target_tokens": np.arange(6), "weights": np.full(6, np.inf, np.float32)})
    ],
    "weights that overflow": [
        Example(np.arange(6), {"target_tokens": np.arange(6), "weights": np.full(6, 3e38, np.float32)})
    ],
    "an input that the loss does not use": [
        Example(np.arange(6), {"target_tokens": np.arange(6), "advantages": np.ones(6, np.float32)})
    ],
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_fails_alone(base: BaseModel, trained: Adapter, fit: Fit, what: str) -> None:
    """A poisoned request raises an EngineError, adds no gradient, and the one before it still counts."""
    trainer = Trainer(base, trained)
    fit(trainer, [GOOD])
    before = {name: gradient.clone() for name, gradient in trainer.gradient.items()}
    data = [GOOD, *BAD[what]] if BAD[what] else []

    with pytest.raises(EngineError):
        fit(trainer, data)

    assert all(torch.equal(trainer.gradient[name], gradient) for name, gradient in before.items())
    assert np.isfinite(fit(trainer, [GOOD]).metrics["loss:sum"])


@pytest.mark.parametrize("missing", ["logprobs", "advantages"])
def test_policy_losses_need_their_inputs(base: BaseModel, trained: Adapter, fit: Fit, missing: str) -> None:
    """A policy loss without its inputs, or with NaN in one, is refused by name."""
    inputs = {name: np.ones(6, np.float32) for name in ("logprobs", "advantages")}
    poisoned = inputs | {"target_tokens": np.arange(6), missing: np.full(6, np.nan, np.float32)}
    del inputs[missing]

    for given in ({"target_tokens": np.arange(6), **inputs}, poisoned):
        with pytest.raises(EngineError, match=missing):
            fit(Trainer(base, trained), [Example(np.arange(6), given)], "ppo")


def test_a_request_closed_half_way_leaves_nothing(base: BaseModel, trained: Adapter) -> None:
    """Closing the generator between two micro-batches adds no gradient."""
    data = [Example(np.arange(97).repeat(2), {"target_tokens": np.arange(97).repeat(2)}) for _ in range(5)]
    trainer = Trainer(base, trained)
    work = trainer.forward_backward(data, "cross_entropy")
    next(work)
    work.close()

    assert trainer.gradient == {}


def test_bfloat16_trains_in_the_same_direction(
    oracle: Callable[..., Path], data: list[Example], fit: Fit
) -> None:
    """In bfloat16 the gradient points where float32's does, and weights and moments stay float32."""
    gradients = []
    for dtype in ("float32", "bfloat16"):
        base = load("tiny", oracle(), dtype=dtype)
        trainer = Trainer(base, Adapter.create(base, LoraSpec(rank=4, seed=5)))
        fit(trainer, data)
        gradients.append(torch.cat([gradient.flatten() for gradient in trainer.gradient.values()]))

    assert gradients[1].dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.995
