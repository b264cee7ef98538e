"""LoRA only: the language model learns how answers look, and keeps nothing of what it reads; a control.

What MBC trains beside its memory is LoRA on keys and values, which is at work whatever the memory holds (Katraouras &
Rafailidis 2026; specs "mbc", section 10). This is that part alone: a method on documents has to do better.

Carried: the LoRA's weights, 1,966,080 numbers for GPT2-large. Nothing of any document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from clearn.context import Context
from clearn.errors import demand
from clearn.parts.amortising import KvLora, attach
from clearn.parts.language import FrozenLM, Lm
from clearn.reader import Reader
from clearn.recipe import MetaRecipe
from clearn.stream import Document, Query, Row, Upstream


class LoraOnly(Reader):
    """A closed book, tuned on upstream questions.

    Args:
        lm: the frozen language model.
        lora: on its keys and values.
        opening: so many start tokens before each question; as many as the prefix has slots that it is the control of.
        meta: training before the stream.
    """

    readout: ClassVar[str] = "answer"
    controls: ClassVar[bool] = False

    def __init__(
        self, lm: Lm = Lm(), lora: KvLora = KvLora(), opening: int = 0, meta: MetaRecipe = MetaRecipe()
    ) -> None:
        super().__init__()
        demand(("opening", opening, opening >= 0, "0 or more start tokens"))
        self.lm, self.opening, self.meta = FrozenLM(lm), opening, meta
        self.lora = attach(self.lm, lora)

    def prepare(self, upstream: Upstream, ctx: Context) -> None:
        """Learn on upstream questions; their documents are not read."""
        ctx.meta_train(self, upstream, self.meta, loss=self.episode)

    def episode(self, rows: Sequence[Row]) -> Tensor:
        """Mean cross-entropy of the answers."""
        with self.lm.using(self.lora):
            return self.lm.answer_losses(
                [self._asked(row.question) for row in rows],
                [self.lm.words.answer(row.question.answer) for row in rows],
            ).mean()

    def take_in(self, documents: Sequence[Document], ctx: Context) -> None:
        """Keep nothing."""

    def answer(self, questions: Sequence[Query]) -> list[str]:
        """Answer greedily from the question alone."""
        with self.lm.using(self.lora):
            return self.lm.generate([self._asked(question) for question in questions])

    def _asked(self, question: Query) -> list[int]:
        return [self.lm.words.start] * self.opening + self.lm.words.question(question.text)

    def forget(self, documents: Sequence[Document], ctx: Context) -> None:
        """Do nothing: no document left a trace."""

    def clear(self) -> None:
        """Do nothing."""
