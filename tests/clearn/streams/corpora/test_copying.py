from __future__ import annotations

import json

import pytest

from clearn.errors import ConfigError
from clearn.parts.answers import exact, normalise
from clearn.streams.corpora import Loaded, Options, load


def copying(*sizes: int, seed: int = 0) -> Loaded:
    return load(Options("copying", sizes=(sizes[0], sizes[1], sizes[2]), seed=seed))


@pytest.mark.parametrize("sizes", [(5, 2, 3), (400, 30, 200)])
def test_every_document_is_one_fact_about_an_entity_of_its_own(sizes: tuple[int, int, int]) -> None:
    from clearn.parts.language.tiny import WORDS

    loaded = copying(*sizes)
    splits = (loaded.train, loaded.val, loaded.test)
    assert tuple(len(split.documents) for split in splits) == sizes
    entities = [document.entity for split in splits for document in split.documents]
    assert len(set(entities)) == sum(sizes)
    for split in splits:
        for document, (question,) in split.documented():
            assert document.text == f"the code of {document.entity} is {question.answer} ."
            assert question.text == f"what is the code of {document.entity} ?"
            assert set(document.text.split()) | set(question.text.split()) <= set(WORDS)
            assert normalise(question.answer) == question.answer
            assert len(question.answer.split()) == 1
            assert question.answer not in document.entity.split()
            assert (question.kind, question.field) == ("code", "copying.code")


def test_the_most_frequent_answer_is_right_once_in_sixteen_times() -> None:
    answers = [question.answer for question in copying(1, 1, 1_665).test.questions]
    best = max(set(answers), key=answers.count)
    share, error = 1 / 16, (15 / 16 / 16 / len(answers)) ** 0.5
    assert len(set(answers)) == 16
    assert share <= sum(exact(best, answer) for answer in answers) / len(answers) < share + 4 * error


def test_the_seed_decides_all() -> None:
    assert copying(20, 5, 10) == copying(20, 5, 10)
    assert copying(20, 5, 10).test != copying(20, 5, 10, seed=1).test
    about = copying(20, 5, 10).about
    assert about["checksums"] != copying(20, 5, 10, seed=1).about["checksums"]
    json.dumps(about)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 1, 10**6)])
def test_sizes_have_bounds(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="data=copying makes 1 to 1,000,000 documents"):
        copying(*sizes)
