"""Learning: a strategy meets a stream of tasks, one task a step."""

from __future__ import annotations

from clearn.learning.experiment import Learning, on_stream, prepare
from clearn.learning.loop import rebuild

__all__ = ["Learning", "on_stream", "prepare", "rebuild"]
