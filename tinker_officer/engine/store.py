"""Checkpoints on disk: each is there as a whole, or not at all.

::

    root/
      runs/<run>/run.json                      what was trained, and from what
      runs/<run>/<kind>/<name>/meta.json       digests of the files beside it
      runs/<run>/<kind>/<name>/adapter_model.safetensors, adapter_config.json, optimizer.safetensors
      scratch/<instance>/                      half-written checkpoints of one running engine

A checkpoint is written under `scratch`, fsynced and renamed, so that a crash or a full disk leaves the
old one intact. Engines side by side share `runs`; each has a scratch folder of its own, which the next
engine removes when its owner is gone. This file knows no tensors: files are bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import cattrs

from tinker_officer._files import sync_folder, write_atomic
from tinker_officer._text import nearest
from tinker_officer.engine.disk import Lock, exchange, sweep
from tinker_officer.engine.records import KINDS, NAME, RUN, Meta, Run, TinkerPath, now
from tinker_officer.engine.refusal import Refused
from tinker_officer.errors import EngineError


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Store:
    """The checkpoints under one root folder.

    Args:
        root: the folder; made when it is not there.

    Raises:
        EngineError: the folder cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._changing = threading.Lock()  # what takes the place of something else, one at a time
        self._runs = root / "runs"
        scratch = root / "scratch"
        instance = uuid.uuid4().hex
        try:
            self._runs.mkdir(parents=True, exist_ok=True)
            scratch.mkdir(exist_ok=True)
            self._lock = Lock(scratch / f"{instance}.lock")
            self.scratch = scratch / instance
            self.scratch.mkdir()
            sweep(scratch)
        except OSError as error:
            raise EngineError(
                "the engine's folder cannot be used",
                got=f"{root}: {error.strerror or error}",
                need="a folder that can be made and written",
                fix="LocalEngine(root='a/folder/of/yours')",
            ) from error

    def close(self) -> None:
        """Remove the scratch folder; checkpoints stay."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._lock.release()

    # -- runs

    def begin_run(self, run: Run) -> None:
        """Record a training run.

        Raises:
            EngineError: the disk is full.
        """
        folder = self._run_folder(run.id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / "run.json", json.dumps(attrs.asdict(run), indent=1))
        except OSError as error:
            raise self._unwritable(error, 0) from error

    def run(self, run_id: str) -> Run:
        """Return the record of a run.

        Raises:
            Refused: there is no such run (404).
        """
        if RUN.fullmatch(run_id):
            try:
                text = (self._run_folder(run_id) / "run.json").read_bytes()
                return cattrs.structure(json.loads(text), Run)
            except (FileNotFoundError, ValueError, cattrs.BaseValidationError):
                pass
        raise Refused(
            "no such training run",
            got=run_id[:200],
            need="the id of a run in this engine's folder",
            fix="tinker.RestClient(base_url=engine.base_url, api_key=engine.token)"
            ".list_training_runs().result()",
            status=404,
        )

    def runs(self) -> list[Run]:
        """Return every run, newest first."""
        found = []
        for folder in self._runs.iterdir():
            try:
                found.append(self.run(folder.name.replace("+", ":")))
            except Refused:
                continue  # not ours, or being made at this moment
        return sorted(found, key=lambda run: (run.created, run.id), reverse=True)

    # -- checkpoints

    def save(self, path: TinkerPath, files: Mapping[str, bytes], meta: Meta, *, overwrite: bool) -> Meta:
        """Write a checkpoint; it is there as a whole when this returns, and not at all when it raises.

        Args:
            path: its address.
            files: names to contents.
            meta: what to record; digests are filled in here.
            overwrite: take the place of a checkpoint of the same address.

        Raises:
            EngineError: the disk is full, or the address is taken. What was there before is intact.
        """
        folder = self._folder(path)
        self.must_be_free(path, overwrite=overwrite)
        draft = self.scratch / uuid.uuid4().hex
        described = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
            for name, data in files.items()
        }
        meta = attrs.evolve(meta, files=described)
        try:
            draft.mkdir()
            for name, data in files.items():
                _write(draft / name, data)
            _write(draft / "meta.json", meta.sealed())
            sync_folder(draft)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with self._changing:
                self.must_be_free(path, overwrite=overwrite)
                if folder.exists():
                    exchange(draft, folder)
                else:
                    draft.rename(folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise self._unwritable(error, sum(map(len, files.values()))) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return meta

    def copy(self, source: TinkerPath, run: Run, *, expires: str | None) -> TinkerPath:
        """Copy a checkpoint into a new run that holds nothing else; a second time is no other copy.

        Raises:
            Refused: there is none at `source` (404).
            EngineError: its files are damaged, or the disk is full.
        """
        target = attrs.evolve(source, run=run.id)
        meta, files = self.read(source)
        self.begin_run(run)
        meta = attrs.evolve(meta, path=str(target), created=now(), expires=expires, public=False)
        self.save(target, files, meta, overwrite=True)
        return target

    def file(self, path: TinkerPath, name: str) -> Path:
        """Return where a file of a checkpoint lies.

        Raises:
            Refused: there is no such checkpoint, or it has no such file (404).
        """
        if name not in self.meta(path).files:
            raise Refused(
                "no such file in this checkpoint",
                got=name[:200],
                need=", ".join(self.meta(path).files),
                fix="rest_client.get_external_weights_urls(path).result().urls",
                status=404,
            )
        return self._folder(path) / name

    def must_be_free(self, path: TinkerPath, *, overwrite: bool) -> None:
        """Raise `EngineError` when `path` is taken and may not be overwritten."""
        if not overwrite and (self._folder(path) / "meta.json").exists():
            raise EngineError(
                "a checkpoint of this name exists",
                got=str(path),
                need="a new name, or overwrite=True",
                fix=f"training_client.save_state({path.name!r}, overwrite=True)",
            )

    def meta(self, path: TinkerPath) -> Meta:
        """Return what is known of a checkpoint.

        Raises:
            Refused: there is none at `path` (404).
            EngineError: its record is damaged.
        """
        folder = self._folder(path)
        try:
            text = (folder / "meta.json").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing(path) from None
        try:
            meta = Meta.unsealed(text)
        except ValueError as error:
            raise _damaged(path, f"meta.json: {error}") from error
        if meta.expired:
            raise self._missing(path)
        return meta

    def read(self, path: TinkerPath) -> tuple[Meta, dict[str, bytes]]:
        """Return a checkpoint's record and files, each checked against its digest.

        Raises:
            Refused: there is none at `path` (404).
            EngineError: a file is missing, cut short or changed.
        """
        meta = self.meta(path)
        while True:
            try:
                return meta, self._files(path, meta)
            except EngineError:
                before, meta = meta, self.meta(path)
                if meta.files == before.files:
                    raise  # else it was overwritten as we read

    def _files(self, path: TinkerPath, meta: Meta) -> dict[str, bytes]:
        files = {}
        for name, described in meta.files.items():
            try:
                data = (self._folder(path) / name).read_bytes()
            except OSError as error:
                raise _damaged(path, f"{name}: {error.strerror}") from error
            if len(data) != described["size_bytes"]:
                raise _damaged(path, f"{name}: {len(data)} bytes of {described['size_bytes']}")
            if hashlib.sha256(data).hexdigest() != described["sha256"]:
                raise _damaged(path, f"{name}: its contents changed since it was saved")
            files[name] = data
        return files

    def amend(self, path: TinkerPath, **changes: Any) -> None:
        """Change fields of a checkpoint's record.

        Raises:
            Refused: there is none at `path` (404).
            EngineError: the disk is full.
        """
        try:
            with self._changing:
                meta = attrs.evolve(self.meta(path), **changes)
                write_atomic(self._folder(path) / "meta.json", meta.sealed())
        except OSError as error:
            raise self._unwritable(error, 0) from error

    def delete(self, path: TinkerPath) -> None:
        """Remove a checkpoint, also a damaged one.

        Raises:
            Refused: there is none at `path` (404).
        """
        trash = self.scratch / uuid.uuid4().hex
        try:
            with self._changing:
                self._folder(path).rename(trash)
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing(path) from None
        shutil.rmtree(trash, ignore_errors=True)

    def checkpoints(self, run_id: str) -> list[Meta]:
        """Return a run's checkpoints, oldest first; expired ones are removed, damaged ones left out."""
        found = []
        for path in self._paths(run_id):
            try:
                found.append(self.meta(path))
            except EngineError:
                continue
        return sorted(found, key=lambda meta: (meta.created, meta.path))

    def remove_expired(self) -> int:
        """Delete the checkpoints whose time to live is over; return how many there were."""
        count = 0
        for run in self.runs():
            for path in self._paths(run.id):
                try:
                    record = json.loads((self._folder(path) / "meta.json").read_bytes())
                    over = record.get("expires") and datetime.fromisoformat(record["expires"])
                    if over and over <= datetime.now(UTC):
                        self.delete(path)
                        count += 1
                except (OSError, ValueError, AttributeError, EngineError):
                    continue  # damaged: kept, for a person to look at
        return count

    # -- private

    def _paths(self, run_id: str) -> Iterator[TinkerPath]:
        for kind in KINDS:
            folder = self._run_folder(run_id) / kind
            if folder.is_dir():
                for entry in sorted(folder.iterdir()):
                    if NAME.fullmatch(entry.name):
                        yield TinkerPath(run_id, kind, entry.name)

    def _run_folder(self, run_id: str) -> Path:
        return self._runs / run_id.replace(":", "+")  # ':' is not a file name everywhere

    def _folder(self, path: TinkerPath) -> Path:
        return self._run_folder(path.run) / path.kind / path.name

    def _missing(self, path: TinkerPath) -> Refused:
        folder = self._run_folder(path.run) / path.kind
        names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        near = nearest(path.name, names) or ", ".join(map(repr, names[-3:]))
        return Refused(
            "no such checkpoint",
            got=str(path),
            need=f"one that was saved and has not expired{f', such as {near}' if near else ''}",
            fix="path = training_client.save_state('step-000100').result().path",
            status=404,
        )

    def _unwritable(self, error: OSError, size_bytes: int) -> EngineError:
        if error.errno not in _FULL:
            return EngineError(
                "the checkpoint cannot be written",
                got=f"{self.root}: {error.strerror or error}",
                need="a folder that can be written",
                fix="LocalEngine(root='a/folder/of/yours')",
            )
        free = shutil.disk_usage(self.root).free
        return EngineError(
            "the disk is full; nothing was saved, and the checkpoints before are intact",
            got=f"{self.root}: {free / 2**20:.1f} MiB free ({error.strerror})",
            need=f"{max(size_bytes, 4096) / 2**20:.1f} MiB and some room",
            fix=f"free space under {self.root}, or LocalEngine(root='a/larger/disk')",
        )


def _damaged(path: TinkerPath, what: str) -> EngineError:
    return EngineError(
        "the checkpoint is damaged",
        got=f"{path}: {what}",
        need="the files as they were saved",
        fix="load an earlier checkpoint, or restore the folder from a backup",
    )


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
