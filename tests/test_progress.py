"""Progress: what a terminal shows, and what a log gets."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

from tinker_officer._progress import Progress


if TYPE_CHECKING:
    import pytest


class Terminal(io.StringIO):
    """A terminal of one width: what is written, and what stands on its lines in the end."""

    def isatty(self) -> bool:
        """Return that it is a terminal."""
        return True

    def lines(self) -> list[str]:
        """Return what is on the screen, a later writing over an earlier one on the same line."""
        shown = []
        for line in self.getvalue().split("\n"):
            cells = ""
            for written in line.split("\r"):
                cells = written + cells[len(written) :]
            shown.append(cells.rstrip())
        return shown


@contextmanager
def on_a_terminal() -> Iterator[Terminal]:
    """Have standard output and standard error on one terminal."""
    screen = Terminal()
    with redirect_stdout(screen), redirect_stderr(screen):
        yield screen


def test_aside_leaves_the_lines_of_other_code_alone() -> None:
    """What is printed while the bar steps aside has its line for itself, and the bar stands below it."""
    with on_a_terminal() as terminal, Progress(3, "mine", unit="steps") as bar:
        for number in range(3):
            bar.advance()
            with bar.aside():
                print(f"line {number}")
    assert terminal.lines()[:3] == ["line 0", "line 1", "line 2"]
    assert terminal.lines()[3].startswith("mine: 100%")
    assert terminal.lines()[4:] == [""]


def test_aside_draws_nothing_while_another_thread_counts_on() -> None:
    """A bar that steps aside counts on without drawing, and shows the right count afterwards."""
    with on_a_terminal() as terminal, Progress(100, "mine", unit="steps") as bar, bar.aside():
        written = terminal.tell()
        thread = threading.Thread(target=lambda: [bar.advance(note="n") for _ in range(100)])
        thread.start()
        thread.join()
        assert terminal.tell() == written
    assert "100/100" in terminal.lines()[0]


def test_a_bar_that_ends_aside_is_drawn_for_the_last_time_afterwards() -> None:
    """The end of the work waits for the lines of other code, then the whole bar stands below them."""
    with on_a_terminal() as terminal, ExitStack() as aside:
        with Progress(1, "mine", unit="steps") as bar:
            bar.advance()
            aside.enter_context(bar.aside())
        print("the last line")
    first, second, *rest = terminal.lines()
    assert (first, second.startswith("mine: 100%"), rest) == ("the last line", True, [""])


def test_without_a_terminal_there_are_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A log gets a line now and then, and the end once; stepping aside changes nothing."""
    with Progress(2, "mine", unit="steps", every_s=0.0) as bar:
        bar.advance(note="nll 1.0")
        with bar.aside():
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in lines] == ["mine: 1/2 steps", "mine: 2/2 steps"]
    assert lines[0].endswith("left, nll 1.0")


def test_progress_false_is_silent() -> None:
    """With `show=False` nothing is written, also on a terminal."""
    with on_a_terminal() as terminal, Progress(1, "mine", unit="steps", show=False) as bar:
        bar.advance()
    assert terminal.getvalue() == ""
