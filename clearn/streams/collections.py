"""Collections by name, or of a user's own table: a population whose values are asked for, round by round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clearn.errors import ConfigError, DataError
from clearn.mistakes import nearest, show
from clearn.seeds import numpy_generator
from clearn.stream import Attribute, Collection
from clearn.streams import COLLECTIONS, tables
from clearn.streams.values import Changing, Counted, Static, named

Array = np.ndarray[Any, np.dtype[Any]]
Law = Literal["uniform", "zipf", "normal"]

MOST_ROWS = 10**7  # synthetic static users beyond which counts alone are kept
MOST_BYTES = 4 * 2**30  # of changing values in memory
TABLES = ("adult", "nursery", "ms_fimu", "csv")
USES = {  # options that mean something to some collections only
    "file": ("csv",),
    "columns": TABLES,
    "rows": (*TABLES, "visits", "pwgtp"),
    "n": ("synthetic",),
    "k": ("synthetic", "csv"),
    "change": ("synthetic",),
    "law": ("synthetic",),
    "order_seed": ("synthetic", "ms_fimu"),
}


MOST_VALUES = 10_000_000  # of one attribute; its counts take 80 MB a round


def build(
    *,
    data: str = "synthetic",
    root: Path | None = None,
    file: Path | None = None,
    columns: list[str] | None = None,
    rounds: int | list[str] | None = None,
    rows: int | None = None,
    n: int | None = None,
    k: int | list[int] | None = None,
    change: float = 0.0,
    law: Law = "uniform",
    order_seed: int = 0,
) -> Collection:
    """Make the collection from a config's keys.

    Args:
        data: one of `clearn.streams.COLLECTIONS`.
        root: folder of the tables; None means CLEARN_DATA, or else the user's cache.
        file: of data: csv.
        columns: attributes of a static table, in this order; None takes all.
        rounds: how often static users are asked (1 by default), the first so many columns of a changing table (all by
            default), or, of data: csv, the columns that are the rounds of one attribute.
        rows: first users only; the values an attribute can have stay those of the whole table.
        n: users of data: synthetic; 10,000 by default.
        k: values of each attribute of data: synthetic, 100 by default; a list gives several attributes. Of data: csv:
            cells are numbers 0..k-1 already; None codes the distinct cells in sorted order.
        change: probability with which a synthetic user draws a new value each round.
        law: of synthetic values: uniform, zipf (1 / rank) or normal (mean in the middle, six standard deviations wide).
        order_seed: of synthetic values, and of how ms_fimu's independent attributes are dealt to persons.

    Raises:
        ConfigError: options that lie out of range or mean nothing to this collection; all of them together.
        DataError: a table is missing or damaged.
    """
    given = {
        "file": file,
        "columns": columns,
        "rows": rows,
        "n": n,
        "k": k,
        "change": change,
        "law": law,
        "order_seed": order_seed,
    }
    if wrong := list(_mistakes(data, rounds, given)):
        raise ConfigError("\n".join(wrong))
    if data == "synthetic":
        sizes = [100] if k is None else [k] if isinstance(k, int) else k
        return synthetic(10_000 if n is None else n, sizes, _number(rounds), change, law, order_seed)
    if data == "ms_fimu":
        return _dealt(tables.find(data, root), columns, _number(rounds), rows, order_seed)
    if data in ("visits", "pwgtp"):
        return _waves(data, tables.read(tables.find(data, root), together=True), rounds, rows)
    path = tables.find(data, root) if file is None else tables.find_own(str(file), root)
    if isinstance(rounds, list):
        return _waves(data, _coded(tables.read(path, rounds, together=True), k), None, rows)
    table = _coded(tables.read(path, columns), k)
    attributes = _named(table)
    return Static(_first(table.values, rows), attributes, _number(rounds), {"data": data, "checksums": table.checksums})


def synthetic(
    n: int, k: Sequence[int], rounds: int = 1, change: float = 0.0, law: Law = "uniform", order_seed: int = 0
) -> Collection:
    """Draw values by a law; each round every user draws a new one with probability `change`.

    LOLOHA's series (Arcolezi et al. 2023, section 5.1) is n=10000, k=[360], rounds=120, change=0.25. Counts of static
    values are an exact multinomial draw; beyond `MOST_ROWS` users nothing else is kept.

    Args:
        n: users.
        k: values of each attribute.
        rounds: how many.
        change: 0..1.
        law: of every draw.
        order_seed: of all draws.
    """
    attributes = named(list(k))
    about = {"data": "synthetic", "law": law, "change": change, "order_seed": order_seed}
    rngs = [numpy_generator(order_seed, j, "synthetic values") for j in range(len(k))]
    laws = [_law(law, size) for size in k]
    if change == 0:
        counts = [rng.multinomial(n, p) for rng, p in zip(rngs, laws, strict=True)]
        if n * len(k) > MOST_ROWS:
            return Counted(counts, attributes, rounds, about)
        return Static(_deal(counts, rngs), attributes, rounds, about)
    dtype = np.min_scalar_type(max(k) - 1)
    if n * rounds * len(k) * dtype.itemsize > MOST_BYTES:
        raise ConfigError(
            f"n={n}, rounds={rounds}: changing values of {len(k)} attributes would take "
            f"{n * rounds * len(k) * dtype.itemsize / 2**30:.1f} GiB, over {MOST_BYTES / 2**30:.0f}: ask fewer users, "
            "or set change to 0"
        )
    values = np.empty((n, rounds, len(k)), dtype)
    for j, (rng, p) in enumerate(zip(rngs, laws, strict=True)):
        edges = p.cumsum()[:-1]
        values[:, 0, j] = np.searchsorted(edges, rng.random(n), side="right")
        for t in range(1, rounds):
            new = np.searchsorted(edges, rng.random(n), side="right")
            values[:, t, j] = np.where(rng.random(n) < change, new, values[:, t - 1, j])
    return Changing(values, attributes, about)


def _mistakes(data: str, rounds: int | list[str] | None, given: dict[str, Any]) -> Iterator[str]:
    """Say all that is wrong with the options, before any file is opened."""
    if data not in COLLECTIONS:
        yield f"data={data!r} is not known: {nearest(data, COLLECTIONS) or 'it is one of ' + ', '.join(COLLECTIONS)}"
        return
    defaults = {"change": 0.0, "law": "uniform", "order_seed": 0}
    for option, takers in USES.items():
        if data not in takers and given[option] != defaults.get(option):
            yield f"{option}={show(given[option])} is for data={', '.join(takers)}, not data={data}: leave it out"
    if data == "csv" and given["file"] is None:
        yield "data=csv needs file: the path of your .csv or .csv.gz file"
    if given["columns"] is not None and not given["columns"]:
        yield "columns=[] must name at least one attribute: leave it out to take all"
    if isinstance(rounds, list):
        if data != "csv" or given["columns"] is not None or not rounds:
            yield (
                f"rounds={show(rounds)} must be a number: a list names the columns of data=csv that are the rounds of "
                "one attribute, and takes the place of columns"
            )
    elif rounds is not None and rounds < 1:
        yield f"rounds={rounds} must be 1 or more"
    for option in ("n", "rows"):
        if given[option] is not None and given[option] < 1:
            yield f"{option}={given[option]} must be 1 or more"
    if not 0 <= given["change"] <= 1:
        yield f"change={given['change']} must lie in [0, 1]: it is a probability"
    sizes = given["k"] if isinstance(given["k"], list) else [given["k"]]
    if wrong := [size for size in sizes if size is not None and size > MOST_VALUES]:
        yield f"k={wrong[0]} must be at most {MOST_VALUES:,} values"
    if given["k"] == [] or (isinstance(rounds, list) and isinstance(given["k"], list)):
        yield f"k={given['k']} must be a number of values, or a list of one number an attribute"


def _number(rounds: int | list[str] | None) -> int:
    assert not isinstance(rounds, list)
    return 1 if rounds is None else rounds


def _named(table: tables.Table) -> list[Attribute]:
    return [Attribute(name, len(labels), labels) for name, labels in zip(table.names, table.labels, strict=True)]


def _coded(table: tables.Table, k: int | list[int] | None) -> tables.Table:
    """Take cells as the numbers they are, where the user says how many values there are.

    Raises:
        ConfigError: another number of sizes than columns.
        DataError: a cell that is no number in 0..k-1.
    """
    if k is None:
        return table
    sizes = [k] * len(table.names) if isinstance(k, int) else k
    if len(sizes) != len(table.names):
        raise ConfigError(f"k={sizes} has {len(sizes)} sizes, the table {len(table.names)} columns: give one for each")
    values = np.empty(table.values.shape, np.min_scalar_type(max(max(sizes) - 1, 0)))
    for j, (name, size, labels) in enumerate(zip(table.names, sizes, table.labels, strict=True)):
        wrong = [label for label in labels if not (label.isdecimal() and int(label) < size)]
        if wrong:
            raise DataError(
                f"column {name!r} holds {wrong[0]!r}, with k={size} a cell is a number in [0, {size - 1}]: mend it, "
                "raise k, or leave k out to take the distinct cells as values"
            )
        values[:, j] = np.array([int(label) for label in labels])[table.values[:, j]]
    numbers = tuple(tuple(map(str, range(size))) for size in sizes)
    return tables.Table(table.names, values, numbers, table.checksums)


def _waves(data: str, table: tables.Table, rounds: int | list[str] | None, rows: int | None) -> Collection:
    """Columns as the rounds of one attribute."""
    width = len(table.names)
    first = width if rounds is None else _number(rounds)
    if first > width:
        raise ConfigError(f"rounds={first} must lie in [1, {width}]: data={data} has no more")
    labels = table.labels[0]
    name = {"visits": "visit", "pwgtp": "weight"}.get(data, "value")
    about = {"data": data, "checksums": table.checksums}
    return Changing(_first(table.values, rows)[:, :first], [Attribute(name, len(labels), labels)], about)


def _dealt(path: Path, columns: list[str] | None, rounds: int, rows: int | None, order_seed: int) -> Collection:
    """Deal the counts of each attribute to persons, independently: exact per attribute, and in nothing joint."""
    found, checksums = tables.marginals(path, columns)
    attributes = [Attribute(name, len(counts), tuple(counts)) for name, counts in found.items()]
    counts = [np.array(list(of.values())) for of in found.values()]
    rngs = [numpy_generator(order_seed, 0, f"ms_fimu {name}") for name in found]
    about = {"data": "ms_fimu", "checksums": checksums, "joint": False, "order_seed": order_seed}
    return Static(_first(_deal(counts, rngs), rows), attributes, rounds, about)


def _deal(counts: Sequence[Array], rngs: Sequence[np.random.Generator]) -> Array:
    """(n, d) values that have these counts, in random order."""
    columns = []
    for count, rng in zip(counts, rngs, strict=True):
        column = np.repeat(np.arange(len(count), dtype=np.min_scalar_type(len(count) - 1)), count)
        rng.shuffle(column)
        columns.append(column)
    return np.stack(columns, axis=1)


def _first(values: Array, rows: int | None) -> Array:
    if rows is not None and rows > len(values):
        raise ConfigError(f"rows={rows} must lie in [1, {len(values)}]: the table has no more users")
    return values[:rows]


def _law(law: Law, k: int) -> Array:
    """(k,) probabilities."""
    v = np.arange(k)
    weights = {
        "uniform": np.ones(k),
        "zipf": 1 / (v + 1),
        "normal": np.exp(-(((v - (k - 1) / 2) / (k / 6)) ** 2) / 2),
    }[law]
    return np.asarray(weights / weights.sum())
