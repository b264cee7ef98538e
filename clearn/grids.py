"""A config's grid as a list of runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clearn.errors import ConfigError


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        label: what distinguishes it, e.g. "strategy=memo seed=1".
        overrides: the same as dot-form overrides.
    """

    label: str
    overrides: tuple[str, ...]


def cells(grid: Mapping[str, Sequence[Any]]) -> Iterator[Cell]:
    """All combinations of a grid, the first key slowest.

    Raises:
        ConfigError: a key without values.
    """
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid.{key}={values!r} must be a list with at least one value: e.g. {key}: [0, 1, 2]")
    for values in itertools.product(*grid.values()):
        words = tuple(f"{key}={value}" for key, value in zip(grid, values, strict=True))
        yield Cell(" ".join(_label(key, value) for key, value in zip(grid, values, strict=True)), words)


def _label(key: str, value: Any) -> str:
    """key=value; a mapping's values one after the other, its name first: protocol=smp of=l_osue."""
    if not isinstance(value, Mapping):
        return f"{key}={value}"
    inner = {k: v for k, v in value.items() if k != "name"}
    named = [f"{key}={value['name']}"] if "name" in value else []
    return " ".join([*named, *(_label(k if named else f"{key}.{k}", v) for k, v in inner.items())])
