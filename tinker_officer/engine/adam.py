"""AdamW on one flat buffer; knows nothing of names.

Source:
    Loshchilov and Hutter 2019, "Decoupled weight decay regularization", arXiv:1711.05101, step for step as
    `torch.optim.AdamW` and `torch.nn.utils.clip_grad_norm_`.
"""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from tinker_officer._fields import real
from tinker_officer.errors import EngineError


_MOST_BETA = 0.999999  # at 1 the bias correction divides by zero
_FIX = "tinker.AdamParams(learning_rate=1e-4)"


@attrs.frozen
class AdamSettings:
    """The settings of one step, with the names and defaults of `tinker.AdamParams`."""

    learning_rate: float = attrs.field(default=1e-4, validator=real(0, error=EngineError, fix=_FIX))
    beta1: float = attrs.field(default=0.9, validator=real(0, _MOST_BETA, error=EngineError, fix=_FIX))
    beta2: float = attrs.field(default=0.95, validator=real(0, _MOST_BETA, error=EngineError, fix=_FIX))
    eps: float = attrs.field(default=1e-12, validator=real(0, error=EngineError, fix=_FIX))
    weight_decay: float = attrs.field(default=0.0, validator=real(0, error=EngineError, fix=_FIX))
    grad_clip_norm: float = attrs.field(default=0.0, validator=real(-math.inf, error=EngineError, fix=_FIX))


class Adam:
    """The moments of every weight, and the number of steps taken."""

    def __init__(self, weights: Tensor) -> None:
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(weights), torch.zeros_like(weights)
        self.steps = 0

    @torch.no_grad()
    def step(self, weights: Tensor, gradient: Tensor, settings: AdamSettings) -> float:
        """Change the weights in place, and return the norm of the gradient before clipping."""
        norm = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
        if 0 < settings.grad_clip_norm < norm + 1e-6:
            gradient = gradient * (settings.grad_clip_norm / (norm + 1e-6))
        self.steps += 1
        correction1 = 1 - settings.beta1**self.steps
        correction2 = 1 - settings.beta2**self.steps
        weights.mul_(1 - settings.learning_rate * settings.weight_decay)
        self.exp_avg.lerp_(gradient, 1 - settings.beta1)
        self.exp_avg_sq.mul_(settings.beta2).addcmul_(gradient, gradient, value=1 - settings.beta2)
        spread = self.exp_avg_sq.sqrt().div_(math.sqrt(correction2)).add_(settings.eps)
        weights.addcdiv_(self.exp_avg, spread, value=-settings.learning_rate / correction1)
        return norm
