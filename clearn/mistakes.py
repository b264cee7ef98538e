"""Mistakes in a config: collected, each with its place and its remedy, and shown together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clearn.errors import ConfigError


@dataclass(frozen=True)
class Mistake:
    """One thing that keeps a config from running.

    Attributes:
        file: "memo.yaml:12", "command line", or "" until `raise_all` looks it up.
        key: dotted, e.g. "strategy.lr".
        got: the value as YAML would spell it, shortened; "nothing" if it is missing, "" if `right` names it.
        right: what would be right, reading on after "got ...,".
        hint: what to do, or "".
    """

    file: str
    key: str
    got: str
    right: str
    hint: str = ""

    def __str__(self) -> str:
        got = f"got {self.got}, " if self.got else ""
        key = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in self.key)
        start = "".join(f"{part}: " for part in (self.file, key) if part)
        return f"{start}{got}{self.right}" + (f"; {self.hint}" if self.hint else "")


def raise_all(errors: Sequence[Mistake], origins: Mapping[str, str] | None = None) -> None:
    """Raise one `ConfigError` that names every mistake, or return if there is none.

    Args:
        errors: as collected by `bind`, in order.
        origins: where each dotted key was written, as `clearn.config.Config.origins` has it.
    """
    if not errors:
        return
    lines = [str(located(mistake, origins or {})) for mistake in errors]
    if len(lines) == 1:
        raise ConfigError(lines[0])
    raise ConfigError("\n".join([f"{len(lines)} mistakes in the config:", *(f"  {line}" for line in lines)]))


def located(mistake: Mistake, origins: Mapping[str, str]) -> Mistake:
    """Fill in the file of a mistake that has none yet."""
    return mistake if mistake.file else dataclasses.replace(mistake, file=origin(mistake.key, origins))


def origin(key: str, origins: Mapping[str, str]) -> str:
    """Find where a key, or else the nearest mapping around it, was written; "" if that is unknown."""
    while key and key not in origins:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    return origins.get(key, "")


def nearest(name: object, known: Iterable[str]) -> str:
    """Say "did you mean 'lr'?", or nothing if no known name is near."""
    import difflib

    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.65)
    return f"did you mean {by_lower[found[0]]!r}?" if found else ""


def show(value: Any, width: int = 60) -> str:
    """Spell a value as YAML would, on one line and shortened to `width` characters."""
    match value:
        case None:
            text = "null"
        case bool():
            text = str(value).lower()
        case tuple():
            text = repr(list(value))
        case _:
            try:
                text = " ".join(repr(value).split())
            except ValueError:  # Python prints no int of more than 4300 digits
                text = "a number with too many digits"
    return text if len(text) <= width else text[: width - 1] + "…"


def join(where: str, name: object) -> str:
    """Give the dotted key of an option; at the top, `where` is empty."""
    return f"{where}.{name}" if where else str(name)


def listing(known: Iterable[str], what: str = "options", most: int = 20) -> str:
    """List the known names as a hint, at most `most` of them."""
    names = list(known)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"the {what} are {', '.join(names[:most])}{more}" if names else f"there are no {what} at all"
