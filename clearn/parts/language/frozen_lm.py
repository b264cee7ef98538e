"""A causal language model that is never trained, and the ways into it: a prefix, input embeddings, LoRA.

All memories of documents share it (specs "mbc" and "cmt"). Its weights are bit-identical to their checkpoint, so they
are found by content hash and neither written nor weighed with what is carried; LoRA is carried like any other weights.

Rows of different length are padded on the right and need no pad token: attention is causal, so no real token ever sees
what follows it. The vocabulary's matrix, a third of a short pass, is applied where an answer is read and nowhere else.

Letters: b rows, n tokens, r answer tokens, D width, L layers, H_kv key/value heads of size h, V vocabulary, m soft
tokens, P prefix positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from clearn.errors import ConfigError, StateError, demand
from clearn.parts.language.decoder import body, layers, measured
from clearn.parts.language.decoding import greedy
from clearn.parts.language.frozen import Frozen
from clearn.parts.language.loading import TINY, load
from clearn.parts.language.lora import Lora, sites
from clearn.parts.language.memories import Embeds, Memory, Prefix
from clearn.parts.language.options import Lm
from clearn.parts.language.tiny import tiny_lm
from clearn.parts.language.words import Ids, Words

if TYPE_CHECKING:
    from transformers import DynamicCache


class FrozenLM(Frozen):
    """A causal language model whose weights take no gradient.

    Args:
        options: which model, in which dtype, within which limits.

    Attributes:
        options: with their dtype settled.
        width: D.
        depth: L.
        kv_heads: H_kv.
        head_size: h.
        vocabulary: V, rows of the output's matrix.
        words: text to tokens and back.
        positions: the longest sequence that it takes.

    Raises:
        ConfigError: no plain causal language model, or limits beyond its positions.
        DataError: the model cannot be had, or its tokenizer names no end of text.
    """

    def __init__(self, options: Lm) -> None:
        options = options.settled()
        dtype = torch.bfloat16 if options.dtype == "bfloat16" else torch.float32
        loaded = tiny_lm(dtype) if options.model == TINY else load("language model", "lm.model", options.model, dtype)
        super().__init__(loaded)
        self.options = options
        shape = measured(self.net, "lm.model", options.model)
        self.width, self.depth, self.positions = shape.width, shape.depth, shape.positions
        self.kv_heads, self.head_size = shape.kv_heads, shape.head_size
        self.vocabulary = int(self.net.get_output_embeddings().weight.shape[0])
        known = min(self.vocabulary, len(self.net.get_input_embeddings().weight))
        self.words = Words(loaded.tokenizer, options, known)
        self._check_limits()
        self.loras = nn.ModuleDict()
        self._active: str | None = None

    def embed(self, ids: Tensor) -> Tensor:
        """(...) int64 -> (..., D) float32, the input embeddings of tokens, without positions."""
        vectors: Tensor = self.net.get_input_embeddings()(ids.to(self.net.device))
        return vectors.float()

    @property
    def mean_embedding(self) -> Tensor:
        """(D,) float32, the mean over the vocabulary."""
        weight: Tensor = self.net.get_input_embeddings().weight
        return weight.mean(0, dtype=torch.float32)

    # What comes out: answers.

    def answer_logits(
        self, questions: Sequence[Ids], answers: Sequence[Ids], memory: Memory | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score the tokens of given answers, each after the true ones before it.

        Args:
            questions: b rows of tokens, none empty; a question that is too long for its answer loses its front.
            answers: b rows of tokens, none empty, with their end token.
            memory: of b rows, or None.

        Returns:
            logits (b, r, V) float32, with gradient to memory and active LoRA; targets (b, r) int64; mask (b, r) bool,
            which of both are real.

        Raises:
            DataError: an answer leaves no room for any token of its question.
        """
        assert len(questions) == len(answers) >= 1, "one answer for each of one or more questions"
        assert all(questions), "questions have tokens (see Words.question)"
        assert all(answers), "answers have tokens: at least their end"
        questions = [self.words.cut(question, answer) for question, answer in zip(questions, answers, strict=True)]
        given = [[*question, *answer[:-1]] for question, answer in zip(questions, answers, strict=True)]
        x, _ = self._inputs(given, memory)
        hidden = self._run(x, self._cache(memory))  # (b, n, D)

        targets = self._padded(answers)  # (b, r)
        sizes = self._counts(answers)
        mask = torch.arange(targets.shape[1], device=x.device) < sizes[:, None]
        before = memory.length if isinstance(memory, Embeds) else 0
        first = before + self._counts(questions) - 1  # the last token of a question says the answer's first
        at = (first[:, None] + torch.arange(targets.shape[1], device=x.device)).clamp(max=x.shape[1] - 1)
        picked = hidden.gather(1, at[:, :, None].expand(-1, -1, self.width))
        return self._logits(picked), targets, mask

    def answer_losses(self, questions: Sequence[Ids], answers: Sequence[Ids], memory: Memory | None = None) -> Tensor:
        """(b,) float32: mean cross-entropy over the tokens of each answer, the end token included."""
        logits, targets, mask = self.answer_logits(questions, answers, memory)
        losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)  # (b, r)
        return (losses * mask).sum(1) / mask.sum(1)

    @torch.no_grad()
    def generate(self, questions: Sequence[Ids], memory: Memory | None = None) -> list[str]:
        """Answer questions greedily, until the end token, the end of the first line with text, or `new_tokens`.

        Questions of like length are answered together; rows do not see each other. In float32 an answer does not
        depend on its neighbours; in bfloat16 sums over batches of other shapes round otherwise.

        Args:
            questions: rows of tokens, none empty.
            memory: of as many rows, or None.

        Returns:
            Answers in the questions' order, stripped of spaces.

        Raises:
            StateError: the memory holds a number that is not finite.
        """
        assert all(questions), "questions have tokens (see Words.question)"
        assert memory is None or len(memory) == len(questions), "a row of memory for each question"
        if memory is not None and not memory.finite():
            raise StateError(
                "the memory of some question holds numbers that are not finite, which no answer can be read from: "
                "training has diverged; lower its learning rate, or clip its gradients"
            )
        order = sorted(range(len(questions)), key=lambda row: len(questions[row]))
        answers = [""] * len(questions)
        for start in range(0, len(order), self.options.batch):
            rows = order[start : start + self.options.batch]
            own = memory if memory is None else memory.rows(torch.tensor(rows))
            for row, answer in zip(rows, self._answers([questions[row] for row in rows], own), strict=True):
                answers[row] = answer
        return answers

    def _answers(self, questions: list[Ids], memory: Memory | None) -> list[str]:
        """Answer one batch."""
        x, sizes = self._inputs(questions, memory)
        cache = self._cache(memory, always=True)
        assert cache is not None, "decoding keeps keys and values"
        past = cache.get_seq_length()
        hidden = self._run(x, cache)
        last = hidden[torch.arange(len(x), device=x.device), sizes - 1]  # (b, D)
        real = torch.arange(x.shape[1], device=x.device) < sizes[:, None]
        seen = torch.cat([real.new_ones(len(x), past), real], dim=1)  # what padding left in the cache is never seen

        def go_on(tokens: Tensor, step: int) -> Tensor:
            mask = torch.cat([seen, seen.new_ones(len(x), step + 1)], dim=1)
            embedded = self.embed(tokens[:, None]).to(self.net.dtype)
            return self._logits(self._run(embedded, cache, mask, (past + sizes + step)[:, None])[:, 0])

        found = greedy(self._logits(last), go_on, self.words.complete, self.options.new_tokens)
        return [self.words.said(ids) for ids in found]

    # What documents become.

    def states_after(self, documents: Sequence[Ids], soft: Tensor) -> Tensor:
        """Let soft tokens read documents (specs "cmt", section 3).

        Args:
            documents: b rows of tokens; an empty one leaves the soft tokens alone.
            soft: (m, D), the input embeddings placed right after the last token of each document.

        Returns:
            (b, m, D) float32: their states after the last layer, before the final norm; with gradient to `soft` and
            to the active LoRA.
        """
        assert soft.shape[1:] == (self.width,), f"soft tokens are of shape (m, {self.width}), not {tuple(soft.shape)}"
        m, sizes = len(soft), self._counts(documents)
        x, _ = self._inputs(documents, after=soft)
        states = self._states(x, self.depth)
        at = sizes[:, None] + torch.arange(m, device=x.device)  # (b, m)
        return states.gather(1, at[:, :, None].expand(-1, -1, self.width)).float()

    @torch.no_grad()
    def token_states(self, documents: Sequence[Ids], depth: int) -> tuple[Tensor, Tensor]:
        """Compute what tokens are after `depth` layers; 0 gives their embeddings.

        Args:
            documents: b rows of tokens.
            depth: in [0, L].

        Returns:
            (b, n, D) float32, zero where there is no token, and (b, n) bool, where there is one.
        """
        demand(("depth", depth, 0 <= depth <= self.depth, f"in [0, {self.depth}], the layers of this model"))
        x, sizes = self._inputs(documents)
        states = self._states(x, depth).float() if depth and x.shape[1] else x.float()
        mask = torch.arange(x.shape[1], device=x.device) < sizes[:, None]
        return states * mask[:, :, None], mask

    @torch.no_grad()
    def opening(self, slots: int) -> Prefix:
        """Compute what the network itself keeps of so many start tokens: a prefix of one row that says nothing.

        Many networks put the attention that they have no use for on their first token. A prefix that begins as this
        one leaves answers as they are; one of other values takes that attention, and answers break down at first.
        """
        from transformers import DynamicCache

        cache = DynamicCache()
        x = self.embed(torch.full((1, slots), self.words.start)).to(self.net.dtype)
        self._run(x, cache)
        keys, values = (
            torch.stack([getattr(layer, name) for layer in cache.layers], dim=1) for name in ("keys", "values")
        )
        return Prefix(keys.float(), values.float())

    # What can be trained beside it.

    def add_lora(
        self, name: str, targets: Sequence[str], last: int | None, rank: int, alpha: float, dropout: float
    ) -> None:
        """Put LoRA beside the attention of the last layers; it is off until `using` says so.

        Args:
            name: letters and digits; new.
            targets: of "q", "k", "v", "o".
            last: in how many of the last layers; None for all.
            rank: r, 1 or more.
            alpha: outputs are scaled by alpha / r.
            dropout: of inputs while training, in [0, 1).

        Raises:
            ConfigError: options out of range, peft is missing, or projections that we do not know.
        """
        assert name.isidentifier(), f"{name!r} cannot name a module"
        assert name not in self.loras, f"a LoRA is named {name!r} already"
        places = sites(self.net, layers(self.net), targets, last)
        self.loras[name] = Lora(places, rank, alpha, dropout).to(self.net.device)

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Have exactly one LoRA take part in all that is computed meanwhile; None for the plain network."""
        assert name is None or name in self.loras, f"no LoRA is named {name!r}"
        before, self._active = self._active, name
        try:
            yield
        finally:
            self._active = before

    # How it runs.

    def _run(
        self, x: Tensor, cache: DynamicCache | None, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Run the layers and the final norm on input embeddings.

        Args:
            x: (b, n, D) in the network's dtype.
            cache: what stands before x; grows by n.
            mask: (b, cached + n), which of all positions may be seen; None for all that are not later.
            positions: (b, n) of x; None to count on from the cache.

        Returns:
            (b, n, D) in the network's dtype.
        """
        reach = x.shape[1] + (0 if cache is None else cache.get_seq_length())
        if reach > self.positions:
            raise ConfigError(
                f"a sequence of {reach} positions, memory and question together, is beyond the {self.positions} of "
                f"lm.model={self.options.model}: lower lm.sequence_tokens, lm.document_tokens or the memory's size"
            )
        with nullcontext() if self._active is None else self._lora(self._active).beside(self.net):
            out = body(self.net)(
                inputs_embeds=x,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        hidden: Tensor = out.last_hidden_state
        return hidden

    def _states(self, x: Tensor, depth: int) -> Tensor:
        """(b, n, D): what layer `depth`, counted from 1, hands on; later ones are not run."""

        def stop(_: nn.Module, __: object, out: Tensor | tuple[Tensor, ...]) -> None:
            raise _Reached(out if isinstance(out, Tensor) else out[0])

        hook = layers(self.net)[depth - 1].register_forward_hook(stop)
        try:
            self._run(x, None)
        except _Reached as reached:
            return reached.states
        finally:
            hook.remove()
        raise AssertionError("a model runs all its layers")

    def _inputs(
        self, rows: Sequence[Ids], memory: Memory | None = None, after: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Build input embeddings: embedded memory, tokens, what comes after them; padded on the right.

        Args:
            rows: b rows of tokens.
            memory: whose embeddings go first; a prefix goes into the cache instead.
            after: (m, D), the same for all rows.

        Returns:
            (b, n, D) in the network's dtype, and (b,) how many of the n are real.
        """
        self._check_memory(memory, len(rows))
        flat = torch.tensor([token for row in rows for token in row], dtype=torch.long)
        pieces: list[list[Tensor]] = [[part] for part in self.embed(flat).split([len(row) for row in rows])]
        if isinstance(memory, Embeds):
            pieces = [[vectors.float(), *row] for vectors, row in zip(memory.vectors, pieces, strict=True)]
        if after is not None:
            pieces = [[*row, after.float()] for row in pieces]
        sequences = [torch.cat(row) for row in pieces]
        sizes = torch.tensor([len(row) for row in sequences], device=self.net.device)
        return pad_sequence(sequences, batch_first=True).to(self.net.dtype), sizes

    def _cache(self, memory: Memory | None, always: bool = False) -> DynamicCache | None:
        """Make a cache that holds a prefix, new for each pass because passes write to it."""
        from transformers import DynamicCache

        if not isinstance(memory, Prefix):
            return DynamicCache() if always else None
        cache, dtype = DynamicCache(), self.net.dtype
        for layer in range(self.depth):
            cache.update(memory.keys[:, layer].to(dtype), memory.values[:, layer].to(dtype), layer)
        return cache

    def _logits(self, hidden: Tensor) -> Tensor:
        """(..., D) after the final norm -> (..., V) float32."""
        logits: Tensor = self.net.get_output_embeddings()(hidden)
        return logits.float()

    def _lora(self, name: str) -> Lora:
        found = self.loras[name]
        assert isinstance(found, Lora), "nothing else is put there"
        return found

    def _padded(self, rows: Sequence[Ids]) -> Tensor:
        """(b, r) int64 on the network's device; zeros fill up."""
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(self.net.device)

    def _counts(self, rows: Sequence[Ids]) -> Tensor:
        """(b,) int64 on the network's device."""
        return torch.tensor([len(row) for row in rows], device=self.net.device)

    # What is refused.

    def _check_limits(self) -> None:
        demand(
            *(
                (f"lm.{name}", value, value <= self.positions, f"at most {self.positions}, the positions of this model")
                for name, value in (
                    ("sequence_tokens", self.options.sequence_tokens),
                    ("document_tokens", self.options.document_tokens),
                )
            )
        )

    def _check_memory(self, memory: Memory | None, rows: int) -> None:
        """Memories are made by our own code for this network."""
        match memory:
            case Prefix(keys, values):
                wanted = (rows, self.depth, self.kv_heads, memory.length, self.head_size)
                assert keys.shape == values.shape == wanted, (
                    f"prefixes for {rows} rows of this model are of shape {wanted}, not {tuple(keys.shape)} and "
                    f"{tuple(values.shape)}"
                )
            case Embeds(vectors):
                right = (rows, memory.length, self.width)
                assert vectors.shape == right, f"embeddings for {rows} rows are {right}, not {tuple(vectors.shape)}"
            case None:
                pass


class _Reached(Exception):
    """Ends a pass that needs no further layers, and carries the last one's states out of it.

    Attributes:
        states: (b, n, D).
    """

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states
