"""Dense decoders that ours does not know, run in transformers' own modules; slower, with the same numbers.

A sequence goes through the model alone (in training beside others of its length), and an answer keeps
transformers' own cache: no padding, so nothing depends on how a family masks it. The LoRA is added by hooks
on the linear layers. The output head is done here, a few rows at a time: never all logits at once.

What is read is tried out before it is served: the head on the hidden states must give the model's own logits,
no token may see a later one, and a step from the cache must say what a full pass says. Else it is refused.
"""

# ruff: noqa: N803 - argument names carry their axes (house rule 5)

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own spelling
from torch.utils.checkpoint import checkpoint

from tinker_officer.engine.configuration import eos_ids
from tinker_officer.engine.models import DTYPES, BaseModel, Linear, Shape
from tinker_officer.engine.packing import runs
from tinker_officer.engine.settings import context
from tinker_officer.errors import EngineError


# Those of transformers 5.5 that tests/engine/test_borrowed.py shows to train, sample and load in PEFT.
BORROWED = (
    *("apertus", "arcee", "biogpt", "bloom", "codegen", "cohere", "cohere2", "cwm", "diffllama", "ernie4_5"),
    *("exaone4", "falcon", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2", "gpt_bigcode", "gpt_neo"),
    *("gpt_neox", "gptj", "granite", "helium", "hunyuan_v1_dense", "jais2", "ministral", "ministral3", "mpt"),
    *("nanochat", "nemotron", "olmo", "olmo2", "olmo3", "opt", "persimmon", "phi", "phi3", "seed_oss"),
    *("stablelm", "starcoder2", "vaultgemma", "xglm"),
)
_LAYER = re.compile(r"\.\d+\.")
_CONTEXT = 2048  # of a model without absolute positions whose configuration names none
_TRIED = 8  # tokens of the trial
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}  # of the largest logit

Pairs = dict[tuple[int, str], Any]


@attrs.frozen(eq=False, repr=False)
class Borrowed(BaseModel):
    """A frozen base model whose layers are transformers' own.

    Attributes:
        config: its transformers configuration.
        module: the model, in evaluation mode, without gradients of its own.
        body: the part of it that makes the last hidden states.
        bias: of the output head.
        finish: what the model does to the logits behind its head.
        active: the LoRA that the hooks add, by the path of the linear layer.
    """

    config: Any
    module: Any
    body: Any
    bias: Tensor | None
    finish: Callable[[Tensor], Tensor]
    active: dict[str, tuple[Any, float]]

    @property
    def activations(self) -> torch.dtype:
        """The dtype of everything: transformers computes in that of the weights."""
        return DTYPES[self.dtype]

    @property
    def parameters(self) -> int:
        """Number of weights, a tied head counted once."""
        return sum(weight.numel() for weight in self.module.parameters())

    @contextmanager
    def adapted(self, pairs: Pairs, scaling: float) -> Iterator[None]:
        """Add a LoRA to every linear layer that it has matrices for."""
        self.active.update({path: (pair, scaling) for (_, path), pair in pairs.items()})
        try:
            yield
        finally:
            self.active.clear()

    def new_cache(self) -> Any:
        """Return an empty cache of one sequence."""
        from transformers import DynamicCache

        return DynamicCache(config=self.config)

    def hidden(self, tokens_B_T: Tensor, cache: Any = None) -> Tensor:
        """Return the last hidden states, shape `(B * T, hidden)`, and keep keys and values in the cache."""
        given = {} if cache is None else {"past_key_values": cache}
        out: Tensor = self.body(input_ids=tokens_B_T, use_cache=cache is not None, **given)[0]
        return out.reshape(tokens_B_T.numel(), -1)

    def logits(self, hidden: Tensor, pair: Any = None, scaling: float = 1.0) -> Tensor:
        """Return the logits of hidden states, shape `(N, vocab)`."""
        out = F.linear(hidden, self.head, self.bias)
        return self.finish(out if pair is None else out + _low_rank(hidden, pair, scaling))


def _low_rank(x: Tensor, pair: Any, scaling: float) -> Tensor:
    return F.linear(F.linear(x, pair.down.to(x.dtype)), pair.ups[0].to(x.dtype)) * scaling


def borrow(name: str, folder: Path, config: Any, *, dtype: str, device: torch.device) -> Borrowed:
    """Read a base model into transformers' own modules.

    Raises:
        EngineError: a weight is missing or misshapen, or the trial failed.
    """
    module = _read(name, folder, config, dtype).to(device).eval().requires_grad_(requires_grad=False)
    head = module.get_output_embeddings()
    linears = tuple(_linears(module, head))
    embed = module.get_input_embeddings().weight
    active: dict[str, tuple[Any, float]] = {}
    for linear in linears:
        if linear.trained_by != "train_unembed":
            module.get_submodule(linear.path).register_forward_hook(partial(_add_lora, active, linear.path))
    model = Borrowed(
        name=name,
        folder=folder,
        config=config,
        shape=_shape(config, tuple(head.weight.shape), linears),
        dtype=dtype,
        device=device,
        max_context=context(config.to_dict()) or _CONTEXT,
        eos_ids=eos_ids(folder, config),
        embed=embed,
        layers=(),
        norm=embed.new_empty(0),
        head=embed if head.weight is embed else head.weight,
        inverse_frequencies=embed.new_empty(0),
        rope_scale=1.0,
        module=module,
        body=module.get_decoder(),
        bias=head.bias,
        finish=_finish(config),
        active=active,
    )
    _try_out(model)
    return model


def _add_lora(active: dict[str, tuple[Any, float]], path: str, _: Any, given: Any, out: Tensor) -> Any:
    if path not in active:
        return None  # torch's way to say: as it is
    pair, scaling = active[path]
    return out + _low_rank(given[0], pair, scaling)


def _read(name: str, folder: Path, config: Any, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        module, found = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            dtype=DTYPES[dtype],
            output_loading_info=True,
        )
    except Exception as error:  # other people's code runs here, and fails in its own ways
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise EngineError(
            f"the weights of {name!r} cannot be read",
            got=f"{type(error).__name__}: {first}",
            need="every weight of config.json's architecture, in *.safetensors",
            fix="fetch the model again, configuration and weights together",
        ) from error
    if found["missing_keys"]:
        raise EngineError(
            f"a weight of {name!r} is missing",
            got=", ".join(sorted(found["missing_keys"])[:3]),
            need="every weight of config.json's architecture, in *.safetensors",
            fix="fetch the model again; convert *.bin weights with save_pretrained()",
        )
    return module


def _linears(module: Any, head: Any) -> Iterator[Linear]:
    """Yield the linear layers of the decoder layers, and the head last."""
    last = None
    for path, part in module.named_modules():
        if part is head:
            last = Linear(path, part.in_features, part.out_features, "train_unembed")
        elif (found := _LAYER.search(path)) is not None and _is_linear(part):
            inside = path[found.end() :]
            flag = "train_attn" if re.search("attn|attention", inside) else "train_mlp"
            if type(part).__name__ == "Conv1D":  # of GPT-2, stored inputs first
                yield Linear(path, part.weight.shape[0], part.weight.shape[1], flag)
            else:
                yield Linear(path, part.in_features, part.out_features, flag)
    if last is not None:
        yield last


def _is_linear(part: Any) -> bool:
    return isinstance(part, torch.nn.Linear) or type(part).__name__ == "Conv1D"


def _shape(config: Any, head: tuple[int, int], linears: tuple[Linear, ...]) -> Shape:
    heads = _first(config, "num_attention_heads", "n_heads", "n_head", "num_heads")
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    layers = _first(config, "num_hidden_layers", "n_layers", "n_layer", "num_layers")
    width = max(linear.outputs for linear in linears if linear.trained_by != "train_unembed")
    return Shape(
        layers=layers,
        hidden=head[1],
        intermediate=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=getattr(config, "head_dim", None) or head[1] // heads,
        vocab=head[0],
        norm_eps=0.0,
        rope_layers=(),
        linears=linears,
    )


def _first(config: Any, *names: str) -> int:
    return next(int(value) for name in names if (value := getattr(config, name, None)))


def _finish(config: Any) -> Callable[[Tensor], Tensor]:
    """Return what a family does to its logits: a cap (Gemma 2), a factor (Cohere), a divisor (Granite)."""
    cap = getattr(config, "final_logit_softcapping", None)
    if cap:
        return lambda logits: torch.tanh(logits / cap) * cap
    factor = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    return (lambda logits: logits) if factor == 1 else lambda logits: logits * factor


@torch.no_grad()
def _try_out(base: Borrowed) -> None:
    """Refuse a model whose numbers are not what the engine takes them for."""
    ids = torch.arange(_TRIED, device=base.device)[None] % base.vocab_size
    hidden = base.hidden(ids)
    logits, half = base.logits(hidden).float(), _TRIED // 2
    cache = base.new_cache()
    steps = [base.hidden(part, cache) for part in (ids[:, :half], *torch.split(ids[:, half:], 1, dim=1))]
    trials = {
        "its head does more than a linear layer": base.module(input_ids=ids).logits[0].float(),
        "its cache does not say what a full pass says": base.logits(torch.cat(steps)).float(),
    }
    early = base.logits(base.hidden(ids[:, :half])).float()
    trials["a token sees later ones"] = torch.cat([early, logits[half:]])
    limit = _TOLERANCE[base.dtype] * float(logits.abs().max())
    for problem, other in trials.items():
        if not float((logits - other).abs().max()) <= limit:
            raise EngineError(
                f"the embedded engine cannot run {base.name!r} right",
                got=f"model_type {base.config.model_type!r}: {problem}",
                need="a causal decoder that transformers can decode from a cache",
                fix="choose another base model, or train on Tinker: run.start(on=tinker.ServiceClient())",
            )


@attrs.frozen(eq=False)
class Texts:
    """Texts that stand in one row, and what becomes of their keys and values.

    Attributes:
        lengths: of the texts.
        caches: of each text; None for one that needs none, and nothing at all when none does.
        keep: called when they are read.
    """

    lengths: tuple[int, ...]
    caches: tuple[Any, ...] = ()
    keep: Callable[[], None] = lambda: None

    def read(self, base: Borrowed, pairs: Pairs, scaling: float, tokens_N: Tensor) -> Tensor:
        """Return the last hidden states of all tokens, shape `(N, hidden)`."""
        with base.adapted(pairs, scaling):
            if self.caches:
                parts = zip(torch.split(tokens_N, list(self.lengths)), self.caches, strict=True)
                out = [base.hidden(part[None], cache) for part, cache in parts]
            else:
                out, start = [], 0
                for count, length in runs(self.lengths):
                    stop = start + count * length
                    out.append(base.hidden(tokens_N[start:stop].view(count, length)))
                    start = stop
        self.keep()
        return torch.cat(out)


def logprobs(
    logits: Callable[[Tensor], Tensor], rows: int, hidden_N_D: Tensor, targets_N_K: Tensor
) -> Tensor:
    """Return log p(target), shape `(N, K)`, float32: `rows` rows at a time, again in the backward pass.

    Args:
        logits: from hidden states to logits.
        rows: how many stand in memory together.
        hidden_N_D: last hidden states.
        targets_N_K: token ids.
    """

    def some(hidden: Tensor, targets: Tensor) -> Tensor:
        return logits(hidden).float().log_softmax(-1).gather(1, targets)

    parts = zip(torch.split(hidden_N_D, rows), torch.split(targets_N_K, rows), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([some(*part) for part in parts])
    return torch.cat(
        [checkpoint(some, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    )
