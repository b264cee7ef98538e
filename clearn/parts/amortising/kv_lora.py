"""LoRA on a language model's keys and values alone, as MBC trains it (Katraouras & Rafailidis 2026; specs "mbc", 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clearn.errors import demand

if TYPE_CHECKING:
    from clearn.parts.language.frozen_lm import FrozenLM

NAME = "kv"
"""By which the language model knows it."""


@dataclass(frozen=True)
class KvLora:
    """LoRA on keys and values.

    Attributes:
        rank: r.
        alpha: outputs are scaled by alpha / r.
        last: in so many of the last layers; in all where there are fewer.
        dropout: while training, of what goes into A, as peft has it; MBC's code drops what comes out of A.
    """

    rank: int = 8
    alpha: float = 16.0
    last: int = 10
    dropout: float = 0.05

    def __post_init__(self) -> None:
        demand(
            ("lora.rank", self.rank, self.rank >= 1, "1 or more"),
            ("lora.alpha", self.alpha, 0 < self.alpha < float("inf"), "above 0 and finite"),
            ("lora.last", self.last, self.last >= 1, "1 or more layers"),
            ("lora.dropout", self.dropout, 0 <= self.dropout < 1, "in [0, 1)"),
        )


def attach(lm: FrozenLM, lora: KvLora | None) -> str | None:
    """Put LoRA beside a language model's keys and values; give the name to be used, None for none."""
    if lora is None:
        return None
    lm.add_lora(NAME, ("k", "v"), min(lora.last, lm.depth), lora.rank, lora.alpha, lora.dropout)
    return NAME
