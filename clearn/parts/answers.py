"""How close an answer is to the reference: equality, the prefix match of published tables, and F1 over words.

All three compare normalised text. Sources: Rajpurkar et al. 2016 (SQuAD), section 6.1, for the normalisation and F1;
the code of CaMeLS (Hu et al. 2023), which MAC and MBC share, for the prefix match.
"""

from __future__ import annotations

import re
import string
from collections import Counter

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """Lower the case, delete ASCII punctuation, then the words a, an and the, and collapse spaces.

    It may leave nothing: such a reference cannot be scored, and loaders drop its row.

    >>> normalise(" The U.S.  dollar, an  old-timer")
    'us dollar oldtimer'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(prediction: str, reference: str) -> bool:
    """Whether both are equal once normalised: the headline figure.

    >>> exact("the Paris.", "Paris"), exact("Parisian", "Paris")
    (True, False)
    """
    return normalise(prediction) == normalise(reference)


def exact_prefix(prediction: str, reference: str) -> bool:
    """Whether the normalised prediction begins with the normalised reference: the EM of published tables.

    Too kind by design: any prediction matches a reference that normalises to nothing.

    >>> exact_prefix("Parisian", "Paris")
    True
    """
    return normalise(prediction).startswith(normalise(reference))


def f1(prediction: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the normalised words, as multisets; 0 without any in common.

    >>> f1("19 May 2020", "19 May")
    0.8
    """
    guessed, right = normalise(prediction).split(), normalise(reference).split()
    common = (Counter(guessed) & Counter(right)).total()
    return 2 * common / (len(guessed) + len(right)) if common else 0.0
