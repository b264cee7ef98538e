"""Tables of categories from CSV files, plain or gzipped, with a header line: every cell becomes a code 0..k-1.

A column's codes follow the sorted order of its distinct cells, as text, or as numbers where all of them are whole
numbers. Spaces around a cell are no part of it; an empty cell or NaN is a mistake, since a user who holds no value
answers nothing.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from clearn.errors import ConfigError, DataError
from clearn.mistakes import nearest
from clearn.streams.places import root_folder

Array = np.ndarray[Any, np.dtype[Any]]
CHUNK = 2**14  # rows encoded at a time
MISSING = ("", "nan")

SOURCES = {  # file, and what it holds: shown where it is missing
    "adult": (
        "adult.csv",
        "the 9 categorical columns of UCI Adult (archive.ics.uci.edu/dataset/2), train and test joined, rows with '?' "
        "dropped, under a header line",
    ),
    "nursery": ("nursery.csv", "UCI Nursery (archive.ics.uci.edu/dataset/76) under a header line"),
    "ms_fimu": (
        "ms_fimu_marginals.csv",
        "columns attribute,code,label,count with the counts of OpenMSFIMU's personal table (github.com/hharcolezi/"
        "OpenMSFIMU)",
    ),
    "visits": (
        "ms_fimu_visits.csv",
        "a row a person and a column a day of OpenMSFIMU's relational table (github.com/hharcolezi/OpenMSFIMU)",
    ),
    "pwgtp": (
        "pwgtp_delaware.csv",
        "columns PWGTP1..PWGTP80 of the ACS PUMS 2018 person file of Delaware (census.gov)",
    ),
}


@dataclass(frozen=True, eq=False)
class Table:
    """Coded columns.

    Attributes:
        names: of the columns.
        values: (n, c) unsigned codes, in the smallest dtype that holds them all.
        labels: what each code means, per column; columns coded together have equal ones.
        checksums: name of the file -> SHA-256 of its text, unpacked.
    """

    names: tuple[str, ...]
    values: Array
    labels: tuple[tuple[str, ...], ...]
    checksums: dict[str, str]


def read(path: Path, columns: Sequence[str] | None = None, together: bool = False) -> Table:
    """Read and code columns of a CSV file.

    Args:
        path: of the file; `.gz` is unpacked.
        columns: which, in this order; None takes all.
        together: code all columns by the distinct cells of all of them: rounds of one attribute.

    Raises:
        DataError: no table of equally long rows under a header of different names, or a cell is empty or NaN.
        ConfigError: a column that is not there, or none at all.
    """
    text, checksums = _text(path)
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip() for name in next(rows, [])]
        places = _places(path, header, columns)
        names = tuple(header[place] for place in places)
        codings = [_Coding()] * len(places) if together else [_Coding() for _ in places]
        codes = _coded(_equally_long(rows, len(header), path), places, codings)
    except csv.Error as error:
        raise DataError(f"{path} line {rows.line_num} is no CSV ({error}): mend that line") from None
    if not len(codes):
        raise DataError(f"{path} has a header and no rows: give a line for each user")

    labels = []
    values = np.empty(codes.shape, np.min_scalar_type(max(map(len, codings)) - 1))
    for j, (name, coding) in enumerate(zip(names, codings, strict=True)):
        ordered, final = coding.finish()
        if any(label.lower() in MISSING for label in ordered):
            raise DataError(_missing(path, name, codes[:, j], coding))
        values[:, j] = final[codes[:, j]]
        labels.append(ordered)
    return Table(names, values, tuple(labels), checksums)


def marginals(path: Path, columns: Sequence[str] | None = None) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Read counts of values from a file with the columns attribute, code, label, count.

    Returns:
        attribute -> label -> count, labels in the order of codes; and checksums as in `Table`.

    Raises:
        DataError: other columns, codes that are not 0..k-1, or counts that sum to different numbers of users.
        ConfigError: an attribute that is not there.
    """
    text, checksums = _text(path)
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if rows.fieldnames != ["attribute", "code", "label", "count"]:
        raise DataError(f"{path} has columns {rows.fieldnames}; attribute,code,label,count are needed: mend its header")
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        attribute, code, label, count = row["attribute"], row["code"], row["label"], row["count"]
        labels = found.setdefault(attribute, {})
        if code != str(len(labels)) or label in labels or not (count or "").isdecimal():
            raise DataError(
                f"{path} line {rows.line_num} holds {attribute},{code},{label},{count}; code {len(labels)} with a new "
                "label and a whole count comes next: mend that line"
            )
        labels[label] = int(count)
    totals = {attribute: sum(counts.values()) for attribute, counts in found.items()}
    if len(set(totals.values())) != 1:
        raise DataError(f"{path} counts {totals} users; one number for all attributes is right: mend its counts")
    names = list(found)
    return {names[place]: found[names[place]] for place in _places(path, names, columns)}, checksums


def find(data: str, root: str | Path | None) -> Path:
    """Find one of `SOURCES` below the root, plain or gzipped, in the folder itself or in its folder `ldp`.

    Raises:
        DataError: what was looked for, where, and how to get it.
    """
    name, contents = SOURCES[data]
    folders = [root_folder(root), root_folder(root) / "ldp"]
    for folder in folders:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise DataError(
        f"data={data} was not found: looked for {name} and {name}.gz in {' and '.join(map(str, folders))}; it holds "
        f"{contents}: put it there, or set root (or CLEARN_DATA) to its folder"
    )


def find_own(file: str, root: str | Path | None) -> Path:
    """Find a user's file as given, or below the root.

    Raises:
        DataError: it is in neither place.
    """
    places = [Path(file).expanduser(), root_folder(root) / file]
    for path in places:
        if path.is_file():
            return path
    where = ", ".join(dict.fromkeys(str(path.absolute()) for path in places))
    raise DataError(f"data=csv: file={file!r} was not found: looked for {where}; give the path of your file")


class _Coding(dict[str, int]):
    """Distinct cells numbered as they come."""

    def __missing__(self, cell: str) -> int:
        self[cell] = code = len(self)
        return code

    def finish(self) -> tuple[tuple[str, ...], Array]:
        """Labels in their final order, and (distinct,) final codes of the provisional ones."""
        labels = {cell.strip() for cell in self}
        whole = all(label.removeprefix("-").isdecimal() for label in labels)
        ordered = sorted(labels, key=lambda label: (int(label) if whole else 0, label))
        final = {label: code for code, label in enumerate(ordered)}
        return tuple(ordered), np.array([final[cell.strip()] for cell in self])


def _coded(rows: Iterator[list[str]], places: Sequence[int], codings: Sequence[_Coding]) -> Array:
    """(n, c) provisional codes."""
    chunks = [np.empty((0, len(places)), np.uint32)]
    while chunk := list(islice(rows, CHUNK)):
        cells = list(zip(*chunk, strict=True))
        columns = [
            np.fromiter(map(coding.__getitem__, cells[place]), np.uint32, len(chunk))
            for place, coding in zip(places, codings, strict=True)
        ]
        chunks.append(np.stack(columns, axis=1))
    return np.concatenate(chunks)


def _equally_long(rows: Any, width: int, path: Path) -> Iterator[list[str]]:
    for row in rows:
        if len(row) != width:
            raise DataError(
                f"{path} line {rows.line_num} has {len(row)} cells, the header {width}: mend that line"
                + (", or remove it if it is empty" if not row else "")
            )
        yield row


def _places(path: Path, header: list[str], columns: Sequence[str] | None) -> list[int]:
    """Where the wanted columns stand."""
    if not any(header):
        raise DataError(f"{path} is empty: a header line with the names of columns is needed")
    if len(set(header)) < len(header) or not all(header):
        wrong = sorted({name for name in header if header.count(name) > 1 or not name})
        raise DataError(f"{path} has columns called {wrong} twice or without a name: give each a name of its own")
    if columns is None:
        return list(range(len(header)))
    if not columns or len(set(columns)) < len(columns):
        raise ConfigError(f"columns={list(columns)} must name at least one column of {path}, each once")
    for name in columns:
        if name not in header:
            hint = nearest(name, header) or f"its columns are {', '.join(header[:20])}"
            raise ConfigError(f"column {name!r} is not in {path}: {hint}")
    return [header.index(name) for name in columns]


def _missing(path: Path, name: str, codes: Array, coding: _Coding) -> str:
    """Say where the first empty cell of a column stands."""
    gaps = [code for cell, code in coding.items() if cell.strip().lower() in MISSING]
    row = int(np.isin(codes, gaps).argmax())
    return (
        f"{path} column {name!r} has no value in row {row + 1} below the header: drop that user, fill the gap, or "
        "write a word of its own such as 'unknown'"
    )


def _text(path: Path) -> tuple[str, dict[str, str]]:
    """The text of a file, and the checksum of its bytes, unpacked."""
    content = path.read_bytes()
    try:
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked ({error}): it is damaged; copy the file afresh") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    return text, {path.name.removesuffix(".gz"): hashlib.sha256(content).hexdigest()}
