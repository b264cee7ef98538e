"""MBC: MAC with its bank written in codes, and LoRA beside it (Katraouras & Rafailidis, SAC 2026).

"Memory Bank Compression for Continual Adaptation of Large Language Models", arXiv 2601.00756, and its code. Each of a
document's T context vectors becomes the number of the nearest of K codebook rows. Since the aggregator sees a set, what
matters is how often each code was met (specs "mbc", section 6): the memory is a histogram, of the same size whatever is
read, and the codebook's keys and values are computed once for all questions.

Carried, in bytes: codebook 4 K D, counts 4 K, 32 + 8 of what made them and how many there were; by choice 8 for each
document's hash and 2 T for its codes (`keep`); and the networks with LoRA and the 4 K of the codebook's usage. The
language model and the frozen encoder equal their checkpoints and are not carried. Without a document the aggregator is
left out: the question's own latents become the prefix.

Where this differs from paper and code: what `mac` says; the code stores lists of 8-byte codes, one a question's row;
distances are in float32; the codebook has a rate of its own and forgets the optimiser's moments of codes that were
reset (`codebook.lr: null`, `codebook.zero_moments: false` are as published); peft's dropout goes into LoRA's first
matrix, the code's comes out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from clearn.context import Context
from clearn.errors import BudgetExceeded, demand
from clearn.parts.amortising import T5, Aggregator, Amortiser, KvLora, PrefixHead, attach
from clearn.parts.code_memory import CodeMemory, Keep
from clearn.parts.codebook import DEAD, Codebook, Quantiser, perplexity
from clearn.parts.hashing import key
from clearn.parts.language import Encoder, FrozenLM, Lm, Prefix
from clearn.reader import Reader
from clearn.recipe import MetaRecipe
from clearn.state import State
from clearn.stream import Document, Query, Row, TaskInfo, Upstream

ASKED = 128
"""Questions whose prefixes are held at once."""

SEEDED = 4096
"""Context vectors among which k-means++ looks for the first codes."""


class Mbc(Reader):
    """Memory bank compression.

    Args:
        lm: the frozen language model.
        encoder: the frozen text encoder that both resamplers read.
        t5: trained encoder-decoders instead, as in the paper; null for the frozen encoder.
        latents: T, codes a document and vectors a question: 12 for distilgpt2, 24 for larger ones in the paper.
        prefix: P, prefix slots a layer.
        head: of the prefix: "per_position" as published, or "shared", see `PrefixHead`.
        opening: add the prefix to what the language model keeps of its own start tokens, instead of putting it in
            their place as published; see `PrefixHead`.
        blocks: of the aggregator, 4 in the paper, and of each resampler.
        codes: K; 512 in the paper.
        codebook: how codes are learned.
        keep: what is kept of single documents beside the histogram.
        with_gradient: rho, share of a batch's documents that is encoded with gradient and asked about, while the others
            are distractors alone (backpropagation dropout); 0.75 in the paper for GPT2-XL and Llama, 3 of 5 as its
            code rounds.
        lora: on the language model's keys and values; null for none.
        random_codes: read out a second time with as many codes drawn at random, as a control.
        meta: training before the stream; in the paper Adam with a rate of 1e-5, gradients cut at 100, 50 epochs.
    """

    categories: ClassVar[dict[str, str]] = {
        "model/quantiser.codebook": "codebooks",
        "memory": "meta",
        "memory/counts": "counts",
        "memory/rows": "codes",
        "memory/ids": "index",
    }
    after_preparing: ClassVar[tuple[str, ...]] = ("keep", "random_codes")

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
        codes: int = 256,
        codebook: Codebook = Codebook(),
        keep: Keep = Keep(),
        with_gradient: float = 1.0,
        lora: KvLora | None = KvLora(),
        random_codes: bool = False,
        meta: MetaRecipe = MetaRecipe(),
    ) -> None:
        super().__init__()
        demand(
            ("latents", latents, latents >= 1, "1 or more"),
            ("prefix", prefix, prefix >= 1, "1 or more slots"),
            ("blocks", blocks, blocks >= 1, "1 or more"),
            ("with_gradient", with_gradient, 0 < with_gradient <= 1, "in (0, 1]"),
        )
        self.latents, self.with_gradient, self.random_codes = latents, with_gradient, random_codes
        self.meta = meta
        self.lm = FrozenLM(lm)
        self.lora = attach(self.lm, lora)
        width = self.lm.width
        self.amortiser = Amortiser(encoder, t5, latents, width, blocks)
        self.quantiser = Quantiser(codes, width, codebook)
        self.aggregator = Aggregator(width, blocks)
        start = self.lm.opening(prefix) if opening else None
        self.prefixes = PrefixHead(
            width, latents, prefix, self.lm.depth, self.lm.kv_heads, self.lm.head_size, head, start
        )
        self.memory: CodeMemory = CodeMemory(codes, latents, codebook.groups, keep)

    def prepare(self, upstream: Upstream, ctx: Context) -> None:
        """Learn on upstream rows."""
        options = self.quantiser.options

        def loss(rows: Sequence[Row]) -> Tensor:
            if options.start == "kmeans++" and self.quantiser.fresh:
                self._seed(upstream.train.documents)
            return self.episode(rows)

        factor = 1.0 if options.lr is None else options.lr / self.meta.lr
        ctx.meta_train(
            self, upstream, self.meta, loss=loss, after_step=self.quantiser.settle, rates=[(self.quantiser, factor)]
        )
        self._log(ctx, "training", self.quantiser.usage)

    def episode(self, rows: Sequence[Row]) -> Tensor:
        """Ask about documents of a batch, each hidden among the others' codes.

        Returns:
            The mean cross-entropy of the answers, plus lambda times the quantiser's loss.
        """
        texts = [row.document.text for row in rows]
        asked = [row.question for row in rows[: max(round(self.with_gradient * len(rows)), 1)]]
        contexts = self.amortiser.documents(texts[: len(asked)])  # (b, T, D)
        if len(asked) < len(rows):
            with torch.no_grad():
                distractors = self.amortiser.documents(texts[len(asked) :])
            contexts = torch.cat([contexts, distractors])
        found = self.quantiser(contexts)
        z = self.amortiser.questions([question.text for question in asked])
        z = self.aggregator(z, found.vectors.flatten(0, 1)[None])
        with self.lm.using(self.lora):
            losses = self.lm.answer_losses(
                [self.lm.words.question(question.text) for question in asked],
                [self.lm.words.answer(question.answer) for question in asked],
                Prefix(*self.prefixes(z)),
            )
        total: Tensor = losses.mean() + self.quantiser.options.weight * found.loss
        return total

    @torch.no_grad()
    def take_in(self, documents: Sequence[Document], ctx: Context) -> None:
        """Count each document's codes; one that is held already under its id and text changes nothing.

        Raises:
            BudgetExceeded: the codebook and what is kept outweigh the budget; nothing of a histogram can give way.
        """
        self.eval()
        self.memory.stamp(self.amortiser.version(self.quantiser))
        if documents:
            self.memory.add(self._ids(documents), self._codes(documents))
        room = ctx.room(self, self.state())
        if room is not None and room < 0:
            raise BudgetExceeded(
                f"budget.bytes is {-room:,} bytes too small for {len(self.memory)} documents: codebook, histogram and "
                f"what keep says of single documents cannot be pruned; raise it by {-room:,}, or lower codes, latents "
                "or what is kept"
            )
        ctx.log("documents", len(self.memory))
        if self.memory.groups == 1:
            self._log(ctx, "memory", self.memory.counts[None])

    def answer(self, questions: Sequence[Query]) -> list[str]:
        """Gather from the codes met, then answer greedily."""
        codes = self.memory.codes() if self.memory.groups > 1 else None
        return self._answers(questions, self.memory.counts, codes)

    def read(self, questions: Sequence[Query]) -> dict[str, list[str]]:
        """With the memory, and by choice with as many codes drawn at random."""
        found = {self.readout: self.answer(questions)}
        if self.random_codes:
            n_codes, many, t, g = len(self.memory.counts), len(self.memory), self.latents, self.memory.groups
            drawn = torch.randint(n_codes, (many, t, g), generator=torch.Generator().manual_seed(0))
            counts = torch.bincount(drawn.flatten(), minlength=n_codes)
            found["random_codes"] = self._answers(questions, counts, drawn if g > 1 else None)
        return found

    @torch.no_grad()
    def forget(self, documents: Sequence[Document], ctx: Context) -> None:
        """Subtract their codes: those that were kept, or else those that their texts, which come along, have again.

        Raises:
            DataError: a document was never read.
            StateError: a count would fall below 0.
        """
        self.eval()
        if documents:
            codes = None if self.memory.keep.codes else self._codes(documents)
            self.memory.remove(self._ids(documents), codes)

    def clear(self) -> None:
        """Forget all codes met."""
        self.memory.clear()

    def load(self, state: State, seen: Sequence[TaskInfo]) -> None:
        """Rebuild, and make sure that the codes are of these networks.

        Raises:
            StateError: entries do not fit, or other parameters made the codes.
        """
        super().load(state, seen)
        self.memory.check(self.amortiser.version(self.quantiser))

    def _answers(self, questions: Sequence[Query], counts: Tensor, codes: Tensor | None) -> list[str]:
        """Answer from a histogram (K,), or with more groups than one from (N, T, g) codes."""
        if codes is None:
            met = counts.nonzero()[:, 0]
            bank = self.quantiser.decode(met[:, None].to(self.device))[None]  # (1, codes met, D)
            log_counts = counts[met].log().to(self.device)[None]
        else:
            bank = self.quantiser.decode(codes.flatten(0, 1).to(self.device))[None]  # (1, N T, D)
            log_counts = None
        cached, answers = self.aggregator.cache(bank), []
        for start in range(0, len(questions), ASKED):
            texts = [question.text for question in questions[start : start + ASKED]]
            z = self.aggregator(self.amortiser.questions(texts), cached, log_counts)
            with self.lm.using(self.lora):
                tokens = [self.lm.words.question(text) for text in texts]
                answers += self.lm.generate(tokens, Prefix(*self.prefixes(z)))
        return answers

    def _codes(self, documents: Sequence[Document]) -> Tensor:
        """(n, T, g) int64, on the CPU; encoded alone, a document has the same codes whatever comes with it."""
        rows = [self.quantiser.encode(self.amortiser.documents([document.text])).cpu() for document in documents]
        return torch.cat(rows)

    def _ids(self, documents: Sequence[Document]) -> list[int]:
        """Hash ids; without kept codes texts too, since a text is what is subtracted."""
        if self.memory.keep.codes:
            return [key(document.id) for document in documents]
        return [key(f"{document.id}\0{document.text}") for document in documents]

    @torch.no_grad()
    def _seed(self, documents: Sequence[Document]) -> None:
        """Begin with codes far apart among the context vectors of the first documents."""
        first = [document.text for document in documents[: -(-SEEDED // self.latents)]]
        vectors = torch.cat([self.amortiser.documents(first[i : i + 32]) for i in range(0, len(first), 32)])
        self.quantiser.seed(vectors.flatten(0, 1)[:SEEDED], torch.Generator().manual_seed(self.meta.seed))

    def _log(self, ctx: Context, when: str, counts: Tensor) -> None:
        """Keep perplexity and live codes of (g, K) counts for the run folder; the mean of groups."""
        ctx.log(f"{when}/perplexity", float(perplexity(counts).mean()))
        ctx.log(f"{when}/live_codes", float((counts >= DEAD).sum(1).double().mean()))
