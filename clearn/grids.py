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


Grid = dict[str, list[Any]] | list[dict[str, Any]]
SHORT = {
    "strategy": "strategy.name",
    "unlearner": "unlearner.name",
    "protocol": "protocol.name",
    "budget": "budget.bytes",
}


def narrowed(grid: Grid, overrides: Sequence[str]) -> Grid:
    """Keep the cells that agree with overrides of the grid's own keys; without one, all.

    >>> narrowed({"strategy": ["memo", "icarl"], "seed": [0, 1]}, ["seed=1", "budget=1MiB"])
    {'strategy': ['memo', 'icarl'], 'seed': [1]}

    Args:
        grid: as `cells` takes it.
        overrides: "key=value", of the grid's keys or of others.

    Raises:
        ConfigError: no cell has the value asked for.
    """
    import yaml

    for key, _, text in (one.partition("=") for one in overrides):
        value = yaml.safe_load(text) if text else text
        listed = grid if isinstance(grid, list) else [grid]
        kept = [one for one in (_agreeing(one, key, value) for one in listed) if one is not None]
        if not kept:
            has = [value for one in listed for name in one if _same(name, key) for value in _values(one[name])]
            shown = ", ".join(dict.fromkeys(str(_named(value)) for value in has))
            raise ConfigError(
                f"{key}={text} picks nothing out of the grid, which has {key} of {shown}: take one of these, or write "
                f"a grid of your own behind the command, e.g. 'grid={{{key}: [{text}]}}'"
            )
        grid = kept if isinstance(grid, list) else kept[0]
    return grid


def _agreeing(grid: dict[str, Any], key: str, value: Any) -> dict[str, Any] | None:
    """Leave of one grid what has this value; None if nothing has. What is no grid is left for `cells` to refuse."""
    if not isinstance(grid, dict):
        return grid
    own = {name: [one for one in _values(grid[name]) if _named(one) == value] for name in grid if _same(name, key)}
    return None if own and not all(own.values()) else grid | own


def _same(name: str, key: str) -> bool:
    return SHORT.get(name, name) == SHORT.get(key, key)


def _named(value: Any) -> Any:
    return value.get("name") if isinstance(value, Mapping) else value


def _values(listed: Any) -> list[Any]:
    return listed if isinstance(listed, list) else [listed]


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
