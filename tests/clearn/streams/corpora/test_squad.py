from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clearn.errors import ConfigError, DataError
from clearn.streams.corpora import Loaded, Options, load

Asked = tuple[str, list[str]]


def article(title: str, *paragraphs: tuple[str, list[Asked]]) -> dict[str, Any]:
    return {
        "title": title,
        "paragraphs": [
            {
                "context": context,
                "qas": [
                    {"id": f"{context}{q}", "question": q, "answers": [{"text": a, "answer_start": 0} for a in answers]}
                    for q, answers in qas
                ],
            }
            for context, qas in paragraphs
        ],
    }


TRAIN = [
    article(f"T{n}", (f"Context {n}a.", [(f"q{n}?", ["x"])]), (f"Context {n}b.", [(f"r{n}?", ["y"])])) for n in range(5)
]
DEV = [
    article(
        "Normans",
        ("One.", [(" q1? ", ["the long one", "new York ", "New York"]), ("q2?", ["1990s"])]),
        ("Two.", [("q3?", ["in", "at"]), ("q4?", [])]),
        ("One.", [("q5?", ["again"])]),
    ),
    article(
        "Rhine", ("Three " * 400, [("why " * 200, ["x"])]), ("Four.", [("q7?", ["The."])]), ("Five.", [("q8?", ["éa"])])
    ),
]
OPTIONS = Options("squad", train_rows=(2, 6), val_rows=(6, 10))


def read(folder: Path, train: Any = TRAIN, dev: Any = DEV, options: Options = OPTIONS) -> Loaded:
    (folder / "squad").mkdir(exist_ok=True)
    for name, data in (("train", train), ("dev", dev)):
        (folder / "squad" / f"{name}-v1.1.json").write_text(json.dumps({"version": "1.1", "data": data}))
    return load(replace(options, root=str(folder)))


def test_ten_rows_of_all_sorts(tmp_path: Path) -> None:
    test = read(tmp_path).test
    assert [document.id for document in test.documents] == ["Normans/0", "Normans/1", "Rhine/0", "Rhine/2"]
    assert [document.entity for document in test.documents] == ["Normans", "Normans", "Rhine", "Rhine"]
    # shortest by characters as written, first of equals, stripped, first letter upper-cased
    assert [question.answer for question in test.questions] == ["New York", "1990s", "In", "Again", "X", "Éa"]
    assert [question.document for question in test.questions] == [
        *("Normans/0", "Normans/0", "Normans/1", "Normans/0", "Rhine/0", "Rhine/2")
    ]
    assert test.questions[0].text == "q1?"


def test_what_is_refused_and_merged_is_counted(tmp_path: Path) -> None:
    about = read(tmp_path).about
    assert about["read"]["test"]["refused"] == {"no answer": 2}
    assert about["read"]["test"]["merged"] == 1
    assert about["train_rows"] == [2, 6]
    json.dumps(about)


def test_ranges_count_questions_in_file_order(tmp_path: Path) -> None:
    loaded = read(tmp_path)
    assert [question.text for question in loaded.train.questions] == ["q1?", "r1?", "q2?", "r2?"]
    assert [question.text for question in loaded.val.questions] == ["q3?", "r3?", "q4?", "r4?"]


def test_titles_stay_together_when_shuffled(tmp_path: Path) -> None:
    groups = read(tmp_path).groups
    assert groups["Normans/1"] == ("Normans", 1)
    assert groups["T2/0"] == ("T2", 0)


def test_a_paragraph_cut_by_the_ranges_is_validation_s(tmp_path: Path) -> None:
    train = [
        article("T", ("Uno.", [("q0?", ["x"])]), ("Due.", [("q1?", ["x"]), ("q2?", ["x"])]), ("Tre.", [("q3?", ["x"])]))
    ]
    loaded = read(tmp_path, train, options=replace(OPTIONS, train_rows=(0, 2), val_rows=(2, 4)))
    assert [question.text for question in loaded.train.questions] == ["q0?"]
    assert [question.text for question in loaded.val.questions] == ["q2?", "q3?"]
    assert loaded.about["read"]["train"]["refused"] == {"document of the val split": 1}


def test_the_published_ranges_want_the_published_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train_rows=\[42118, 82011\] must be .* in \[0, 10\].* 87,599"):
        read(tmp_path, options=Options("squad"))


@pytest.mark.parametrize("rows", [(3, 3), (4, 2), (-1, 3), (9, 11)])
def test_a_range_must_lie_in_the_file(tmp_path: Path, rows: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"val_rows=.* must be two ascending numbers in \[0, 10\]"):
        read(tmp_path, options=replace(OPTIONS, val_rows=rows))


@pytest.mark.parametrize("rows", [(5, 8), (0, 3), (2, 6)])
def test_ranges_must_not_meet(tmp_path: Path, rows: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"must not meet"):
        read(tmp_path, options=replace(OPTIONS, val_rows=rows))


@pytest.mark.parametrize(
    ("dev", "message"),
    [
        ({}, r"dev-v1\.1\.json has data=\{\}, and a list is needed"),
        ([3], r"dev-v1\.1\.json data\[0\] holds 3, and an object"),
        ([{"title": "T"}], r"data\[0\] has paragraphs=null, and a list is needed"),
        ([{"paragraphs": []}], r"data\[0\] has no field 'title'"),
        ([{"title": "T", "paragraphs": [{"context": "c"}]}], r"data\[0\]\.paragraphs\[0\] has qas=null"),
        (
            [{"title": "T", "paragraphs": [{"context": "c", "qas": [{"question": "q", "is_impossible": True}]}]}],
            r"paragraphs\[0\]\.qas\[0\] has no list of answers: this is no SQuAD v1\.1",
        ),
    ],
)
def test_another_shape_is_named_with_its_place(tmp_path: Path, dev: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, dev=dev)


def test_broken_json_and_missing_files_are_named(tmp_path: Path) -> None:
    read(tmp_path)
    (tmp_path / "squad" / "dev-v1.1.json").write_text('{"data":\n[}')
    with pytest.raises(DataError, match=r"dev-v1\.1\.json line 2 is no JSON .*mend that line"):
        load(replace(OPTIONS, root=str(tmp_path)))
    (tmp_path / "squad" / "dev-v1.1.json").write_text("[]")
    with pytest.raises(DataError, match=r"dev-v1\.1\.json holds \[\], and an object"):
        load(replace(OPTIONS, root=str(tmp_path)))
    (tmp_path / "squad" / "dev-v1.1.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"dev-v1\.1\.json is no JSON that can be read"):
        load(replace(OPTIONS, root=str(tmp_path)))
    (tmp_path / "squad" / "dev-v1.1.json").unlink()
    with pytest.raises(DataError, match=r"looked for dev-v1\.1\.json .*rajpurkar\.github\.io.*put it there"):
        load(replace(OPTIONS, root=str(tmp_path)))
