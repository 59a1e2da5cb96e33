"""Errors that say which argument is wrong."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ArgumentError", "ExistsError", "FileError", "RejectedError"]


class ArgumentError(ValueError):
    """An argument is not what it must be.

    The sentence is ``'ARGUMENT' must EXPECTED (got GOT)``, with ``; HINT`` at its end where there is one. A caller that
    uses another name for the argument, such as a command line, replaces the name with :meth:`renamed`. A subclass may
    have more fields, with defaults, so that its errors can be copied and pickled.

    Args:
        argument: Name of the argument, or the file or folder that it names.
        expected: The text after "must", such as ``"be positive"``.
        got: Description of the value received.
        hint: Advice on how to correct the error; empty if there is none.

    Example:
        >>> raise ArgumentError("k", "be at least 1", 0)
        Traceback (most recent call last):
        graphunlearn.errors.ArgumentError: 'k' must be at least 1 (got 0)
    """

    def __init__(self, argument: object, expected: str, got: Any, hint: str = "") -> None:
        super().__init__(argument, expected, got, hint)
        self.argument, self.expected, self.got, self.hint = str(argument), expected, got, hint

    def __str__(self) -> str:
        return f"'{self.argument}' must {self.expected} (got {self.got}){f'; {self.hint}' if self.hint else ''}"

    def renamed(self, argument: str | None = None, *, hint: str | None = None) -> Self:
        """Return the same error about ``argument``, with another hint if one is given.

        Example:
            >>> ArgumentError("k", "be at least 1", 0).renamed("top").argument
            'top'
        """
        error = copy(self)
        error.argument = self.argument if argument is None else argument
        error.hint = self.hint if hint is None else hint
        error.args = (error.argument, error.expected, error.got, error.hint)
        return error


class FileError(ArgumentError, FileNotFoundError):
    """An argument names a file or folder that is not there."""


class ExistsError(ArgumentError, FileExistsError):
    """An argument names a folder that exists, and that is replaced only if the caller asks for it."""


class RejectedError(RuntimeError):
    """A correction is worse than deleting the edges, and the caller asked for an error in this case."""
