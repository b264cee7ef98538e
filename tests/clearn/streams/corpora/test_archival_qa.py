from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clearn.errors import DataError
from clearn.streams.corpora import Loaded, Options, load

YEARS = {"10": 1988, "11": 1993, "12": 2001, "13": 2002, "14": 2003, "15": 2004, "16": 2007, "17": 2008}
ARTICLES: list[dict[str, Any]] = [
    {"doc_id": id_, "title": f"Title {id_}", "date": f"{year}-7-4", "text": [f"{id_} zero.", f"{id_} one."]}
    for id_, year in YEARS.items()
]
ASKED = [(f"q{id_}?", "lower case", f"{id_}_1") for id_ in YEARS]
OPTIONS = Options("archival_qa")


def table(path: Path, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "archival_qa").mkdir()
    return tmp_path / "archival_qa"


def read(folder: Path, asked: list[Any] = ASKED, articles: list[Any] = ARTICLES, options: Options = OPTIONS) -> Loaded:
    table(folder / "ArchivalQA_val.csv", ("question", "answer", "para_id"), asked)
    (folder / "articles.jsonl").write_text("".join(json.dumps(one) + "\n" for one in articles))
    return load(replace(options, root=str(folder.parent)))


def ids(loaded: Loaded) -> dict[str, list[str]]:
    return {name: [d.id for d in getattr(loaded, name).documents] for name in ("train", "val", "test")}


def test_rows_go_by_the_year_of_their_article(folder: Path) -> None:
    loaded = read(folder)
    assert ids(loaded) == {"train": ["11_1", "12_1"], "val": ["13_1", "14_1"], "test": ["15_1", "16_1"]}
    assert loaded.about["years_left_out"] == 2


def test_a_row_becomes_its_paragraph_and_the_answer_begins_upper_case(folder: Path) -> None:
    test = read(folder, [*ASKED, (" more? ", " 42", "15_0"), ("again?", "iPod", "15_1")]).test
    document = test.documents[0]
    assert (document.text, document.timestamp, document.entity) == ("15 one.", "2004-07-04", "15")
    assert [question.answer for question in test.questions] == ["Lower case", "Lower case", "42", "IPod"]
    assert test.questions[2].text == "more?"
    assert [question.document for question in test.questions] == ["15_1", "16_1", "15_0", "15_1"]


def test_an_article_s_paragraphs_keep_their_order_when_shuffled(folder: Path) -> None:
    groups = read(folder, [*ASKED, ("q?", "x", "15_0")]).groups
    assert groups["15_0"] == ("15", 0)
    assert groups["15_1"] == ("15", 1)


def test_an_article_can_be_the_document(folder: Path) -> None:
    loaded = read(folder, [*ASKED, ("q?", "x", "15_0")], options=replace(OPTIONS, passage="article"))
    assert ids(loaded)["test"] == ["15", "16"]
    assert loaded.test.documents[0].text == "15 zero.\n15 one."
    assert len(loaded.test.questions) == 3
    assert loaded.about["passage"] == "article"


@pytest.mark.parametrize("kind", ["json", "csv as JSON", "csv as Python"])
def test_articles_may_come_in_other_files(folder: Path, kind: str) -> None:
    plain = read(folder)
    (folder / "articles.jsonl").unlink()
    if kind == "json":
        (folder / "articles.json").write_text(json.dumps(ARTICLES))
    else:
        write = json.dumps if kind == "csv as JSON" else repr
        rows = [(one["doc_id"], one["date"], write(one["text"])) for one in ARTICLES]
        table(folder / "articles.csv", ("doc_id", "date", "text"), rows)
    other = load(replace(OPTIONS, root=str(folder.parent)))
    assert (other.train, other.val, other.test) == (plain.train, plain.val, plain.test)


def test_joined_tables_are_read_as_they_are(folder: Path) -> None:
    header = ("question", "answer", "para_id", "date", "ans_paragraph", "ans_text")
    for split, id_ in (("train", "1"), ("val", "2"), ("test", "3")):
        rows = [(f"q{n}?", "x", f"{id_}_{n}", "2005-01-02", f"P{id_}{n}", f"A{id_}") for n in range(2)]
        table(folder / f"{split}.csv", header, rows)
    loaded = load(replace(OPTIONS, root=str(folder.parent)))
    assert ids(loaded) == {"train": ["1_0", "1_1"], "val": ["2_0", "2_1"], "test": ["3_0", "3_1"]}
    assert loaded.test.documents[1].text == "P31"
    whole = load(replace(OPTIONS, root=str(folder.parent), passage="article"))
    assert [(d.id, d.text) for d in whole.test.documents] == [("3", "A3")]
    table(folder / "test.csv", header[:-1], [])
    with pytest.raises(DataError, match=r"test\.csv has no column 'ans_text'"):
        load(replace(OPTIONS, root=str(folder.parent), passage="article"))


def test_questions_without_their_text_are_counted(folder: Path) -> None:
    bad = [("q?", "x", "99_0"), ("q?", "x", "15_7"), ("q?", "", "15_0"), ("q?", "x", "18_0"), ("q?", "x", "19_1")]
    hollow = [
        {"doc_id": "18", "date": "2005-1-1", "text": None},
        {"doc_id": "19", "date": "2005-1-1", "text": ["x", None]},
    ]
    refused = read(folder, [*ASKED, *bad], [*ARTICLES, *hollow]).about["read"]["test"]["refused"]
    assert refused == {"no answer": 1, "no article": 1, "no such paragraph": 2, "no text": 1}


@pytest.mark.parametrize("para_id", ["", "15", "15_", "_1", "15_x", "15_-1"])
def test_an_odd_place_is_named(folder: Path, para_id: str) -> None:
    with pytest.raises(DataError, match=r"ArchivalQA_val\.csv line 10 has para_id=.*ARTICLE_NUMBER such as 1234_5"):
        read(folder, [*ASKED, ("q?", "x", para_id)])


@pytest.mark.parametrize(
    ("article", "message"),
    [
        ({"date": "4 July 2005"}, "a date YEAR-month-day is needed"),
        ({"text": "plain words"}, "has text='plain words', and a list of paragraphs is needed"),
        ({"text": '{"a": 1}'}, r"has text=\{'a': 1\}, and a list is needed"),
        ({"text": [["x"]]}, r"has text=\['x'\], and text is needed"),
    ],
)
def test_an_odd_article_is_named(folder: Path, article: dict[str, Any], message: str) -> None:
    odd = {"doc_id": "99", "date": "2005-1-1", "text": ["x"], **article}
    with pytest.raises(DataError, match=message):
        read(folder, [*ASKED, ("q?", "x", "99_0")], [*ARTICLES, odd])
    read(folder, ASKED, [*ARTICLES, odd])  # of articles nobody asks about, nothing is wanted


def test_an_article_with_two_texts_is_a_mistake(folder: Path) -> None:
    read(folder, ASKED, [*ARTICLES, ARTICLES[1]])
    with pytest.raises(DataError, match=r"articles\.jsonl line 9: article '11' has another text or date"):
        read(folder, ASKED, [*ARTICLES, {**ARTICLES[1], "date": "1994-1-1"}])


def test_missing_files_are_named(folder: Path) -> None:
    wanted = r"looked for ArchivalQA_val\.csv, articles\.jsonl .*LDC2008T19.*put it there"
    with pytest.raises(DataError, match=wanted):
        load(replace(OPTIONS, root=str(folder.parent)))
    (folder / "train.csv").write_text("x\n")
    with pytest.raises(DataError, match=r"looked for val\.csv, test\.csv \("):
        load(replace(OPTIONS, root=str(folder.parent)))
