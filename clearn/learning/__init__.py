"""Learning: a strategy meets a stream of tasks, one task a step."""

from __future__ import annotations

from clearn.boundary import rebuild
from clearn.learning.experiment import Learning, on_stream, prepare

__all__ = ["Learning", "on_stream", "prepare", "rebuild"]
