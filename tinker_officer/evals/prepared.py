"""What every kind of eval becomes once it is read: how many items it has, and what runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import attrs

from tinker_officer._service import On


if TYPE_CHECKING:
    from tinker_officer.evals.race import Against
    from tinker_officer.evals.results import EvalResult
    from tinker_officer.evals.target import Target


def _nothing() -> None:
    pass


@attrs.frozen
class Context:
    """What an eval is run with, besides the target.

    Attributes:
        at: folder for logs and for the items that are known already; None keeps nothing.
        done: called after each item.
        on: the service, for a judge that is asked there too.
        against: a card to compare with while asking, and to stop once that is decided; None to ask
            everything.
    """

    at: Path | None = None
    done: Callable[[], None] = _nothing
    against: Against | None = None
    on: On | None = None


Runner: TypeAlias = "Callable[[Target, Context], Awaitable[EvalResult]]"


def _no_texts() -> Iterable[tuple[str, Sequence[str]]]:
    return ()


@attrs.frozen
class Prepared:
    """An eval that is ready to run.

    Attributes:
        n: how many items it has.
        run: what runs it.
        texts: returns each item's id, and the texts that must not stand in the training data.
    """

    n: int
    run: Runner
    texts: Callable[[], Iterable[tuple[str, Sequence[str]]]] = _no_texts
