"""CMT: each document becomes a small memory in a bank; a question finds its own, and a frozen model reads them.

After Li, Sun, Hu, Hu, Zhang, "CMT: A Memory Compression Method for Continual Knowledge Learning of Large Language
Models" (AAAI 2025, arXiv 2412.07393). Its code was never found and only summaries of its method could be read, so this
is CMT as specified by clearn (specs "cmt"); what the paper leaves open is an option. Three parts can be left out one by
one: the memory-aware loss (`objective.kind`, `objective.alpha`), self-matching (`gather.match`) and the cut to the k
best (`gather.k`).

Carried: compressor, matcher and aggregator, once; a document costs m D vectors (bfloat16: 2 m D bytes), a key of 2 D
bytes and an id of 8; 40 bytes a bank. No text, no question, no optimiser. The language model is never written to.

Letters: B rows a batch, n questions, N memories, m vectors each, D width of the language model, r answer tokens, V
vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from clearn.errors import demand
from clearn.meta import batches, documented_rows
from clearn.parts.amortising.aggregator import Aggregator
from clearn.parts.amortising.awareness import aware, distill, margin, mean_over, stacked, token_losses
from clearn.parts.amortising.prefixes import PrefixHead
from clearn.parts.amortising.unaided import Unaided
from clearn.parts.bank import CATEGORIES, Bank, Storage
from clearn.parts.compressors import Compression, compressor_for
from clearn.parts.hashing import key
from clearn.parts.language.contrast import say_contrasted
from clearn.parts.language.encoder import Encoder
from clearn.parts.language.frozen_lm import FrozenLM
from clearn.parts.language.memories import Embeds, Memory, Prefix
from clearn.parts.language.options import Lm
from clearn.parts.matching import TAU, Matcher, best, cosines, log_shares, match_loss
from clearn.reader import Reader
from clearn.recipe import MetaRecipe
from clearn.state import State
from clearn.stream import Document, Query, Row, TaskInfo, Upstream

if TYPE_CHECKING:
    from clearn.context import Context

RECONSTRUCTED = 128
"""At most so many tokens of a document are to be told from its memory."""

AT_ONCE = 64
"""Documents are put into the bank in groups of so many."""


@dataclass(frozen=True)
class Gathering:
    """How a question gathers what it needs.

    Attributes:
        k: memories that are aggregated, the best of all.
        match: compare keys; false gives all memories the same weight, and aggregates all, as MAC does.
        tau: temperature of matching at first; it is learned, within [0.01, 1].
        forced: share of the training in which the right memory is among the k whether it matches or not.
        blocks: of the aggregator.
        heads: likewise.
        head_size: likewise.
        inject: "embed": m vectors before the question's own embeddings; "prefix": keys and values in every layer.
        prefix: slots a layer for "prefix".
        head: of "prefix": "per_position" as MAC has it, or "shared", see `PrefixHead`.
        opening: of "prefix": add it to what the language model keeps of its own start tokens, see `PrefixHead`.
    """

    k: int = 4
    match: bool = True
    tau: float = 0.05
    forced: float = 0.5
    blocks: int = 2
    heads: int = 8
    head_size: int = 96
    inject: Literal["embed", "prefix"] = "embed"
    prefix: int = 2
    head: Literal["per_position", "shared"] = "per_position"
    opening: bool = False

    def __post_init__(self) -> None:
        demand(
            ("gather.k", self.k, self.k >= 1, "1 or more: with no memory there is nothing to gather"),
            ("gather.tau", self.tau, TAU[0] <= self.tau <= TAU[1], f"in [{TAU[0]}, {TAU[1]}]"),
            ("gather.forced", self.forced, 0 <= self.forced <= 1, "in [0, 1]"),
            ("gather.blocks", self.blocks, self.blocks >= 1, "1 or more"),
            ("gather.heads", self.heads, self.heads >= 1, "1 or more"),
            ("gather.head_size", self.head_size, self.head_size >= 1, "1 or more"),
            ("gather.prefix", self.prefix, self.prefix >= 1, "1 or more"),
        )


@dataclass(frozen=True)
class Objective:
    """What the training minimises: L = L_mem + match L_match + reconstruct L_rec.

    Attributes:
        kind: "aware", "margin" or "distill"; see the functions of these names.
        alpha: of "aware", and of contrast at test; 0 is the plain answer loss.
        gamma: of "margin" and "distill".
        margin: nats that the memory is to gain a token, of "margin".
        match: weight of the matching loss.
        reconstruct: weight of telling the document from its memory.
        share: of a batch that is encoded with gradient, and asked about; the rest are distractors. Below 1 it saves
            the memory that gradients need.
    """

    kind: Literal["aware", "margin", "distill"] = "aware"
    alpha: float = 0.5
    gamma: float = 0.5
    margin: float = 1.0
    match: float = 0.1
    reconstruct: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        weights = ("alpha", "gamma", "margin", "match", "reconstruct")
        demand(
            *(
                (f"objective.{name}", getattr(self, name), 0 <= getattr(self, name) < math.inf, "0 or more and finite")
                for name in weights
            ),
            ("objective.share", self.share, 0 < self.share <= 1, "in (0, 1]"),
        )


@dataclass(frozen=True)
class Asking:
    """What may be chosen after training, when questions are asked.

    Attributes:
        k: instead of `gather.k`; null for that.
        contrast: decode from (1 + alpha) with memory - alpha without, as the "aware" loss was trained; two passes over
            the whole question a token.
    """

    k: int | None = None
    contrast: bool = False

    def __post_init__(self) -> None:
        demand(("asking.k", self.k, self.k is None or self.k >= 1, "1 or more, or null for gather.k"))


class Cmt(Reader):
    """Compress, match, gather, answer.

    Args:
        lm: the frozen language model.
        encoder: the frozen text encoder, of `compressor.kind: encoder` alone.
        compressor: what makes memories.
        gather: what a question makes of them.
        objective: what is minimised.
        bank: how memories are kept.
        asking: what can be chosen at test.
        meta: the training.

    Attributes:
        steps: batches trained on so far, a buffer: what is forced depends on it, also in a training that goes on.
        forced_until: batches in which the right memory is forced.
    """

    categories: ClassVar[dict[str, str]] = {**CATEGORIES, "model/steps": "meta"}
    after_preparing: ClassVar[tuple[str, ...]] = ("bank", "asking")
    steps: Tensor
    memory: Bank

    def __init__(
        self,
        lm: Lm = Lm(),
        encoder: Encoder = Encoder(),
        compressor: Compression = Compression(),
        gather: Gathering = Gathering(),
        objective: Objective = Objective(),
        bank: Storage = Storage(),
        asking: Asking = Asking(),
        meta: MetaRecipe = MetaRecipe(lr=1e-4, optimizer="adamw", accumulate=2, schedule="cosine"),
    ) -> None:
        super().__init__()
        self.compression, self.gather, self.objective = compressor, gather, objective
        self.storage, self.asking, self.meta = bank, asking, meta
        self.lm = FrozenLM(lm)
        self.compressor = compressor_for(self.lm, encoder, compressor)
        self.matcher = Matcher(self.lm.width, gather.tau)
        self.aggregator = Aggregator(self.lm.width, gather.blocks, gather.heads, gather.head_size)
        self.prefix = self._prefix_head() if gather.inject == "prefix" else None
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.forced_until = 0
        self.memory = self._bank(bank)
        self._limited = True
        self.unaided = Unaided(self.lm)

    # Before the stream: learn to compress, to match and to gather.

    def prepare(self, upstream: Upstream, ctx: Context) -> None:
        """Train on upstream rows; validation has a bank without limits, in float32, so all banks share one training."""
        a_pass = batches(documented_rows(upstream.train), self.meta.batch_size, torch.Generator().manual_seed(0))
        self.forced_until = round(self.gather.forced * self.meta.epochs * len(a_pass))
        kept, asking = self.memory, self.asking
        self.memory, self.asking, self._limited = self._bank(Storage("float32")), Asking(), False
        try:
            ctx.meta_train(self, upstream, self.meta, self.episode)
        finally:
            self.memory, self.asking, self._limited = kept, asking, True
            self.unaided.clear()

    def episode(self, rows: Sequence[Row]) -> Tensor:
        """Loss of a batch: each question finds its document among the others' (specs "cmt", section 8).

        Args:
            rows: B of them, with distinct documents or without.

        Returns:
            Scalar.
        """
        self.matcher.confine()
        asked = rows[: max(1, round(self.objective.share * len(rows)))]
        cut = [self.compressor.document(self.lm, row.document.text, self.compression.chunk) for row in rows]
        pieces = [piece for of_one in cut for piece in of_one]
        owners = [row.document.id for row, of_one in zip(rows, cut, strict=True) for _ in of_one]
        memories = self._documents(pieces, sum(map(len, cut[: len(asked)])))  # (N, m, D)
        queries = self._questions([row.question.text for row in asked])  # (n, m, D)
        positives = torch.tensor([[row.document.id == owner for owner in owners] for row in asked])
        positives = positives.to(memories.device)  # (n, N)

        forced = positives if self.training and int(self.steps) < self.forced_until else None
        if self.gather.match:
            scores = cosines(self.matcher.queries(queries), self.matcher.keys(memories))  # (n, N)
            chosen = best(scores, self.gather.k, forced)  # (n, k)
            gathered = self._gathered(queries, memories[chosen], scores.gather(1, chosen))
            matching = self.objective.match * match_loss(scores, self.matcher.tau, positives)
        else:
            gathered, matching = self._gathered(queries, memories[None], None), queries.new_zeros(())
        loss = self._answer_loss(asked, self._injected(gathered)).mean() + matching
        if self.objective.reconstruct:
            own = sum(map(len, cut[: len(asked)]))
            loss = loss + self.objective.reconstruct * self._reconstruction_loss(pieces[:own], memories[:own])
        if self.training:
            self.steps += 1
        return loss

    # The stream: one pass a document, no gradient.

    @torch.no_grad()
    def take_in(self, documents: Sequence[Document], ctx: Context) -> None:
        """Append each document's memory and key. A document that is held already is left out with `bank.dedupe`."""
        self.memory.stamp(self.version())
        capacity, rng = None, ctx.rng("bank")
        if self._limited:
            capacity = self.memory.fits(ctx.room(self, self.model_state()), self.storage.capacity)
        for start in range(0, len(documents), AT_ONCE):
            ids: list[int] = []
            made: list[Tensor] = []
            for document in documents[start : start + AT_ONCE]:
                pieces = self.compressor.document(self.lm, document.text, self.compression.chunk)
                ids += [key(document.id)] * len(pieces)
                made += [self.compressor(self.lm, [piece]) for piece in pieces]  # alone: its bits are its own
            memories = torch.cat(made)
            keys = self.matcher.keys(memories)
            self.memory.add(ids, memories, keys, capacity, rng, self.storage.dedupe)

    def forget(self, documents: Sequence[Document], ctx: Context) -> None:
        """Drop their rows; refused where they were never read, or may be part of a merged one."""
        self.memory.drop(key(document.id) for document in documents)

    def clear(self) -> None:
        """Empty the bank."""
        self.memory.clear()

    # Questions.

    @torch.no_grad()
    def answer(self, questions: Sequence[Query]) -> list[str]:
        """Match, gather the k best, decode greedily; with nothing in the bank a question's own memory is injected."""
        answers: list[str] = []
        keys = self.memory.matching(self.device)
        for start in range(0, len(questions), self.lm.options.batch):
            texts = [question.text for question in questions[start : start + self.lm.options.batch]]
            answers += self._answers(texts, keys)
        return answers

    def load(self, state: State, seen: Sequence[TaskInfo]) -> None:
        """Rebuild; a bank that another compressor made is refused."""
        super().load(state, seen)
        self.memory.check(self.version())

    def version(self) -> bytes:
        """SHA-256 of what makes memories and their keys."""
        return self.compressor.version(self.lm, self.matcher.key)

    def found(self, text: str, k: int) -> list[int]:
        """The ids of the k best memories for a question, as `clearn.parts.hashing.key` makes them, best first."""
        with torch.no_grad():
            scores = cosines(self.matcher.queries(self._questions([text])), self.memory.matching(self.device))
        return [int(self.memory.ids[i]) for i in best(scores, k)[0].tolist()]

    # How it is done.

    def _documents(self, pieces: Sequence[Any], with_gradient: int) -> Tensor:
        """(N, m, D): memories of pieces, the first so many with gradient."""
        memories: Tensor = self.compressor(self.lm, pieces[:with_gradient])
        if with_gradient == len(pieces):
            return memories
        with torch.no_grad():
            distractors = self.compressor(self.lm, pieces[with_gradient:])
        return torch.cat([memories, distractors])

    def _questions(self, texts: Sequence[str]) -> Tensor:
        """(n, m, D): questions through the same compressor."""
        memories: Tensor = self.compressor(self.lm, [self.compressor.question(self.lm, text) for text in texts])
        return memories

    def _gathered(self, queries: Tensor, memories: Tensor, scores: Tensor | None) -> Tensor:
        """M*: what questions gather of k memories; log p is added to the attention logits of each one's vectors.

        Args:
            queries: (n, m, D).
            memories: (n or 1, k, m, D), each question's own or the same for all.
            scores: (n, k) their cosines; None to weigh all alike.

        Returns:
            (n, m, D); the queries themselves where k = 0.
        """
        if not memories.shape[1]:
            return queries
        weights = None
        if scores is not None:
            weights = log_shares(scores, self.matcher.tau).repeat_interleave(memories.shape[2], dim=1)  # (n, k m)
        out: Tensor = self.aggregator(queries, memories.flatten(1, 2), weights)
        return out

    def _injected(self, gathered: Tensor) -> Memory:
        """(n, m, D) -> what the language model takes."""
        if self.prefix is None:
            return Embeds(gathered)
        return Prefix(*self.prefix(gathered))

    def _answers(self, texts: Sequence[str], keys: Tensor) -> list[str]:
        """Answer one batch; of the bank, the rows that were chosen are read and no others."""
        queries = self._questions(texts)
        if self.gather.match:
            scores = cosines(self.matcher.queries(queries), keys)  # (n, N)
            chosen = best(scores, self._k())  # (n, k)
            gathered = self._gathered(queries, self.memory.vectors(chosen, self.device), scores.gather(1, chosen))
        else:
            gathered = self._gathered(queries, self.memory.vectors(device=self.device)[None], None)
        questions, memory = [self.lm.words.question(text) for text in texts], self._injected(gathered)
        if self.asking.contrast:
            return say_contrasted(self.lm, questions, memory, self.objective.alpha)
        return self.lm.generate(questions, memory)

    def _answer_loss(self, rows: Sequence[Row], memory: Memory) -> Tensor:
        """(n,): L_mem of each row."""
        questions = [self.lm.words.question(row.question.text) for row in rows]
        answers = [self.lm.words.answer(row.question.answer) for row in rows]
        logits, targets, mask = self.lm.answer_logits(questions, answers, memory)  # (n, r, V)
        options, reach = self.objective, logits.shape[1]
        if options.kind == "aware" and options.alpha == 0:
            return mean_over(token_losses(logits, targets), mask)
        if options.kind == "distill":
            taught = stacked([self.unaided.taught(row) for row in rows], reach).to(logits.device)
            return distill(logits, taught, targets, mask, options.gamma)
        without = stacked([self.unaided.without(row) for row in rows], reach).to(logits.device)
        if options.kind == "margin":
            return margin(logits, without, targets, mask, options.gamma, options.margin)
        return aware(logits, without, targets, mask, options.alpha)

    def _reconstruction_loss(self, pieces: Sequence[Any], memories: Tensor) -> Tensor:
        """L_rec: mean cross-entropy of each piece's first tokens, told by the frozen model from its memory alone."""
        most = min(RECONSTRUCTED, self.lm.options.sequence_tokens - 1)
        told = [list(self.lm.words.tokens(piece) if isinstance(piece, str) else piece)[:most] for piece in pieces]
        some = [i for i, ids in enumerate(told) if ids]  # nothing can be told of an empty one
        if not some:
            return memories.new_zeros(())
        start = [self.lm.words.question("")] * len(some)
        memory = self._injected(memories[torch.tensor(some, device=memories.device)])
        return self.lm.answer_losses(start, [told[i] for i in some], memory).mean()

    def _k(self) -> int:
        """How many memories a question is given at test."""
        return self.asking.k or self.gather.k

    def _prefix_head(self) -> PrefixHead:
        lm = self.lm
        slots, form = self.gather.prefix, self.gather.head
        start = lm.opening(slots) if self.gather.opening else None
        return PrefixHead(lm.width, self.compression.tokens, slots, lm.depth, lm.kv_heads, lm.head_size, form, start)

    def _bank(self, storage: Storage) -> Bank:
        width = self.lm.width
        return Bank((self.compression.tokens, width), storage.dtype, width, storage.evict)
