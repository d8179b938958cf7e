"""Weights that leave the engine: signed addresses to fetch files by, and encryption on the way out."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import parse_qs, quote, urlencode

from tinker_officer.engine.records import TinkerPath
from tinker_officer.engine.refusal import Refused


FILES = "/api/v1/files/"  # what a signed address begins with: its signature stands for the API key
_VALID_S = 3600
_DIGITS = 11  # of a time, in seconds
_RECIPIENTS = 10


class Signer:
    """Makes addresses that let whoever has one fetch one file for an hour, without the token.

    The key is drawn anew by every engine, so that no address outlives it.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def urls(self, base_url: str, path: TinkerPath, names: Sequence[str]) -> tuple[dict[str, str], datetime]:
        """Return an address for each file of a checkpoint, and when they expire."""
        expires = int(time.time()) + _VALID_S
        urls = {}
        for name in names:
            at = f"{FILES}{quote(path.run)}/{path.kind}/{path.name}/{name}"
            query = urlencode({"expires": expires, "signature": self._sign(path, name, expires)})
            urls[name] = f"{base_url.rstrip('/')}{at}?{query}"
        return urls, datetime.fromtimestamp(expires, UTC)

    def check(self, path: TinkerPath, name: str, query: str) -> None:
        """Let an address through that this signer made and that has not expired.

        Raises:
            Refused: it did not, or the address has expired (403).
        """
        fields = {key: values[0] for key, values in parse_qs(query[:500]).items()}
        text = fields.get("expires", "")[:_DIGITS]
        expires = int(text) if text.isdecimal() else 0
        given, signed = fields.get("signature", ""), self._sign(path, name, expires)
        if not hmac.compare_digest(given.encode(), signed.encode()) or expires < time.time():
            raise Refused(
                "this address is not signed, or no longer good",
                got=f"{path}/{name}",
                need="an address that the engine gave out within the last hour",
                fix="rest_client.get_external_weights_urls(path).result().urls",
                status=403,
            )

    def _sign(self, path: TinkerPath, name: str, expires: int) -> str:
        return hmac.new(self._key, f"{path}/{name}?{expires}".encode(), hashlib.sha256).hexdigest()


def parse_recipients(given: object) -> tuple[str, ...]:
    """Return the age recipients that a request names.

    Raises:
        Refused: they are no list of up to ten texts.
    """
    if given is None:
        return ()
    if not isinstance(given, list) or not 1 <= len(given) <= _RECIPIENTS:
        raise _no_recipients(repr(given)[:80])
    if not all(isinstance(one, str) for one in given):
        raise _no_recipients(repr(given)[:80])
    return tuple(given)


def encrypted(files: Mapping[str, bytes], recipients: Sequence[str]) -> dict[str, bytes]:
    """Return the files as age encrypts them to every recipient, `.age` behind their names.

    Raises:
        Refused: a recipient is not an age or SSH public key.
    """
    import pyrage

    try:
        keys = [
            pyrage.ssh.Recipient.from_str(one)
            if one.startswith("ssh-")
            else pyrage.x25519.Recipient.from_str(one)
            for one in recipients
        ]
    except pyrage.RecipientError as error:
        raise _no_recipients(str(error)) from error
    return {f"{name}.age": pyrage.encrypt(data, keys) for name, data in files.items()}


def _no_recipients(got: str) -> Refused:
    return Refused(
        "age_encryption_recipients cannot be used",
        got=got,
        need=f"1 to {_RECIPIENTS} public keys: age1..., or ssh-ed25519 / ssh-rsa",
        fix="age-keygen  # prints a public key",
    )
