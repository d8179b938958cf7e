"""Where training begins: a fresh adapter on the base model, or the weights of a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinker_officer.errors import RunError
from tinker_officer.train.checkpoints import Checkpoint, rest_client


if TYPE_CHECKING:
    import tinker

    from tinker_officer.train.declared import Declared

_FIX = 'Run(plan, name="second").start_from(first.best)'


def state_path(checkpoint: Any) -> str:
    """Return the path of the weights and all that training needs of `checkpoint`.

    Args:
        checkpoint: a `Checkpoint`, or the `tinker://` path of a saved state.

    Raises:
        RunError: it is neither, or weights that were saved for sampling only.
    """
    path = checkpoint.state_path if isinstance(checkpoint, Checkpoint) else checkpoint
    if not isinstance(path, str) or not path.startswith("tinker://") or "/sampler_weights/" in path:
        raise RunError(
            "training cannot start from this",
            got=repr(checkpoint),
            need="a Checkpoint such as result.best, or the tinker:// path of a saved state (.../weights/...)",
            fix=_FIX,
        )
    return path


def begin(run: Declared, service: tinker.ServiceClient, metadata: dict[str, str] | None = None) -> Any:
    """Return the SDK's future of a training client that no step was made with.

    Raises:
        RunError: the checkpoint to start from is not there, or its adapter is not the plan's.
    """
    plan = run.plan
    if run.origin is None:
        return service.create_lora_training_client(
            plan.base_model,
            rank=plan.rank,
            seed=plan.seed,
            train_mlp=plan.train_mlp,
            train_attn=plan.train_attn,
            train_unembed=plan.train_unembed,
            user_metadata=metadata,
        )
    _check(run, service)
    return service.create_training_client_from_state(run.origin, user_metadata=metadata)


def initial_sampler(service: tinker.ServiceClient, base_model: str, origin: str | None) -> Any:
    """Return a client that samples from the weights that training began with.

    A fresh adapter changes nothing, so without a checkpoint to start from they are the base model's.
    """
    if origin is None:
        return service.create_sampling_client(base_model=base_model).result()
    began = service.create_training_client_from_state(origin).result()
    return began.save_weights_and_get_sampling_client().result()


def _check(run: Declared, service: tinker.ServiceClient) -> None:
    """Refuse a checkpoint whose adapter is not the plan's: the server would train that one instead."""
    import tinker

    plan, path = run.plan, str(run.origin)
    try:
        found = rest_client(service).get_weights_info_by_tinker_path(path).result()
    except (tinker.NotFoundError, tinker.BadRequestError, tinker.RequestFailedError) as error:
        raise RunError(
            "the checkpoint to start from cannot be read",
            got=f"{path}: {error}",
            need="a saved state that this server (and, for LocalEngine, this home folder) still has",
            fix="start on the server that it was saved on, or from another: " + _FIX,
        ) from error
    planned = {
        "base_model": plan.base_model,
        "lora_rank": plan.rank,
        "train_mlp": plan.train_mlp,
        "train_attn": plan.train_attn,
        "train_unembed": plan.train_unembed,
    }
    told = {name: getattr(found, name) for name in planned}
    other = [name for name, value in told.items() if value is not None and value != planned[name]]
    if other:
        rank = f"; to train its rank: plan.pin(rank={found.lora_rank})" if other == ["lora_rank"] else ""
        raise RunError(
            "the checkpoint to start from holds another adapter than the plan's",
            got=", ".join(f"{name} {told[name]!r}" for name in other) + f" in {path}",
            need=", ".join(f"{name} {planned[name]!r}" for name in other),
            fix=f"plan for the adapter that is there, or start from another checkpoint{rank}",
        )
