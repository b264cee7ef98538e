"""What a frozen language model says of a row's answer without any memory, computed once a row while others train."""

from __future__ import annotations

import torch
from torch import Tensor

from clearn.parts.language.frozen_lm import FrozenLM
from clearn.parts.language.memories import Embeds, Memory
from clearn.stream import Row

ROOM = 1 << 30
"""Bytes of logits that are kept: some 1,700 answers of SmolLM2 in bfloat16."""


class Unaided:
    """Logits of answers, by the question alone or after the whole document; they never change, so they are kept.

    Args:
        lm: without any LoRA that it has.

    Attributes:
        kept: (what was read, question, answer) -> (r, V) in the model's dtype, on the CPU.
        room: bytes that may still be kept.
    """

    def __init__(self, lm: FrozenLM) -> None:
        self.lm = lm
        self.kept: dict[tuple[str, str, str], Tensor] = {}
        self.room = ROOM

    def clear(self) -> None:
        """Keep nothing any more."""
        self.kept, self.room = {}, ROOM

    def without(self, row: Row) -> Tensor:
        """(r, V): the frozen model's logits for a row's answer when it knows nothing but the question."""
        return self._remembered("", row, None)

    def taught(self, row: Row) -> Tensor:
        """(r, V): likewise, when it has read the whole document, in front of the question and a line end."""
        ids = [*self.lm.words.document(row.document.text), *self.lm.words.tokens("\n")]
        return self._remembered(row.document.text, row, Embeds(self.lm.embed(torch.tensor([ids]))))

    @torch.no_grad()
    def _remembered(self, read: str, row: Row, memory: Memory | None) -> Tensor:
        """Compute logits once a row, alone so that a training that goes on finds the same bits; keep them if they fit.

        They are kept in the language model's dtype, which loses nothing.
        """
        name = (read, row.question.text, row.question.answer)
        if name in self.kept:
            return self.kept[name].to(next(self.lm.parameters()).device).float()
        question, answer = self.lm.words.question(row.question.text), self.lm.words.answer(row.question.answer)
        with self.lm.using(None):
            logits = self.lm.answer_logits([question], [answer], memory)[0][0]  # (r, V)
        small = logits.to(self.lm.net.dtype)
        if small.nbytes <= self.room:
            self.room -= small.nbytes
            self.kept[name] = small.cpu()
        return small.float()
