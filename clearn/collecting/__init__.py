"""Collecting: users answer under local differential privacy, one round a step. No torch is loaded."""

from __future__ import annotations

from clearn.collecting.experiment import Collecting, on_collection, prepare, protocol_of

__all__ = ["Collecting", "on_collection", "prepare", "protocol_of"]
