"""Token counts: exactly what training will see, counted before it starts.

    counts = train.measure("HuggingFaceTB/SmolLM2-135M-Instruct", max_length=1024)

Every conversation is rendered as `render.to_datum` renders it. What is kept of each is 24 bytes: its
length, how many of its tokens are trained on, and a digest of tokens and mask; they are cached under
`home()`, by content, tokenizer, renderer and settings.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import attrs
import numpy as np
import numpy.typing as npt

from tinker_officer import _models, _text
from tinker_officer._digest import digest
from tinker_officer._fields import one_of, whole
from tinker_officer._files import home
from tinker_officer.data import kept
from tinker_officer.data.columns import blocks, gathered
from tinker_officer.data.counting import Countable, count
from tinker_officer.data.digests import firsts
from tinker_officer.data.render import TooLong, TrainOn, default_renderer_name, renderer_for
from tinker_officer.data.spreading import count_on
from tinker_officer.errors import DataError, ModelError


_FORMAT = 2  # part of the cache's key: raise it when rows are measured differently
_QUANTILES = (0.0, 0.5, 0.9, 0.99, 1.0)
_FIX = "TokenCounts(examples=9_500, trained=2_000_000, total=2_600_000)"
_COUNT = whole(0, error=DataError, fix=_FIX)
_MAYBE = attrs.validators.optional(_COUNT)


@attrs.frozen(kw_only=True)
class TokenCounts:
    """How many tokens there are to learn, and to pay for.

    Args:
        examples: conversations that are trained on; dropped and masked ones are not among them.
        trained: tokens with a weight above 0, over one epoch.
        total: all tokens sent to the model, prompts included, over one epoch.
        unique_trained: `trained`, with each repeated example (same tokens, same mask) counted once.
        truncated: examples cut at `max_length`.
        dropped: conversations left out because they are longer (`too_long="drop"`).
        masked: conversations left out because no trained token is left of them.
        duplicates: examples that repeat an earlier one.
        max_length: the limit that was applied, in tokens; None for no limit.
        quantiles: `(share, tokens)` pairs: lengths before truncation, at 0, 0.5, 0.9, 0.99 and 1.
        train_on: `last` or `all`.
        too_long: `truncate` or `drop`.
        renderer_name: the cookbook's name of the renderer.

    Example:
        >>> counts = TokenCounts(examples=9_500, trained=2_000_000, total=2_600_000)
        >>> LoRAPlan.for_("Qwen/Qwen3-8B").sft(counts).verdict
        'ample'
    """

    examples: int = attrs.field(validator=_COUNT)
    trained: int = attrs.field(validator=_COUNT)
    total: int = attrs.field(validator=_COUNT)
    unique_trained: int | None = attrs.field(default=None, validator=_MAYBE)
    truncated: int = attrs.field(default=0, validator=_COUNT)
    dropped: int = attrs.field(default=0, validator=_COUNT)
    masked: int = attrs.field(default=0, validator=_COUNT)
    duplicates: int = attrs.field(default=0, validator=_COUNT)
    max_length: int | None = attrs.field(default=None, validator=_MAYBE)
    quantiles: tuple[tuple[float, int], ...] = ()
    train_on: str = attrs.field(default="last", validator=one_of(("last", "all"), error=DataError, fix=_FIX))
    too_long: str = attrs.field(
        default="truncate", validator=one_of(("truncate", "drop"), error=DataError, fix=_FIX)
    )
    renderer_name: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.trained > self.total or (self.unique_trained or 0) > self.trained:
            raise DataError(
                "the token counts contradict each other",
                got=f"total={self.total}, trained={self.trained}, unique_trained={self.unique_trained}",
                need="unique_trained <= trained <= total",
                fix=_FIX,
            )

    def explain(self) -> str:
        """Return the counts as text, one a line, with what each means."""
        limit = f"{self.max_length} tokens" if self.max_length else "none"
        rows = [
            ("examples", self.examples, f"trained on ({self.train_on} assistant turn(s) of each)"),
            ("trained tokens", self.trained, "with a weight above 0, each epoch"),
            ("total tokens", self.total, "sent to the model, prompts included, each epoch"),
        ]
        if self.unique_trained is not None:
            rows.append(("unique trained", self.unique_trained, "repeated examples counted once"))
        rows += [
            ("duplicates", self.duplicates, "examples that repeat an earlier one"),
            ("truncated", self.truncated, f"examples cut at the limit ({limit})"),
            ("dropped", self.dropped, "conversations left out: longer than the limit"),
            ("masked", self.masked, "conversations left out: no trained token remains"),
        ]
        text = _text.table([(name, f"{number:,}", meaning) for name, number, meaning in rows])
        if self.quantiles:
            shown = ", ".join(f"{share:.0%}: {length:,}" for share, length in self.quantiles)
            text += f"\nlengths in tokens at {shown}"
        return text

    def __repr__(self) -> str:
        unique = "" if self.unique_trained is None else f", {_text.count(self.unique_trained)} unique"
        return (
            f"<TokenCounts: {self.examples} examples, {_text.count(self.trained)} trained{unique}, "
            f"{_text.count(self.total)} total>"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"


@attrs.frozen(eq=False)
class RowCounts:
    """What is known of each conversation, in order.

    Args:
        lengths: tokens before truncation.
        trained: trained tokens that remain; 0 for a conversation that is left out.
        digests: of tokens and mask as trained on, shape `(rows, 16)`.
        max_length: the limit that was applied.
        too_long: what was done with longer ones.
        train_on: which assistant turns are trained on.
        renderer_name: the cookbook's name of the renderer.
    """

    lengths: npt.NDArray[np.int32]
    trained: npt.NDArray[np.int32]
    digests: npt.NDArray[np.uint8]
    max_length: int | None
    too_long: str
    train_on: TrainOn
    renderer_name: str

    @property
    def over(self) -> npt.NDArray[np.bool_]:
        """Which conversations are longer than the limit."""
        over = np.zeros(len(self.lengths), np.bool_)
        if self.max_length is not None:
            for block in blocks(len(over)):
                over[block] = self.lengths[block] > self.max_length
        return over

    @property
    def dropped(self) -> npt.NDArray[np.bool_]:
        """Which conversations are left out for their length."""
        return self.over if self.too_long == "drop" else np.zeros(len(self.lengths), np.bool_)

    @property
    def used(self) -> npt.NDArray[np.bool_]:
        """Which conversations are trained on."""
        used = ~self.dropped
        for block in blocks(len(used)):
            used[block] &= self.trained[block] > 0
        return used

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        """Return what is known of the conversations of all `parts`, one part after the other.

        Exact: `summed` of it is what measuring everything at once gives, copies across parts included.

        Raises:
            DataError: no parts, or parts that were measured under different rules.
        """
        names = ("max_length", "too_long", "train_on", "renderer_name")
        rules = {", ".join(f"{name}={getattr(part, name)!r}" for name in names) for part in parts}
        if len(rules) != 1:
            raise DataError(
                "these counts cannot be merged",
                got=" and ".join(sorted(rules)) or "no parts",
                need="at least one part, all measured under the same rules",
                fix="RowCounts.merged([measure_rows(part, base_model, max_length=1024) for part in parts])",
            )
        return attrs.evolve(
            parts[0],
            lengths=np.concatenate([part.lengths for part in parts]),
            trained=np.concatenate([part.trained for part in parts]),
            digests=np.concatenate([part.digests for part in parts]),
        )

    def summed(self) -> TokenCounts:
        """Return the counts over all conversations."""
        used, over, dropped = self.used, self.over, self.dropped
        total = trained = 0
        by_length = np.zeros(1, np.int64)
        for block in blocks(len(used)):
            lengths, rows = self.lengths[block], used[block]
            kept = lengths[rows] if self.max_length is None else np.minimum(lengths[rows], self.max_length)
            total += int(kept.sum(dtype=np.int64)) - len(kept)  # the last token is only ever a target
            trained += int(self.trained[block][rows].sum(dtype=np.int64))
            here = np.bincount(lengths, minlength=len(by_length))
            here[: len(by_length)] += by_length
            by_length = here
        unique = duplicates = 0
        for first in firsts(self.digests, among=used):
            unique += int(gathered(self.trained, first).sum(dtype=np.int64))
            duplicates -= len(first)
        places = [round(share * (len(used) - 1)) for share in _QUANTILES]
        at = np.searchsorted(np.cumsum(by_length), places, side="right")
        return TokenCounts(
            examples=int(used.sum()),
            trained=trained,
            total=total,
            unique_trained=unique,
            truncated=int((over & used).sum()),
            dropped=int(dropped.sum()),
            masked=int((~used & ~dropped).sum()),
            duplicates=int(used.sum()) + duplicates,
            max_length=self.max_length,
            quantiles=tuple(zip(_QUANTILES, at.tolist(), strict=True)),
            train_on=self.train_on,
            too_long=self.too_long,
            renderer_name=self.renderer_name,
        )


def measure_rows(
    conversations: Countable,
    base_model: str | Path,
    *,
    max_length: int | None = None,
    train_on: TrainOn = "last",
    too_long: TooLong = "truncate",
    renderer_name: str | None = None,
    progress: bool | None = None,
    on: Any = None,
) -> RowCounts:
    """Return what is known of each conversation, from the cache where it was measured before.

    Raises:
        ModelError: no such model or renderer.
        DataError: a row cannot be rendered, or a setting is out of range.
    """
    base_model = str(base_model)
    limit = _limit(base_model, max_length)
    if too_long not in {"truncate", "drop"}:
        raise DataError(
            "too_long is not known",
            got=repr(too_long),
            need="'truncate' or 'drop'",
            fix='too_long="truncate"',
        )
    renderer_name = renderer_name or default_renderer_name(base_model)
    renderer = renderer_for(base_model, renderer_name)
    key = digest(
        {
            "format": _FORMAT,
            "content": conversations.fingerprint,
            "renderer": renderer_identity(base_model, renderer_name),
            "max_length": limit,
            "train_on": train_on,
        }
    )
    path = home() / "cache" / "measure" / f"{key}.npy"
    rows = kept.load(path, conversations.content_digests)
    if rows is None:
        rules: Any = {"limit": limit, "train_on": train_on, "progress": progress}
        if on is None:
            rows = count(conversations, renderer, **rules)
        else:
            rows = count_on(on, conversations, base_model, renderer_name, **rules)
        kept.save(path, rows, conversations.content_digests)
    return RowCounts(
        rows["length"], rows["trained"], rows["digest"], limit, too_long, train_on, renderer_name
    )


def renderer_identity(base_model: str, renderer_name: str) -> dict[str, Any]:
    """Return what decides which tokens a conversation becomes, as JSON.

    The tokenizer by its content, so that a folder of the same name with another tokenizer differs.
    """
    import tinker_cookbook

    tokenizer = _models.load_tokenizer(base_model)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return {
        "renderer": renderer_name,
        "cookbook": str(getattr(tinker_cookbook, "__version__", "")),
        "tokenizer": hashlib.sha256(content.encode()).hexdigest(),
        "template": str(getattr(tokenizer, "chat_template", None)),
    }


def context_length(base_model: str) -> int | None:
    """Return the longest sequence that a base model takes, in tokens; None when its config is not here."""
    try:
        longest = _models.read_config(base_model).get("max_position_embeddings")
    except ModelError:
        return None
    return int(longest) if longest else None


def _limit(base_model: str, max_length: int | None) -> int | None:
    if max_length is None:
        return context_length(base_model)
    if type(max_length) is not int or max_length < 2:  # noqa: PLR2004 - two tokens make one target
        raise DataError(
            "max_length is out of range",
            got=repr(max_length),
            need="2 tokens or more (one to read, one to learn), or None for the model's context",
            fix="train.measure(base_model, max_length=1024)",
        )
    return max_length
