"""Products on the kernel of this processor against wider numbers, in every layout that is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tinker_officer.engine import kernels
from tinker_officer.engine.kernels import (
    add_linear,
    linear,
    onednn_available,
    prepacked,
)


WIDE = torch.randn(30, 24, generator=torch.Generator().manual_seed(0))
LAYOUTS = {
    "contiguous": WIDE[:8, :16].contiguous(),
    "slice of columns": WIDE[:8, 4:20],
    "transposed": WIDE[:16, :8].contiguous().t(),
    "transposed slice": WIDE[:16, 3:11].t(),
    "one row": WIDE[:1, :16],
    "no rows": WIDE[:0, :16],
}


@pytest.mark.parametrize("x", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("weight", [WIDE[10:22, :16], WIDE[:16, 5:17].t()], ids=["plain", "transposed"])
def test_linear_is_the_product(x: Tensor, weight: Tensor) -> None:
    """Rows times a transposed weight, whatever the memory layout of either."""
    torch.testing.assert_close(linear(x, weight), (x.double() @ weight.double().t()).float())


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_prepacked_weights_are_a_copy(rows: int) -> None:
    """A prepacked weight gives the same product, and does not change when the original does."""
    x = torch.randn(rows, 24, generator=torch.Generator().manual_seed(1))
    weight = WIDE.clone()
    product = prepacked(weight)
    expected = x.double() @ weight.double().t()
    if onednn_available():
        weight.zero_()

    torch.testing.assert_close(product(x), expected.float())


@pytest.mark.parametrize("rows", [1, 40], ids=["few rows", "many rows"])
def test_bfloat16_is_the_product_rounded_once(rows: int) -> None:
    """A bfloat16 product is that of wider numbers, rounded at the end, on any processor."""
    x = torch.randn(rows, 24, generator=torch.Generator().manual_seed(1)).bfloat16()
    weight = WIDE.bfloat16()
    exact = x.double() @ weight.double().t()

    for product in (linear(x, weight), prepacked(weight)(x)):
        assert product.dtype == torch.bfloat16
        torch.testing.assert_close(product.double(), exact, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("block", [1, 60, 2**21], ids=["a row", "some rows", "the whole"])
@pytest.mark.parametrize("weight", [WIDE[10:22, :16], WIDE[:16, 5:17].t()], ids=["plain", "transposed"])
def test_float32_rows_meet_a_bfloat16_weight_unrounded(
    weight: Tensor, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32 rows times a bfloat16 weight round nothing but the sum, however the weight is cut up."""
    monkeypatch.setattr(kernels, "_BLOCK", block)
    x, weight = WIDE[:7, :16], weight.bfloat16()
    exact = x.double() @ weight.double().t()

    torch.testing.assert_close(linear(x, weight), exact.float())
    torch.testing.assert_close(add_linear(torch.ones(7, 12), x, weight), (1 + exact).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_added_to_a_slice(dtype: torch.dtype) -> None:
    """`add_linear` adds to some columns of a wider matrix, also of a wider dtype, and leaves the others."""
    x, weight, y = WIDE[:8, :16].to(dtype), WIDE[10:22, :16].to(dtype), torch.ones(8, 30)

    add_linear(y[:, 4:16], x, weight)

    expected = torch.ones(8, 30, dtype=torch.float64)
    expected[:, 4:16] += x.double() @ weight.double().t()
    torch.testing.assert_close(
        y.double(), expected, rtol=2**-8, atol=2e-2 if dtype != torch.float32 else 1e-5
    )


def test_a_bfloat16_weight_is_multiplied_from_float16_without_loss() -> None:
    """Few rows times a bfloat16 weight, kept as float16, are right to float32, at any scale of the weight."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 40, generator=generator)
    for scale in (1e-6, 1.0, 1e5):
        weight = (torch.randn(24, 40, generator=generator) * scale).bfloat16()
        product = kernels.halved(weight)
        if product is None:
            pytest.skip("this torch has no FBGEMM")
        wanted = x.double() @ weight.double().t()
        error = (product(x).double() - wanted).abs().max() / wanted.abs().max()
        assert error < 1e-6


def test_a_weight_that_float16_would_round_is_left_alone() -> None:
    """float32 weights, zeros and what is not finite are not kept as float16."""
    weight = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    assert kernels.halved(weight) is None
    assert kernels.halved(torch.zeros(24, 40)) is None
    assert kernels.halved(torch.full((24, 40), torch.nan)) is None
