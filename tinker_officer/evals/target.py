"""What is evaluated: a base model, a checkpoint, or a live sampler, opened on a Tinker service."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer._digest import digest
from tinker_officer._service import On, connect
from tinker_officer.errors import EvalError


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.renderers import Renderer

_SHOWN = 300
_SENTENCE = "When the 3 old friends met again, nobody knew what to say; then they all laughed."


@attrs.frozen
class Target:
    """An opened target: the only thing in this room that holds a client.

    Attributes:
        name: the `sampler_path`, the base model's name, or a name of its own for a live sampler: two
            targets with different weights never share it.
        base_model: the base model under it.
        renderer_name: the renderer's name.
        renderer: builds prompts, reads answers.
        client: samples.
        training: the training client, where that is what is evaluated: likelihoods are its own.
    """

    name: str
    base_model: str
    renderer_name: str
    renderer: Renderer = attrs.field(repr=False)
    client: tinker.SamplingClient = attrs.field(repr=False)
    training: tinker.TrainingClient | None = attrs.field(default=None, repr=False)

    @property
    def identity(self) -> str:
        """A digest of what the weights are called.

        A folder is known by its weight files, by name, size and time of the last change. A sampler path may
        be saved over by other weights: `probe` tells them apart.
        """
        folder = Path(self.name).expanduser()
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return digest([self.name, self.base_model, stats])

    @property
    def live(self) -> bool:
        """Whether a client was handed over: its name is its own, and never met again."""
        return self.name.startswith(("sampler:", "trainer:"))

    @cached_property
    def context(self) -> int | None:
        """The longest prompt and answer together, in tokens, by the base model's config; None if unknown."""
        from tinker_officer.data.measure import context_length

        return context_length(self.base_model)

    async def probe(self) -> list[float]:
        """Return the log-probabilities of a fixed sentence, nats: what tells weights of one path apart."""
        import tinker

        tokens = self.renderer.tokenizer.encode(_SENTENCE, add_special_tokens=False)
        prompt: tinker.ModelInput = tinker.ModelInput.from_ints(tokens)
        found = await self.client.compute_logprobs(prompt)
        return [round(value, 4) for value in found if value is not None]


async def open_target(target: Any, on: On, renderer_name: str | None = None) -> Target:
    """Return `target`, ready to sample.

    Args:
        target: a base-model name or folder, a `tinker://` sampler path, a `tinker.SamplingClient`, a
            `tinker.TrainingClient` (its weights as they are now), or an object with `sampler_path` and
            `base_model`, such as a `Checkpoint` or the registry's `Version`.
        on: the service, as `connect` takes it.
        renderer_name: the renderer; else the target's own, else the base model's usual one.

    Raises:
        EvalError: `target` is none of these, has no weights for sampling, or the service does not have it.
    """
    import tinker

    from tinker_officer.data.render import default_renderer_name, renderer_for

    training = None
    if isinstance(target, tinker.TrainingClient):
        training = target
        base_model = str(target.get_info().model_data.model_name)
        client = await target.save_weights_and_get_sampling_client()
        name = f"trainer:{uuid.uuid4().hex}"
    elif isinstance(target, tinker.SamplingClient):
        name, client, base_model = f"sampler:{uuid.uuid4().hex}", target, target.get_base_model()
    else:
        name, base = _path(target)
        service = connect(on)
        client = await _client(service, name, base)
        base_model = base or client.get_base_model()
    chosen = renderer_name or getattr(target, "renderer_name", None) or default_renderer_name(base_model)
    return Target(name, base_model, chosen, renderer_for(base_model, chosen), client, training)


def _path(target: Any) -> tuple[str, str | None]:
    """Return the target's path or base model, and its base model if it says so."""
    if hasattr(target, "sampler_path"):
        if not target.sampler_path and not getattr(target, "state_path", True):  # a registered base model
            return str(target.base_model), str(target.base_model)
        if not target.sampler_path:
            raise EvalError(
                "the checkpoint has no weights for sampling",
                got=repr(target),
                need="a checkpoint with a sampler_path",
                fix="suite.evaluate(result.best, on=engine)",
            )
        return str(target.sampler_path), getattr(target, "base_model", None)
    text = str(target) if isinstance(target, str) or hasattr(target, "__fspath__") else ""
    if not text:
        raise EvalError(
            "this cannot be evaluated",
            got=repr(target),
            need="a base-model name, a tinker:// sampler path, a SamplingClient, or a Checkpoint",
            fix="suite.evaluate(result.best, on=engine)",
        )
    return text, None if text.startswith("tinker://") else text


async def _client(service: tinker.ServiceClient, name: str, base: str | None) -> tinker.SamplingClient:
    import tinker

    client: tinker.SamplingClient
    try:
        if name.startswith("tinker://"):
            client = await service.create_sampling_client(model_path=name)
        else:
            client = await service.create_sampling_client(base_model=base)
    except (tinker.BadRequestError, tinker.NotFoundError, tinker.RequestFailedError) as error:
        raise EvalError(
            f"{name!r} cannot be opened for evaluation",
            got=_said(error),
            need="a sampler path that the service still has, or a base model that it knows",
            fix="suite.evaluate(result.best, on=engine)",
        ) from error
    except Exception as error:
        error.add_note(f"while opening {name!r} for evaluation")
        raise
    return client


def _said(error: Exception) -> str:
    """Return what the service said of a refusal, on one line."""
    body = getattr(error, "body", None)
    said = str(body["error"] if isinstance(body, Mapping) and "error" in body else error)
    return "; ".join(line.strip() for line in said.splitlines())[:_SHOWN]
