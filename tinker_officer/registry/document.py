"""MODELS.md: which version each channel of each model holds, and every version. All text is escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinker_officer.registry import audit, reads
from tinker_officer.registry.card import code, escaped, grid
from tinker_officer.registry.values import SHORT, Version
from tinker_officer.registry.verdict import figure


if TYPE_CHECKING:
    import sqlalchemy as sa


def document(connection: sa.Connection) -> str:
    """Return the registry as Markdown."""
    versions = reads.all_versions(connection, None, "")
    by_id = {version.id: version for version in versions}
    held = {place: by_id[stack[-1]] for place, stack in reads.deployed(connection).items() if stack}
    head = audit.head(connection)
    blocks = ["# Models", _deployed(held)]
    for name in dict.fromkeys(version.name for version in versions):
        mine = [version for version in versions if version.name == name]
        blocks.append(f"## {escaped(name)}\n\n{_versions(connection, mine, held)}")
    blocks.append(
        f"## Audit\n\n{head.entries} entries; the head of the log is\n{code(head.head)}."
        f' Check it with `registry.verify(known_head="{head.head[:16]}")`.'
    )
    return "\n\n".join(blocks) + "\n"


def _deployed(held: dict[tuple[str, str], Version]) -> str:
    rows = [
        (
            escaped(name),
            escaped(channel),
            escaped(version.label),
            code(version.target),
            code(version.id[:SHORT]),
        )
        for (name, channel), version in sorted(held.items())
        if channel != "retired"
    ]
    if not rows:
        return "Nothing is deployed."
    return grid(("model", "channel", "version", "sampled from", "id"), rows)


def _versions(
    connection: sa.Connection, versions: list[Version], held: dict[tuple[str, str], Version]
) -> str:
    rows = []
    for version in versions:
        card = reads.card_for(connection, version.id)
        scores = [f"{name} {figure(value)}" for name, value in (card.metrics() if card else {}).items()]
        channels = [channel for (_, channel), one in held.items() if one.id == version.id]
        rows.append(
            (
                str(version.number),
                code(version.base_model),
                str(version.step or ""),
                escaped(", ".join(scores)),
                escaped(", ".join(channels)),
                escaped(version.created[:19].replace("T", " ")),
                escaped(version.notes),
            )
        )
    return grid(("version", "base model", "steps", "scores", "channels", "registered", "notes"), rows)
