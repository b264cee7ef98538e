"""Invented documents of one fact each: "the code of river bridge is gold ." Any number of them, by seed.

What a document says cannot be known from the question, so whoever answers has remembered it. Answers are single words,
and no entity comes twice, within a split or across them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from clearn.errors import ConfigError
from clearn.seeds import numpy_generator
from clearn.streams.corpora.record import SPLITS, Loaded, Options, Row, gathered

MOST = 10**6  # documents


def load(options: Options) -> Loaded:
    """Invent so many documents for each split."""
    from clearn.parts.language.tiny import THINGS  # loads torch

    if min(options.sizes) < 1 or sum(options.sizes) > MOST:
        raise ConfigError(f"data=copying makes 1 to {MOST:,} documents, each split at least one: got {options.sizes}")
    rng = numpy_generator(options.seed, 0, "copying")
    words = 1
    while len(THINGS) ** words < sum(options.sizes):
        words += 1
    numbers = rng.choice(len(THINGS) ** words, sum(options.sizes), replace=False)
    names = [[THINGS[number // len(THINGS) ** i % len(THINGS)] for i in range(words)] for number in numbers.tolist()]
    rows = _rows(names, THINGS, rng)
    parts = {split: [next(rows) for _ in range(size)] for split, size in zip(SPLITS, options.sizes, strict=True)}
    texts = "\n".join(row.text for split in SPLITS for row in parts[split])
    loaded = gathered(options.name, parts, {"invented": hashlib.sha256(texts.encode()).hexdigest()})
    loaded.about["seed"] = options.seed
    return loaded


def _rows(names: list[list[str]], answers: tuple[str, ...] | list[str], rng: np.random.Generator) -> Iterator[Row]:
    """One fact about each name; the answer is no word of it."""
    for number, name in enumerate(names):
        entity = " ".join(name)
        free = [word for word in answers if word not in name]
        answer = free[int(rng.integers(len(free)))]
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
