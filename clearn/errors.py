"""Mistakes a user can mend: shown as one message, without a traceback, with exit code 2."""

from __future__ import annotations


class UserError(Exception):
    """Say what was wrong, what we got, what would be right and what to do."""


class ConfigError(UserError, ValueError):
    """A config or an override that cannot be run; holds every mistake found, one per line."""


class DataError(UserError, LookupError):
    """A data set that is missing or does not look as it should."""


class BudgetExceeded(UserError, ValueError):
    """The carried state outweighs the byte budget."""


class StateError(UserError, ValueError):
    """A state that cannot be written or read: not tensors, damaged, or of another run."""


class Diverged(UserError, ArithmeticError):
    """Training reached a loss that is not a number."""
