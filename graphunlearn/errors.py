"""Errors that say which argument is wrong."""

from __future__ import annotations

from typing import Any

__all__ = ["ArgumentError", "FileError"]


class ArgumentError(ValueError):
    """An argument is not what it must be.

    The sentence is ``'ARGUMENT' must EXPECTED (got GOT)``. Callers that know the argument by another name, as a command
    line does, say it with :meth:`renamed`.

    Args:
        argument: Name of the argument.
        expected: What follows "must", such as ``"be positive"``.
        got: What was received.
        hint: What to do about it, if there is something.

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

    def renamed(self, argument: str) -> ArgumentError:
        """Return the same error about ``argument``.

        Example:
            >>> ArgumentError("k", "be at least 1", 0).renamed("--top").argument
            '--top'
        """
        return type(self)(argument, self.expected, self.got, self.hint)


class FileError(ArgumentError, FileNotFoundError):
    """An argument names a file or folder that is not there."""
