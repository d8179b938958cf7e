"""Losses against NumPy, written down a second time."""

from __future__ import annotations

import typing
from typing import Any

import numpy as np
import pytest
import tinker
import torch

from tinker_officer.engine.losses import LOSSES, loss_named
from tinker_officer.errors import EngineError


RNG = np.random.default_rng(4)
LOGPROBS = -RNG.random(12) * 3
INPUTS = {
    "weights": RNG.random(12),
    "logprobs": LOGPROBS + RNG.normal(size=12) * 0.4,
    "advantages": RNG.normal(size=12),
    "sequence_ratio_mask": np.array([0, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1.0]),
    "datum": np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2]),
}


def _by_hand(name: str, p: np.ndarray) -> float:
    q, a = INPUTS["logprobs"], INPUTS["advantages"]
    ratio = np.exp(p - q)
    clipped = np.clip(ratio, 0.8, 1.2)
    of_sequence = np.empty(12)
    for datum in range(3):
        here = INPUTS["datum"] == datum
        marked = here & (INPUTS["sequence_ratio_mask"] == 1)
        of_sequence[here] = np.exp(np.mean((LOGPROBS - q)[marked]))  # its value is a constant
    of_sequence = of_sequence * np.exp(p - LOGPROBS)
    sums = {
        "cross_entropy": -INPUTS["weights"] * p,
        "importance_sampling": -ratio * a,
        "ppo": -np.minimum(ratio * a, clipped * a),
        "gspo": -np.minimum(of_sequence * a, np.clip(of_sequence, 0.8, 1.2) * a),
        "cispo": -np.clip(np.exp(LOGPROBS - q), 0.8, 1.2) * p * a,  # the ratio is a constant
        "dro": -(p * a - 0.5 * 0.05 * (p - q) ** 2),
    }
    return float(sums[name].sum())


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_those_of_numpy(name: str) -> None:
    """Each loss and its gradient equal NumPy's, the gradient by finite differences."""
    loss = loss_named(name)
    logprobs = torch.tensor(LOGPROBS, requires_grad=True)
    inputs = {key: torch.tensor(INPUTS[key]) for key in (*loss.needs, "datum")}
    value = loss.value(logprobs, inputs, loss.resolve({}))
    value.backward()
    step = 1e-6
    slopes = [
        (_by_hand(name, LOGPROBS + step * unit) - _by_hand(name, LOGPROBS - step * unit)) / (2 * step)
        for unit in np.eye(12)
    ]

    assert value.item() == pytest.approx(_by_hand(name, LOGPROBS), rel=1e-9)
    assert logprobs.grad is not None
    np.testing.assert_allclose(logprobs.grad.numpy(), slopes, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.active])
def test_inactive_positions_have_neither_loss_nor_gradient(name: str) -> None:
    """A position that a loss calls inactive adds nothing, so that its backward pass may be skipped."""
    loss = loss_named(name)
    raw = {key: INPUTS[key].copy() for key in (*loss.needs, "datum")}
    for key in loss.active:
        raw[key][::3] = 0
    mask = loss.mask(raw)
    logprobs = torch.tensor(LOGPROBS, requires_grad=True)
    inputs = {key: torch.tensor(value) for key, value in raw.items()}
    value = loss.value(logprobs, inputs, loss.resolve({}))
    value.backward()
    alone = loss.value(
        logprobs[mask], {key: tensor[mask] for key, tensor in inputs.items()}, loss.resolve({})
    )

    assert mask is not None
    assert mask.tolist() == [index % 3 != 0 for index in range(12)]
    assert logprobs.grad is not None
    assert not logprobs.grad[~torch.tensor(mask)].any()
    assert alone.item() == pytest.approx(value.item(), rel=1e-12)


def test_settings_change_the_loss() -> None:
    """Clip thresholds come from the settings, or token by token from the data."""
    loss = loss_named("ppo")
    p = torch.tensor(LOGPROBS)
    inputs = {key: torch.tensor(INPUTS[key]) for key in loss.needs}
    wide = loss.resolve({"clip_low_threshold": 0.0, "clip_high_threshold": 1e9})
    by_token = {
        **inputs,
        "clip_low_threshold": torch.zeros(12),
        "clip_high_threshold": torch.full((12,), 1e9),
    }
    unclipped = loss_named("importance_sampling").value(p, inputs, {})

    assert torch.equal(loss.value(p, inputs, wide), unclipped)
    assert torch.equal(loss.value(p, by_token, loss.resolve({})), unclipped)
    assert not torch.equal(loss.value(p, inputs, loss.resolve({})), unclipped)


def test_every_loss_that_the_sdk_names_is_there_or_has_a_way_out() -> None:
    """Of the SDK's loss functions two are refused, each with what to use instead."""
    refused = set(typing.get_args(tinker.types.LossFnType)) - LOSSES.keys()

    assert refused == {"stable_reinforce", "custom"}
    for name, way_out in (("stable_reinforce", "gspo"), ("custom", "forward_backward_custom")):
        with pytest.raises(EngineError, match=f"fix:.*{way_out}"):
            loss_named(name)


@pytest.mark.parametrize("name", ["stable_reinforce", "custom", "crossentropy", ""])
def test_unknown_losses_are_refused(name: str) -> None:
    """A loss that the engine does not have is refused, and the others are named."""
    with pytest.raises(EngineError, match="cross_entropy"):
        loss_named(name)


@pytest.mark.parametrize("config", [{"bta": 1.0}, {"beta": float("nan")}, {"beta": "big"}])
def test_bad_settings_are_refused(config: dict[str, Any]) -> None:
    """An unknown setting, NaN and text are refused."""
    with pytest.raises(EngineError, match="beta"):
        loss_named("dro").resolve(config)
