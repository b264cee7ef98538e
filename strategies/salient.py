"""Salient-span fine-tuning: one step of Adam a document, on the loss of those tokens alone that name something.

As uniform fine-tuning, but a token weighs 1 inside a named entity and 0 outside (salient spans as in REALM, Guu et al.
2020; a baseline of CaMeLS, Hu et al., EMNLP 2023; specs "mbc", section 9). Their tagger is no part of this project:
words with a capital first letter and all that holds a digit stand for entities (`clearn.parts.tuned_lm.salient`).

Carried: every weight of the language model, 4 bytes each as soon as anything was read: 538 MB for SmolLM2-135M
(134,515,008 weights; the tied output is stored once). Adam's moments, twice as much, are dropped after each task.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from torch import Tensor

from clearn.context import Context
from clearn.parts.language.options import Lm
from clearn.parts.studying import Studying
from clearn.parts.tuned_lm import salient_weights
from clearn.reader import Reader
from clearn.recipe import MetaRecipe
from clearn.stream import Document, Query, Row, Upstream


class Salient(Reader):
    """Trains the language model on the names and numbers of each document once; questions are asked without it.

    Args:
        lm: the language model, with weights in float32.
        lr: of Adam; swept over 1e-4, 2.5e-5, 6.25e-6 and 1.56e-6 as published.
        clip: the gradient's norm is cut to this; 0 leaves it.
        tune: how the model is trained on upstream questions first, closed book; null for the model as it is.
    """

    after_preparing: ClassVar[tuple[str, ...]] = ("lr", "clip")

    def __init__(self, lm: Lm = Lm(), lr: float = 2.5e-5, clip: float = 750.0, tune: MetaRecipe | None = None) -> None:
        super().__init__()
        self.tune = tune
        self.prompting = Studying(lm, lr, clip)

    def prepare(self, upstream: Upstream, ctx: Context) -> None:
        """Learn to answer upstream questions, if so wished."""
        if self.tune is not None:
            ctx.meta_train(self, upstream, self.tune, loss=self.episode)

    def episode(self, rows: Sequence[Row]) -> Tensor:
        """Mean loss of the rows' answers, their documents unseen."""
        return self.prompting.losses(rows).mean()

    def take_in(self, documents: Sequence[Document], ctx: Context) -> None:
        """Train on each document once, in order; one without a name or number teaches nothing."""
        self.prompting.study(documents, ctx, partial(salient_weights, self.prompting.student))

    def answer(self, questions: Sequence[Query]) -> list[str]:
        """Answer from the weights alone."""
        return self.prompting.answer([question.text for question in questions])

    def clear(self) -> None:
        """Have the checkpoint's weights again.

        Raises:
            ConfigError: they were tuned to questions before, and no copy of that is kept.
        """
        self.prompting.restart(self.tune is not None, "salient")
