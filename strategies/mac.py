"""MAC: documents become a few vectors each, and a question gathers what it needs of them (Tack et al., NeurIPS 2024).

"Online Adaptation of Language Models with a Memory of Amortized Contexts", arXiv 2403.04317, and its code. Before the
stream, document encoder, question encoder, aggregator and prefix head learn to make a frozen language model answer; on
the stream a document is encoded once and its T context vectors are stored, without any gradient.

Carried: 4 T D bytes and 8 of its id for each document, 40 for the bank, and the four networks. The language model and
the frozen encoder equal their checkpoints and are not carried. Without a document the aggregator is left out: the
question's own latents become the prefix.

Where this differs from paper and code: one entry a document, where the code has one a question, so that test questions
would weigh documents. Pads are masked, the language model has no dropout while training, and hierarchical aggregation
goes over the whole bank, in groups of documents; the code's goes over the length of the question. By default a
resampler of a frozen encoder's states stands for the two T5s, which are `t5`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from clearn.context import Context
from clearn.errors import demand
from clearn.parts.amortising import T5, Aggregator, Amortiser, KvLora, PrefixHead, attach, hierarchical
from clearn.parts.bank import Bank, Form
from clearn.parts.hashing import key
from clearn.parts.language import Encoder, FrozenLM, Lm, Prefix
from clearn.reader import Reader
from clearn.recipe import MetaRecipe
from clearn.state import State
from clearn.stream import Document, Query, Row, TaskInfo, Upstream

ASKED = 128
"""Questions whose prefixes are held at once."""


class Mac(Reader):
    """Memory of amortised contexts.

    Args:
        lm: the frozen language model.
        encoder: the frozen text encoder that both resamplers read.
        t5: trained encoder-decoders instead, as in the paper; null for the frozen encoder.
        latents: T, vectors a document and a question: 12 for distilgpt2, 24 for larger ones in the paper.
        prefix: P, prefix slots a layer.
        head: of the prefix: "per_position" as published, or "shared", see `PrefixHead`.
        opening: add the prefix to what the language model keeps of its own start tokens, instead of putting it in
            their place as published; see `PrefixHead`.
        blocks: of the aggregator, 4 in the paper, and of each resampler.
        group: M, documents that are aggregated at once; null for all of them.
        with_gradient: rho, share of a batch's documents that is encoded with gradient and asked about, while the others
            are distractors alone (backpropagation dropout); 0.25 in the paper for models beyond distilgpt2.
        lora: on the language model's keys and values; null for none, as published.
        dtype: in which vectors are kept; float32 in the paper.
        capacity: documents at most; null for what the byte budget allows. Chance says which are kept.
        meta: training before the stream; in the paper Adam with a rate of 1e-5, gradients cut at 100, 50 epochs.
    """

    categories: ClassVar[dict[str, str]] = {
        "memory": "meta",
        "memory/rows": "features",
        "memory/scales": "features",
        "memory/ids": "index",
    }
    after_preparing: ClassVar[tuple[str, ...]] = ("group", "dtype", "capacity")

    def __init__(
        self,
        lm: Lm = Lm(),
        encoder: Encoder = Encoder(),
        t5: T5 | None = None,
        latents: int = 8,
        prefix: int = 2,
        head: Literal["per_position", "shared"] = "per_position",
        opening: bool = False,
        blocks: int = 2,
        group: int | None = None,
        with_gradient: float = 1.0,
        lora: KvLora | None = None,
        dtype: Form = "float32",
        capacity: int | None = None,
        meta: MetaRecipe = MetaRecipe(),
    ) -> None:
        super().__init__()
        demand(
            ("latents", latents, latents >= 1, "1 or more"),
            ("prefix", prefix, prefix >= 1, "1 or more slots"),
            ("blocks", blocks, blocks >= 1, "1 or more"),
            ("group", group, group is None or group >= 2, "2 or more documents, or aggregation never ends; or null"),
            ("with_gradient", with_gradient, 0 < with_gradient <= 1, "in (0, 1]"),
            ("capacity", capacity, capacity is None or capacity >= 0, "0 or more documents, or null"),
        )
        self.latents, self.group, self.with_gradient, self.capacity = latents, group, with_gradient, capacity
        self.meta = meta
        self.lm = FrozenLM(lm)
        self.lora = attach(self.lm, lora)
        width = self.lm.width
        self.amortiser = Amortiser(encoder, t5, latents, width, blocks)
        self.aggregator = Aggregator(width, blocks)
        start = self.lm.opening(prefix) if opening else None
        self.prefixes = PrefixHead(
            width, latents, prefix, self.lm.depth, self.lm.kv_heads, self.lm.head_size, head, start
        )
        self.memory: Bank = Bank((latents, width), dtype)

    def prepare(self, upstream: Upstream, ctx: Context) -> None:
        """Learn on upstream rows."""
        ctx.meta_train(self, upstream, self.meta, loss=self.episode)

    def episode(self, rows: Sequence[Row]) -> Tensor:
        """Ask about documents of a batch, each hidden among the others; the mean cross-entropy of the answers."""
        texts = [row.document.text for row in rows]
        asked = [row.question for row in rows[: max(round(self.with_gradient * len(rows)), 1)]]
        contexts = self.amortiser.documents(texts[: len(asked)])  # (b, T, D)
        if len(asked) < len(rows):
            with torch.no_grad():
                distractors = self.amortiser.documents(texts[len(asked) :])
            contexts = torch.cat([contexts, distractors])
        z = self.amortiser.questions([question.text for question in asked])
        z = self.aggregator(z, contexts.flatten(0, 1)[None])
        with self.lm.using(self.lora):
            return self.lm.answer_losses(
                [self.lm.words.question(question.text) for question in asked],
                [self.lm.words.answer(question.answer) for question in asked],
                Prefix(*self.prefixes(z)),
            ).mean()

    @torch.no_grad()
    def take_in(self, documents: Sequence[Document], ctx: Context) -> None:
        """Store each document's vectors; one that is held already under its id and text changes nothing."""
        self.eval()
        self.memory.stamp(self.amortiser.version())
        capacity = self.memory.fits(ctx.room(self, self.model_state()), self.capacity)
        # Encoded alone, a document has the same bits whatever comes with it.
        rows = [self.amortiser.documents([document.text]).cpu() for document in documents]
        if rows:
            ids = [key(document.id) for document in documents]
            self.memory.add(ids, torch.cat(rows), capacity=capacity, rng=ctx.rng("bank"), dedupe=True)
        ctx.log("documents", len(self.memory))

    def answer(self, questions: Sequence[Query]) -> list[str]:
        """Gather from the bank, then answer greedily."""
        bank = self.memory.vectors(device=self.device).flatten(0, 1)[None]  # (1, N T, D)
        whole = self.aggregator.cache(bank) if self.group is None else None
        answers: list[str] = []
        for start in range(0, len(questions), ASKED):
            texts = [question.text for question in questions[start : start + ASKED]]
            z = self.amortiser.questions(texts)
            if whole is not None:
                z = self.aggregator(z, whole)
            elif self.group is not None:
                z = hierarchical(self.aggregator, z, bank, self.group * self.latents)
            with self.lm.using(self.lora):
                tokens = [self.lm.words.question(text) for text in texts]
                answers += self.lm.generate(tokens, Prefix(*self.prefixes(z)))
        return answers

    def forget(self, documents: Sequence[Document], ctx: Context) -> None:
        """Drop their vectors."""
        self.memory.drop(key(document.id) for document in documents)
        if not self.memory.met:
            self.memory.clear()

    def clear(self) -> None:
        """Empty the bank."""
        self.memory.clear()

    def load(self, state: State, seen: Sequence[TaskInfo]) -> None:
        """Rebuild, and make sure that the vectors are of these networks.

        Raises:
            StateError: entries do not fit, or other parameters made the bank.
        """
        super().load(state, seen)
        self.memory.check(self.amortiser.version())
