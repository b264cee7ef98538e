"""ArchivalQA (Wang et al. 2022): questions about paragraphs of the New York Times, joined with its corpus.

Either train.csv, val.csv and test.csv, joined already as CaMeLS writes them (question, answer, para_id, date,
ans_paragraph, ans_text); or ArchivalQA_val.csv as released (question, answer, para_id) and articles.jsonl,
articles.json or articles.csv made of the licensed corpus LDC2008T19: doc_id, date (YEAR-month-day) and text, the list
of its paragraphs. The released rows are split by year: 1993 to 2001 train, 2002 to 2003 val, 2004 to 2007 test; years
before are for tuning a base model, which we do not.

A document is the answer's paragraph, called as in para_id, or with `passage: article` its article, called by doc_id.
Its entity is the article; shuffling keeps an article's paragraphs together and in order.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearn.errors import DataError
from clearn.mistakes import show
from clearn.streams.corpora.files import Source, existing, folder_of, listed, mapping, needed, text
from clearn.streams.corpora.record import SPLITS, Loaded, Options, Passage, Refused, Row, capitalised, gathered

QUESTIONS = "ArchivalQA_val.csv"
ARTICLES = ("articles.jsonl", "articles.json", "articles.csv")
YEARS = {"train": range(1993, 2002), "val": range(2002, 2004), "test": range(2004, 2008)}
CONTENTS = (
    "the questions come from github.com/WangJiexin/ArchivalQA, the articles (doc_id, date, text as a list of "
    "paragraphs) from the New York Times Annotated Corpus, LDC2008T19; train.csv, val.csv and test.csv with both "
    "joined (question, answer, para_id, date, ans_paragraph) do as well"
)


@dataclass(frozen=True)
class Article:
    """An article of the corpus.

    Attributes:
        date: YEAR-month-day.
        paragraphs: of its text.
    """

    date: str
    paragraphs: tuple[str, ...]


def load(options: Options) -> Loaded:
    """Read ROOT/archival_qa."""
    folder, source = folder_of(options.name, options.root), Source()
    if any(existing(folder / f"{split}.csv") for split in SPLITS):
        paths = needed(options.name, folder, [f"{split}.csv" for split in SPLITS], CONTENTS)
        rows = {split: _ready(source, paths[f"{split}.csv"], options.passage) for split in SPLITS}
        loaded = gathered(options.name, rows, source.checksums)
    else:
        corpus = next((name for name in ARTICLES if existing(folder / name)), ARTICLES[0])
        paths = needed(options.name, folder, (QUESTIONS, corpus), CONTENTS)
        asked = list(source.table(paths[QUESTIONS], ("question", "answer", "para_id")))
        wanted = {_place(row["para_id"], where)[0] for where, row in asked}
        years = _by_year(asked, _articles(source, paths[corpus], wanted), options.passage)
        loaded = gathered(options.name, {split: years[split] for split in SPLITS}, source.checksums)
        loaded.about["years_left_out"] = len(years["other"])
    loaded.about["passage"] = options.passage
    return loaded


def _ready(source: Source, path: Path, passage: Passage) -> Iterator[Row]:
    """Rows of a table that holds the text already."""
    column = "ans_paragraph" if passage == "paragraph" else "ans_text"
    for where, row in source.table(path, ("question", "answer", "para_id", "date", column)):
        yield _row(where, row, row[column], row["date"], passage)


def _by_year(
    asked: list[tuple[str, dict[str, str]]], articles: dict[str, Article], passage: Passage
) -> dict[str, list[Row | Refused]]:
    """Rows by split, and as "other" those of years before and after; a row without a text counts as one of test."""
    found: dict[str, list[Row | Refused]] = {**{split: [] for split in YEARS}, "other": []}
    for where, row in asked:
        doc, number = _place(row["para_id"], where)
        article = articles.get(doc)
        if article is None:
            found["test"].append(Refused("no article"))
            continue
        year = _year(article.date, where)
        split = next((split for split, years in YEARS.items() if year in years), "other")
        if number >= len(article.paragraphs):
            found[split].append(Refused("no such paragraph"))
            continue
        words = article.paragraphs[number] if passage == "paragraph" else "\n".join(article.paragraphs)
        found[split].append(_row(where, row, words, article.date, passage))
    return found


def _row(where: str, row: dict[str, str], words: str, date: str, passage: Passage) -> Row:
    doc, number = _place(row["para_id"], where)
    return Row(
        where,
        words,
        row["question"],
        capitalised(row["answer"].strip()),
        id=row["para_id"] if passage == "paragraph" else doc,
        entity=doc,
        timestamp="-".join(part.zfill(2) for part in date.split("-")) if date else "",
        group=doc,
        place=number,
    )


def _place(para_id: str, where: str) -> tuple[str, int]:
    """Article and number of a paragraph, from "1234_5"."""
    doc, _, number = para_id.partition("_")
    if not doc or not number.isdecimal():
        raise DataError(f"{where} has para_id={show(para_id)}, and ARTICLE_NUMBER such as 1234_5 is needed: mend it")
    return doc, int(number)


def _year(date: str, where: str) -> int:
    year = date.split("-")[0]
    if not year.isdecimal():
        raise DataError(f"{where} is about an article of {show(date)}, and a date YEAR-month-day is needed: mend it")
    return int(year)


def _articles(source: Source, path: Path, wanted: set[str]) -> dict[str, Article]:
    """Articles by id; of a corpus that is larger than memory, those that are asked about."""
    found: dict[str, Article] = {}
    for where, row in _objects(source, path):
        id_ = text(row, "doc_id", where)
        if id_ not in wanted:
            continue
        article = Article(text(row, "date", where, ""), _paragraphs(row.get("text"), where))
        if found.setdefault(id_, article) != article:
            raise DataError(f"{where}: article {id_!r} has another text or date than before: keep one of them")
    return found


def _objects(source: Source, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[1]
    if kind == "jsonl":
        yield from source.objects(path)
    elif kind == "csv":
        yield from source.table(path, ("doc_id", "date", "text"))
    else:
        for number, value in enumerate(listed(source.document(path), str(path), "its content")):
            yield f"{path}[{number}]", mapping(value, f"{path}[{number}]")


def _paragraphs(value: Any, where: str) -> tuple[str, ...]:
    """Paragraphs from a list, or from the text of one as JSON or Python writes it; null is an article without any.

    An empty paragraph may stand as null: numbers of the others count it.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else None
        except json.JSONDecodeError:
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                raise DataError(
                    f"{where} has text={show(value)}, and a list of paragraphs is needed: write it as JSON"
                ) from None
    if value is None:
        return ()
    return tuple(text({"text": one}, "text", where, "") for one in listed(value, where, "text"))
