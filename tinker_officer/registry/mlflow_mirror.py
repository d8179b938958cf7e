"""A mirror of the registry in MLflow, for people who look there. One way: nothing is read back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinker_officer.errors import RegistryError
from tinker_officer.registry.values import Version, number


if TYPE_CHECKING:
    from tinker_officer.evals.scorecard import Scorecard

_ID = "tinker_officer.id"
_EXPERIMENT = "tinker_officer"
_PAGE = 1000


def mirror(
    tracking_uri: str,
    versions: Sequence[Version],
    cards: Mapping[str, Scorecard | None],
    held: Mapping[tuple[str, str], Sequence[str]],
) -> int:
    """Add the versions that MLflow does not have, set its aliases, and return how many were added.

    Raises:
        RegistryError: MLflow is missing.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise RegistryError(
            "the registry cannot be mirrored",
            got="no mlflow",
            need="the extra mlflow",
            fix='python -m pip install "tinker-officer[mlflow]"',
        ) from error
    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    experiment = client.get_experiment_by_name(_EXPERIMENT)
    at = experiment.experiment_id if experiment else client.create_experiment(_EXPERIMENT)
    known: dict[str, str] = {}
    for name in dict.fromkeys(one.name for one in versions):
        try:
            client.create_registered_model(safe(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known |= _known(client, safe(name))
    added = [one for one in versions if one.id not in known]
    for version in added:
        known[version.id] = _add(client, at, version, cards.get(version.id))
    _set_aliases(client, versions, held, known)
    return len(added)


def safe(name: str) -> str:
    """Return a name that MLflow takes for a model: it has no `/` and no `:`."""
    return re.sub(r"[/:]", "_", name)


def alias(channel: str) -> str:
    """Return the alias of a channel; MLflow keeps `latest` and `v1`, `v2` ... to itself."""
    return f"channel-{channel}" if re.fullmatch(r"latest|v\d+", channel) else channel


def _known(client: Any, name: str) -> dict[str, str]:
    quoted = name.replace("'", "\\'")
    found: dict[str, str] = {}
    token = None
    while True:
        page = client.search_model_versions(f"name = '{quoted}'", max_results=_PAGE, page_token=token)
        found |= {one.tags[_ID]: str(one.version) for one in page if _ID in one.tags}
        token = page.token
        if not token:
            return found


def _add(client: Any, experiment: str, version: Version, card: Scorecard | None) -> str:
    run = client.create_run(experiment, run_name=version.label, tags={_ID: version.id})
    figures = {**version.metrics, **(card.metrics() if card else {})}
    for name, value in figures.items():
        if number(value):
            client.log_metric(run.info.run_id, re.sub(r"[^\w./ -]", "_", name), float(value))
    params = {"base_model": version.base_model, **{f"lora.{key}": one for key, one in version.lora.items()}}
    for name, value in params.items():
        client.log_param(run.info.run_id, name, str(value)[:500])
    client.set_terminated(run.info.run_id)
    made = client.create_model_version(
        safe(version.name),
        source=version.target,
        run_id=run.info.run_id,
        tags={_ID: version.id, "base_model": version.base_model, "label": version.label},
        description=version.notes or None,
    )
    return str(made.version)


def _set_aliases(
    client: Any,
    versions: Sequence[Version],
    held: Mapping[tuple[str, str], Sequence[str]],
    known: Mapping[str, str],
) -> None:
    for name in dict.fromkeys(one.name for one in versions):
        wanted = {
            alias(channel): known[stack[-1]]
            for (model, channel), stack in held.items()
            if model == name and channel != "retired" and stack
        }
        there = {key: str(value) for key, value in client.get_registered_model(safe(name)).aliases.items()}
        ours = {alias(channel) for model, channel in held if model == name}
        for one in (there.keys() & ours) - wanted.keys():
            client.delete_registered_model_alias(safe(name), one)
        for one, number_ in wanted.items():
            if there.get(one) != number_:
                client.set_registered_model_alias(safe(name), one, number_)
