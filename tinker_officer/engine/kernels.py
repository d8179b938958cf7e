"""Matrix products on the fastest kernel that torch ships; knows nothing of models.

On a CPU, `torch.nn.functional.linear` in float32 goes to MKL, which on AMD processors leaves more than half
of AVX-512 unused. oneDNN, inside the same torch, does not: 190 against 440 GFLOP/s on two Zen 5 cores. Its
operator is the one that torch.compile emits (`torch.ops.mkldnn._linear_pointwise`); where it is missing, and
on other devices and dtypes, `linear` is torch's own.
"""

# ruff: noqa: N803 - argument names carry their axes (house rule 5)

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own spelling


Product = Callable[[Tensor], Tensor]


def applied(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    """Return a differentiable function of inputs; torch leaves `apply` untyped."""
    return function.apply(*inputs)  # type: ignore[no-untyped-call]  # torch leaves it untyped


@cache
def onednn_available() -> bool:
    """Return whether this torch has oneDNN's float32 product, and it gives the right numbers."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return False
    try:
        x, weight = torch.arange(12.0).view(3, 4), torch.arange(20.0).view(5, 4)
        return torch.allclose(_onednn(x, weight), F.linear(x, weight))
    except (AttributeError, RuntimeError):  # pragma: no cover - another build of torch
        return False


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")  # noqa: SLF001 - the operator's name
    return product


def linear(x_N_I: Tensor, weight_O_I: Tensor) -> Tensor:
    """Return `x @ weight.T`, shape `(N, O)`; either may be a transposed view. Not for autograd.

    Args:
        x_N_I: rows, shape `(N, I)`.
        weight_O_I: weight as `torch.nn.Linear` keeps it, shape `(O, I)`.
    """
    fits = x_N_I.dtype == torch.float32 and x_N_I.device.type == "cpu" and x_N_I.shape[0] > 0
    if fits and onednn_available():
        return _onednn(_plain(x_N_I), _plain(weight_O_I))
    return F.linear(x_N_I, weight_O_I)


def _plain(matrix: Tensor) -> Tensor:
    """Return a matrix in a layout that oneDNN is fast on: a transposed slice takes it 1,000 times longer."""
    if matrix.stride(1) == 1 or matrix.t().is_contiguous():
        return matrix
    return matrix.contiguous()


def prepacked(weight_O_I: Tensor, *, rows: int = 16) -> Product:
    """Return `x -> x @ weight.T` with the weight laid out once for few rows, as decoding needs.

    The result keeps its own copy of the weight; the caller may drop `weight_O_I`.

    Args:
        weight_O_I: weight, shape `(O, I)`.
        rows: how many rows the layout is chosen for; other numbers work, more slowly.
    """
    fits = weight_O_I.dtype == torch.float32 and weight_O_I.device.type == "cpu"
    if not (fits and onednn_available()):
        return lambda x: F.linear(x, weight_O_I)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_O_I.contiguous(), rows)  # noqa: SLF001 - the operator's name
    return lambda x: _onednn(x, packed)
