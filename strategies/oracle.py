"""Oracle: the right document stands in the prompt, found by its id, which no method may know.

The ceiling for every memory of documents that is read by the same language model: what it gets wrong, the model could
not read.

Carried: the texts as UTF-8 and 12 bytes a document, and 8 bytes (`clearn.parts.texts`); with `tune` LoRA, 4 r (inputs +
outputs) bytes for each projection. The language model equals its checkpoint and is not carried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from clearn.context import Context
from clearn.parts.language.options import Lm
from clearn.parts.prompting import Prompting, PromptLora
from clearn.parts.texts import TextMemory, Texts
from clearn.reader import Reader
from clearn.recipe import MetaRecipe
from clearn.stream import Document, Query, Row, Upstream


class Oracle(Reader):
    """Stores texts and is told which one a question is about; where that is not held, the question stands alone.

    Args:
        lm: the frozen language model.
        texts: how documents are stored.
        tune: how LoRA is trained to answer from the passage; null for the model as it is.
        lora: what is trained then.
    """

    after_preparing: ClassVar[tuple[str, ...]] = ("texts",)
    memory: Texts

    def __init__(
        self,
        lm: Lm = Lm(),
        texts: TextMemory = TextMemory(),
        tune: MetaRecipe | None = None,
        lora: PromptLora = PromptLora(),
    ) -> None:
        super().__init__()
        self.tune, self.memory = tune, Texts(texts)
        self.prompting = Prompting(lm, passages=1, lora=lora if tune else None)

    def prepare(self, upstream: Upstream, ctx: Context) -> None:
        """Learn to answer from a passage, if so wished."""
        if self.tune is not None:
            ctx.meta_train(self, upstream, self.tune, loss=self.episode)

    def episode(self, rows: Sequence[Row]) -> Tensor:
        """Mean loss of the rows' answers, each after its own document."""
        return self.prompting.losses(rows).mean()

    def take_in(self, documents: Sequence[Document], ctx: Context) -> None:
        """Store texts; under the same id the same text changes nothing, another one takes its place."""
        self.memory.add(documents, ctx.room(self, self.model_state()), ctx.seed)
        ctx.log("texts/left_out", self.memory.left_out)

    def answer(self, questions: Sequence[Query]) -> list[str]:
        """Answer each question from its own document."""
        found = [self.memory.find(question.document) for question in questions]
        passages = [() if text is None else (text,) for text in found]
        return self.prompting.answer([question.text for question in questions], passages)

    def forget(self, documents: Sequence[Document], ctx: Context) -> None:
        """Drop their texts."""
        self.memory.drop([document.id for document in documents])

    def clear(self) -> None:
        """Drop all texts."""
        self.memory.clear()
