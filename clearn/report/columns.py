"""One number per group: what it is, and how it is printed; the same for terminal, Markdown, CSV and page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal

from clearn.metrics import Spread
from clearn.report.grouping import G

Kind = Literal["percent", "bytes", "count", "seconds", "ms", "rate", "error", "loss", "bits"]
EXACT = ("bytes", "count", "loss", "bits")  # kinds whose deviation is told only where there is one


@dataclass(frozen=True, eq=False)
class Column(Generic[G]):
    """One number per group.

    Attributes:
        key: full name, as in the CSV; the definition is part of it.
        title: as printed.
        part: the table it belongs to: "memory", "time", "accuracy", "error", ...
        kind: how the number is printed. Percentages are fractions until then.
        value: the number, over the finished runs of a group.
        note: what it is, in a sentence.
        readout: whose answers, or which post-processing, the number is of.
        better: an arrow, where one direction is better by itself.
        flag: what is wrong with a group's number, in a few words; empty where nothing is.
    """

    key: str
    title: str
    part: str
    kind: Kind
    value: Callable[[G], Spread | None]
    note: str
    readout: str | None = None
    better: str = ""
    flag: Callable[[G], str] = lambda _: ""


def bytes_text(size: float, like: float | None = None) -> str:
    """Print bytes in the largest binary unit that leaves at least 1, or in the unit of another size, left out then.

    Bytes of a few bits keep one decimal.

    >>> bytes_text(24_684_160), bytes_text(5000), bytes_text(12), bytes_text(1.5), bytes_text(5000, like=24_684_160)
    ('23.54 MiB', '4.9 KiB', '12 B', '1.5 B', '0.00')
    """
    measure = abs(size if like is None else like)
    units = (("GiB", 30, 2), ("MiB", 20, 2), ("KiB", 10, 1))
    few = ("B", 0, 0 if measure >= 100 or measure == int(measure) else 1)
    unit, power, digits = next((one for one in units if measure >= 2 ** one[1]), few)
    return f"{size / 2**power:,.{digits}f}" + (f" {unit}" if like is None else "")


def error_text(value: float, like: float | None = None) -> str:
    """Print a squared error in scientific notation with three digits, or with the exponent of another number.

    >>> error_text(0.0191312), error_text(0), error_text(0.00031, like=0.0191312)
    ('1.91e-2', '0', '0.03e-2')
    """
    measure = value if like is None else like
    if not value or not measure:
        return "0"
    power = int(f"{abs(measure):.2e}".rpartition("e")[2])
    return f"{value / 10.0**power:.2f}e{power}"


def digits_text(value: float) -> str:
    """Print a number with up to four digits, infinity as its sign.

    >>> digits_text(0.5), digits_text(2.31207), digits_text(48.361), digits_text(1234.5), digits_text(float("inf"))
    ('0.5', '2.312', '48.36', '1,234', '∞')
    """
    if value == float("inf"):
        return "∞"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def number_text(value: float, kind: Kind, like: float | None = None) -> str:
    """Print a number of a kind; fractions become percentages with one decimal, without their sign.

    Args:
        value: the number.
        kind: as the column says.
        like: another number, whose unit and decimals to use: for the deviation beside a mean.
    """
    if kind == "percent":
        return f"{100 * value:.1f}" if abs(value) >= 0.0005 else "0.0"
    if kind == "bytes":
        return bytes_text(value, like)
    if kind in ("seconds", "ms"):
        return f"{value:,.0f}" if (value if like is None else like) >= 100 else f"{value:.1f}"
    if kind == "error":
        return error_text(value, like)
    if kind in ("loss", "bits"):
        return digits_text(value)
    return f"{value:,.0f}"


def spread_text(found: Spread | None, kind: Kind) -> tuple[str, str]:
    """Print (mean, standard deviation); an empty deviation where there is none to tell.

    Bytes and counts that are the same in every run carry none, nor does a single run.
    """
    if found is None:
        return "", ""
    if found.std is None or (found.std == 0 and kind in EXACT):
        return number_text(found.mean, kind), ""
    return number_text(found.mean, kind), number_text(found.std, kind, like=found.mean)


def cell(found: Spread | None, kind: Kind) -> str:
    """Print mean ± standard deviation in plain text; a dash where there is no number."""
    mean, std = spread_text(found, kind)
    return f"{mean} ± {std}" if std else mean or "–"


def heads(found: Sequence[Column[G]]) -> list[str]:
    """Print column titles in plain text, with units, direction, and read-outs where there are several."""
    several = len({column.readout for column in found if column.readout}) > 1
    return [f"{column.readout} {head(column)}" if several and column.readout else head(column) for column in found]


def head(column: Column[G]) -> str:
    """Print a column's title with its unit and an arrow that points to better."""
    unit = {"percent": " %", "seconds": " s", "ms": " ms"}.get(column.kind, "")
    return column.title + (unit + column.better).replace(" ", "\N{NO-BREAK SPACE}")


def exact_text(found: Spread, kind: Kind) -> str:
    """Print a number with all its digits, for whoever points at it."""
    unit = {"bytes": " bytes", "seconds": " s", "ms": " ms"}.get(kind, "")
    if kind in ("error", "loss", "bits"):
        std = "" if found.std is None else f", sd {found.std:.9g}"
        return f"{found.mean:.9g}{std}, n = {found.n}"
    digits = 6 if kind == "percent" else 0 if kind in ("bytes", "count") else 3
    std = "" if found.std is None else f", sd {found.std:,.{digits}f}"
    return f"{found.mean:,.{digits}f}{unit}{std}, n = {found.n}"


def csv_text(value: float | None) -> str:
    """Print a number for a machine: whole ones without a point, others with all their digits."""
    if value is None:
        return ""
    return str(int(value)) if abs(value) != float("inf") and value == int(value) and abs(value) >= 2 else repr(value)
