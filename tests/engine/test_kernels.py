"""Products on oneDNN against torch's own, in every layout that is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tinker_officer.engine.kernels import linear, onednn_available, prepacked


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


def test_bfloat16_goes_to_torch() -> None:
    """Other dtypes than float32 take torch's own product."""
    x, weight = WIDE[:4].bfloat16(), WIDE.bfloat16()

    assert torch.equal(linear(x, weight), torch.nn.functional.linear(x, weight))
    assert torch.equal(prepacked(weight)(x), torch.nn.functional.linear(x, weight))
