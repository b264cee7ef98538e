"""Amortised contexts: latents of texts, what gathers them from a bank, and the way into a frozen model."""

from clearn.parts.amortising.aggregator import Aggregator, Cached, hierarchical
from clearn.parts.amortising.kv_lora import KvLora, attach
from clearn.parts.amortising.latents import T5, Amortiser, Resampler
from clearn.parts.amortising.prefixes import PrefixHead

__all__ = ["T5", "Aggregator", "Amortiser", "Cached", "KvLora", "PrefixHead", "Resampler", "attach", "hierarchical"]
