"""Frozen base models of the Llama kind, read from a folder; knows nothing of training or sampling.

The decoder is ours (`decoder.py`), one for training and sampling, so that both see the same numbers.
transformers gives the configuration and the rotary frequencies, and is the oracle of the tests. Other dense
decoders run in transformers' own modules (`borrowed.py`), more slowly.

Ours: decoders with RMSNorm, rotary positions, grouped-query attention and a gated SiLU MLP:
`llama` (SmolLM, SmolLM2, Llama), `smollm3`, `qwen2`, `qwen3`, `mistral` without a sliding window; and with a
mixture of experts in place of every MLP `qwen3_moe` and `mixtral`.
Tied embeddings: the head is the embedding matrix; a LoRA on the head (`train_unembed`) adds to the logits
only, and the embedding that reads tokens stays as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tinker_officer.engine.configuration import EXPERTS, eos_ids, not_ours, read_config
from tinker_officer.engine.kernels import bfloat16_units
from tinker_officer.errors import EngineError


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@attrs.frozen
class Linear:
    """A linear layer of a decoder that is not ours.

    Attributes:
        path: of its module.
        inputs: its columns.
        outputs: its rows.
        trained_by: the field of `LoraSpec` that asks for it.
    """

    path: str
    inputs: int
    outputs: int
    trained_by: str


@attrs.frozen(eq=False)
class Shape:
    """The sizes of a decoder.

    Attributes:
        layers: number of decoder layers.
        hidden: width of the residual stream.
        intermediate: width of the MLP, or of one expert.
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: width of a head.
        vocab: rows of the embedding.
        norm_eps: epsilon of every RMSNorm.
        rope_layers: which layers rotate queries and keys (all but in SmolLM3).
        experts: how many stand in place of each MLP; 0 for a dense model.
        chosen: how many of them each token goes through.
        renormalised: whether the weights of those sum to one.
        linears: the linear layers that may have a LoRA, of a decoder that is not ours.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    norm_eps: float
    rope_layers: tuple[bool, ...]
    experts: int = 0
    chosen: int = 0
    renormalised: bool = True
    linears: tuple[Linear, ...] = ()

    @property
    def widths(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each linear layer, by the name that LoRA and PEFT use."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, q),
            "k_proj": (self.hidden, kv),
            "v_proj": (self.hidden, kv),
            "o_proj": (q, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
            "lm_head": (self.hidden, self.vocab),
        }


@attrs.frozen(eq=False)
class Layer:
    """The frozen weights of one decoder layer, with q, k, v and gate, up stacked (fewer, larger products).

    `qk_norm` has a row for every query and key head, shape `(heads + kv_heads, head_dim)`. In a mixture of
    experts `gate_up` and `down` have an expert in front of their two axes, and `router` is there, shape
    `(experts, hidden)`.
    """

    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    qk_norm: Tensor | None
    o: Tensor
    o_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    router: Tensor | None = None


@attrs.frozen(eq=False, repr=False)
class BaseModel:
    """A frozen base model in memory.

    Attributes:
        name: the name it was asked for by.
        folder: where its files lie.
        shape: its sizes.
        dtype: `"float32"` or `"bfloat16"`, of the weights.
        device: where its weights lie.
        max_context: the longest sequence, prompt and answer together.
        eos_ids: the tokens that end an answer.
        embed: token embedding, shape `(vocab, hidden)`.
        layers: the decoder layers.
        norm: weight of the last RMSNorm.
        head: output matrix, shape `(vocab, hidden)`; the embedding itself when tied.
        inverse_frequencies: of the rotary positions, shape `(head_dim / 2,)`.
        rope_scale: factor on the rotary cosines and sines.
    """

    name: str
    folder: Path
    shape: Shape
    dtype: str
    device: torch.device
    max_context: int
    eos_ids: tuple[int, ...]
    embed: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Tensor
    inverse_frequencies: Tensor
    rope_scale: float

    @property
    def vocab_size(self) -> int:
        """Number of token ids that the model knows."""
        return self.shape.vocab

    @property
    def activations(self) -> torch.dtype:
        """The dtype of everything but the weights, and of what the cache keeps.

        float32 where the processor has no bfloat16 units: there bfloat16 saves memory and no time, and
        rounding every product would only set sampler and trainer apart.
        """
        narrow = self.dtype == "bfloat16" and (self.device.type != "cpu" or bfloat16_units())
        return torch.bfloat16 if narrow else torch.float32

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding."""
        return self.head is self.embed

    @property
    def parameters(self) -> int:
        """Number of weights, a tied head counted once."""
        shape = self.shape
        sizes = {name: i * o for name, (i, o) in shape.widths.items() if name != "lm_head"}
        mlp = sum(sizes.pop(name) for name in ("gate_proj", "up_proj", "down_proj"))
        inner = sum(sizes.values()) + max(1, shape.experts) * mlp + shape.experts * shape.hidden
        return shape.layers * inner + shape.vocab * shape.hidden * (1 if self.tied else 2)

    def __repr__(self) -> str:
        return f"<BaseModel {self.name!r}: {self.parameters:,} parameters, {self.dtype} on {self.device}>"


def load(name: str, folder: Path, *, dtype: str = "float32", device: str | None = None) -> BaseModel:
    """Read a base model from a folder of `config.json` and `*.safetensors`.

    Args:
        name: the name that users call it by.
        folder: where its files lie.
        dtype: `"float32"` or `"bfloat16"`, of the weights; `BaseModel.activations` says of what else.
        device: a torch device; by default the CPU.

    Raises:
        EngineError: the architecture is not supported, or a weight is missing or misshapen.
    """
    if dtype not in DTYPES:
        raise EngineError(
            "the engine has no such dtype",
            got=repr(dtype),
            need=" or ".join(map(repr, DTYPES)),
            fix='LocalEngine(dtype="float32")',
        )
    config = read_config(name, folder)
    where, kind = torch.device(device or "cpu"), DTYPES[dtype]
    if not_ours(config):
        from tinker_officer.engine.borrowed import borrow

        return borrow(name, folder, config, dtype=dtype, device=where)
    shape = _shape(config)
    reader = _Reader(name, folder, where, kind)
    embed = reader.get("model.embed_tokens.weight", shape.vocab, shape.hidden)
    tied = bool(config.tie_word_embeddings) or not reader.has("lm_head.weight")
    frequencies, scale = _rotary(config, shape)
    return BaseModel(
        name=name,
        folder=folder,
        shape=shape,
        dtype=dtype,
        device=where,
        max_context=int(config.max_position_embeddings),
        eos_ids=eos_ids(folder, config),
        embed=embed,
        layers=tuple(_layer(reader, shape, config.model_type, index) for index in range(shape.layers)),
        norm=reader.get("model.norm.weight", shape.hidden),
        head=embed if tied else reader.get("lm_head.weight", shape.vocab, shape.hidden),
        inverse_frequencies=frequencies.to(where),
        rope_scale=scale,
    )


def _shape(config: Any) -> Shape:
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    rope = getattr(config, "no_rope_layers", None) or [1] * layers
    return Shape(
        layers=layers,
        hidden=config.hidden_size,
        intermediate=getattr(config, "moe_intermediate_size", None) or config.intermediate_size,
        heads=heads,
        kv_heads=config.num_key_value_heads or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocab=config.vocab_size,
        norm_eps=config.rms_norm_eps,
        rope_layers=tuple(bool(flag) for flag in rope[:layers]),
        experts=config.num_local_experts if config.model_type in EXPERTS else 0,
        chosen=config.num_experts_per_tok if config.model_type in EXPERTS else 0,
        renormalised=bool(getattr(config, "norm_topk_prob", True)),
    )


def _rotary(config: Any, shape: Shape) -> tuple[Tensor, float]:
    parameters = config.rope_parameters
    kind = parameters.get("rope_type", "default")
    if kind == "default":
        exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.int64).float() / shape.head_dim
        return 1.0 / (parameters["rope_theta"] ** exponents), 1.0
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    frequencies, scale = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    return frequencies.float(), float(scale)


class _Reader:
    """Weights by name, from one safetensors file or several."""

    def __init__(self, name: str, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self._name, self._device, self._dtype = name, device, dtype
        self._files: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                file = safe_open(path, framework="pt", device=str(device))
                self._files |= dict.fromkeys(file.keys(), file)  # type: ignore[no-untyped-call]  # safetensors leaves it untyped
            except (SafetensorError, OSError) as error:
                raise EngineError(
                    f"a weight file of {name!r} is damaged",
                    got=f"{path.name}: {error}",
                    need="a complete safetensors file",
                    fix="delete the file and fetch the model again",
                ) from error

    def has(self, tensor: str) -> bool:
        return tensor in self._files

    def get(self, tensor: str, *shape: int) -> Tensor:
        if tensor not in self._files:
            raise EngineError(
                f"a weight of {self._name!r} is missing",
                got=f"no {tensor} among {len(self._files)} tensors",
                need="every weight of config.json's architecture, in *.safetensors",
                fix="fetch the model again; convert *.bin weights with save_pretrained()",
            )
        value: Tensor = self._files[tensor].get_tensor(tensor).to(self._dtype)
        if tuple(value.shape) != shape:
            raise EngineError(
                f"a weight of {self._name!r} has another shape than config.json says",
                got=f"{tensor}: {tuple(value.shape)}",
                need=str(shape),
                fix="fetch the model again, configuration and weights together",
            )
        return value

    def stack(self, prefix: str, names: tuple[str, ...], shape: Shape) -> tuple[Tensor, Tensor | None]:
        sizes = [shape.widths[name] for name in names]
        weights = [
            self.get(f"{prefix}.{name}.weight", o, i) for name, (i, o) in zip(names, sizes, strict=True)
        ]
        biases = [
            self.get(f"{prefix}.{name}.bias", o)
            if self.has(f"{prefix}.{name}.bias")
            else torch.zeros(o, dtype=self._dtype, device=self._device)
            for name, (_, o) in zip(names, sizes, strict=True)
        ]
        biased = any(self.has(f"{prefix}.{name}.bias") for name in names)
        return (
            weights[0].contiguous() if len(weights) == 1 else torch.cat(weights),
            torch.cat(biases) if biased else None,
        )


def _layer(reader: _Reader, shape: Shape, kind: str, index: int) -> Layer:
    at = f"model.layers.{index}"
    qkv, qkv_bias = reader.stack(f"{at}.self_attn", ("q_proj", "k_proj", "v_proj"), shape)
    o, o_bias = reader.stack(f"{at}.self_attn", ("o_proj",), shape)
    qk_norm = None
    if reader.has(f"{at}.self_attn.q_norm.weight"):
        q_norm = reader.get(f"{at}.self_attn.q_norm.weight", shape.head_dim)
        k_norm = reader.get(f"{at}.self_attn.k_norm.weight", shape.head_dim)
        qk_norm = torch.cat([q_norm.expand(shape.heads, -1), k_norm.expand(shape.kv_heads, -1)])
    router = None
    if kind in EXPERTS:
        gate_up, down, router = _experts(reader, shape, kind, at)
    else:
        gate_up = reader.stack(f"{at}.mlp", ("gate_proj", "up_proj"), shape)[0]
        down = reader.stack(f"{at}.mlp", ("down_proj",), shape)[0]
    return Layer(
        attention_norm=reader.get(f"{at}.input_layernorm.weight", shape.hidden),
        qkv=qkv,
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        o=o,
        o_bias=o_bias,
        mlp_norm=reader.get(f"{at}.post_attention_layernorm.weight", shape.hidden),
        gate_up=gate_up,
        down=down,
        router=router,
    )


def _experts(reader: _Reader, shape: Shape, kind: str, at: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's experts, gate and up stacked, and its router."""
    block, gate_up, down = EXPERTS[kind]
    wide, narrow = shape.hidden, shape.intermediate
    inward, outward = [], []
    for expert in range(shape.experts):
        prefix = f"{at}.{block}.experts.{expert}"
        inward.append(torch.cat([reader.get(f"{prefix}.{name}.weight", narrow, wide) for name in gate_up]))
        outward.append(reader.get(f"{prefix}.{down}.weight", wide, narrow))
    router = reader.get(f"{at}.{block}.gate.weight", shape.experts, wide)
    return torch.stack(inward), torch.stack(outward), router
