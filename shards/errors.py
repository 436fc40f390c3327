"""The errors a user can meet, each with its sentence and its exit code.

Covers: the base class and the errors of the core. Packages above add their own by subclassing.
"""

from __future__ import annotations

from typing import ClassVar


class ForebayError(Exception):
    """Something that a person can act on. The sentence says what happened, where, and what to do.

    Every constructor argument goes to Exception.__init__, so that an error survives pickling.
    """

    template: ClassVar[str] = "{0}"
    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        return self.template.format(*self.args)


class UsageError(ForebayError):
    """What was asked for cannot be: a wrong argument, an unknown name."""

    exit_code = 2
