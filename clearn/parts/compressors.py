"""What turns a text into a small memory: m vectors of a language model's width, by a network that is trained for it.

CMT (Li et al., AAAI 2025) says that its compressor may be a decoder or a stack of cross-attention; the exact forms are
ours, since its code was never published (specs "cmt", section 3). Documents and questions go through the same one.

    decoder    the frozen language model itself with LoRA switched on, read by m soft tokens after the last real one
    cross      m learned queries that look at the frozen model's embeddings or states
    encoder    m learned queries that look at states of a frozen text encoder: the cheapest

A compressor does not own the language model, which is handed to it. What it is given are pieces: tokens for the first
two, text for the last.

Letters: b pieces, n tokens, m vectors a memory, D width of the language model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from clearn.errors import ConfigError, demand
from clearn.parts.amortising.latents import Resampler
from clearn.parts.hashing import fingerprint, fingerprint_of
from clearn.parts.language.encoder import Encoder, TextEncoder
from clearn.parts.language.frozen_lm import FrozenLM
from clearn.parts.language.words import Ids

NAME = "compressor"
"""By which the language model knows the LoRA of a decoder compressor."""

P = TypeVar("P", Ids, str)


@dataclass(frozen=True)
class Compression:
    """How texts are compressed.

    Attributes:
        kind: "decoder", "cross" or "encoder".
        tokens: m.
        chunk: cut a document that is too long into pieces, each with a memory of its own; otherwise its end is lost.
        rank: of a decoder's LoRA, on the four projections of every layer's attention.
        alpha: LoRA's outputs are scaled by alpha / rank.
        dropout: of LoRA's inputs while training.
        depth: "cross" looks at what tokens are after so many layers; 0 for their embeddings, without any pass.
        blocks: of "cross" and "encoder".
        heads: of these.
    """

    kind: Literal["decoder", "cross", "encoder"] = "decoder"
    tokens: int = 8
    chunk: bool = False
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    depth: int = 0
    blocks: int = 2
    heads: int = 8

    def __post_init__(self) -> None:
        demand(
            ("compressor.tokens", self.tokens, self.tokens >= 1, "1 or more"),
            ("compressor.rank", self.rank, self.rank >= 1, "1 or more"),
            ("compressor.alpha", self.alpha, 0 < self.alpha < float("inf"), "above 0 and finite"),
            ("compressor.dropout", self.dropout, 0 <= self.dropout < 1, "in [0, 1)"),
            ("compressor.depth", self.depth, self.depth >= 0, "0 or more"),
            ("compressor.blocks", self.blocks, self.blocks >= 1, "1 or more"),
            ("compressor.heads", self.heads, self.heads >= 1, "1 or more"),
        )


class Compressor(nn.Module, Generic[P]):
    """Pieces of text -> (b, m, D)."""

    def document(self, lm: FrozenLM, text: str, chunk: bool) -> list[P]:
        """Cut a document into pieces; without `chunk` there is one, of its beginning."""
        raise NotImplementedError

    def question(self, lm: FrozenLM, text: str) -> P:
        """Make a question a piece."""
        raise NotImplementedError

    def forward(self, lm: FrozenLM, pieces: Sequence[P]) -> Tensor:
        """Compress b pieces, 1 or more, into (b, m, D) float32; how far they are padded changes nothing."""
        raise NotImplementedError

    def version(self, lm: FrozenLM, *beside: Tensor) -> bytes:
        """SHA-256 of all that makes a memory, and of tensors that come after it."""
        digest = hashlib.sha256(fingerprint(self))
        digest.update(fingerprint_of((str(i), value) for i, value in enumerate(beside)))
        digest.update("".join(hash_ for _, hash_ in sorted(lm.content_hashes().items())).encode())
        return digest.digest()


class OfTokens(Compressor[Ids]):
    """A compressor whose pieces are tokens of the language model."""

    def document(self, lm: FrozenLM, text: str, chunk: bool) -> list[Ids]:
        """Cut after every `lm.document_tokens` tokens."""
        if not chunk:
            return [lm.words.document(text)]
        ids, size = lm.words.tokens(text), lm.options.document_tokens
        return [ids[start : start + size] for start in range(0, max(len(ids), 1), size)]

    def question(self, lm: FrozenLM, text: str) -> Ids:
        """The tokens that the model itself is shown of a question."""
        return lm.words.question(text)


class DecoderCompressor(OfTokens):
    """The language model with LoRA on; soft tokens read what came before them, documents and earlier soft tokens.

    LoRA lies in the language model, under `NAME`, and is on for the time of one pass only; here are the soft tokens and
    a linear layer, which starts as the identity.

    Args:
        lm: gets the LoRA.
        options: of compression.

    Attributes:
        soft: (m, D), the mean token embedding and noise of deviation 0.02 at first.
        linear: D -> D.
    """

    def __init__(self, lm: FrozenLM, options: Compression) -> None:
        super().__init__()
        lm.add_lora(NAME, ("q", "k", "v", "o"), None, options.rank, options.alpha, options.dropout)
        mean = lm.mean_embedding.detach().cpu()
        self.soft = nn.Parameter(mean + 0.02 * torch.randn(options.tokens, lm.width))
        self.linear = nn.Linear(lm.width, lm.width)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(lm.width))
            self.linear.bias.zero_()

    def forward(self, lm: FrozenLM, pieces: Sequence[Ids]) -> Tensor:
        """States after the last layer, before the final norm, at the soft tokens; then the linear layer."""
        with lm.using(NAME):
            states = lm.states_after(pieces, self.soft)
        out: Tensor = self.linear(states)
        return out.float()

    def version(self, lm: FrozenLM, *beside: Tensor) -> bytes:
        """LoRA makes the memories too."""
        return super().version(lm, *beside, *lm.loras[NAME].state_dict().values())


class CrossCompressor(OfTokens):
    """Learned queries that look at what the frozen model's tokens are after some layers.

    Args:
        lm: the language model.
        options: of compression.

    Raises:
        ConfigError: more layers than the model has.
    """

    def __init__(self, lm: FrozenLM, options: Compression) -> None:
        super().__init__()
        demand(("compressor.depth", options.depth, options.depth <= lm.depth, f"in [0, {lm.depth}] for this lm.model"))
        self.depth = options.depth
        self.resampler = Resampler(lm.width, options.tokens, options.blocks, options.heads)

    def forward(self, lm: FrozenLM, pieces: Sequence[Ids]) -> Tensor:
        """See `Compressor`."""
        with lm.using(None):
            states, mask = lm.token_states(pieces, self.depth)
        out: Tensor = self.resampler(states, mask)
        return out.float()


class EncoderCompressor(Compressor[str]):
    """Learned queries that look at a frozen text encoder's states, mapped to the language model's width.

    The encoder keeps the states of a text that it has seen, so epochs after the first cost no pass.

    Args:
        lm: the language model, for its width.
        encoder: which encoder.
        options: of compression.
    """

    def __init__(self, lm: FrozenLM, encoder: Encoder, options: Compression) -> None:
        super().__init__()
        self.encoder = TextEncoder(encoder)
        self.into = nn.Linear(self.encoder.width, lm.width)
        self.resampler = Resampler(lm.width, options.tokens, options.blocks, options.heads)

    def document(self, lm: FrozenLM, text: str, chunk: bool) -> list[str]:
        """Cut between words, so that each piece fits the encoder; a word that is too long alone loses its end."""
        if not chunk:
            return [text]
        marks = len(self.encoder.tokenizer("")["input_ids"])  # start and end
        room = self.encoder.options.tokens - marks
        pieces: list[list[str]] = [[]]
        used = 0
        for word in text.split():
            size = len(self.encoder.tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"])
            if pieces[-1] and used + size > room:
                pieces.append([])
                used = 0
            pieces[-1].append(word)
            used += size
        return [text] if len(pieces) == 1 else [" ".join(words) for words in pieces]

    def question(self, lm: FrozenLM, text: str) -> str:
        """The encoder cuts it itself."""
        return text

    def forward(self, lm: FrozenLM, pieces: Sequence[str]) -> Tensor:
        """See `Compressor`."""
        states, mask = self.encoder.states(pieces)
        out: Tensor = self.resampler(self.into(states), mask)
        return out.float()


def compressor_for(lm: FrozenLM, encoder: Encoder, options: Compression) -> Compressor[Ids] | Compressor[str]:
    """Build the compressor that options name; draws from torch's global generator.

    Args:
        lm: the frozen language model; a decoder puts its LoRA there.
        encoder: of the kind "encoder" alone.
        options: of compression.
    """
    match options.kind:
        case "decoder":
            return DecoderCompressor(lm, options)
        case "cross":
            return CrossCompressor(lm, options)
        case "encoder":
            return EncoderCompressor(lm, encoder, options)
    raise ConfigError(f"compressor.kind={options.kind} must be decoder, cross or encoder")
