"""Hold a subject to a suite of checks: a docstring is the promise, an AssertionError says how it was broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

S = TypeVar("S")


def held(of: S, checks: Sequence[Callable[[S], None]]) -> Iterator[tuple[str, str | None]]:
    """Run all checks; give (what is promised, None or what happened instead) one by one."""
    for check in checks:
        promise = (check.__doc__ or check.__name__).split("\n")[0].rstrip(".")
        try:
            check(of)
        except AssertionError as broken:
            yield promise, str(broken)
        except Exception as error:  # noqa: BLE001 - what is under test may raise anything; it is shown, not hidden
            yield promise, f"{type(error).__name__}: {error}"
        else:
            yield promise, None
