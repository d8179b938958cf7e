"""The loss functions that Tinker names, as a table; knows nothing of models.

Each is a sum over tokens of a function of that token's log-probability (in `gspo` also of its sequence's), as
Tinker defines them. A new one is a function and a line in `LOSSES`.

Source:
    Tinker documentation, "Losses" (tinker-docs.thinkingmachines.ai/tinker/losses).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import attrs
import numpy as np
import torch
from torch import Tensor

from tinker_officer._text import nearest
from tinker_officer.errors import EngineError


Inputs = Mapping[str, Tensor]
Settings = Mapping[str, float]


@attrs.frozen
class Loss:
    """One loss function.

    Attributes:
        name: as the SDK spells it.
        value: `(logprobs, inputs, settings) -> ()`, summed over tokens; `inputs` also has `datum`, the index
            of each row's example.
        needs: the inputs that every example must have, beside `target_tokens`.
        takes: inputs that an example may have.
        settings: defaults of `loss_fn_config`.
        active: inputs that are all zero where a token has no part in the loss; none when all have one.
        marks: the input that must not be zero everywhere in an example that has a gradient.
        many: whether several targets a position are taken.
    """

    name: str
    value: Callable[[Tensor, Inputs, Settings], Tensor]
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()
    settings: Mapping[str, float] = attrs.Factory(dict)
    active: tuple[str, ...] = ()
    marks: str | None = None
    many: bool = False

    def resolve(self, config: Mapping[str, float | str]) -> dict[str, float]:
        """Return the settings, defaults filled in.

        Raises:
            EngineError: a setting is unknown or not a finite number.
        """
        for key, value in config.items():
            if key not in self.settings:
                known = ", ".join(map(repr, self.settings)) or "no settings"
                raise EngineError(
                    f"loss_fn {self.name!r} has no such setting",
                    got=repr(key),
                    need=known,
                    fix=f'forward_backward(data, "{self.name}", loss_fn_config={dict(self.settings)})',
                )
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise EngineError(
                    f"loss_fn_config[{key!r}] is not a number",
                    got=repr(value),
                    need="a finite number",
                    fix=f"loss_fn_config={{{key!r}: {self.settings[key]}}}",
                )
        return {**self.settings, **{key: float(value) for key, value in config.items()}}

    def mask(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Return which positions have a part in the loss, shape `(T,)`; None when all have."""
        if not self.active:
            return None
        marks: np.ndarray = np.logical_or.reduce([inputs[name] != 0 for name in self.active])
        return np.any(marks, axis=1) if marks.ndim > 1 else marks


def cross_entropy(logprobs: Tensor, inputs: Inputs, _settings: Settings) -> Tensor:
    """Return the weighted negative log-likelihood, summed: halving the batch halves the gradient."""
    return -(logprobs * inputs["weights"]).sum()


def importance_sampling(logprobs: Tensor, inputs: Inputs, _settings: Settings) -> Tensor:
    """Return `-sum(ratio * advantage)` with the ratio of this policy to the one that sampled."""
    return -(torch.exp(logprobs - inputs["logprobs"]) * inputs["advantages"]).sum()


def ppo(logprobs: Tensor, inputs: Inputs, settings: Settings) -> Tensor:
    """Return PPO's clipped objective, negated; thresholds are on the ratio itself, as 0.8 and 1.2."""
    ratio = torch.exp(logprobs - inputs["logprobs"])
    advantages = inputs["advantages"]
    return -torch.minimum(ratio * advantages, _clip(ratio, inputs, settings) * advantages).sum()


def gspo(logprobs: Tensor, inputs: Inputs, settings: Settings) -> Tensor:
    """Return PPO's objective with one ratio a sequence: the geometric mean over the tokens that are marked.

    The token-level variant: each token carries the value of the sequence's ratio and the gradient of its own
    log-probability.

    Source:
        Zheng et al. 2025, "Group Sequence Policy Optimization", arXiv:2507.18071, equations 13 and 14.
    """
    marked = (inputs["sequence_ratio_mask"] != 0).to(logprobs.dtype)
    fixed, datum = logprobs.detach(), inputs["datum"]
    sums = logprobs.new_zeros(2, int(datum.max()) + 1)
    sums[0].index_add_(0, datum.flatten(), ((fixed - inputs["logprobs"]) * marked).flatten())
    sums[1].index_add_(0, datum.flatten(), marked.flatten())
    ratio = torch.exp((sums[0] / sums[1])[datum] + logprobs - fixed)
    advantages = inputs["advantages"]
    return -torch.minimum(ratio * advantages, _clip(ratio, inputs, settings) * advantages).sum()


def cispo(logprobs: Tensor, inputs: Inputs, settings: Settings) -> Tensor:
    """Return the policy gradient weighted by a clipped ratio that itself has no gradient."""
    ratio = torch.exp(logprobs - inputs["logprobs"]).detach()
    return -(_clip(ratio, inputs, settings) * logprobs * inputs["advantages"]).sum()


def dro(logprobs: Tensor, inputs: Inputs, settings: Settings) -> Tensor:
    """Return the policy gradient with a quadratic penalty on the log-ratio."""
    penalty = 0.5 * settings["beta"] * (logprobs - inputs["logprobs"]) ** 2
    return -(logprobs * inputs["advantages"] - penalty).sum()


def _clip(ratio: Tensor, inputs: Inputs, settings: Settings) -> Tensor:
    low, high = (inputs[name] if name in inputs else ratio.new_tensor(settings[name]) for name in _THRESHOLDS)
    return torch.clamp(ratio, low, high)


_POLICY = ("logprobs", "advantages")
_THRESHOLDS = {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}
LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("cross_entropy", cross_entropy, ("weights",), active=("weights",), many=True),
        Loss("importance_sampling", importance_sampling, _POLICY, active=("advantages",)),
        Loss("ppo", ppo, _POLICY, tuple(_THRESHOLDS), _THRESHOLDS, active=("advantages",)),
        Loss(
            "gspo",
            gspo,
            (*_POLICY, "sequence_ratio_mask"),
            tuple(_THRESHOLDS),
            _THRESHOLDS,
            active=("advantages", "sequence_ratio_mask"),
            marks="sequence_ratio_mask",
        ),
        Loss("cispo", cispo, _POLICY, tuple(_THRESHOLDS), _THRESHOLDS, active=("advantages",)),
        Loss("dro", dro, _POLICY, settings={"beta": 0.05}),
    )
}


# Names of the SDK that stand for something else here, and what to do instead.
_ELSEWHERE = {
    "stable_reinforce": "it is in alpha and its formula is not public: use importance_sampling, ppo or gspo",
    "custom": "use forward_backward_custom, which computes a loss of your own beside the client",
}


def loss_named(name: str) -> Loss:
    """Return a loss function by name.

    Raises:
        EngineError: the embedded engine has no such loss.
    """
    if name not in LOSSES:
        near = nearest(name, LOSSES)
        raise EngineError(
            "the embedded engine has no such loss function",
            got=repr(name),
            need="one of " + ", ".join(map(repr, LOSSES)) + (f" (did you mean {near}?)" if near else ""),
            fix=_ELSEWHERE.get(name, "use forward_backward_custom for a loss of your own"),
        )
    return LOSSES[name]
