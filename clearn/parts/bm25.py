"""Okapi BM25: which documents share the rare words of a question (Robertson and Zaragoza 2009, section 3.1).

An index is made of texts whenever it is needed and never carried: all that it knows is in them.
Letters: n documents, V different words among them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from clearn.errors import demand

_WORDS = re.compile(r"\w+")

STOP = frozenset(
    _WORDS.findall(
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
        "this to was will with how what when where which who whom whose why many much do does did has have had"
    )
)
"""Lucene's English stop words, and those that questions are made of."""


def words(text: str) -> list[str]:
    """Cut a text into lower-case words; a number is cut at its marks, in documents and questions alike.

    >>> words("What is the GDP of Côte d'Ivoire: 1,020?")
    ['what', 'is', 'the', 'gdp', 'of', 'côte', 'd', 'ivoire', '1', '020']
    """
    return _WORDS.findall(text.casefold())


def english(text: str) -> list[str]:
    """Cut a text into words, leave out those that only hold it together, and take plurals for singulars.

    Documents that state facts hardly ever say "what is the"; those that do would match every question.

    >>> english("What are the top exports of the Maldives?")
    ['top', 'export', 'maldive']
    """
    return [singular(word) for word in words(text) if word not in STOP]


def singular(word: str) -> str:
    """Cut a plural's ending off (the S stemmer of Harman 1991, "How effective is suffixing?", table 1).

    >>> [singular(word) for word in ("countries", "lakes", "exports", "gas", "glass", "census")]
    ['country', 'lake', 'export', 'gas', 'glass', 'census']
    """
    if len(word) <= 3:
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    return word[:-1] if word.endswith("s") and not word.endswith(("us", "ss")) else word


class Okapi:
    """Scores documents for a question.

    A document d gets for every word t of the question, repeats counted,

        log(1 + (n - n_t + 1/2) / (n_t + 1/2)) * f (k1 + 1) / (f + k1 (1 - b + b |d| / mean|d|))

    with n_t documents that hold t, f times t in d, |d| words in d. The 1 under the logarithm (Lucene's form) keeps
    words of more than half of the documents from counting against them.

    Args:
        texts: the documents.
        k1: how soon repeats of a word stop counting, 0 or more.
        b: how much long documents are charged, in [0, 1].
        cut: how texts and questions become words.

    >>> Okapi(["the red fox", "a blue owl", "an owl"]).top("which owl is blue", 2)
    [1, 2]
    """

    def __init__(
        self, texts: Sequence[str], k1: float = 1.2, b: float = 0.75, cut: Callable[[str], list[str]] = words
    ) -> None:
        demand(
            ("k1", k1, 0 <= k1 < float("inf"), "0 or more and finite"),
            ("b", b, 0 <= b <= 1, "in [0, 1]"),
        )
        self.n, self.cut = len(texts), cut
        split = [cut(text) for text in texts]
        lengths = np.array([len(one) for one in split], dtype=np.float64)  # (n,)
        norms = k1 * (1 - b + b * lengths / max(lengths.mean(), 1.0)) if self.n else lengths  # (n,)
        found: dict[str, tuple[list[int], list[int]]] = {}
        for row, one in enumerate(split):
            for word, times in Counter(one).items():
                rows, counts = found.setdefault(word, ([], []))
                rows.append(row)
                counts.append(times)
        self._postings: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for word, (rows, counts) in found.items():
            where, times_in = np.array(rows), np.array(counts, dtype=np.float64)
            rarity = np.log1p((self.n - len(rows) + 0.5) / (len(rows) + 0.5))
            self._postings[word] = where, rarity * times_in * (k1 + 1) / (times_in + norms[where])

    def scores(self, question: str) -> NDArray[np.float64]:
        """(n,) float64, 0 for a document that shares no word with the question."""
        total = np.zeros(self.n)
        for word in self.cut(question):
            if word in self._postings:
                rows, weights = self._postings[word]
                total[rows] += weights
        return total

    def top(self, question: str, k: int) -> list[int]:
        """Rows of the k best documents, best first; of equals the first. One that shares no word is none of them."""
        scores = self.scores(question)
        best = np.argsort(-scores, kind="stable")[:k]
        return [int(row) for row in best if scores[row] > 0]
