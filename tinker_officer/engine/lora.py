"""LoRA weights: what they are called, where they lie, how they begin; knows nothing of gradients or batches.

All weights of an adapter lie in one flat float32 buffer, so that an optimizer step, a snapshot and a norm
are each one operation. Names and shapes on disk are PEFT's; those of experts are Tinker's, which the
cookbook's `weights` converts and merges. Scaling is `alpha / rank`, alpha 32 as on Tinker.

Source:
    Hu et al. 2021, "LoRA", arXiv:2106.09685; PEFT's `LoraLayer.reset_lora_parameters` (A Kaiming-uniform with
    a = sqrt(5), that is uniform within 1 / sqrt(inputs); B zero).
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Self

import attrs
import numpy as np
import torch
from torch import Tensor

from tinker_officer._fields import whole
from tinker_officer.engine.models import BaseModel, Linear, Shape
from tinker_officer.engine.settings import MAX_RANK
from tinker_officer.errors import EngineError


ALPHA = 32
# Projections that read the same input, stacked as the decoder stacks them.
GROUPS = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "o": ("o_proj",),
    "gate_up": ("gate_proj", "up_proj"),
    "down": ("down_proj",),
    "head": ("lm_head",),
}
_ATTENTION, _MLP = ("qkv", "o"), ("gate_up", "down")


@attrs.frozen
class LoraSpec:
    """Which linear layers get a LoRA, of which rank, from which seed.

    Attributes:
        rank: rank of every adapter matrix.
        seed: of the initial weights; None draws one.
        train_mlp: gate, up and down projections.
        train_attn: query, key, value and output projections.
        train_unembed: the output head. With tied embeddings it adds to the logits only.
    """

    rank: int = attrs.field(
        validator=whole(1, MAX_RANK, error=EngineError, fix="create_lora_training_client(..., rank=32)")
    )
    seed: int | None = None
    train_mlp: bool = True
    train_attn: bool = True
    train_unembed: bool = True

    def __attrs_post_init__(self) -> None:
        if not (self.train_mlp or self.train_attn or self.train_unembed):
            raise EngineError(
                "no layer is to be trained",
                got="train_mlp, train_attn and train_unembed are all False",
                need="at least one of them",
                fix="create_lora_training_client(..., train_mlp=True)",
            )

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of projections that are trained in every decoder layer."""
        return (*(_ATTENTION if self.train_attn else ()), *(_MLP if self.train_mlp else ()))

    @property
    def targets(self) -> tuple[str, ...]:
        """PEFT's `target_modules`, for a dense model."""
        groups = (*self.groups, *(("head",) if self.train_unembed else ()))
        return tuple(name for group in groups for name in GROUPS[group])


@attrs.frozen
class Slot:
    """Where one named tensor lies in the flat buffer."""

    name: str
    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The index after its last number."""
        return self.start + math.prod(self.shape)

    def part(self, index: int) -> Slot:
        """Return the slot of one matrix of a stack."""
        shape = self.shape[1:]
        return Slot(self.name, self.start + index * math.prod(shape), shape)

    def view(self, flat: Tensor) -> Tensor:
        """Return this tensor as a view of a flat buffer."""
        return flat[self.start : self.stop].view(self.shape)


@attrs.frozen(eq=False)
class Pair:
    """The LoRA of one group: `down` reads the input for all projections at once, each of `ups` writes one.

    Attributes:
        down: the A matrices, stacked, shape `(projections * rank, inputs)`.
        ups: the B matrices, each `(outputs, rank)`.
    """

    down: Tensor
    ups: tuple[Tensor, ...]


class Layout:
    """The order of an adapter's tensors in its flat buffer: by layer, by group, A matrices side by side."""

    def __init__(self, shape: Shape, spec: LoraSpec) -> None:
        self.rank, self.layers = spec.rank, shape.layers
        self.slots: list[Slot] = []
        self.size = 0
        self._groups: dict[tuple[int, str], tuple[Slot, tuple[Slot, ...]]] = {}
        self.targets = _targets(shape, spec)
        if shape.linears:
            for linear in shape.linears:
                if getattr(spec, linear.trained_by):
                    self._place_linear(linear, shape)
            return
        for layer in range(shape.layers):
            for group in spec.groups:
                if shape.experts and group in _MLP:
                    self._place_experts(layer, group, shape)
                    continue
                inner = "self_attn" if group in _ATTENTION else "mlp"
                self._place(layer, group, f"base_model.model.model.layers.{layer}.{inner}", shape)
        if spec.train_unembed:
            self._place(shape.layers, "head", "base_model.model", shape)

    def _place(self, layer: int, group: str, prefix: str, shape: Shape) -> None:
        names = GROUPS[group]
        inputs = shape.widths[names[0]][0]
        downs = [self._add(f"{prefix}.{name}.lora_A.weight", (self.rank, inputs)) for name in names]
        ups = tuple(
            self._add(f"{prefix}.{name}.lora_B.weight", (shape.widths[name][1], self.rank)) for name in names
        )
        stacked = Slot(group, downs[0].start, (self.rank * len(names), inputs))
        self._groups[layer, group] = (stacked, ups)

    def _place_linear(self, linear: Linear, shape: Shape) -> None:
        """Place the LoRA of one linear layer of a borrowed model."""
        prefix = f"base_model.model.{linear.path}"
        down = self._add(f"{prefix}.lora_A.weight", (self.rank, linear.inputs))
        up = self._add(f"{prefix}.lora_B.weight", (linear.outputs, self.rank))
        head = linear.trained_by == "train_unembed"
        self._groups[(shape.layers, "head") if head else (0, linear.path)] = down, (up,)

    def _place_experts(self, layer: int, group: str, shape: Shape) -> None:
        """Place the LoRA of a layer's experts, which share the matrix on the model's side, as on Tinker."""
        prefix = f"base_model.model.model.layers.{layer}.mlp.experts"
        rank, experts, wide, narrow = self.rank, shape.experts, shape.hidden, shape.intermediate
        if group == "gate_up":
            names = ("w1", "w3")
            downs = [self._add(f"{prefix}.{name}.lora_A.weight", (1, rank, wide)) for name in names]
            ups = [self._add(f"{prefix}.{name}.lora_B.weight", (experts, narrow, rank)) for name in names]
            shared = Slot(group, downs[0].start, (rank * len(names), wide))
            for expert in range(experts):
                self._groups[layer, f"{group}.{expert}"] = shared, tuple(up.part(expert) for up in ups)
        else:
            down = self._add(f"{prefix}.w2.lora_A.weight", (experts, rank, narrow))
            up = self._add(f"{prefix}.w2.lora_B.weight", (1, wide, rank))
            for expert in range(experts):
                self._groups[layer, f"{group}.{expert}"] = down.part(expert), (up.part(0),)

    def _add(self, name: str, shape: tuple[int, ...]) -> Slot:
        slot = Slot(name, self.size, shape)
        self.slots.append(slot)
        self.size = slot.stop
        return slot

    def pairs(self, flat: Tensor) -> dict[tuple[int, str], Pair]:
        """Return every group's matrices as views of a flat buffer; the head's layer is the last plus one."""
        return {
            key: Pair(down.view(flat), tuple(up.view(flat) for up in ups))
            for key, (down, ups) in self._groups.items()
        }

    def views(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor by its PEFT name, as a view of a flat buffer."""
        for slot in self.slots:
            yield slot.name, slot.view(flat)

    def fill(self, flat: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors into a flat buffer, by name.

        Raises:
            EngineError: a name is missing or unknown, a shape differs, or a number is not finite.
        """
        wanted = {slot.name: slot for slot in self.slots}
        missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
        wrong = [
            f"{name}: {tuple(tensors[name].shape)} instead of {slot.shape}"
            for name, slot in wanted.items()
            if name in tensors and tuple(tensors[name].shape) != slot.shape
        ]
        bad = [name for name in wanted if name in tensors and not torch.isfinite(tensors[name]).all()]
        problems = [
            *(f"missing {name}" for name in missing),
            *(f"unknown {name}" for name in unknown),
            *wrong,
            *(f"not finite: {name}" for name in bad),
        ]
        if problems:
            raise EngineError(
                "the saved tensors do not fit this adapter",
                got="\n".join(problems[:5])
                + (f"\nand {len(problems) - 5} more" if len(problems) > 5 else ""),  # noqa: PLR2004 - enough to see the pattern
                need=f"{len(wanted)} finite tensors of rank {self.rank}, by PEFT's names",
                fix="load the checkpoint into a training client of the same base model, rank and layers",
            )
        for name, slot in wanted.items():
            slot.view(flat).copy_(tensors[name])


def _targets(shape: Shape, spec: LoraSpec) -> tuple[str, ...]:
    """Return PEFT's `target_modules`: of a borrowed model the shortest ends of paths that fit no other."""
    if not shape.linears:
        return spec.targets
    wanted = [linear.path for linear in shape.linears if getattr(spec, linear.trained_by)]
    others = [linear.path for linear in shape.linears if not getattr(spec, linear.trained_by)]
    found: dict[str, None] = {}
    for path in wanted:
        parts = path.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        found[next(end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others))] = (
            None
        )
    return tuple(found)


class Adapter:
    """The LoRA weights of one training run, or a frozen snapshot of them."""

    def __init__(self, spec: LoraSpec, layout: Layout, flat: Tensor) -> None:
        self.spec, self.layout, self.flat = spec, layout, flat

    @classmethod
    def create(cls, base: BaseModel, spec: LoraSpec) -> Self:
        """Return a new adapter: A random, B zero, so that the model begins as the base.

        A weight depends on the seed and on its own name only: training fewer layers changes no other start.
        """
        if spec.seed is None:
            spec = attrs.evolve(spec, seed=secrets.randbelow(2**31))
        layout = Layout(base.shape, spec)
        flat = torch.zeros(layout.size, dtype=torch.float32)
        for name, view in layout.views(flat):
            if ".lora_A." in name:
                key = hashlib.sha256(f"{spec.seed}:{name}".encode()).digest()
                stream = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
                bound = 1 / math.sqrt(view.shape[-1])
                view.copy_(torch.from_numpy((stream.random(tuple(view.shape), np.float32) * 2 - 1) * bound))
        return cls(spec, layout, flat.to(base.device))

    @classmethod
    def from_tensors(cls, base: BaseModel, spec: LoraSpec, tensors: Mapping[str, Tensor]) -> Self:
        """Return an adapter of saved tensors, found by name.

        Raises:
            EngineError: a name is missing or unknown, a shape differs, or a number is not finite.
        """
        layout = Layout(base.shape, spec)
        flat = torch.zeros(layout.size, dtype=torch.float32, device=base.device)
        layout.fill(flat, tensors)
        return cls(spec, layout, flat)

    @property
    def parameters(self) -> int:
        """Number of trainable weights."""
        return self.layout.size

    @property
    def scaling(self) -> float:
        """What the product of the two matrices is multiplied by: alpha / rank."""
        return ALPHA / self.spec.rank

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights by PEFT's names, copied to the CPU."""
        flat = self.flat.detach().to("cpu", copy=True)
        return dict(self.layout.views(flat))

    def pairs(self) -> dict[tuple[int, str], Pair]:
        """Return the matrices of every group, as views."""
        return self.layout.pairs(self.flat)

    def snapshot(self) -> Adapter:
        """Return a copy that later training does not change, for sampling."""
        return Adapter(self.spec, self.layout, self.flat.detach().clone())

    def peft_config(self, base_name: str) -> dict[str, Any]:
        """Return the contents of PEFT's `adapter_config.json`."""
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_name,
            "r": self.spec.rank,
            "lora_alpha": ALPHA,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "target_modules": list(self.layout.targets),
        }

    def __repr__(self) -> str:
        return f"<Adapter rank {self.spec.rank}: {self.parameters:,} parameters>"
