from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from clearn.errors import ConfigError, DataError
from clearn.streams.corpora import Loaded, Options, load

TOWNS = ("Alba", "Brod", "Cork", "Dorn")


@pytest.fixture(autouse=True)
def no_data_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARN_DATA", str(tmp_path))


def row(town: str = "Alba", mayor: str = "Ann Lee", **more: Any) -> dict[str, Any]:
    return {
        "doc_id": f"d-{town}",
        "text": f"{town} lies by the sea. Its mayor is {mayor}.",
        "question": f"Who is the mayor of {town}?",
        "answer": mayor,
        **more,
    }


def put(folder: Path, **splits: list[dict[str, Any]] | str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    given: dict[str, Any] = {"train": [row("Trin")], "val": [row("Vall")], "test": [row()], **splits}
    for name, rows in given.items():
        text = rows if isinstance(rows, str) else "".join(json.dumps(one) + "\n" for one in rows)
        (folder / f"{name}.jsonl").write_text(text, "utf-8")
    return folder


def read(folder: Path, **splits: list[dict[str, Any]] | str) -> Loaded:
    return load(Options("jsonl", str(put(folder, **splits))))


# What is read


def test_every_field_arrives(tmp_path: Path) -> None:
    fields = {"kind": "name", "field": "mayor", "entity": "Alba", "timestamp": "2019"}
    later = row(question="Where is Alba?", answer=" the sea ", entity="Alba", timestamp="2021")
    test = read(tmp_path, test=[row(**fields), later]).test
    (document,) = test.documents
    assert (document.id, document.entity, document.timestamp) == ("d-Alba", "Alba", "2021")  # the latest of its rows
    first, second = test.questions
    assert (first.text, first.answer, first.document) == ("Who is the mayor of Alba?", "Ann Lee", "d-Alba")
    assert (first.kind, first.field) == ("name", "mayor")
    assert second.answer == "the sea"


def test_a_document_is_one_however_many_questions_ask_about_it(tmp_path: Path) -> None:
    rows = [row(town, question=f"{n}?") for n in range(3) for town in TOWNS]
    loaded = read(tmp_path, test=rows)
    assert [document.id for document in loaded.test.documents] == [f"d-{town}" for town in TOWNS]
    assert len(loaded.test.questions) == 12
    assert loaded.about["read"]["test"] == {"rows": 12, "documents": 4, "questions": 12, "merged": 0, "refused": {}}


def test_one_text_under_two_ids_is_one_document_called_by_the_first(tmp_path: Path) -> None:
    loaded = read(tmp_path, test=[row(), row(doc_id="other", question="Who else?"), row("Brod")])
    assert [document.id for document in loaded.test.documents] == ["d-Alba", "d-Brod"]
    assert [question.document for question in loaded.test.questions] == ["d-Alba", "d-Alba", "d-Brod"]
    assert loaded.about["read"]["test"]["merged"] == 1


def test_order_rules_over_the_file_where_it_is_given(tmp_path: Path) -> None:
    rows = [row(town, order=order) for town, order in zip(TOWNS, (2, 0, 1, 0), strict=True)]
    ids = [document.id for document in read(tmp_path, test=rows).test.documents]
    assert ids == ["d-Brod", "d-Dorn", "d-Cork", "d-Alba"]
    with pytest.raises(DataError, match=r"test\.jsonl has `order` in some rows only"):
        read(tmp_path, test=[*rows, row("Elm")])
    with pytest.raises(DataError, match=r"test\.jsonl line 1 has order='x', and a number is needed"):
        read(tmp_path, test=[row(order="x")])


def test_rows_without_an_id_are_told_by_their_text_wherever_they_stand(tmp_path: Path) -> None:
    def bare(town: str) -> dict[str, Any]:
        return {key: value for key, value in row(town).items() if key != "doc_id"}

    first = read(tmp_path / "a", test=[bare("Alba"), bare("Brod")]).test.documents
    second = read(tmp_path / "b", test=[bare("Brod")]).test.documents
    assert first[1] == second[0]
    assert first[0].id != first[1].id


def test_whole_numbers_are_taken_as_text(tmp_path: Path) -> None:
    test = read(tmp_path, test=[row(doc_id=7, answer=1820, timestamp=2020)]).test
    assert (test.documents[0].id, test.documents[0].timestamp, test.questions[0].answer) == ("7", "2020", "1820")


def test_the_named_ones_lie_in_folders_of_their_own_and_checksums_are_of_the_text(tmp_path: Path) -> None:
    put(tmp_path / "factbook")
    plain = load(Options("factbook"))
    content = (tmp_path / "factbook" / "test.jsonl").read_bytes()
    assert plain.about["checksums"]["test.jsonl"] == hashlib.sha256(content).hexdigest()
    put(tmp_path / "packed" / "factbook")
    for path in (tmp_path / "packed" / "factbook").iterdir():
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert load(Options("factbook", str(tmp_path / "packed"))) == plain
    json.dumps(plain.about)


def test_letters_beyond_ascii_and_odd_line_ends_stay(tmp_path: Path) -> None:
    odd = row("Åland\u2028", "Žofie")
    put(tmp_path, test="\ufeff" + json.dumps(odd, ensure_ascii=False) + "\r\n\n")
    test = load(Options("jsonl", str(tmp_path))).test
    assert test.documents[0].text == odd["text"]
    assert test.questions[0].answer == "Žofie"


def test_long_texts_are_kept_whole(tmp_path: Path) -> None:
    long = row(text="word " * 5_000, question="why " * 400 + "?")
    test = read(tmp_path, test=[long]).test
    assert test.documents[0].text == long["text"]
    assert test.questions[0].text == long["question"]


# What is refused


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"text": " \n"}, "no text"),
        ({"question": ""}, "no question"),
        ({"answer": ""}, "no answer"),
        ({"answer": "The ..."}, "no answer"),
    ],
)
def test_a_row_that_cannot_be_scored_is_left_out_and_counted(tmp_path: Path, bad: dict[str, str], reason: str) -> None:
    loaded = read(tmp_path, test=[row(), row("Brod", **bad)])
    assert [document.id for document in loaded.test.documents] == ["d-Alba"]
    assert loaded.about["read"]["test"]["refused"] == {reason: 1}
    with pytest.raises(DataError, match=f"the test split has no row that can be used, of 1 .{reason}: 1"):
        read(tmp_path, test=[row("Brod", **bad)])


def test_what_the_stream_reads_is_not_known_before(tmp_path: Path) -> None:
    loaded = read(tmp_path, train=[row(), row("Vall"), row("Trin")], val=[row(), row("Vall")])
    assert [document.id for document in loaded.train.documents] == ["d-Trin"]
    assert [document.id for document in loaded.val.documents] == ["d-Vall"]
    refused = {"document of the test split": 1, "document of the val split": 1}
    assert loaded.about["read"]["train"]["refused"] == refused
    with pytest.raises(DataError, match="the train split has no row that can be used"):
        read(tmp_path, train=[row()])


@pytest.mark.parametrize("split", ["test", "train"])
def test_an_id_with_two_texts_is_a_mistake_within_a_split_and_across(tmp_path: Path, split: str) -> None:
    splits = {"test": [row()], "train": [row("Trin")]}
    splits[split].append(row(text="Something else."))
    line = len(splits[split])
    with pytest.raises(DataError, match=rf"{split}\.jsonl line {line}: document 'd-Alba' has another text"):
        read(tmp_path, **splits)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_empty_split_is_named(tmp_path: Path, split: str) -> None:
    with pytest.raises(DataError, match=f"the {split} split has no row that can be used, of 0 .it is empty"):
        read(tmp_path, **{split: "\n"})


@pytest.mark.parametrize("missing", ["text", "question", "answer"])
def test_a_missing_field_is_named_with_its_line(tmp_path: Path, missing: str) -> None:
    rows = [row(), {key: value for key, value in row().items() if key != missing}]
    with pytest.raises(DataError, match=rf"test\.jsonl line 2 has no field '{missing}' beside doc_id.*text is needed"):
        read(tmp_path, test=rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"', "line 2 is no JSON .*mend that line"),
        ("[" * 100_000, "line 2 is no JSON"),
        ("[1]", r"line 2 holds \[1\], and an object"),
        (json.dumps(row(answer=["x"])), r"line 2 has answer=\['x'\], and text is needed"),
        (json.dumps(row(answer=None)), "line 2 has answer=null, and text is needed"),
        (json.dumps(row(answer=True)), "line 2 has answer=true, and text is needed"),
        (json.dumps(row("Brod", "\ud800x")), "line 2 holds half of a surrogate pair"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"test\.jsonl {message}"):
        read(tmp_path, test=json.dumps(row()) + "\n" + line + "\n")


def test_bytes_that_are_no_text_and_damaged_archives_are_named(tmp_path: Path) -> None:
    put(tmp_path)
    content = (tmp_path / "test.jsonl").read_bytes()
    (tmp_path / "test.jsonl").write_bytes(content + b"\xff\xfe\n")
    with pytest.raises(DataError, match=r"test\.jsonl line 2 is not UTF-8 text: save it as UTF-8"):
        load(Options("jsonl"))
    (tmp_path / "test.jsonl").unlink()
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(DataError, match=r"test\.jsonl\.gz cannot be read to its end .*copy the file afresh"):
        load(Options("jsonl"))


@pytest.mark.parametrize("name", ["jsonl", "factbook", "foldoc"])
def test_missing_files_are_named_with_their_place_and_how_to_get_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as error:
        load(Options(name))
    where = tmp_path if name == "jsonl" else tmp_path / name
    for words in (f"data={name}", "train.jsonl, val.jsonl, test.jsonl", f"in {where};", "question", "put it there"):
        assert words in str(error.value)


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"data='factbok' is not known: did you mean 'factbook'\?"):
        load(Options("factbok"))
