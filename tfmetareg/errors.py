"""The user's mistakes: one is an exception; several are collected, so that one run names them all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """A mistake that the user can correct. The message says what is wrong, where, and what to do.

    The message is one line, or one line and a table under it. The command
    line prints it without a traceback and exits with status 2.
    """


class InputErrors(UserError):  # noqa: N818 - plural
    """Several mistakes in one input; `lines` holds one message each."""

    def __init__(self, lines: list[str]):
        super().__init__("\n".join(lines))
        self.lines = lines


class Problems:
    """Collects the user's mistakes: work goes on after the first, so that one run names them all.

    >>> problems = Problems()
    >>> for name in ("a.png", "b.png"):
    ...     with problems.collected():
    ...         raise UserError(f"{name}: no such file.")
    >>> problems.lines
    ['a.png: no such file.', 'b.png: no such file.']
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Records a line, unless it is there already."""
        if line not in self.lines:
            self.lines.append(line)

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Context that records a `UserError` instead of raising it; the rest of the block is skipped."""
        try:
            yield
        except UserError as error:
            for line in str(error).splitlines():
                self.add(line)

    def raise_any(self) -> None:
        """Raises `InputErrors` with all lines recorded so far, if there are any."""
        if self.lines:
            raise InputErrors(self.lines)


def one_line(error: BaseException) -> str:
    """The message of an exception as one line; the exception's type where the message is empty.

    >>> one_line(ValueError("bad\\nheader")), one_line(EOFError())
    ('bad header', 'EOFError')
    """
    return " ".join(str(error).split()) or type(error).__name__
