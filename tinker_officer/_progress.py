"""Progress of long work: a bar on a terminal, one line now and then elsewhere, or nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from tqdm import tqdm

from tinker_officer._text import duration


class _Bar(tqdm):  # type: ignore[type-arg]  # generic in the stubs alone
    """tqdm's bar, which can be kept off the screen: it counts on, and draws nothing meanwhile."""

    hidden = False

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar, unless it is hidden; tqdm calls this for each drawing."""
        if not self.hidden:
            super().display(msg, pos)


class Progress:
    """Progress towards `total`, drawn on standard error.

    Args:
        total: how many units there are, if known.
        label: what is being done, a word or three.
        unit: the unit's name, plural.
        show: True or None draws (a bar on a terminal, a line every `every_s` elsewhere); False is silent.
        every_s: seconds between lines where there is no terminal.
    """

    def __init__(
        self, total: int | None, label: str, *, unit: str, show: bool | None = None, every_s: float = 15.0
    ) -> None:
        self.total, self.label, self.unit, self.every_s = total, label, unit, every_s
        self.done = self._told = 0
        self._note = ""
        self._show = show is not False
        self._bar: _Bar | None = None
        self._over = False
        self._drawing = threading.Lock()
        self._started = self._said = time.monotonic()

    def __enter__(self) -> Self:
        if self._show and sys.stderr.isatty():
            self._bar = _Bar(
                total=self.total, desc=self.label, unit=f" {self.unit}", dynamic_ncols=True, leave=True
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._drawing:
            self._over = True
            if self._bar is not None and not self._bar.hidden:
                self._bar.close()
        if self._bar is None and self._show and self.done > self._told:
            self._say()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar off the screen while other code may write there; it is drawn again afterwards."""
        bar = self._bar
        if bar is None:
            yield
            return
        with self._drawing:
            if not self._over:
                bar.clear()
                bar.hidden = True
        try:
            yield
        finally:
            with self._drawing:
                if bar.hidden:
                    bar.hidden = False
                    bar.close() if self._over else bar.refresh()

    def advance(self, by: int = 1, *, note: str = "") -> None:
        """Count `by` more units as done, and show `note` (a few figures) beside the count."""
        self.done += by
        self._note = note or self._note
        if self._bar is not None:
            with self._drawing:
                if note:
                    self._bar.set_postfix_str(note, refresh=False)
                self._bar.update(by)
        elif self._show and time.monotonic() - self._said >= self.every_s:
            self._say()

    def _say(self) -> None:
        self._said, self._told = time.monotonic(), self.done
        elapsed = self._said - self._started
        share = f"{self.done}/{self.total}" if self.total else f"{self.done}"
        left = ""
        if self.total is not None and self.done < self.total:
            left = f", about {duration(elapsed / self.done * (self.total - self.done))} left"
        note = f", {self._note}" if self._note else ""
        line = f"{self.label}: {share} {self.unit} in {duration(elapsed)}{left}{note}\n"
        sys.stderr.write(line)  # in one piece: other threads write too
        sys.stderr.flush()
