"""A config's grid as a list of runs: all combinations of some values, or a list of such grids."""

from __future__ import annotations

import itertools
import json
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


def cells(grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]) -> Iterator[Cell]:
    """All combinations of a grid, the first key slowest; of a list of grids, one grid after the other.

    In a list, a bare value is short for a list of one, so that an entry may also be a single run.

    >>> [cell.label for cell in cells([{"strategy": "memo", "seed": [0, 1]}, {"strategy": "icarl"}])]
    ['strategy=memo seed=0', 'strategy=memo seed=1', 'strategy=icarl']

    Raises:
        ConfigError: a key without values, or an entry that is no grid.
    """
    if isinstance(grid, Mapping):
        yield from _combinations(grid, "grid")
        return
    for at, one in enumerate(grid):
        if not isinstance(one, Mapping) or not one:
            raise ConfigError(
                f"grid[{at}]={one!r} must name at least one option: e.g. {{strategy: memo, seed: [0, 1]}}"
            )
        listed = {key: values if isinstance(values, list) else [values] for key, values in one.items()}
        yield from _combinations(listed, f"grid[{at}]")


def _combinations(grid: Mapping[str, Sequence[Any]], where: str) -> Iterator[Cell]:
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{where}.{key}={values!r} must be a list with at least one value: e.g. {key}: [0, 1, 2]")
    for values in itertools.product(*grid.values()):
        words = tuple(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in zip(grid, values, strict=True))
        yield Cell(" ".join(_label(key, value) for key, value in zip(grid, values, strict=True)), words)


def _label(key: str, value: Any) -> str:
    """key=value; a mapping's values one after the other, its name first: protocol=smp of=l_osue."""
    if not isinstance(value, Mapping):
        return f"{key}={value}"
    inner = {k: v for k, v in value.items() if k != "name"}
    named = [f"{key}={value['name']}"] if "name" in value else []
    return " ".join([*named, *(_label(k if named else f"{key}.{k}", v) for k, v in inner.items())])
