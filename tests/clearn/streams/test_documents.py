"""Streams of documents: how they are cut, ordered and made smaller, and what requests to forget mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clearn.binding import bind
from clearn.errors import ConfigError, DataError
from clearn.mistakes import Mistake
from clearn.stream import Corpus, Document, ForgetDocuments, Question, Split
from clearn.streams.corpora import Loaded
from clearn.streams.documents import Cut, DocumentRequest, build, cut, from_documents, resolve

Rows = list[dict[str, Any]]


def rows(first: int, end: int, each: int = 2) -> Rows:
    """Documents d0, d1, ... about e0, e0, e1, e1, ..., with so many questions each."""
    return [
        {"doc_id": f"d{n}", "text": f"Text {n}.", "question": f"q{n}.{q}?", "answer": f"x{n}", "entity": f"e{n // 2}"}
        for n in range(first, end)
        for q in range(each)
    ]


def own(n: int = 10, **options: Any) -> Corpus:
    return from_documents(rows(100, 106), rows(200, 203), rows(0, n), **options)


def loaded(n: int = 10, groups: dict[str, tuple[str, int]] | None = None) -> Loaded:
    corpus = own(n)
    test = Split(corpus[0].documents, corpus[0].questions)
    return Loaded(corpus.upstream.train, corpus.upstream.val, test, {"data": "x"}, groups or {})


def ids(corpus: Corpus) -> list[list[str]]:
    return [[document.id for document in reading.documents] for reading in corpus]


def flat(corpus: Corpus) -> list[str]:
    return [id_ for part in ids(corpus) for id_ in part]


# Tasks


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [10]),
        ({"tasks": 1}, [10]),
        ({"tasks": 3}, [4, 3, 3]),
        ({"tasks": 4}, [3, 3, 2, 2]),
        ({"tasks": 10}, [1] * 10),
        ({"per_task": 4}, [4, 4, 2]),
        ({"per_task": 5}, [5, 5]),
        ({"per_task": 99}, [10]),
    ],
)
def test_documents_are_cut_in_stream_order(options: dict[str, int], wanted: list[int]) -> None:
    corpus = own(**options)
    assert [len(reading.documents) for reading in corpus] == wanted == corpus.about["sizes"]
    assert flat(corpus) == [f"d{n}" for n in range(10)]
    assert [info.index for info in corpus.infos] == list(range(len(wanted)))
    assert all(info.classes == () for info in corpus.infos)


def test_a_task_asks_about_its_own_documents_in_their_order() -> None:
    shuffled_rows = sorted(rows(0, 6), key=lambda row: row["question"][-2])  # first questions first
    corpus = from_documents([], [], shuffled_rows, per_task=4)
    assert [question.text for question in corpus[1].questions] == ["q4.0?", "q4.1?", "q5.0?", "q5.1?"]
    assert corpus.about["questions"] == [8, 4]


def test_upstream_comes_along() -> None:
    upstream = own().upstream
    assert [len(split.documents) for split in (upstream.train, upstream.val)] == [6, 3]
    assert [len(split.questions) for split in (upstream.train, upstream.val)] == [12, 6]


def test_the_first_documents_are_taken_with_all_their_questions() -> None:
    corpus = cut(loaded(), Cut(documents=3, upstream_documents=2, val_documents=1))
    assert flat(corpus) == ["d0", "d1", "d2"]
    assert len(corpus[0].questions) == 6
    assert [document.id for document in corpus.upstream.train.documents] == ["d100", "d101"]
    assert [question.document for question in corpus.upstream.val.questions] == ["d200", "d200"]


def test_more_than_there_are_means_all() -> None:
    assert flat(cut(loaded(), Cut(documents=1_665))) == flat(cut(loaded(), Cut(documents=None)))


def test_fewer_questions_are_the_first_ones_of_the_stream_alone() -> None:
    corpus = cut(loaded(), Cut(questions_per_document=1))
    assert [question.text for question in corpus[0].questions] == [f"q{n}.0?" for n in range(10)]
    assert len(corpus.upstream.train.questions) == 12


# Order and choice by seed


def test_an_order_is_repeatable_and_moves_nothing_but_the_order() -> None:
    options = [Cut(documents=6, order_seed=seed) for seed in (None, 1, 2)]
    plain, first, second = (cut(loaded(), one) for one in options)
    assert flat(first) == flat(cut(loaded(), options[1]))
    assert flat(plain) != flat(first) != flat(second)
    assert sorted(flat(plain)) == sorted(flat(first)) == sorted(flat(second))
    assert plain.upstream == first.upstream
    assert plain.about["sha256"]["train"] == first.about["sha256"]["train"]
    assert plain.about["sha256"]["stream"] != first.about["sha256"]["stream"]


def test_groups_stay_together_in_the_order_of_their_places() -> None:
    groups = {f"d{n}": (f"g{n % 3}", -n) for n in range(9)}  # d9 stands alone
    orders = [flat(cut(loaded(groups=groups), Cut(order_seed=seed))) for seed in range(6)]
    wanted = {("d6", "d3", "d0"), ("d7", "d4", "d1"), ("d8", "d5", "d2"), ("d9",)}
    for order in orders:
        starts = sorted(order.index(part[0]) for part in wanted)
        ends = [*starts[1:], len(order)]
        assert {tuple(order[a:b]) for a, b in zip(starts, ends, strict=True)} == wanted
    assert len({tuple(order) for order in orders}) > 1


def test_a_subset_by_seed_keeps_the_order_and_draws_whole_groups() -> None:
    subset = flat(cut(loaded(), Cut(documents=5, subset_seed=3)))
    assert subset == sorted(subset)
    assert len(subset) == 5
    assert subset == flat(cut(loaded(), Cut(documents=5, subset_seed=3)))
    assert subset != flat(cut(loaded(), Cut(documents=5, subset_seed=4)))
    groups = {f"d{n}": (f"g{n // 5}", n) for n in range(10)}
    halves = {tuple(flat(cut(loaded(groups=groups), Cut(documents=5, subset_seed=seed)))) for seed in range(16)}
    assert halves == {tuple(f"d{n}" for n in range(5)), tuple(f"d{n}" for n in range(5, 10))}


def test_a_subset_does_not_depend_on_the_order_nor_the_order_of_tasks() -> None:
    both = cut(loaded(), Cut(documents=5, subset_seed=3, order_seed=1))
    assert sorted(flat(both)) == flat(cut(loaded(), Cut(documents=5, subset_seed=3)))
    assert flat(both) == flat(cut(loaded(), Cut(documents=5, subset_seed=3, order_seed=1, per_task=2)))


# From a config


def test_a_corpus_is_built_from_a_config_s_keys(tmp_path: Path) -> None:
    for split, (first, end) in {"train": (100, 106), "val": (200, 203), "test": (0, 10)}.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(first, end)))
    written = {"data": "jsonl", "root": str(tmp_path), "per_task": 5, "documents": 8, "upstream_documents": 4}
    errors: list[Mistake] = []
    arguments = bind(build, {**written, "requests": [{"after": 1, "documents": ["d1"]}]}, "stream", errors)
    assert errors == []
    corpus = build(**arguments)
    assert ids(corpus) == [["d0", "d1", "d2", "d3", "d4"], ["d5", "d6", "d7"]]
    assert corpus.requests == (ForgetDocuments(1, ("d1",)),)
    about = corpus.about
    assert (about["stream"], about["data"], about["sizes"]) == ("documents", "jsonl", [5, 3])
    assert about["splits"]["train"] | about["splits"]["test"] == {
        "documents": 8,
        "questions": 16,
        "documents_over_256_words": 0,
        "questions_over_128_words": 0,
    }
    assert about["read"]["train"]["documents"] == 6
    assert set(about["checksums"]) == {"train.jsonl", "val.jsonl", "test.jsonl"}
    json.dumps(about)


def test_copying_is_made_to_size() -> None:
    corpus = build(data="copying", documents=7, per_task=3, upstream_documents=5, val_documents=2)
    assert [len(part) for part in ids(corpus)] == [3, 3, 1]
    assert [len(split.documents) for split in (corpus.upstream.train, corpus.upstream.val)] == [5, 2]
    usual = build(data="copying").about["splits"]
    assert [usual[split]["documents"] for split in ("train", "val", "test")] == [512, 64, 1_665]
    other = build(data="copying", documents=7, upstream_documents=5, val_documents=2, subset_seed=1)
    assert other[0].documents != build(data="copying", documents=7, upstream_documents=5, val_documents=2)[0].documents


def test_all_mistakes_of_a_config_are_shown_together() -> None:
    with pytest.raises(ConfigError) as error:
        build(data="copying", root=Path("x"), documents=0, tasks=2, per_task=2, order_seed=-1, passage="article")
    lines = str(error.value).splitlines()
    assert lines == [
        "root='x' is for data=factbook, foldoc, streaming_qa, squad, archival_qa, jsonl, not data=copying: "
        "leave it out",
        "passage='article' is for data=archival_qa, not data=copying: leave it out",
        "documents=0 must be 1 or more, or null",
        "order_seed=-1 must be 0 or more, or null",
        "tasks=2 and per_task=2 both say how to cut: give one of them",
    ]
    with pytest.raises(ConfigError, match=r"data='squat' is not known: did you mean 'squad'\?"):
        build(data="squat")
    with pytest.raises(ConfigError, match=r"val_rows=\[0, 2\] is for data=squad, not data=factbook"):
        build(val_rows=(0, 2))


def test_more_tasks_than_documents_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"tasks=11 must lie in \[1, 10\]: the stream has 10 documents"):
        own(tasks=11)


# A user's own documents


def test_documents_may_hold_their_questions() -> None:
    given: Rows = [
        {
            "text": "Bob is 7.",
            "questions": [("How old is Bob?", 7), {"question": "Who?", "answer": "Bob", "kind": "name"}],
        },
        {"text": "Nobody asks about this."},
        {"text": "Nor about this.", "questions": []},
    ]
    (reading,) = from_documents([], [], given)
    assert [document.text for document in reading.documents] == [one["text"] for one in given]
    assert [(q.text, q.answer, q.kind) for q in reading.questions] == [
        ("How old is Bob?", "7", ""),
        ("Who?", "Bob", "name"),
    ]
    assert {q.document for q in reading.questions} == {reading.documents[0].id}


def test_records_are_taken_as_they_are() -> None:
    documents = (Document("a", "One.", "2020", "E"), Document("b", "Two."))
    split = Split(documents, (Question("q?", "b", "f", "x", "name"),))
    corpus = from_documents(Split((), ()), Split((), ()), split)
    assert (corpus[0].documents, corpus[0].questions) == (split.documents, split.questions)
    with pytest.raises(DataError, match=r"test\.questions\[0\] is about document 'c', which the split does not hold"):
        from_documents([], [], Split(documents, (Question("q?", "c", answer="x"),)))


def test_rows_and_documents_with_questions_agree() -> None:
    nested = [
        {"doc_id": "d0", "text": "Text 0.", "entity": "e0", "questions": [("q0.0?", "x0"), ("q0.1?", "x0")]},
        {"doc_id": "d1", "text": "Text 1.", "entity": "e0", "questions": [("q1.0?", "x1"), ("q1.1?", "x1")]},
    ]
    assert list(from_documents([], [], nested)) == list(from_documents([], [], rows(0, 2)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "the test split has no row that can be used, of 0"),
        (["x"], r"test\[0\] holds 'x', and an object"),
        ([{"text": "One.", "question": "q?"}], r"test\[0\] has no field 'answer' beside text, question"),
        ([{"text": "One.", "questions": "q?"}], r"test\[0\] has questions='q\?', and a list is needed"),
        ([{"text": "One.", "questions": ["q?"]}], r"test\[0\]\.questions\[0\] holds 'q\?', and an object"),
        ([{"text": "One.", "questions": [("q?", None)]}], r"questions\[0\] has answer=null, and text is needed"),
        ([{"questions": [("q?", "x")]}], r"test\[0\] has no field 'text'"),
        ([{"text": "One."}], r"task 1 \(1 documents from 'text-\w+' on\) has no question"),
        (
            [*rows(0, 1), {"doc_id": "d0", "text": "Else.", "question": "q?", "answer": "x"}],
            "document 'd0' has another",
        ),
    ],
)
def test_a_user_s_mistake_is_named_with_its_place(bad: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_documents([], [], bad)


def test_a_task_without_questions_is_refused() -> None:
    with pytest.raises(DataError, match=r"task 2 \(1 documents from 'd7' on\) has no question.*make fewer tasks"):
        from_documents([], [], [*rows(0, 1), {"doc_id": "d7", "text": "Alone."}], per_task=1)


# Requests to forget


def test_requests_mean_what_was_read_by_then() -> None:
    asked = (
        DocumentRequest(2, entity="e1"),
        DocumentRequest(1, documents=("d4", "d0", "d0")),
        DocumentRequest(2, documents=()),
    )
    corpus = own(tasks=2, requests=asked)
    assert corpus.requests == (
        ForgetDocuments(1, ("d0", "d4")),  # in the order in which they were read
        ForgetDocuments(2, ("d2", "d3")),
        ForgetDocuments(2, ()),
    )
    assert [one["documents"] for one in corpus.about["requests"]] == [2, 2, 0]
    assert corpus.about["requests"][1]["entity"] == "e1"


def test_an_entity_means_its_documents_that_are_left() -> None:
    readings = own(tasks=2).readings  # d0..d4, d5..d9; e2 is d4 and d5
    early = resolve([DocumentRequest(1, entity="e2"), DocumentRequest(2, entity="e2")], readings)
    assert [one.documents for one in early] == [("d4",), ("d5",)]


def test_a_draw_is_repeatable_and_meets_nothing_twice() -> None:
    asked = [DocumentRequest(1, count=3, seed=1), DocumentRequest(2, count=5, seed=1)]
    readings = own(tasks=2).readings
    first, second = resolve(asked, readings)
    assert (first, second) == resolve(asked, readings)
    assert set(first.documents) <= {f"d{n}" for n in range(5)}
    assert (len(first.documents), len(second.documents)) == (3, 5)
    assert not set(first.documents) & set(second.documents)
    assert resolve([DocumentRequest(1, count=3, seed=2)], readings) != (first,)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([DocumentRequest(3, count=1)], r"after=3 must lie in \[1, 2\]: the stream has 2 tasks"),
        ([DocumentRequest(1, documents=("d44",))], r"document 'd44' is not in the stream; did you mean 'd4'\?"),
        ([DocumentRequest(1, documents=("zebra",))], "document 'zebra' is not in the stream; the documents are d0, d1"),
        ([DocumentRequest(1, documents=("d7",))], "document 'd7' is read in task 2, after=1 is too early: ask later"),
        (
            [DocumentRequest(1, documents=("d1",)), DocumentRequest(2, documents=("d1",))],
            "document 'd1' is forgotten already: leave it out",
        ),
        ([DocumentRequest(1, entity="e9")], r"no document is about 'e9'; the entities are e0, e1, e2"),
        ([DocumentRequest(1, entity="e4")], "no document about 'e4' was read in the first 1 tasks, task 2 brings one"),
        (
            [DocumentRequest(1, entity="e0"), DocumentRequest(2, entity="e0")],
            "all documents about 'e0' are forgotten already: leave it out",
        ),
        ([DocumentRequest(1, count=5)], "count=5 must be below 5, the documents known by then"),
        (
            [DocumentRequest(1, count=3), DocumentRequest(1, count=2)],
            "count=2 must be below 2, the documents known by then",
        ),
        ([DocumentRequest(1, documents=("d0", "d1", "d2", "d3", "d4"))], "after=1 would forget all 5 documents"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked: list[DocumentRequest], message: str) -> None:
    with pytest.raises(ConfigError, match=f"requests: .*({message})"):
        resolve(asked, own(tasks=2).readings)


def test_the_last_entity_of_all_cannot_go() -> None:
    with pytest.raises(ConfigError, match="would forget all 2 documents read by then: leave at least one"):
        own(2, requests=[DocumentRequest(1, entity="e0")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"after": 0, "count": 1}, "after=0 must be at least 1"),
        ({"after": 1}, "after=1: nothing says what goes, and exactly one of documents, entity and count must"),
        ({"after": 1, "count": 1, "entity": "e"}, "entity and count says what goes"),
        ({"after": 1, "count": 0}, "count=0 must be at least 1"),
        ({"after": 1, "entity": ""}, "entity='' must name what documents are about"),
    ],
)
def test_an_entry_says_exactly_one_thing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DocumentRequest(**options)
