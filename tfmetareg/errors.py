"""Mistakes of the user's: one as an exception, many collected so that one run names them all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """A mistake that the user can mend: what is wrong, where, what to do.

    The message is one line, or one line and a table under it. The command
    line prints it without a traceback and exits with status 2.
    """


class InputErrors(UserError):  # noqa: N818 - it is several
    """Several mistakes in one input; `lines` holds one message each."""

    def __init__(self, lines: list[str]):
        super().__init__("\n".join(lines))
        self.lines = lines


class Problems:
    """The user's mistakes found so far: reading goes on past one, so that a run names them all."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Records one problem, once."""
        if line not in self.lines:
            self.lines.append(line)

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Records a `UserError` of the block instead of raising it; the rest of the block is skipped."""
        try:
            yield
        except UserError as error:
            for line in str(error).splitlines():
                self.add(line)

    def raise_any(self) -> None:
        """Raises `InputErrors` with every line recorded so far, if there is one."""
        if self.lines:
            raise InputErrors(self.lines)
