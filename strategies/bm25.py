"""BM25: texts are kept as they are, and the best match by shared words stands in the prompt.

The yardstick for every compressed memory under the same bytes: a document of 129 tokens is some 500 bytes of UTF-8,
less than most of what it is compressed to. Ranking: Robertson and Zaragoza 2009, section 3.1 (`clearn.parts.bm25`).

Carried: the texts as UTF-8, or deflated, and 12 bytes a document, and 8 bytes (`clearn.parts.texts`); the index is made
of the texts again and again; with `tune` LoRA, 4 r (inputs + outputs) bytes for each projection. The language model
equals its checkpoint and is not carried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor

from clearn.context import Context
from clearn.errors import demand
from clearn.parts.bm25 import Okapi, english, words
from clearn.parts.language.options import Lm
from clearn.parts.prompting import Prompting, PromptLora
from clearn.parts.texts import TextMemory, Texts
from clearn.reader import Reader
from clearn.recipe import MetaRecipe
from clearn.stream import Document, Query, Row, Upstream


class Bm25(Reader):
    """Finds the k best texts for a question and has a language model answer from them.

    A question that shares no word with any text stands alone, as with an empty memory.

    Args:
        lm: the frozen language model.
        k: passages in the prompt, best first.
        k1: how soon repeats of a word stop counting; like b as the Anserini toolkit has it for passages.
        b: how much long documents are charged.
        analysis: "english": stop words are left out and plurals taken for singulars. "plain": words as they are. On
            2,185 Factbook documents the right one is first for 70 % and for 41 % of the questions.
        texts: how documents are stored.
        tune: how LoRA is trained to answer from passages, the right one among k of the batch; null for the model as
            it is.
        lora: what is trained then.
    """

    after_preparing: ClassVar[tuple[str, ...]] = ("k1", "b", "analysis", "texts")
    memory: Texts

    def __init__(
        self,
        lm: Lm = Lm(),
        k: int = 1,
        k1: float = 0.9,
        b: float = 0.4,
        analysis: Literal["english", "plain"] = "english",
        texts: TextMemory = TextMemory(),
        tune: MetaRecipe | None = None,
        lora: PromptLora = PromptLora(),
    ) -> None:
        demand(("k", k, k >= 1, "1 or more; the method closed_book reads nothing"))
        super().__init__()
        self.k, self.k1, self.b, self.tune = k, k1, b, tune
        self.memory = Texts(texts)
        self.prompting = Prompting(lm, passages=k, lora=lora if tune else None)
        self.cut = english if analysis == "english" else words
        self._index = Okapi((), k1, b, self.cut)
        self._indexed: tuple[str, ...] = ()

    def prepare(self, upstream: Upstream, ctx: Context) -> None:
        """Learn to answer from passages, if so wished."""
        if self.tune is not None:
            ctx.meta_train(self, upstream, self.tune, loss=self.episode)

    def episode(self, rows: Sequence[Row]) -> Tensor:
        """Mean loss of the rows' answers, each after its own document among k of the batch."""
        return self.prompting.losses(rows).mean()

    def take_in(self, documents: Sequence[Document], ctx: Context) -> None:
        """Store texts; under the same id the same text changes nothing, another one takes its place."""
        self.memory.add(documents, ctx.room(self, self.model_state()), ctx.seed)
        ctx.log("texts/left_out", self.memory.left_out)

    def answer(self, questions: Sequence[Query]) -> list[str]:
        """Answer each question from the k texts that match it best."""
        texts, index = self.memory.texts(), self.index()
        passages = [[texts[row] for row in index.top(question.text, self.k)] for question in questions]
        return self.prompting.answer([question.text for question in questions], passages)

    def index(self) -> Okapi:
        """The index of what is held, made anew where the texts have changed."""
        texts = self.memory.texts()
        if self._indexed is not texts:
            self._index, self._indexed = Okapi(texts, self.k1, self.b, self.cut), texts
        return self._index

    def forget(self, documents: Sequence[Document], ctx: Context) -> None:
        """Drop their texts."""
        self.memory.drop([document.id for document in documents])

    def clear(self) -> None:
        """Drop all texts."""
        self.memory.clear()
