"""Which rows are held out: decided by a hash, so that no row moves when others come or go."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinker_officer._digest import canonical, digest
from tinker_officer._text import nearest
from tinker_officer.data.columns import blocks
from tinker_officer.data.digests import distinct, items
from tinker_officer.errors import DataError


if TYPE_CHECKING:
    from tinker_officer.data.checked import CheckedRows


def uniform(keys: npt.NDArray[np.uint8], salt: str) -> npt.NDArray[np.float64]:
    """Return a number in [0, 1) for each key (a row of at least 8 bytes), the same on every machine.

    The first eight bytes of a key, and the salt, go through SplitMix64's finaliser.

    Source:
        Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    start = np.frombuffer(hashlib.sha256(salt.encode()).digest()[:8], "<u8")[0]
    mixed = np.ascontiguousarray(keys[:, :8]).view("<u8")[:, 0] ^ start
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    result: npt.NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return result


def sides(
    rows: CheckedRows[Any], *, held_out: float, seed: int, by: str | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return two masks over the rows: those to train on, and those to hold out.

    With `by`, a row whose content is also in a held-out group is in neither: copies never stand on both
    sides.

    Raises:
        DataError: a side would be empty, a setting is out of range, or a row lacks the field `by`.
    """
    if not (_is_number(held_out) and 0 < held_out < 1):
        raise DataError(
            "held_out is out of range",
            got=repr(held_out),
            need="a share above 0 and below 1",
            fix="train, held_out = tickets.split(held_out=0.1)",
        )
    if not (_is_number(seed) and seed == int(seed)):
        raise DataError(
            "seed is not a whole number", got=repr(seed), need="an int", fix="tickets.split(0.1, seed=0)"
        )
    contents = rows.content_digests
    keys = contents if by is None else _group_keys(rows, by)
    # The splits so far are part of the salt: splitting a side again must not repeat the first decision.
    salt = digest({"seed": seed, "by": by, "after": [str(each) for each in rows.splits]})
    held = np.empty(len(rows), np.bool_)
    for block in blocks(len(rows)):
        held[block] = uniform(keys[block], salt) < held_out
    train = ~held
    if by is not None:
        train &= ~np.isin(items(contents), items(contents[held]))
    if held.all() or not held.any() or not train.any():
        side = "held-out" if not held.any() else "training"
        groups = "" if by is None else f" in {distinct(keys)} groups by {by!r}"
        raise DataError(
            f"the {side} side of the split would be empty",
            got=f"{len(rows)} rows{groups}, held_out={held_out}, seed={seed}",
            need="enough rows (or groups) for both sides",
            fix="more rows, another share (held_out=0.5) or another seed (seed=1)",
        )
    return train, held


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _group_keys(rows: CheckedRows[Any], by: str) -> npt.NDArray[np.uint8]:
    """Return the digest of the field `by` for each row."""
    keys = bytearray()
    for row in rows:
        value = row.metadata.get(by)
        if value is None:
            fields = [str(field) for field in row.metadata]
            near = nearest(by, fields)
            raise DataError(
                f"a row has no field {by!r} to group by",
                got=f"{row.where}: " + (", ".join(map(repr, fields)) or "no fields but what is said"),
                need="the field in every row" + (f" (did you mean {near}?)" if near else ""),
                fix="tickets.split(held_out=0.1)  # without by=",
            )
        keys += hashlib.blake2b(canonical(value), digest_size=16).digest()
    return np.frombuffer(bytes(keys), np.uint8).reshape(-1, 16)
