"""Dense retrieval: texts are kept as they are beside a vector each, and the nearest one stands in the prompt.

A frozen sentence encoder finds by meaning what BM25 finds by words; its vectors are weighed like the texts.

Carried: the texts as UTF-8, or deflated, and 12 + e bytes a document (12 + 2 e with float16; e = 384 of MiniLM), and 8
bytes; with `tune` LoRA, 4 r (inputs + outputs) bytes for each projection. Language model and encoder equal their
checkpoints and are not carried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from clearn.context import Context
from clearn.errors import demand
from clearn.parts.embedded_texts import EmbeddedTexts, Index
from clearn.parts.language.encoder import Encoder, TextEncoder
from clearn.parts.language.options import Lm
from clearn.parts.prompting import Prompting, PromptLora
from clearn.parts.texts import TextMemory
from clearn.reader import Reader
from clearn.recipe import MetaRecipe
from clearn.stream import Document, Query, Row, Upstream


class Dense(Reader):
    """Finds the k texts nearest to a question and has a language model answer from them.

    Args:
        lm: the frozen language model.
        encoder: the frozen sentence encoder.
        k: passages in the prompt, nearest first.
        index: how vectors are stored.
        texts: how documents are stored.
        tune: how LoRA is trained to answer from passages, the right one among k of the batch; null for the model as
            it is.
        lora: what is trained then.
    """

    after_preparing: ClassVar[tuple[str, ...]] = ("encoder", "index", "texts")
    categories: ClassVar[dict[str, str]] = {"memory/vectors": "index"}
    memory: EmbeddedTexts

    def __init__(
        self,
        lm: Lm = Lm(),
        encoder: Encoder = Encoder(),
        k: int = 1,
        index: Index = "int8",
        texts: TextMemory = TextMemory(),
        tune: MetaRecipe | None = None,
        lora: PromptLora = PromptLora(),
    ) -> None:
        demand(("k", k, k >= 1, "1 or more; the method closed_book reads nothing"))
        super().__init__()
        self.k, self.tune = k, tune
        self.prompting = Prompting(lm, passages=k, lora=lora if tune else None)
        self.encoder = TextEncoder(encoder)
        self.memory = EmbeddedTexts(texts, self.encoder.width, index)

    def prepare(self, upstream: Upstream, ctx: Context) -> None:
        """Learn to answer from passages, if so wished."""
        if self.tune is not None:
            ctx.meta_train(self, upstream, self.tune, loss=self.episode)

    def episode(self, rows: Sequence[Row]) -> Tensor:
        """Mean loss of the rows' answers, each after its own document among k of the batch."""
        return self.prompting.losses(rows).mean()

    def take_in(self, documents: Sequence[Document], ctx: Context) -> None:
        """Store texts and vectors; under the same id the same text changes nothing, another one takes its place."""
        if documents:
            vectors = self.encoder.vectors([document.text for document in documents])
            self.memory.add(documents, vectors, ctx.room(self, self.model_state()), ctx.seed)
        ctx.log("texts/left_out", self.memory.texts.left_out)

    def answer(self, questions: Sequence[Query]) -> list[str]:
        """Answer each question from the k texts nearest to it."""
        if not questions:
            return []
        asked, texts = [question.text for question in questions], self.memory.texts.texts()
        nearest = self.memory.nearest(self.encoder.vectors(asked), self.k)
        return self.prompting.answer(asked, [[texts[row] for row in rows] for rows in nearest])

    def forget(self, documents: Sequence[Document], ctx: Context) -> None:
        """Drop their texts and vectors."""
        self.memory.drop([document.id for document in documents])

    def clear(self) -> None:
        """Drop all texts and vectors."""
        self.memory.clear()
