"""StreamingQA (Liska et al. 2022): questions about news, as derived tables or as released.

Either train.csv, val.csv and test.csv with text, question and answers (alternatives joined by a backslash), as CaMeLS
and MAC use it; or the released train, valid and eval files of JSON lines, with the articles beside them in
articles.jsonl (evidence_id and text), because the news of WMT may not be passed on with the questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clearn.errors import DataError
from clearn.streams.corpora.files import Source, existing, folder_of, listed, needed, text
from clearn.streams.corpora.record import SPLITS, Loaded, Options, Refused, Row, gathered, shortest

ARTICLES = "articles.jsonl"
RELEASED = {"train": "train", "val": "valid", "test": "eval"}
CONTENTS = (
    "a row of them has text, question and answers joined by a backslash; or give the released JSON lines as "
    "train.jsonl, val.jsonl and test.jsonl (github.com/google-deepmind/streamingqa), and articles.jsonl with "
    "evidence_id and text of the WMT news articles they are about"
)


def load(options: Options) -> Loaded:
    """Read ROOT/streaming_qa."""
    folder, source = folder_of(options.name, options.root), Source()
    released = {split: _released(folder, split) for split in SPLITS}
    if any(existing(folder / f"{split}.csv") for split in SPLITS) or not any(released.values()):
        paths = needed(options.name, folder, [f"{split}.csv" for split in SPLITS], CONTENTS)
        rows = {split: _derived(source, paths[f"{split}.csv"]) for split in SPLITS}
        return gathered(options.name, rows, source.checksums)
    names = [f"{split}.jsonl" for split in SPLITS if released[split] is None]
    paths = needed(options.name, folder, [*names, ARTICLES], CONTENTS)
    asked = {split: list(source.objects(path)) for split, path in released.items() if path is not None}
    wanted = {text(row, "evidence_id", where) for rows in asked.values() for where, row in rows}
    articles = _articles(source, paths[ARTICLES], wanted)
    return gathered(options.name, {s: _joined(asked[s], articles) for s in SPLITS}, source.checksums)


def _derived(source: Source, path: Path) -> Iterator[Row]:
    for where, row in source.table(path, ("text", "question", "answers")):
        yield Row(where, row["text"], row["question"], shortest(row["answers"].split("\\")))


def _released(folder: Path, split: str) -> Path | None:
    """The file of a split as we call it or as it was released (under either spelling)."""
    names = (split, f"streamingqa_{RELEASED[split]}", f"streaminqa_{RELEASED[split]}")
    return next((path for name in names if (path := existing(folder / f"{name}.jsonl"))), None)


def _articles(source: Source, path: Path, wanted: set[str]) -> dict[str, str]:
    """Texts by evidence id; of a corpus that is larger than memory, those that are asked about."""
    found: dict[str, str] = {}
    for where, row in source.objects(path):
        id_ = text(row, "evidence_id", where)
        if id_ in wanted and found.setdefault(id_, text(row, "text", where)) != row["text"]:
            raise DataError(f"{where}: article {id_!r} has another text than it had before: keep one of them")
    return found


def _joined(rows: list[tuple[str, dict[str, Any]]], articles: dict[str, str]) -> Iterator[Row | Refused]:
    for where, row in rows:
        id_ = text(row, "evidence_id", where)
        if id_ not in articles:
            yield Refused("no article")
            continue
        answers = [text({"answers": one}, "answers", where) for one in listed(row.get("answers"), where, "answers")]
        stamp = _day(row.get("evidence_ts"), where)
        yield Row(where, articles[id_], text(row, "question", where), shortest(answers), id=id_, timestamp=stamp)


def _day(seconds: Any, where: str) -> str:
    """The day of a time in seconds since 1970, in UTC; "" where none is given."""
    if seconds is None:
        return ""
    try:
        return datetime.fromtimestamp(float(seconds), UTC).date().isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        raise DataError(f"{where} has evidence_ts={seconds!r}, and seconds since 1970 are needed: mend it") from None
