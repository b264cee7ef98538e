"""Frozen language models and text encoders, and the ways in which a memory enters them."""

from __future__ import annotations

from clearn.parts.language.encoder import Encoder, TextEncoder
from clearn.parts.language.frozen_lm import FrozenLM
from clearn.parts.language.memories import Embeds, Memory, Prefix
from clearn.parts.language.options import Lm

__all__ = ["Embeds", "Encoder", "FrozenLM", "Lm", "Memory", "Prefix", "TextEncoder"]
