"""What the compute thread works on: base models, trainers, samplers and the weights they sample from."""

from __future__ import annotations

import gc
import json
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer import _memory
from tinker_officer.engine import wire
from tinker_officer.engine.records import Meta, TinkerPath, now
from tinker_officer.engine.refusal import Refused
from tinker_officer.engine.store import Store
from tinker_officer.errors import EngineError


if TYPE_CHECKING:
    from tinker_officer.engine.lora import Adapter
    from tinker_officer.engine.models import BaseModel
    from tinker_officer.engine.sampler import Sampler, SampleSpec
    from tinker_officer.engine.trainer import Trainer

logger = logging.getLogger(__name__)

Work = Generator[None, None, None]

_ADAPTERS_IN_MEMORY = 16
_RELEASE_S = 5.0
_ONE_THREAD = 2**18  # elements of a model's largest matrix; below, a second thread costs more than it does
_SNAPSHOTS = 256  # weights without a name: SmolLM2's at rank 32 are 50 MB each


@attrs.frozen
class Weights:
    """What a sampler samples from: a base model, and the adapter on it if there is one.

    Args:
        base_model: the base model's name.
        folder: where its files are.
        key: which adapter; None for the base model alone.
        path: where the adapter is saved; None for one that was never given a name.
    """

    base_model: str
    folder: Path
    key: str | None = None
    path: TinkerPath | None = None


def adapter_key(path: TinkerPath, meta: Meta) -> str:
    """Return the name of saved weights in memory: another when they are overwritten."""
    return f"{path}@{meta.created}"


@attrs.define
class _Training:
    base_name: str
    trainer: Trainer
    steps: int = 0


class Workshop:
    """Everything that holds tensors. For the compute thread only.

    Args:
        store: where checkpoints are.
        dtype: of the base models: "float32" or "bfloat16".
        device: where they are computed.
    """

    def __init__(self, store: Store, dtype: str, device: str = "cpu") -> None:
        self._store, self._dtype, self._device = store, dtype, device
        self._threads = 1
        self._bases: dict[Path, BaseModel] = {}
        self._samplers: dict[Path, Sampler] = {}
        self._trainings: dict[str, _Training] = {}
        self._adapters: OrderedDict[str, Adapter] = OrderedDict()
        self._spilled: dict[str, Path] = {}
        self._sampling: dict[Path, dict[str, Callable[[Any], None]]] = {}

    # -- training: generators, so that sampling may run at each `yield`

    def create(self, model_id: str, base_model: str, folder: Path, lora: dict[str, Any]) -> Work:
        """Make a fresh adapter for `model_id`."""
        from tinker_officer.engine.lora import Adapter, LoraSpec
        from tinker_officer.engine.trainer import Trainer

        base = self.base(base_model, folder)
        yield
        adapter = Adapter.create(base, LoraSpec(**lora))
        self._trainings[model_id] = _Training(base_model, Trainer(base, adapter))

    def restore(
        self, model_id: str, base_model: str, folder: Path, path: TinkerPath, optimizer: bool
    ) -> Work:
        """Make a trainer for `model_id` from a checkpoint."""
        from tinker_officer.engine.trainer import Trainer

        meta, files = self._read_state(path, optimizer=optimizer)
        base = self.base(base_model, folder)
        yield
        trainer = Trainer(base, self._adapter(base, meta, files))
        self._trainings[model_id] = _Training(base_model, trainer)
        self._fill(model_id, meta, files, optimizer=optimizer)

    def load(self, model_id: str, path: TinkerPath, optimizer: bool) -> Work:
        """Replace the weights of `model_id` by a checkpoint's."""
        training = self._training(model_id)
        meta, files = self._read_state(path, optimizer=optimizer)
        yield
        mine = attrs.asdict(training.trainer.adapter.spec)
        for field in ("rank", "train_mlp", "train_attn", "train_unembed"):
            if mine[field] != meta.lora[field]:
                raise EngineError(
                    "the checkpoint is of another LoRA",
                    got=f"{field}={meta.lora[field]}",
                    need=f"{field}={mine[field]}, as this training client has",
                    fix=f"service_client.create_training_client_from_state({str(path)!r})",
                )
        self._fill(model_id, meta, files, optimizer=optimizer)

    def forward_backward(self, request: wire.ForwardBackward) -> Generator[None, None, bytes]:
        """Run the forward pass, and the backward one unless it was not asked for."""
        from tinker_officer.engine.trainer import Example

        trainer = self._training(request.model_id).trainer
        for sampler in self._samplers.values():
            sampler.rest()
        examples = [Example(tokens=datum.tokens, inputs=datum.inputs) for datum in request.data]
        work = trainer.forward_backward(
            examples, request.loss_fn, request.config, backward=not request.forward_only
        )
        while True:
            self._take_threads(trainer.base)  # another model may have had its turn
            try:
                next(work)
            except StopIteration as end:
                return wire.encode_loss(end.value)
            yield

    def optim_step(
        self, model_id: str, settings: dict[str, float]
    ) -> Generator[None, None, dict[str, float]]:
        """Take an optimizer step; return its metrics."""
        from tinker_officer.engine.trainer import AdamSettings

        training = self._training(model_id)
        self._take_threads(training.trainer.base)
        metrics = training.trainer.optim_step(AdamSettings(**settings))
        _memory.release(every_s=_RELEASE_S)  # batches of many lengths leave holes
        training.steps += 1
        yield
        return metrics

    def state(
        self, model_id: str, *, optimizer: bool
    ) -> Generator[None, None, tuple[Meta, dict[str, bytes]]]:
        """Return a training run's weights, and its optimizer's state, as files."""
        from safetensors.torch import save

        training = self._training(model_id)
        weights, moments = training.trainer.state_tensors()
        files = {
            "adapter_model.safetensors": save(weights, metadata={"format": "pt"}),
            "adapter_config.json": self._config(training).encode(),
        }
        if optimizer:
            files["optimizer.safetensors"] = save(moments)
        yield
        lora = attrs.asdict(training.trainer.adapter.spec)
        return Meta("", training.base_name, lora, now(), training.steps, {}), files

    # -- sampling

    def snapshot(self, model_id: str, key: str) -> None:
        """Keep the present weights of `model_id` under `key`, unchanged by later steps.

        They are the only copy, so they go to disk when memory runs short; and since the SDK never says that
        it needs one no longer, those that were longest not sampled from are forgotten after `_SNAPSHOTS`.

        Raises:
            EngineError: there are weights under `key`, which are never exchanged.
        """
        if key in self._spilled:
            raise EngineError(
                "this sampling session has its weights",
                got=key,
                need="a sampling_session_seq_id that was not used before",
                fix="training_client.save_weights_and_get_sampling_client()",
            )
        self._adapters[key] = self._training(model_id).trainer.adapter.snapshot()
        self._spilled[key] = self._store.scratch / f"{uuid.uuid4().hex}.adapter"
        while len(self._spilled) > _SNAPSHOTS:
            self.forget_weights([next(iter(self._spilled))])
        self._evict()

    def sample(
        self, request_id: str, request: wire.Sample, weights: Weights, done: Callable[[Any], None]
    ) -> None:
        """Put a request into the batch; `done` gets a `SampleOutput` or an exception."""
        try:
            base = self.base(weights.base_model, weights.folder)
            spec = _sample_spec(request)
            adapter = None if weights.key is None else self._adapter_for(base, weights)
            sampler = self._samplers.get(base.folder)
            if sampler is None:
                from tinker_officer.engine.sampler import Sampler

                sampler = self._samplers[base.folder] = Sampler(base)
            self._sampling.setdefault(base.folder, {})[request_id] = done
            sampler.add(request_id, spec, adapter)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's answer
            for waiting in self._sampling.values():
                waiting.pop(request_id, None)
            done(error)

    def cancel(self, request_id: str) -> None:
        """Take a request out of the batch, if it is still there."""
        for folder, waiting in self._sampling.items():
            if waiting.pop(request_id, None) is not None:
                self._samplers[folder].cancel(request_id)

    @property
    def busy(self) -> bool:
        """Whether a sampler has work."""
        return any(sampler.busy for sampler in self._samplers.values())

    def step(self) -> None:
        """Let each busy sampler do a little, and hand out what is finished."""
        for folder, sampler in list(self._samplers.items()):
            if not sampler.busy:
                continue
            waiting = self._sampling[folder]
            self._take_threads(sampler.base)
            try:
                finished = sampler.step()
            except Exception as error:
                logger.exception("engine.sampler_failed")
                finished = [(request_id, error) for request_id in waiting]
                del self._samplers[folder]  # whatever state it is in, the next request gets a new one
            for request_id, output in finished:
                done = waiting.pop(request_id, None)
                if done is not None:
                    done(output)

    # -- housekeeping

    def warm(self, threads: int) -> None:
        """Import what takes seconds, and set how many threads compute."""
        wire.warm()
        import torch

        torch.set_num_threads(threads)
        self._threads = threads
        if self._device != "cpu" and not torch.cuda.is_available():
            raise EngineError(
                "there is no GPU to compute on",
                got=f"device={self._device!r}, with torch {torch.__version__}",
                need="a CUDA GPU that this torch can use",
                fix="LocalEngine(device='cpu')",
            )
        from tinker_officer.engine import sampler, trainer  # noqa: F401 - to have it behind us

        gc.freeze()  # what is imported stays: looking through it for garbage stops every answer for 0.1 s

    def base(self, name: str, folder: Path) -> BaseModel:
        """Return a base model, read from disk the first time."""
        folder = folder.resolve()
        if folder not in self._bases:
            from tinker_officer.engine.models import load

            self._bases[folder] = load(name, folder, dtype=self._dtype, device=self._device)
        return self._bases[folder]

    def forget(self, model_id: str) -> None:
        """Drop a training run from memory."""
        self._trainings.pop(model_id, None)

    def forget_weights(self, keys: Sequence[str]) -> None:
        """Drop snapshots from memory and scratch."""
        for key in keys:
            self._adapters.pop(key, None)
            path = self._spilled.pop(key, None)
            if path is not None:
                path.unlink(missing_ok=True)

    # -- private

    def _take_threads(self, base: BaseModel) -> None:
        """Compute with all threads, but for a small model with one: they would wait for each other.

        By the model's size alone, not by the batch's, so that equal requests give equal bits.
        """
        import torch

        shape = base.shape
        widest = max(shape.vocab, shape.intermediate, shape.heads * shape.head_dim)
        torch.set_num_threads(1 if shape.hidden * widest < _ONE_THREAD else self._threads)

    def _training(self, model_id: str) -> _Training:
        if model_id not in self._trainings:
            raise Refused(
                "no such model in memory",
                got=model_id[:200],
                need="a training client of this engine, whose session is not finished",
                fix="service_client.create_training_client_from_state_with_optimizer(path)",
                status=404,
            )
        return self._trainings[model_id]

    def _config(self, training: _Training) -> str:
        return json.dumps(training.trainer.adapter.peft_config(training.base_name), indent=1, sort_keys=True)

    def _read_state(self, path: TinkerPath, *, optimizer: bool) -> tuple[Meta, dict[str, bytes]]:
        meta, files = self._store.read(path)
        if optimizer and "optimizer.safetensors" not in files:
            raise EngineError(
                "the checkpoint has no optimizer state",
                got=str(path),
                need="one saved by save_state",
                fix=f"service_client.create_training_client_from_state({str(path)!r})",
            )
        return meta, files

    def _adapter(self, base: BaseModel, meta: Meta, files: dict[str, bytes]) -> Adapter:
        from safetensors.torch import load

        from tinker_officer.engine.lora import Adapter, LoraSpec

        return Adapter.from_tensors(base, LoraSpec(**meta.lora), load(files["adapter_model.safetensors"]))

    def _fill(self, model_id: str, meta: Meta, files: dict[str, bytes], *, optimizer: bool) -> None:
        from safetensors.torch import load

        training = self._training(model_id)
        moments = load(files["optimizer.safetensors"]) if optimizer else None
        training.trainer.load_state_tensors(load(files["adapter_model.safetensors"]), moments)
        training.steps = meta.steps if optimizer else 0

    def _adapter_for(self, base: BaseModel, weights: Weights) -> Adapter:
        assert weights.key is not None  # noqa: S101 - the caller asked for an adapter
        adapter = self._adapters.get(weights.key)
        if adapter is None and weights.key in self._spilled:
            adapter = self._unspill(base, weights.key)
        elif adapter is None and weights.path is not None:
            meta, files = self._store.read(weights.path)
            if weights.key == adapter_key(weights.path, meta):  # not overwritten since
                adapter = self._adapter(base, meta, files)
        if adapter is None:
            raise Refused(
                "these sampling weights are gone",
                got=weights.key,
                need="weights that were saved and not overwritten, of a session that is not finished;"
                f" without a name, one of the last {_SNAPSHOTS}",
                fix="training_client.save_weights_for_sampler('step-000100')",
                status=404,
            )
        self._adapters[weights.key] = adapter
        self._adapters.move_to_end(weights.key)
        if weights.key in self._spilled:  # the order in which they are forgotten is that of their use
            self._spilled[weights.key] = self._spilled.pop(weights.key)
        self._evict()
        return adapter

    def _evict(self) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        while len(self._adapters) > _ADAPTERS_IN_MEMORY:
            key, adapter = next(iter(self._adapters.items()))
            path = self._spilled.get(key)
            if path is not None and not path.exists():
                lora = json.dumps(attrs.asdict(adapter.spec))
                try:
                    save_file(adapter.tensors(), path, metadata={"lora": lora})
                except (OSError, SafetensorError) as error:  # a full disk: better memory than nothing
                    path.unlink(missing_ok=True)
                    logger.warning("engine.not_spilled: %s", error)
                    return
            del self._adapters[key]

    def _unspill(self, base: BaseModel, key: str) -> Adapter:
        from safetensors import safe_open

        from tinker_officer.engine.lora import Adapter, LoraSpec

        with safe_open(self._spilled[key], framework="pt") as file:
            spec = LoraSpec(**json.loads(file.metadata()["lora"]))
            return Adapter.from_tensors(base, spec, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - not a dict


def _sample_spec(request: wire.Sample) -> SampleSpec:
    from tinker_officer.engine.sampler import SampleSpec

    size, last = len(request.prompt), request.prompt_logprobs_last_n
    if last is not None and not (request.prompt_logprobs and last < size):
        raise EngineError(
            "prompt_logprobs_last_n does not fit",
            got=f"{last}, with a prompt of {size} tokens",
            need=f"1 to {size - 1}, and prompt_logprobs",
            fix=f"prompt_logprobs_last_n={max(1, size - 1)}",
        )
    return SampleSpec(
        prompt=request.prompt,
        num_samples=request.num_samples,
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        stop_tokens=request.stop_tokens,
        stop_strings=request.stop_strings,
        seed=request.seed,
        prompt_logprobs=request.prompt_logprobs,
        prompt_logprobs_last_n=last,
        topk_prompt_logprobs=request.topk_prompt_logprobs,
        topk_sample_logprobs=request.topk_sample_logprobs,
        targets=request.targets,
        alternatives=request.alternatives,
    )
