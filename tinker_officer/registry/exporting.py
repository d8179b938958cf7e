"""Weights that leave the server, and weights that come from elsewhere: files, with their digests."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinker_officer._digest import digest
from tinker_officer.errors import RegistryError


if TYPE_CHECKING:
    from tinker_officer.registry.values import Version

_BLOCK = 1 << 20


def weigh(path: Path) -> dict[str, Any]:
    """Return every file at `path` with its SHA-256 and size, and one digest of them all.

    Raises:
        RegistryError: nothing is there, or it cannot be read.
    """
    try:
        files = {name: _weigh(file) for name, file in _files(path)}
    except OSError as error:
        raise _unreadable(path, str(error)) from error
    if not files:
        raise _unreadable(path, "no files")
    size = sum(one["size_bytes"] for one in files.values())
    return {"path": str(path), "digest": digest(files), "size_bytes": size, "files": files}


def export_peft(version: Version, to: Path, *, base_url: str | None, adapter: Path | None) -> dict[str, Any]:
    """Write the adapter of a version in PEFT's format to the new folder `to`, and return its digests.

    What is downloaded is the resumable checkpoint, where there is one: services no longer hand out the files
    of the one for sampling, whose weights are the same.

    Args:
        version: whose adapter.
        to: a folder that is not there yet.
        base_url: of the Tinker service; the SDK's default when None.
        adapter: a folder to which the checkpoint was downloaded already; nothing is downloaded then.

    Raises:
        RegistryError: the version has no adapter, `to` is there, or the cookbook cannot convert it.
    """
    path = version.state_path or version.sampler_path
    if not path:
        raise RegistryError(
            "the version has no adapter to export",
            got=f"{version.label}, of {version.base_model}",
            need="a version that was trained here",
            fix=f"print(registry.get({version.label!r}).explain())",
        )
    if to.exists():
        raise RegistryError(
            "the export would be written over something",
            got=f"{to}, which is there",
            need="a folder that is not there yet",
            fix=f"registry.export_peft({version.label!r}, to='adapters/{version.name}-{version.number}')",
        )
    from tinker_cookbook import weights

    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=to.parent) as scratch:
        source = str(adapter) if adapter is not None else None
        try:
            if source is None:
                source = weights.download(
                    tinker_path=path, output_dir=f"{scratch}/adapter", base_url=base_url
                )
            weights.build_lora_adapter(
                base_model=version.base_model, adapter_path=source, output_path=f"{scratch}/peft"
            )
        except Exception as error:
            error.add_note(f"while exporting {version.label} ({path}) to {to}")
            raise
        Path(scratch, "peft").rename(to)  # whole, or not there
    return weigh(to)


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield path.name, path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file():
            yield file.relative_to(path).as_posix(), file


def _weigh(file: Path) -> dict[str, Any]:
    found = hashlib.sha256()
    size = 0
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            found.update(block)
            size += len(block)
    return {"sha256": found.hexdigest(), "size_bytes": size}


def _unreadable(path: Path, what: str) -> RegistryError:
    return RegistryError(
        "the weights cannot be read",
        got=f"{path}: {what}",
        need="a file, or a folder of files",
        fix='registry.register("adapters/tickets", base_model="Qwen/Qwen3-8B", name="tickets")',
    )
