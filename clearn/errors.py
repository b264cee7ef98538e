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


Rule = tuple[str, object, bool, str]
"""An option's name, its value, whether that is right, and what would be: "above 0 and finite"."""


def demand(*rules: Rule) -> None:
    """Refuse options that are out of range, all together.

    Raises:
        ConfigError: rules do not hold; says of each what was got and what would be right.

    >>> demand(("alpha", 2, False, "in [0, 1]"), ("top", 5, True, "1 or more"))
    Traceback (most recent call last):
    clearn.errors.ConfigError: alpha=2 must be in [0, 1]
    """
    if wrong := [f"{name}={value} must be {rule}" for name, value, right, rule in rules if not right]:
        raise ConfigError("; ".join(wrong))
