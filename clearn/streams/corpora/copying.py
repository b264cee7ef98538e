"""Invented documents of one fact each: "the code of river bridge is gold ." Any number of them, by seed.

What a document says cannot be known from the question, so whoever answers has remembered it. Answers are single words,
one of sixteen, so that guessing is right once in sixteen times; no entity comes twice, within a split or across them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from clearn.errors import ConfigError
from clearn.seeds import numpy_generator
from clearn.streams.corpora.record import SPLITS, Loaded, Options, Row, gathered

MOST = 10**6  # documents
ANSWERS = 16  # a tiny network learns to say these from a memory in a few hundred steps, and many more in thousands


def load(options: Options) -> Loaded:
    """Invent so many documents for each split."""
    from clearn.parts.language.tiny import THINGS  # loads torch

    if min(options.sizes) < 1 or sum(options.sizes) > MOST:
        raise ConfigError(f"data=copying makes 1 to {MOST:,} documents, each split at least one: got {options.sizes}")
    rng = numpy_generator(options.seed, 0, "copying")
    answers, things = THINGS[:ANSWERS], THINGS[ANSWERS:]
    words = 1
    while len(things) ** words < sum(options.sizes):
        words += 1
    numbers = rng.choice(len(things) ** words, sum(options.sizes), replace=False)
    names = [[things[number // len(things) ** i % len(things)] for i in range(words)] for number in numbers.tolist()]
    rows = _rows(names, answers, rng)
    parts = {split: [next(rows) for _ in range(size)] for split, size in zip(SPLITS, options.sizes, strict=True)}
    texts = "\n".join(row.text for split in SPLITS for row in parts[split])
    loaded = gathered(options.name, parts, {"invented": hashlib.sha256(texts.encode()).hexdigest()})
    loaded.about["seed"] = options.seed
    return loaded


def _rows(names: list[list[str]], answers: tuple[str, ...] | list[str], rng: np.random.Generator) -> Iterator[Row]:
    """One fact about each name."""
    for number, name in enumerate(names):
        entity = " ".join(name)
        answer = answers[int(rng.integers(len(answers)))]
        yield Row(
            f"document {number}",
            f"the code of {entity} is {answer} .",
            f"what is the code of {entity} ?",
            answer,
            id=f"copy-{number}",
            kind="code",
            field="copying.code",
            entity=entity,
        )
