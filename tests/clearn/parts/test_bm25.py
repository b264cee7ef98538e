"""BM25: scores by hand and against a naive sum over words, stable ties, edges."""

from __future__ import annotations

from math import log

import pytest

from clearn.errors import ConfigError
from clearn.parts.bm25 import STOP, Okapi, english, words

TEXTS = ("the red fox and the dog", "a blue owl", "red red wine", "the owl")


def naive(texts: tuple[str, ...], question: str, k1: float, b: float) -> list[float]:
    """The formula, word by word."""
    split = [text.lower().split() for text in texts]
    mean, n, found = sum(map(len, split)) / len(split), len(texts), []
    for one in split:
        score = 0.0
        for word in question.lower().split():
            held, f = sum(word in other for other in split), one.count(word)
            rarity = log(1 + (n - held + 0.5) / (held + 0.5))
            score += rarity * f * (k1 + 1) / (f + k1 * (1 - b + b * len(one) / mean)) if f else 0.0
        found.append(score)
    return found


def test_scores_by_hand() -> None:
    """n = 2, mean length 1.5; 'x' in both: log(1 + 0.5 / 2.5), 'y' in one: log(1 + 1.5 / 1.5) = log 2."""
    index = Okapi(["x", "x y"], k1=1.0, b=0.5)
    short, long = 1 / 1 * 2 / (1 + (0.5 + 0.5 * 1 / 1.5)), 2 / (1 + (0.5 + 0.5 * 2 / 1.5))
    assert index.scores("x").tolist() == pytest.approx([log(1.2) * short, log(1.2) * long])
    assert index.scores("y").tolist() == pytest.approx([0, log(2) * long])
    assert index.scores("x y y").tolist() == pytest.approx([log(1.2) * short, (log(1.2) + 2 * log(2)) * long])
    assert (short, long) == pytest.approx((12 / 11, 12 / 13))


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.0, 0.0), (2.0, 1.0)])
@pytest.mark.parametrize("question", ["red owl", "the the dog", "wine unknown"])
def test_scores_equal_the_naive_sum(question: str, k1: float, b: float) -> None:
    assert Okapi(TEXTS, k1, b).scores(question).tolist() == pytest.approx(naive(TEXTS, question, k1, b))


def test_ties_go_to_the_first() -> None:
    index = Okapi(["same words", "other", "same words", "same words"])
    assert index.top("same", 2) == [0, 2]
    assert index.top("same", 9) == [0, 2, 3]


def test_a_document_that_shares_no_word_is_not_found() -> None:
    assert Okapi(TEXTS).top("zebra", 3) == []
    assert Okapi(TEXTS).top("wine", 3) == [2]


def test_a_word_of_every_document_still_counts_for_it() -> None:
    assert Okapi(["x", "x", "x y"]).top("x", 3) == [0, 1, 2]


@pytest.mark.parametrize("texts", [(), ("",), ("?!", ".")])
def test_no_words_give_no_documents(texts: tuple[str, ...]) -> None:
    index = Okapi(texts)
    assert index.top("anything", 2) == []
    assert index.scores("anything").tolist() == [0.0] * len(texts)


def test_words_are_cut_alike_in_questions_and_documents() -> None:
    assert words("GDP of Türkiye: 1,020 m?") == ["gdp", "of", "türkiye", "1", "020", "m"]
    assert Okapi(["Height 1,020 m.", "Height 431 m."]).top("What is 1,020 m high?", 1) == [0]


def test_english_leaves_out_what_every_question_has() -> None:
    texts = ["What is the river? It is the one that is long.", "Norway, exports. Top: oils"]
    assert Okapi(texts).top("What is the top export of Norway?", 1) == [0]
    assert Okapi(texts, cut=english).top("What is the top export of Norway?", 2) == [1]
    assert Okapi(texts, cut=english).top("what is it", 2) == []
    assert all(word.isalpha() and word.islower() for word in STOP)


@pytest.mark.parametrize(("k1", "b", "message"), [(-1.0, 0.5, "k1=-1.0"), (1.0, 1.5, "b=1.5")])
def test_options_out_of_range_are_refused(k1: float, b: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Okapi(TEXTS, k1, b)
