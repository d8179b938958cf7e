"""The engine's tensors on a GPU that is not there, run by test_devices.py in a process of its own.

torch's FakeTensorMode computes shapes, dtypes and devices, and fails where tensors of two devices meet. "gpu"
is a device with nothing behind it: without CUDA, torch does not let a fake tensor say "cuda". What depends on
numbers (which token is chosen, the norm of a gradient) cannot be run so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from tinker_officer.engine.cache import Cache
from tinker_officer.engine.decoder import hidden_states, packed_attention
from tinker_officer.engine.lora import Adapter, Layout, LoraSpec, Pair
from tinker_officer.engine.models import BaseModel, Layer, load
from tinker_officer.engine.projections import merged, with_lora


GPU = "gpu"


def moved(value: Any) -> Any:
    """Return a value with its tensors on the GPU."""
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device=GPU)
    if isinstance(value, tuple):
        return tuple(map(moved, value))
    if isinstance(value, Layer):
        return attrs.evolve(value, **{f.name: moved(getattr(value, f.name)) for f in attrs.fields(Layer)})
    return value


def on_gpu(base: BaseModel) -> BaseModel:
    """Return a base model with its weights on the GPU."""
    parts = ("embed", "layers", "norm", "head", "inverse_frequencies")
    there = {part: moved(getattr(base, part)) for part in parts}
    return attrs.evolve(base, device=torch.device(GPU), **there)


def train(base: BaseModel, adapter: Adapter) -> None:
    """Run a forward and backward pass of packed sequences, log-probabilities and all."""
    pairs = {
        key: Pair(pair.down.detach().requires_grad_(), tuple(up.detach().requires_grad_() for up in pair.ups))
        for key, pair in adapter.pairs().items()
    }
    tokens, positions = torch.zeros(20, dtype=torch.int64, device=GPU), torch.arange(20, device=GPU)
    projections = with_lora(base, adapter, pairs)
    hidden = hidden_states(base, projections, tokens, positions, packed_attention((12, 8)))
    assert hidden.dtype == base.activations
    projections.logprobs(hidden, tokens[:, None]).sum().backward()
    for pair in pairs.values():
        for leaf in (pair.down, *pair.ups):
            assert leaf.grad is not None
            assert leaf.grad.device.type == GPU


@torch.no_grad()
def sample(base: BaseModel, adapter: Adapter) -> None:
    """Read prompts, and decode rows of several lengths, one of which leaves."""
    projections, cache = merged(base, adapter), Cache(base)
    places: list[tuple[int, int] | None] = [(cache.add(2, 12), 2), (cache.add(1, 8), 1)]
    tokens, positions = torch.zeros(20, dtype=torch.int64, device=GPU), torch.arange(20, device=GPU)
    hidden_states(base, projections, tokens, positions, cache.prefilling((12, 8), places))
    for _ in range(2):
        at, attend = cache.decoding()
        hidden = hidden_states(base, projections, tokens[: len(cache.lengths)], at, attend)
        assert projections.head(hidden).device.type == GPU
        cache.remove(0)


def main(folder: Path) -> None:
    """Train and sample in both dtypes; print what was done."""
    _setup_privateuseone_for_python_backend(GPU)
    tensor: Callable[..., Tensor] = torch.tensor

    def placed(data: Any, device: Any = None, **given: Any) -> Tensor:
        return tensor(data, **given).to(device or "cpu")

    # torch makes a tensor of numbers on this device in no other way.
    torch.tensor = placed
    for dtype in ("float32", "bfloat16"):
        read = load("tiny", folder, dtype=dtype)
        with FakeTensorMode(shape_env=ShapeEnv()), sdpa_kernel(SDPBackend.MATH):
            base, spec = on_gpu(read), LoraSpec(rank=4, seed=0)
            layout = Layout(base.shape, spec)
            adapter = Adapter(spec, layout, torch.zeros(layout.size, device=GPU))
            for work in (train, sample):
                work(base, adapter)
                print(work.__name__, dtype)
            stray = Adapter(spec, layout, torch.zeros(layout.size))
            try:
                train(base, stray)
            except RuntimeError as error:
                print("found" if "same device" in str(error) else repr(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
