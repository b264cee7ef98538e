"""Closed book: a language model answers from what it knew before, and reads nothing.

The floor for every memory of documents. With `tune` LoRA learns the style of answers from upstream questions, without
any document: what is gained over that is memory, and not manner.

Carried: nothing; with `tune` LoRA, 4 r (inputs + outputs) bytes for each projection it stands beside. The language
model equals its checkpoint and is not carried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from clearn.context import Context
from clearn.parts.language.options import Lm
from clearn.parts.prompting import Prompting, PromptLora
from clearn.reader import Reader
from clearn.recipe import MetaRecipe
from clearn.stream import Document, Query, Row, Upstream


class ClosedBook(Reader):
    """Answers questions alone.

    Args:
        lm: the frozen language model.
        tune: how LoRA is trained on upstream questions; null for the model as it is.
        lora: what is trained then.
    """

    readout: ClassVar[str] = "answer"
    controls: ClassVar[bool] = False

    def __init__(self, lm: Lm = Lm(), tune: MetaRecipe | None = None, lora: PromptLora = PromptLora()) -> None:
        super().__init__()
        self.tune = tune
        self.prompting = Prompting(lm, lora=lora if tune else None)

    def prepare(self, upstream: Upstream, ctx: Context) -> None:
        """Learn how answers look, if so wished."""
        if self.tune is not None:
            ctx.meta_train(self, upstream, self.tune, loss=self.episode)

    def episode(self, rows: Sequence[Row]) -> Tensor:
        """Mean loss of the rows' answers, their documents unseen."""
        return self.prompting.losses(rows).mean()

    def take_in(self, documents: Sequence[Document], ctx: Context) -> None:
        """Read nothing."""

    def answer(self, questions: Sequence[Query]) -> list[str]:
        """Answer from the weights alone."""
        return self.prompting.answer([question.text for question in questions])

    def forget(self, documents: Sequence[Document], ctx: Context) -> None:
        """Nothing is kept of any document."""

    def clear(self) -> None:
        """Nothing is kept of any document."""
