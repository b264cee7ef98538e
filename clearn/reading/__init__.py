"""Reading: a reader meets a corpus, one task of documents a step, and is asked about all that it has read."""

from __future__ import annotations

from clearn.reading.experiment import ReadingExperiment, on_corpus, prepare

__all__ = ["ReadingExperiment", "on_corpus", "prepare"]
