"""The head of the audit log in a file of its own, signed if asked, to hold the log against later."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tinker_officer._files import write_atomic
from tinker_officer.errors import RegistryError
from tinker_officer.registry.audit import Audit
from tinker_officer.registry.writes import iso


def write_head(path: Path, found: Audit, *, private_key: str | Path | None) -> Path:
    """Write the head to `path`, sign it as `<path>.sig` if there is a key, and return `path`.

    Raises:
        RegistryError: model-signing is missing, or the key cannot be used.
    """
    config = _signer(private_key) if private_key is not None else None
    record = {"entries": found.entries, "head": found.head, "written": iso(datetime.now(UTC))}
    write_atomic(path, json.dumps(record, indent=1) + "\n")
    if config is not None:
        config.sign(path, path.with_name(f"{path.name}.sig"))
    return path


def verify_head(path: str | Path, *, public_key: str | Path) -> str:
    """Return the head in a file that `Registry.export_head` signed.

    Args:
        path: the file; its signature lies beside it, as `<path>.sig`.
        public_key: a PEM file with the public key.

    Raises:
        RegistryError: model-signing is missing, or the signature is not of this file and key.
    """
    file = Path(path)
    try:
        from model_signing import verifying
    except ImportError as error:
        raise _missing() from error
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=Path(public_key))
        config.verify(file, file.with_name(f"{file.name}.sig"))
    except Exception as error:
        raise RegistryError(
            "the signature does not hold",
            got=f"{file}: {error}",
            need="the file as it was signed, its .sig beside it, and the signer's public key",
            fix='verify_head("head.json", public_key="key.pub.pem")',
        ) from error
    return str(json.loads(file.read_text("utf-8"))["head"])


def _signer(private_key: str | Path) -> Any:
    try:
        from model_signing import signing
    except ImportError as error:
        raise _missing() from error
    try:
        return signing.Config().use_elliptic_key_signer(private_key=Path(private_key))
    except Exception as error:
        raise RegistryError(
            "the key cannot be used",
            got=f"{private_key}: {error}",
            need="a PEM file with a private key on an elliptic curve, not encrypted",
            fix="openssl ecparam -name prime256v1 -genkey -noout -out key.pem",
        ) from error


def _missing() -> RegistryError:
    return RegistryError(
        "the head cannot be signed or its signature checked",
        got="no model-signing",
        need="the extra signing",
        fix='python -m pip install "tinker-officer[signing]"',
    )
