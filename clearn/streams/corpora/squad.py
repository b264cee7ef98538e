"""SQuAD v1.1 (Rajpurkar et al. 2016): questions about paragraphs of Wikipedia, as released in JSON.

The stream is the development set. Of the 87,599 training questions, numbered as they stand in the file, CaMeLS and MAC
take 0 to 42,118 for tuning a base model, which we do not, then 42,118 to 82,011 for meta-training and the rest for its
validation. A paragraph is called TITLE/n; shuffling keeps the paragraphs of a title together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from clearn.errors import ConfigError, DataError
from clearn.streams.corpora.files import Source, folder_of, listed, mapping, needed, text
from clearn.streams.corpora.record import Loaded, Options, Row, capitalised, gathered, shortest

TRAIN, DEV = "train-v1.1.json", "dev-v1.1.json"
CONTENTS = "SQuAD v1.1 (CC BY-SA 4.0) comes from rajpurkar.github.io/SQuAD-explorer"


def load(options: Options) -> Loaded:
    """Read ROOT/squad.

    Raises:
        ConfigError: ranges of rows that lie outside of the file, or meet.
    """
    paths = needed(options.name, folder_of(options.name, options.root), (TRAIN, DEV), CONTENTS)
    source, titles = Source(), Counter[str]()
    test = list(_rows(source, paths[DEV], titles))
    train = list(_rows(source, paths[TRAIN], titles))
    ranges = {"train_rows": options.train_rows, "val_rows": options.val_rows}
    for name, (first, end) in ranges.items():
        if not 0 <= first < end <= len(train):
            raise ConfigError(
                f"{name}={[first, end]} must be two ascending numbers in [0, {len(train)}]: {paths[TRAIN]} has "
                f"{len(train)} questions, and published ranges are for 87,599"
            )
    low, high = sorted(ranges.values())
    if low[1] > high[0]:
        raise ConfigError(
            f"train_rows={list(options.train_rows)} and val_rows={list(options.val_rows)} must not meet: validation "
            "would see what was trained on"
        )
    rows = {"train": train[slice(*options.train_rows)], "val": train[slice(*options.val_rows)], "test": test}
    loaded = gathered(options.name, rows, source.checksums)
    loaded.about.update({name: list(value) for name, value in ranges.items()})
    return loaded


def _rows(source: Source, path: Path, titles: Counter[str]) -> Iterator[Row]:
    """Questions in file order; `titles` counts the paragraphs of each title, through both files."""
    articles = listed(mapping(source.document(path), str(path)).get("data"), str(path), "data")
    for number, article in enumerate(articles):
        where = f"{path} data[{number}]"
        title = text(mapping(article, where), "title", where)
        for at, paragraph in enumerate(listed(article.get("paragraphs"), where, "paragraphs")):
            place = f"{where}.paragraphs[{at}]"
            context = text(mapping(paragraph, place), "context", place)
            index, titles[title] = titles[title], titles[title] + 1
            for which, asked in enumerate(listed(paragraph.get("qas"), place, "qas")):
                here = f"{place}.qas[{which}]"
                yield Row(
                    here,
                    context,
                    text(mapping(asked, here), "question", here),
                    capitalised(shortest(_answers(asked.get("answers"), here))),
                    id=f"{title}/{index}",
                    entity=title,
                    group=title,
                    place=index,
                )


def _answers(value: object, where: str) -> Sequence[str]:
    if not isinstance(value, list):
        raise DataError(f"{where} has no list of answers: this is no SQuAD v1.1; copy the file afresh")
    return [text(mapping(one, where), "text", where) for one in value]
