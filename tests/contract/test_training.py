"""Training: losses, gradients, optimizer steps, and what happens to a request that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tinker


STEP = tinker.AdamParams(learning_rate=1e-2)


def test_cross_entropy(client: tinker.TrainingClient, ask: Any) -> None:
    """Train by cross_entropy, forward_backward and optim_step pipelined."""
    losses = ask.fit(client, steps=4)
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]


def test_many_targets(stirred: tinker.TrainingClient, ask: Any) -> None:
    """Several targets a position, weighted: shape (T, K)."""
    targets = np.array([ask.tokens(12, start) for start in (1, 5, 9)]).T
    weights = np.random.default_rng(0).random((12, 3)).astype(np.float32)
    result = stirred.forward([ask.datum(target_tokens=targets, weights=weights)], "cross_entropy").result()
    got = result.loss_fn_outputs[0]["logprobs"].to_numpy()
    for column in range(3):
        alone = ask.logprobs(stirred, ask.datum(target_tokens=targets[:, column]))
        np.testing.assert_allclose(got[:, column], alone, rtol=1e-3, atol=1e-3)
    assert result.metrics["loss:sum"] == pytest.approx(-float((got * weights).sum()), rel=1e-4)


def _by_hand(name: str, p: np.ndarray, q: np.ndarray, a: np.ndarray, low: float, high: float) -> float:
    """A loss as Tinker's documentation writes it, in NumPy."""
    ratio = np.exp(p - q)
    if name == "gspo":
        ratio = np.full(12, np.exp(np.mean((p - q)[3:])))
    clipped = np.clip(ratio, low, high)
    return float(
        {
            "importance_sampling": -ratio * a,
            "ppo": -np.minimum(ratio * a, clipped * a),
            "gspo": -np.minimum(ratio * a, clipped * a),
            "cispo": -clipped * p * a,
            "dro": -(p * a - 0.5 * 0.3 * (p - q) ** 2),
        }[name].sum()
    )


@pytest.mark.parametrize("name", ["importance_sampling", "ppo", "cispo", "dro", "gspo"])
def test_policy_losses(stirred: tinker.TrainingClient, ask: Any, name: str) -> None:
    """The loss, with its settings in loss_fn_config, is the documented one."""
    marks = {"sequence_ratio_mask": [0.0] * 3 + [1.0] * 9} if name == "gspo" else {}
    data = [ask.rollout(stirred, start, **marks) for start in (0, 20)]
    clips = {"clip_low_threshold": 0.9, "clip_high_threshold": 1.05}
    config = {"importance_sampling": None, "dro": {"beta": 0.3}}.get(name, clips)
    result = stirred.forward(data, name, loss_fn_config=config).result()
    expected = 0.0
    for one, output in zip(data, result.loss_fn_outputs, strict=True):
        q, a = (one.loss_fn_inputs[key].to_numpy() for key in ("logprobs", "advantages"))
        expected += _by_hand(name, output["logprobs"].to_numpy(), q, a, 0.9, 1.05)
    assert result.metrics["loss:sum"] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_stable_reinforce(stirred: tinker.TrainingClient, ask: Any, refused_here: Callable[[], None]) -> None:
    """stable_reinforce, from sequences sampled with record_stability_info."""
    refused_here()
    sampler = stirred.save_weights_and_get_sampling_client(record_stability_info=True).result()
    ask.sample(sampler)


@pytest.mark.parametrize("name", ["ppo", "cispo"])
def test_thresholds_by_token(stirred: tinker.TrainingClient, ask: Any, name: str) -> None:
    """Clip thresholds token by token, in loss_fn_inputs."""
    by_token = {"clip_low_threshold": [0.9] * 12, "clip_high_threshold": [1.05] * 12}
    config = {key: values[0] for key, values in by_token.items()}
    data, plain = [ask.rollout(stirred, **by_token)], [ask.rollout(stirred)]
    given = stirred.forward(data, name).result().metrics["loss:sum"]
    assert given == pytest.approx(
        stirred.forward(plain, name, loss_fn_config=config).result().metrics["loss:sum"], rel=1e-4
    )
    assert given != stirred.forward(plain, name).result().metrics["loss:sum"]


def test_custom_losses(new: Any, ask: Any) -> None:
    """forward_backward_custom trains as the built-in loss does, with metrics of one's own."""

    def nll(data: Any, logprobs: Any) -> Any:
        total = -sum(values.sum() for values in logprobs)
        return total, {"mine": float(total), "examples": len(data)}

    built_in, custom = new(), new()
    data = [ask.datum(), ask.datum(30, 5)]
    expected = built_in.forward_backward(data, "cross_entropy").result()
    result = custom.forward_backward_custom(data, nll).result()
    assert result.metrics["loss:sum"] == pytest.approx(expected.metrics["loss:sum"], rel=1e-4)
    assert result.metrics["examples"] == 2
    norms = [client.optim_step(STEP).result().metrics for client in (built_in, custom)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    np.testing.assert_allclose(ask.logprobs(built_in, *data), ask.logprobs(custom, *data), atol=2e-3)


def test_custom_losses_of_many_targets(client: tinker.TrainingClient, ask: Any) -> None:
    """forward_backward_custom over several outputs a position."""
    targets = np.array([ask.tokens(12, start) for start in (1, 5)]).T

    def margin(_data: Any, logprobs: Any) -> Any:
        total = (logprobs[0][:, 0] - logprobs[0][:, 1]).sigmoid().log().sum().neg()
        return total, {}

    data = [ask.datum(target_tokens=targets, weights=None)]
    losses = []
    for _ in range(4):
        forward = client.forward_backward_custom(data, margin)
        step = client.optim_step(STEP)
        losses.append(forward.result().metrics["loss:sum"])
        step.result()
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]


def test_losses_that_are_created(
    service: tinker.ServiceClient, client: tinker.TrainingClient, ask: Any
) -> None:
    """create_custom_loss, and its handle in forward_backward_custom."""

    def weighted(logprobs: Any, weights: Any) -> Any:
        loss = -(logprobs * weights).sum()
        return loss, {"custom/weighted:sum": loss}

    handle = service.create_custom_loss(weighted, input_ranks={"logprobs": 1, "weights": 1}).result()
    result = client.forward_backward_custom([ask.datum()], handle).result()
    expected = client.forward([ask.datum()], "cross_entropy").result().metrics["loss:sum"]
    assert result.metrics["loss:sum"] == pytest.approx(expected, rel=1e-4)
    assert result.metrics["custom/weighted:sum"] == pytest.approx(expected, rel=1e-4)


def test_accumulation(new: Any, ask: Any) -> None:
    """Gradients of several forward_backward calls add up until optim_step."""
    together, apart = new(), new()
    halves = [ask.datum(), ask.datum(30)]
    together.forward_backward(halves, "cross_entropy")
    for half in halves:
        apart.forward_backward([half], "cross_entropy")
    norms = [client.optim_step(STEP).result().metrics for client in (together, apart)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    np.testing.assert_allclose(ask.logprobs(together, *halves), ask.logprobs(apart, *halves), atol=2e-3)


def test_forward_only(client: tinker.TrainingClient, ask: Any) -> None:
    """A forward pass leaves no gradient behind."""
    before = ask.logprobs(client, ask.datum())
    client.forward_backward([ask.datum(weights=[0.0] * 12)], "cross_entropy").result()
    client.forward([ask.datum()], "cross_entropy").result()
    client.optim_step(STEP).result()
    np.testing.assert_allclose(ask.logprobs(client, ask.datum()), before, atol=1e-4)


@pytest.mark.parametrize(
    "setting",
    [{"beta1": 0.5}, {"beta2": 0.5}, {"eps": 1e-2}, {"weight_decay": 0.5}, {"grad_clip_norm": 1e-6}],
    ids=lambda setting: next(iter(setting)),
)
def test_adamw(new: Any, ask: Any, setting: dict[str, float]) -> None:
    """A setting of AdamW changes the second step."""
    plain, changed = new(), new()
    eps = {"eps": 1e-4} if "grad_clip_norm" in setting else {}
    for client, given in ((plain, eps), (changed, eps | setting)):
        ask.fit(client)
        ask.fit(client, **given)
    assert not np.array_equal(ask.logprobs(plain, ask.datum()), ask.logprobs(changed, ask.datum()))


def test_dimuon(
    service: tinker.ServiceClient, model: str, ask: Any, refused_here: Callable[[], None]
) -> None:
    """The optimizer Dimuon."""
    refused_here()
    from tinker.types.optimizer import DimuonOptimizerConfig, DimuonParams

    client = service.create_lora_training_client(model, rank=4, optimizer=DimuonOptimizerConfig()).result()
    client.forward_backward([ask.datum()], "cross_entropy")
    client.optim_step(DimuonParams(learning_rate=1e-3)).result()


@pytest.mark.parametrize("kept", ["train_attn", "train_mlp", "train_unembed"])
def test_layers(new: Any, ask: Any, kept: str) -> None:
    """A LoRA on some layers only."""
    flags = dict.fromkeys(("train_attn", "train_mlp", "train_unembed"), False) | {kept: True}
    losses = ask.fit(new(**flags), steps=3)
    assert losses[-1] < losses[0]


def test_seeds(new: Any, ask: Any) -> None:
    """A seed fixes the first weights, so that training can be repeated."""
    same = [ask.fit(new(seed=5), steps=3) for _ in range(2)]
    other = ask.fit(new(seed=6), steps=3)
    assert same[0] == pytest.approx(same[1], rel=1e-3)
    assert abs(other[-1] - same[0][-1]) > abs(same[1][-1] - same[0][-1])


def test_training_while_sampling(new: Any, ask: Any, sampler: tinker.SamplingClient) -> None:
    """Training goes on while others sample, and is not changed by it."""
    alone = ask.fit(new(seed=5), steps=3)
    drawn = [
        sampler.sample(
            prompt=ask.prompt(), num_samples=4, sampling_params=tinker.SamplingParams(max_tokens=40)
        )
        for _ in range(4)
    ]
    beside = ask.fit(new(seed=5), steps=3)
    assert all(len(one.result().sequences) == 4 for one in drawn)
    assert beside == pytest.approx(alone, rel=1e-3)


@pytest.mark.parametrize(
    ("loss", "bad"),
    [
        ("cross_entropy", {"weights": [float("nan")] * 12}),
        ("cross_entropy", {"weights": [1.0] * 5}),
        ("cross_entropy", {"target_tokens": [10**8] * 12}),
        ("importance_sampling", {"advantages": [float("nan")] * 12}),
    ],
    ids=["nan-weights", "short-weights", "no-such-token", "nan-advantages"],
)
def test_poison(client: tinker.TrainingClient, ask: Any, loss: Any, bad: dict[str, Any]) -> None:
    """A request that cannot be computed fails alone."""
    before = ask.logprobs(client, ask.datum())
    good = client.forward_backward([ask.datum()], "cross_entropy")
    make = ask.datum if loss == "cross_entropy" else lambda **given: ask.rollout(client, **given)
    with pytest.raises((tinker.BadRequestError, tinker.RequestFailedError)):
        client.forward_backward([make(**bad)], loss).result()
    good.result()
    client.optim_step(tinker.AdamParams(learning_rate=0.0)).result()
    np.testing.assert_allclose(ask.logprobs(client, ask.datum()), before, atol=1e-4)


def test_unknown_losses(client: tinker.TrainingClient, ask: Any) -> None:
    """A loss that does not exist is refused."""
    with pytest.raises((tinker.BadRequestError, tinker.RequestFailedError)):
        client.forward_backward([ask.datum()], "no_such_loss").result()
