"""Corpora by name: documents and the questions that they answer, in a train, a val and a test split."""

from __future__ import annotations

from clearn.errors import ConfigError
from clearn.mistakes import listing, nearest
from clearn.streams.corpora import archival_qa, copying, jsonl, squad, streaming_qa
from clearn.streams.corpora.record import Loaded, Options

__all__ = ["READERS", "Loaded", "Options", "load"]

READERS = {
    "factbook": jsonl.load,
    "foldoc": jsonl.load,
    "streaming_qa": streaming_qa.load,
    "squad": squad.load,
    "archival_qa": archival_qa.load,
    "copying": copying.load,
    "jsonl": jsonl.load,
}


def load(options: Options) -> Loaded:
    """Read a corpus by its name.

    Raises:
        ConfigError: there is no such corpus, or an option means nothing to it.
        DataError: files are missing or damaged, or leave a split without any row.

    >>> load(Options("copying", sizes=(3, 1, 2))).test.questions[0].text.startswith("what is the code of")
    True
    """
    if options.name not in READERS:
        raise ConfigError(
            f"data={options.name!r} is not known: {nearest(options.name, READERS) or listing(READERS, 'corpora')}"
        )
    return READERS[options.name](options)
