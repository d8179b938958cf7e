"""Matrix products on the fastest kernel that torch ships for this processor; knows nothing of models.

Which kernel is taken depends on the processor alone, never on a timing, so that training repeats bit for bit:

- float32 with AVX-512: oneDNN. MKL, which `torch.nn.functional.linear` asks, leaves more than half of AVX-512
  unused on AMD processors: 190 against 440 GFLOP/s on two Zen 5 cores. The operator is the one that
  torch.compile emits (`torch.ops.mkldnn._linear_pointwise`); where it is missing, torch's own is taken.
- float32 with AVX2: MKL, which is a tenth faster there (82 against 73 GFLOP/s on a Zen 3 core).
- float32 rows with bfloat16 weights, as on a processor without bfloat16 units: a product with a float32 copy
  of the weight, a block at a time. torch's own bfloat16 product is eight times slower there (75 against 9
  GFLOP/s), and rounds what need not be.
- Few such rows, as in decoding: FBGEMM's product with a float16 weight, which widens in registers.
- Elsewhere, also on a GPU: torch's own.
"""

# ruff: noqa: N803 - argument names carry their axes (house rule 5)

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own spelling


Product = Callable[[Tensor], Tensor]
_BLOCK = 2**21  # numbers of a weight copied to float32 at a time: 8 MB, so that they stay in the cache
HALVED_ROWS = 32  # as many rows at most are multiplied by a float16 weight: more are bound by arithmetic
_scratch = threading.local()  # where they are copied to: fresh memory would cost more than the copy


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


@cache
def onednn_pays() -> bool:
    """Return whether oneDNN's float32 product is the faster one for many rows: where there is AVX-512."""
    capability: str = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in capability and onednn_available()


@cache
def bfloat16_units() -> bool:
    """Return whether this processor multiplies bfloat16 itself; any processor that is not x86 may."""
    if torch.backends.cpu.get_cpu_capability() not in {"DEFAULT", "AVX2", "AVX512"}:
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001 - torch has no other way to ask


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")  # noqa: SLF001 - the operator's name
    return product


def _widened(weight: Tensor) -> Tensor:
    """Return a float32 copy of a weight, in memory that the next call on this thread overwrites."""
    room: Tensor | None = getattr(_scratch, "room", None)
    if room is None or room.numel() < weight.numel():
        room = _scratch.room = torch.empty(weight.numel())
    return room[: weight.numel()].view(weight.shape).copy_(weight)


def _mixed(x: Tensor, weight: Tensor) -> Tensor:
    """Return `x @ weight.T` of float32 rows and a bfloat16 weight, or the transposed view of one."""
    plain = weight.stride(1) == 1
    stored = weight if plain else weight.t()
    step = max(1, _BLOCK // max(1, stored.shape[1]))
    if stored.shape[0] <= step:
        wide = _widened(stored)
        return linear(x, wide if plain else wide.t())
    out = x.new_zeros(x.shape[0], weight.shape[0])
    for start in range(0, stored.shape[0], step):
        part, wide = slice(start, start + step), _widened(stored[start : start + step])
        if plain:
            out[:, part] = linear(x, wide)
        else:
            add_linear(out, x[:, part], wide.t())
    return out


def linear(x_N_I: Tensor, weight_O_I: Tensor) -> Tensor:
    """Return `x @ weight.T`, shape `(N, O)`; either may be a transposed view. Not for autograd.

    Args:
        x_N_I: rows, shape `(N, I)`.
        weight_O_I: weight as `torch.nn.Linear` keeps it, shape `(O, I)`; of the rows' dtype, or bfloat16 with
            float32 rows.
    """
    if x_N_I.dtype != weight_O_I.dtype:
        return _mixed(x_N_I, weight_O_I)
    fits = x_N_I.dtype == torch.float32 and x_N_I.device.type == "cpu" and x_N_I.shape[0] > 0
    if fits and onednn_pays():
        return _onednn(_plain(x_N_I), _plain(weight_O_I))
    return F.linear(x_N_I, weight_O_I)


def add_linear(y_N_O: Tensor, x_N_I: Tensor, weight_O_I: Tensor) -> Tensor:
    """Add `x @ weight.T` to `y` in place, and return it. Not for autograd.

    Args:
        y_N_O: what to add to, shape `(N, O)`; a slice of columns, or of a wider dtype than the product.
        x_N_I: rows, shape `(N, I)`.
        weight_O_I: weight, shape `(O, I)`.
    """
    mixed = not y_N_O.dtype == x_N_I.dtype == weight_O_I.dtype
    if mixed or (y_N_O.device.type == "cpu" and onednn_pays()):
        return y_N_O.add_(linear(x_N_I, weight_O_I))
    return y_N_O.addmm_(x_N_I, weight_O_I.t())


def _plain(matrix: Tensor) -> Tensor:
    """Return a matrix in a layout that oneDNN is fast on: a transposed slice takes it 1,000 times longer."""
    if matrix.stride(1) == 1 or matrix.t().is_contiguous():
        return matrix
    return matrix.contiguous()


def prepacked(weight_O_I: Tensor, *, rows: int = 16) -> Product:
    """Return `x -> x @ weight.T` with the weight laid out once for few rows, as decoding needs.

    oneDNN's layout is the faster one for few rows on every x86 processor. The result keeps its own copy of
    the weight; the caller may drop `weight_O_I`.

    Args:
        weight_O_I: weight, shape `(O, I)`.
        rows: how many rows the layout is chosen for; other numbers work, more slowly.
    """
    fits = weight_O_I.dtype == torch.float32 and weight_O_I.device.type == "cpu"
    if not (fits and onednn_available()):
        return lambda x: linear(x, weight_O_I)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_O_I.contiguous(), rows)  # noqa: SLF001 - the operator's name
    return lambda x: _onednn(x, packed)


def halved(weight_O_I: Tensor) -> Product | None:
    """Return `x -> x @ weight.T` of few float32 rows and a bfloat16 weight; None where that is not exact.

    The weight is kept as float16 times a power of two. The eight bits of a bfloat16 number fit; only a number
    below 2**-32 of the largest may be rounded, by 2**-39 of the largest at most: far less than float32
    rounds a sum. Products and sums are float32.

    Args:
        weight_O_I: weight, shape `(O, I)`; the result keeps its own copy.
    """
    engines = torch.backends.quantized.supported_engines
    if weight_O_I.device.type != "cpu" or "fbgemm" not in engines:
        return None
    wide = weight_O_I.float()
    largest = float(wide.abs().max())
    if not 2.0**-60 < largest < 2.0**60:
        return None
    scale = 2.0 ** (15 - math.frexp(largest)[1])
    scaled = wide * scale
    if float((scaled.half().float() - scaled).abs().max()) > 2.0**-25:
        return None
    packed, back = torch.ops.quantized.linear_prepack_fp16(scaled, None), 1 / scale

    def product(x: Tensor) -> Tensor:
        out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x.contiguous(), packed)
        return out.mul_(back)

    return product
