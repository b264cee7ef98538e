from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from clearn.errors import DataError
from clearn.streams.corpora import Loaded, Options, load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "streaming_qa").mkdir()
    return tmp_path / "streaming_qa"


def table(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("text", "question", "answers")) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def derived(folder: Path, *test: tuple[str, ...]) -> Loaded:
    table(folder / "train.csv", [(f"Train {n}.", f"t{n}?", "x") for n in range(3)])
    table(folder / "val.csv", [("Val.", "v?", "x")])
    table(folder / "test.csv", list(test))
    return load(Options("streaming_qa", str(folder.parent)))


def released(folder: Path, names: dict[str, str], rows: dict[str, list[dict[str, Any]]], articles: list[Any]) -> Loaded:
    for split, name in names.items():
        content = "".join(json.dumps(row) + "\n" for row in rows[split])
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    (folder / "articles.jsonl").write_text("".join(json.dumps(one) + "\n" for one in articles))
    return load(Options("streaming_qa", str(folder.parent)))


def asked(id_: str, *answers: str, **more: Any) -> dict[str, Any]:
    row = {"qa_id": f"q-{id_}", "question": f" What of {id_}? ", "answers": list(answers), "evidence_id": id_}
    return {**row, "evidence_ts": 1546387200.0, "recent_or_past": "recent", **more}


OURS = {"train": "train", "val": "val", "test": "test"}
ROWS = {"train": [asked("a", "1")], "val": [asked("b", "2")], "test": [asked("c", "long one", "two", "six")]}
ARTICLES = [{"evidence_id": id_, "text": f"News {id_}."} for id_ in "abcd"]


def test_the_shortest_alternative_counts_and_the_first_of_equals(folder: Path) -> None:
    loaded = derived(
        folder,
        ("One.", " q1? ", "CCC\\BB"),
        ("Two.", "q2?", "the long one\\two \\six"),
        ("Three.", "q3?", "abc\\xyz"),
        ("Four.", "q4?", "only"),
    )
    assert [question.answer for question in loaded.test.questions] == ["BB", "six", "abc", "only"]
    assert loaded.about["read"]["test"]["refused"] == {}
    assert loaded.test.questions[0].text == "q1?"


def test_ten_rows_of_all_sorts(folder: Path) -> None:
    long_text, long_question = "word " * 2_000, "why " * 200
    loaded = derived(
        folder,
        ('One, with "quotes"\nand two lines.', "q1?", "CCC\\BB"),
        ("Two.", "q2?", "lower case"),
        ("Two.", "q3?", "other"),
        (long_text, "q4?", "x"),
        ("Five.", long_question, "x"),
        ("Six.", "q6?", ""),
        ("", "q7?", "x"),
        ("Eight.", "", "x"),
        ("Nine.", "q9?", "The"),
        ("Ten.", "q10?", "x\\"),
        ("Eleven.", "q11?", "A\\BB"),  # the shortest counts, and this one cannot be scored
    )
    texts = [document.text for document in loaded.test.documents]
    assert texts == ['One, with "quotes"\nand two lines.', "Two.", long_text, "Five."]
    assert [question.answer for question in loaded.test.questions] == ["BB", "lower case", "other", "x", "x"]
    assert loaded.about["read"]["test"]["refused"] == {"no answer": 4, "no question": 1, "no text": 1}
    assert set(loaded.about["checksums"]) == {"train.csv", "val.csv", "test.csv"}


def test_a_cell_may_hold_a_whole_article_and_the_limit_of_csv_is_put_back(folder: Path) -> None:
    before = csv.field_size_limit()
    assert len(derived(folder, ("x" * (before + 1), "q?", "x")).test.documents[0].text) == before + 1
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    "names",
    [
        OURS,
        {"train": "streaminqa_train", "val": "streaminqa_valid", "test": "streaminqa_eval"},
        {"train": "streamingqa_train", "val": "streamingqa_valid", "test": "streamingqa_eval"},
    ],
    ids=lambda names: names["test"],
)
def test_the_release_is_joined_with_its_articles(folder: Path, names: dict[str, str]) -> None:
    loaded = released(folder, names, ROWS, ARTICLES)
    (document,), (question,) = loaded.test.documents, loaded.test.questions
    assert (document.id, document.text, document.timestamp) == ("c", "News c.", "2019-01-02")
    assert (question.text, question.answer, question.document) == ("What of c?", "two", "c")
    assert {document.id for split in (loaded.train, loaded.val) for document in split.documents} == {"a", "b"}
    assert set(loaded.about["checksums"]) == {"articles.jsonl", *(f"{name}.jsonl" for name in names.values())}


def test_questions_without_an_article_are_counted(folder: Path) -> None:
    rows = {**ROWS, "test": [*ROWS["test"], asked("zzz", "x")]}
    assert released(folder, OURS, rows, ARTICLES).about["read"]["test"]["refused"] == {"no article": 1}
    with pytest.raises(DataError, match=r"the test split has no row that can be used, of 2 .no article: 2"):
        released(folder, OURS, rows, ARTICLES[:2])


def test_an_article_with_two_texts_is_a_mistake(folder: Path) -> None:
    released(folder, OURS, ROWS, [*ARTICLES, ARTICLES[0]])
    with pytest.raises(DataError, match=r"articles\.jsonl line 5: article 'a' has another text"):
        released(folder, OURS, ROWS, [*ARTICLES, {"evidence_id": "a", "text": "Else."}])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"answers": "x"}, r"line 1 has answers='x', and a list is needed"),
        ({"answers": [{}]}, r"line 1 has answers=\{\}, and text is needed"),
        ({"evidence_ts": "soon"}, r"line 1 has evidence_ts='soon', and seconds since 1970 are needed"),
        ({"evidence_ts": 1e300}, r"line 1 has evidence_ts=1e\+300, and seconds"),
        ({"evidence_id": None}, r"line 1 has evidence_id=null, and text is needed"),
    ],
)
def test_a_broken_row_of_the_release_is_named(folder: Path, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"test\.jsonl\.gz {message}"):
        released(folder, OURS, {**ROWS, "test": [asked("c", "x", **bad)]}, ARTICLES)


def test_a_row_of_the_release_without_answers_is_refused(folder: Path) -> None:
    rows = {**ROWS, "test": [*ROWS["test"], asked("d")]}
    assert released(folder, OURS, rows, ARTICLES).about["read"]["test"]["refused"] == {"no answer": 1}


def test_missing_columns_and_uneven_rows_are_named(folder: Path) -> None:
    derived(folder, ("One.", "q?", "x"))
    table(folder / "val.csv", [("Val.", "v?")], ("text", "question"))
    with pytest.raises(DataError, match=r"val\.csv has no column 'answers': got text, question, and text, question, "):
        load(Options("streaming_qa", str(folder.parent)))
    table(folder / "val.csv", [("Val.", "v?", "x"), ("Val.", "v?")])
    with pytest.raises(DataError, match=r"val\.csv line 3 has 2 cells, the header 3: mend that line"):
        load(Options("streaming_qa", str(folder.parent)))
    (folder / "val.csv").write_text('text,question,answers\n"Val.,v?,x\n')
    with pytest.raises(DataError, match=r"val\.csv line 2 is no CSV .*mend that line"):
        load(Options("streaming_qa", str(folder.parent)))
    (folder / "val.csv").write_text("")
    with pytest.raises(DataError, match=r"val\.csv has no column 'text': got nothing"):
        load(Options("streaming_qa", str(folder.parent)))


def test_missing_files_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"looked for train\.csv, val\.csv, test\.csv .*articles\.jsonl.*put it there"):
        load(Options("streaming_qa", str(folder.parent)))
    (folder / "train.csv").write_text("text,question,answers\n")
    with pytest.raises(DataError, match=r"looked for val\.csv, test\.csv \("):
        load(Options("streaming_qa", str(folder.parent)))
    (folder / "train.csv").rename(folder / "train.jsonl")
    with pytest.raises(DataError, match=r"looked for val\.jsonl, test\.jsonl, articles\.jsonl \("):
        load(Options("streaming_qa", str(folder.parent)))
