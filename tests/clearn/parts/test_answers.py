from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearn.parts.answers import exact, exact_prefix, f1, normalise


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The  Cat,\tsat!", "cat sat"),
        ("a an the A An THE", ""),
        ("theatre another banana", "theatre another banana"),  # articles go as words, not as letters
        ("T.H.E. end", "end"),  # punctuation goes first, and may leave an article
        ("an-other", "another"),
        ("1,000.5%", "10005"),
        ("«Été» — the summer", "«été» — summer"),  # ASCII punctuation only
        (string.punctuation, ""),
        ("", ""),
    ],
)
def test_normalise_by_hand(text: str, wanted: str) -> None:
    assert normalise(text) == wanted


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [("Parisian", "Paris"), ("10000", "1,000"), ("19 May 2020", "19 May"), ("anything at all", "The")],
)
def test_the_published_match_takes_what_only_begins_like_the_reference(prediction: str, reference: str) -> None:
    assert exact_prefix(prediction, reference)
    assert not exact(prediction, reference)


def test_neither_match_takes_a_part_or_another_end() -> None:
    for match in (exact, exact_prefix):
        assert match("the PARIS.", "Paris")
        assert not match("Par", "Paris")
        assert not match("in Paris", "Paris")
        assert not match("", "Paris")


def test_f1_by_hand() -> None:
    assert f1("19 May 2020", "19 May") == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))  # precision 2/3, recall 1
    assert f1("the red red fox", "red fox red red") == pytest.approx(2 * 1 * (3 / 4) / (1 + 3 / 4))
    assert f1("red red red", "red") == pytest.approx(0.5)  # a word counts as often as in both
    assert f1("May 19", "19 May") == 1.0  # order does not matter
    assert f1("Paris", "paris!") == 1.0
    assert f1("Parisian", "Paris") == 0.0
    assert f1("", "Paris") == f1("the", "a") == f1("Paris", "") == 0.0


@given(st.text(max_size=30), st.text(max_size=30))
def test_measures_agree_with_each_other(prediction: str, reference: str) -> None:
    assert normalise(normalise(prediction)) == normalise(prediction) or not prediction.isascii()
    assert f1(prediction, reference) == f1(reference, prediction)
    assert 0.0 <= f1(prediction, reference) <= 1.0
    assert exact_prefix(prediction, reference) >= exact(prediction, reference)
    if exact(prediction, reference) and normalise(reference):
        assert f1(prediction, reference) == 1.0
