"""One training client: gradients in, weights out; knows nothing of HTTP, requests or disks.

`forward_backward` is a generator, so that its caller can let somebody sample between two micro-batches. Its
gradient is kept apart until the whole request has succeeded: a request that fails, or is closed half-way,
leaves nothing behind. Nothing here reads a global random state or shares a cache, so that training repeats
bit for bit whatever else is done in between.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from functools import partial

import attrs
import numpy as np
import torch
from torch import Tensor

from tinker_officer.engine.adam import Adam, AdamSettings
from tinker_officer.engine.borrowed import Borrowed
from tinker_officer.engine.decoder import hidden_states, within
from tinker_officer.engine.examples import Example, checked
from tinker_officer.engine.lanes import lanes, side_by_side
from tinker_officer.engine.lora import Adapter, Pair
from tinker_officer.engine.losses import Loss, loss_named
from tinker_officer.engine.models import BaseModel
from tinker_officer.engine.packing import MICRO_BATCH_TOKENS, micro_batches, rounds
from tinker_officer.engine.projections import Projections, with_lora
from tinker_officer.errors import EngineError


__all__ = ["AdamSettings", "Example", "LossOutput", "Trainer"]


@attrs.frozen(eq=False)
class LossOutput:
    """What a forward pass says.

    Attributes:
        outputs: one a datum, in the order of the request: `{"logprobs": float32 (T,) or (T, K)}`.
        metrics: `loss:sum`, in the form `name:reduction` that the SDK combines.
    """

    outputs: list[dict[str, np.ndarray]]
    metrics: dict[str, float]


class Trainer:
    """The weights, gradient and optimizer of one training run.

    Args:
        base: the frozen model.
        adapter: the weights to train, changed in place.
    """

    def __init__(self, base: BaseModel, adapter: Adapter) -> None:
        self.base, self.adapter = base, adapter
        self._gradient: Tensor | None = None
        self._adam = Adam(adapter.flat)

    def forward_backward(
        self,
        examples: Sequence[Example],
        loss_fn: str,
        config: Mapping[str, float | str] | None = None,
        *,
        backward: bool = True,
    ) -> Generator[None, None, LossOutput]:
        """Add the gradient of a loss, summed over the examples, to what `optim_step` will apply.

        Args:
            examples: the data.
            loss_fn: a name in `losses.LOSSES`.
            config: settings of the loss.
            backward: False computes the numbers only.

        Yields:
            None, after each micro-batch, or each two side by side, but the last.

        Returns:
            The log-probability of every target, and the loss.

        Raises:
            EngineError: the request is not valid, or its loss is not finite; no gradient is added.
        """
        loss = loss_named(loss_fn)
        settings = loss.resolve(config or {})
        data = checked(examples, loss, self.base)
        lengths = [example.tokens.size for example in data]
        scratches = [torch.zeros_like(self.adapter.flat)] if backward else []
        outputs: list[dict[str, np.ndarray]] = [{} for _ in data]
        total = 0.0

        def lane(number: int, batches: tuple[tuple[int, ...], ...]) -> float:
            value = 0.0
            for batch in batches:
                scratch = scratches[number] if backward else None
                part, logprobs = self._pass([data[index] for index in batch], loss, settings, scratch)
                value += part
                for index, output in zip(batch, logprobs, strict=True):
                    outputs[index] = {"logprobs": output}
            return value

        for turn, together in enumerate(self._rounds(lengths)):
            if turn:
                yield
            if len(together) == 1:
                total += lane(0, together[0])
                continue
            if len(scratches) == 1:  # each lane adds up its own, so that the order never follows a timing
                scratches.append(torch.zeros_like(self.adapter.flat))
            total += sum(side_by_side(partial(lane, 0, together[0]), partial(lane, 1, together[1])))
        if backward:
            self._keep(scratches[0].add_(scratches[1]) if scratches[1:] else scratches[0], total)
        return LossOutput(outputs, {"loss:sum": total})

    def _rounds(self, lengths: list[int]) -> list[tuple[tuple[tuple[int, ...], ...], ...]]:
        """Return the micro-batches, those that are computed side by side together."""
        apart = self.base.device.type != "cpu" or isinstance(self.base, Borrowed) or lanes() == 1
        if apart:
            return [((batch,),) for batch in micro_batches(lengths)]
        return rounds(micro_batches(lengths, budget=MICRO_BATCH_TOKENS // 2), lengths)

    def _keep(self, scratch: Tensor, total: float) -> None:
        # The largest number, which NaN is, too: one pass that makes no copy.
        if not np.isfinite(total) or not bool(torch.linalg.vector_norm(scratch, torch.inf).isfinite()):
            raise EngineError(
                "the loss or its gradient is not finite",
                got=f"a loss of {total}",
                need="finite numbers; this request's gradient has been dropped",
                fix="lower learning_rate, set grad_clip_norm, or load the last checkpoint",
            )
        self._gradient = scratch if self._gradient is None else self._gradient.add_(scratch)

    def _pass(
        self, data: list[Example], loss: Loss, settings: Mapping[str, float], scratch: Tensor | None
    ) -> tuple[float, list[np.ndarray]]:
        """Return one micro-batch's loss and log-probabilities; add its gradient to scratch."""
        lengths = tuple(example.tokens.size for example in data)
        pairs = self._leaves(scratch)
        projections = with_lora(self.base, self.adapter, pairs)
        positions = np.concatenate([np.arange(length) for length in lengths])
        tokens = np.concatenate([example.tokens for example in data])
        with torch.set_grad_enabled(scratch is not None):
            hidden = hidden_states(
                self.base,
                projections,
                self._tensor(tokens),
                self._tensor(positions),
                within(self.base, lengths),
            )
            value, logprobs = self._loss(
                hidden, data, loss, settings, projections, backward=scratch is not None
            )
        parts = np.split(logprobs, np.cumsum(lengths)[:-1])
        shapes = [example.inputs["target_tokens"].shape for example in data]
        return value, [
            part[:, : shape[1]] if len(shape) > 1 else part[:, 0]
            for part, shape in zip(parts, shapes, strict=True)
        ]

    def _loss(
        self,
        hidden: Tensor,
        data: list[Example],
        loss: Loss,
        settings: Mapping[str, float],
        projections: Projections,
        *,
        backward: bool,
    ) -> tuple[float, np.ndarray]:
        inputs = {name: self._tensor(value) for name, value in _stacked(data).items()}
        targets = inputs.pop("target_tokens")
        sizes = [example.tokens.size for example in data]
        inputs["datum"] = self._tensor(np.repeat(np.arange(len(data)), sizes)[:, None])
        masks = [loss.mask(example.inputs) for example in data]
        out = torch.empty(targets.shape, dtype=torch.float32, device=targets.device)
        active = np.concatenate(
            [np.ones(size, bool) if mask is None else mask for size, mask in zip(sizes, masks, strict=True)]
        )
        rows, rest = self._tensor(np.flatnonzero(active)), self._tensor(np.flatnonzero(~active))
        if rest.numel():
            with torch.no_grad():
                out[rest] = projections.logprobs(hidden.detach()[rest], targets[rest])
        if not rows.numel():
            return 0.0, out.cpu().numpy()
        logprobs = projections.logprobs(hidden[rows], targets[rows])
        value = loss.value(logprobs, {name: tensor[rows] for name, tensor in inputs.items()}, settings)
        out[rows] = logprobs.detach()
        if backward:
            value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return float(value.detach()), out.cpu().numpy()

    def _leaves(self, scratch: Tensor | None) -> dict[tuple[int, str], Pair]:
        """Return the adapter's matrices as leaves whose gradients are views of the scratch buffer."""
        pairs = self.adapter.pairs()
        if scratch is None:
            return pairs
        gradients = self.adapter.layout.pairs(scratch)

        def leaf(weight: Tensor, gradient: Tensor) -> Tensor:
            out = weight.detach().requires_grad_()
            out.grad = gradient
            return out

        return {
            key: Pair(
                leaf(pair.down, gradients[key].down),
                tuple(leaf(up, gradient) for up, gradient in zip(pair.ups, gradients[key].ups, strict=True)),
            )
            for key, pair in pairs.items()
        }

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.base.device)

    def optim_step(self, settings: AdamSettings) -> dict[str, float]:
        """Apply the gradient gathered since the last step, and forget it.

        Without a gradient nothing is done and an error says so: the step that a pipelined client sends behind
        a forward_backward that failed must not move the weights.

        Returns:
            `grad_norm:mean`, the norm before clipping.

        Raises:
            EngineError: no forward_backward has succeeded since the last step.
        """
        if self._gradient is None:
            raise EngineError(
                "there is no gradient to apply",
                got="optim_step with no successful forward_backward since the last one",
                need="a forward_backward before each optim_step",
                fix='training_client.forward_backward(data, "cross_entropy")',
            )
        gradient, self._gradient = self._gradient, None
        return {"grad_norm:mean": self._adam.step(self.adapter.flat, gradient, settings)}

    @property
    def gradient(self) -> dict[str, Tensor]:
        """The gradient gathered so far, by PEFT's names; empty without one."""
        return {} if self._gradient is None else dict(self.adapter.layout.views(self._gradient))

    def state_tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return copies of the weights, and of `exp_avg.<name>`, `exp_avg_sq.<name>` and `step`."""
        optimizer = {"step": torch.tensor([self._adam.steps], dtype=torch.int64)}
        for kind, flat in (("exp_avg", self._adam.exp_avg), ("exp_avg_sq", self._adam.exp_avg_sq)):
            copy = flat.to("cpu", copy=True)
            optimizer |= {f"{kind}.{name}": view for name, view in self.adapter.layout.views(copy)}
        return self.adapter.tensors(), optimizer

    def load_state_tensors(
        self, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor] | None
    ) -> None:
        """Replace weights and optimizer by saved ones, found by name; drop any gradient gathered.

        Args:
            weights: by PEFT's names.
            optimizer: as `state_tensors` returned it; None begins a fresh one.

        Raises:
            EngineError: a name or shape does not fit; nothing is changed.
        """
        flat, adam = torch.empty_like(self.adapter.flat), Adam(self.adapter.flat)
        self.adapter.layout.fill(flat, weights)
        if optimizer is not None:
            steps = optimizer.get("step")
            if steps is None or steps.numel() != 1 or int(steps) < 0:
                raise EngineError(
                    "the saved optimizer has no step count",
                    got="no 'step'" if steps is None else repr(steps),
                    need="one integer named 'step'",
                    fix="load the weights only: load_state(path)",
                )
            adam.steps = int(steps)
            for kind, buffer in (("exp_avg", adam.exp_avg), ("exp_avg_sq", adam.exp_avg_sq)):
                prefix = f"{kind}."
                named = {
                    name.removeprefix(prefix): tensor
                    for name, tensor in optimizer.items()
                    if name.startswith(prefix)
                }
                self.adapter.layout.fill(buffer, named)
        self.adapter.flat.copy_(flat)
        self._adam, self._gradient = adam, None


def _stacked(data: list[Example]) -> dict[str, np.ndarray]:
    """Return each input of all examples as one array `(N, K)`, zeros where an example has fewer targets."""
    wide: dict[str, list[np.ndarray]] = {}
    most = max(example.inputs["target_tokens"][0].size for example in data)
    names = sorted({name for example in data for name in example.inputs})
    for name in names:
        for example in data:
            value = example.inputs[name].reshape(example.tokens.size, -1)
            wide.setdefault(name, []).append(np.pad(value, ((0, 0), (0, most - value.shape[1]))))
    return {name: np.concatenate(values) for name, values in wide.items()}
