"""Files of a corpus: found or asked for, read line by line, plain or gzipped, and checked as they are read."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clearn.errors import DataError
from clearn.mistakes import show
from clearn.streams.places import root_folder


def folder_of(name: str, root: str | None) -> Path:
    """Where a named corpus lies: ROOT/NAME."""
    return root_folder(root) / name


def existing(path: Path) -> Path | None:
    """The file as named or with .gz, or None."""
    return next((one for one in (path, path.with_name(path.name + ".gz")) if one.is_file()), None)


def needed(data: str, folder: Path, names: Sequence[str], contents: str) -> dict[str, Path]:
    """Find files in a folder, plain or gzipped.

    Raises:
        DataError: what was looked for, where, and how to get it.
    """
    found = {name: existing(folder / name) for name in names}
    if missing := [name for name, path in found.items() if path is None]:
        raise DataError(
            f"data={data} was not found: looked for {', '.join(missing)} (or .gz) in {folder}; {contents}: put it "
            "there, or set root (or CLEARN_DATA) to the folder above"
        )
    return {name: path for name, path in found.items() if path is not None}


class Source:
    """Reads files and keeps the SHA-256 of each, unpacked, under its name, once it was read to its end."""

    def __init__(self) -> None:
        self.checksums: dict[str, str] = {}

    def lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """Lines with their numbers from 1, line ends kept.

        Raises:
            DataError: the file cannot be read or unpacked, or is no UTF-8.
        """
        digest, number = hashlib.sha256(), 0
        try:
            with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
                for number, line in enumerate(file, 1):
                    digest.update(line)
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{path} line {number} is not UTF-8 text: save it as UTF-8") from None
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(
                f"{path} cannot be read to its end ({error}): it is damaged or closed to you; copy the file afresh"
            ) from None
        self.checksums[path.name.removesuffix(".gz")] = digest.hexdigest()

    def document(self, path: Path) -> Any:
        """The value of a JSON file."""
        text = "".join(line for _, line in self.lines(path))
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path} line {error.lineno} is no JSON ({error.msg}): mend that line") from None
        except RecursionError:
            raise DataError(
                f"{path} is no JSON that can be read: it is nested too deeply; copy the file afresh"
            ) from None

    def objects(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """JSON objects of a file with one a line, each with its place for messages; empty lines are skipped."""
        for number, line in self.lines(path):
            where = f"{path} line {number}"
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{where} is no JSON ({error.msg}): mend that line") from None
            except RecursionError:
                raise DataError(
                    f"{where} is no JSON that can be read: it is nested too deeply; mend that line"
                ) from None
            yield where, mapping(value, where)

    def table(self, path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """Rows of a CSV file that has at least these columns, each with its place for messages.

        Raises:
            DataError: a column is missing, or a row is longer or shorter than the header.
        """
        rows = csv.reader((line for _, line in self.lines(path)), strict=True)
        try:
            with _long_cells():
                header = next(rows, [])
            if missing := [name for name in columns if name not in header]:
                raise DataError(
                    f"{path} has no column {missing[0]!r}: got {', '.join(header) or 'nothing'}, and "
                    f"{', '.join(columns)} are needed; mend its first line"
                )
            while True:
                with _long_cells():
                    row = next(rows, None)
                if row is None:
                    return
                where = f"{path} line {rows.line_num}"
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(f"{where} has {len(row)} cells, the header {len(header)}: mend that line")
                yield where, dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise DataError(f"{path} line {rows.line_num} is no CSV ({error}): mend that line") from None


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let a cell hold a whole article; the limit belongs to all of the process, so it is put back."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def mapping(value: Any, where: str) -> dict[str, Any]:
    """A JSON object, or a mistake that names its place."""
    if not isinstance(value, dict):
        raise DataError(f"{where} holds {show(value)}, and an object {{...}} is needed: mend it")
    return value


def listed(value: Any, where: str, name: str) -> list[Any]:
    """A JSON list under a name, or a mistake that names its place."""
    if not isinstance(value, list):
        raise DataError(f"{where} has {name}={show(value)}, and a list is needed: mend it")
    return value


def text(row: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    """A field that holds text; whole numbers are taken as they are written.

    Args:
        row: a JSON object.
        name: of the field.
        where: file and line.
        default: where the field is missing or null; None refuses that.
    """
    value = row.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        got = f"has {name}={show(value)}" if name in row else f"has no field {name!r} beside {', '.join(row) or 'none'}"
        raise DataError(f"{where} {got}, and text is needed: mend that row")
    return value
