"""What texts become in MAC: T context vectors each, of the language model's width.

Tack et al. 2024 (MAC), section 3.1: an encoder-decoder whose decoder is given T learned embeddings instead of tokens,
then a small network of its own for each of the T positions. In place of the trained encoder-decoder a frozen encoder
may stand, whose states are computed once a text, with a resampler of T learned queries (specs "mbc", sections 4, 12).
Questions go through a second one of the same kind, with weights of its own.

Pads are masked everywhere, so the texts beside it change no text's vectors (specs "mbc", trap 2).

Letters: b texts, n tokens, T latents, e width of the encoder, D width that is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clearn.errors import DataError, demand
from clearn.parts.amortising.aggregator import CrossAttention, FeedForward
from clearn.parts.amortising.positions import OwnLinear, OwnNorm
from clearn.parts.hashing import fingerprint_of
from clearn.parts.language.encoder import Encoder, TextEncoder
from clearn.parts.language.loading import TINY, quietly, require

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class T5:
    """Encoder-decoders that are trained whole, as in MAC's paper, and carried.

    Attributes:
        document: "t5-small" beside distilgpt2, "t5-base" beside GPT2-large, "t5-large" beside larger ones; or a
            folder in Hugging Face's layout; "tiny" for a random one of two layers that reads bytes.
        question: likewise; never beyond "t5-base" in the papers.
        tokens: of a text; a longer one loses its end. 1,024 less the prefix in the papers.
    """

    document: str = "t5-small"
    question: str = "t5-small"
    tokens: int = 1022

    def __post_init__(self) -> None:
        demand(("t5.tokens", self.tokens, self.tokens >= 1, "1 or more"))


class Amortiser(nn.Module):
    """Documents and questions -> (b, T, D).

    Args:
        encoder: the frozen text encoder, whose states both resamplers read; not built where `t5` is given.
        t5: encoder-decoders that are trained instead; None for the frozen encoder.
        latents: T.
        width: D.
        blocks: of each resampler.
    """

    def __init__(self, encoder: Encoder, t5: T5 | None, latents: int, width: int, blocks: int = 2) -> None:
        super().__init__()
        self.encoder = TextEncoder(encoder) if t5 is None else None
        self.document: Resampled | EncoderDecoder
        self.question: Resampled | EncoderDecoder
        if self.encoder is not None:
            self.document = Resampled(self.encoder.width, latents, width, blocks)
            self.question = Resampled(self.encoder.width, latents, width, blocks)
        else:
            assert t5 is not None
            self.document = EncoderDecoder("t5.document", t5.document, t5.tokens, latents, width)
            self.question = EncoderDecoder("t5.question", t5.question, t5.tokens, latents, width)

    def documents(self, texts: Sequence[str]) -> Tensor:
        """(b, T, D), context vectors."""
        return self._latents(self.document, texts)

    def questions(self, texts: Sequence[str]) -> Tensor:
        """(b, T, D), queries."""
        return self._latents(self.question, texts)

    def version(self, *beside: nn.Module) -> bytes:
        """SHA-256 of all that makes a document's vectors, and of modules that come after it."""
        makers = [self.document, *beside] if self.encoder is None else [self.encoder, self.document, *beside]
        return fingerprint_of(
            (f"{i}.{name}", value) for i, maker in enumerate(makers) for name, value in maker.state_dict().items()
        )

    def _latents(self, which: Resampled | EncoderDecoder, texts: Sequence[str]) -> Tensor:
        if isinstance(which, EncoderDecoder):
            return which.forward(texts)
        assert self.encoder is not None
        return which.forward(*self.encoder.states(texts))


class Resampled(nn.Module):
    """States of a frozen encoder -> (b, T, D): a resampler at the encoder's width, then the positions' networks."""

    def __init__(self, width_in: int, latents: int, width: int, blocks: int) -> None:
        super().__init__()
        self.resampler = Resampler(width_in, latents, blocks)
        self.positions = PositionNets(latents, width_in, width)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(b, n, e) and (b, n) bool, where tokens are -> (b, T, D)."""
        out: Tensor = self.positions(self.resampler(states, mask))
        return out


class Resampler(nn.Module):
    """T learned queries that look at each other and at a text's states, without any causal order.

    Pre-norm blocks of self-attention, cross-attention and a feed-forward layer of 4 e (specs "cmt", section 3).

    Args:
        width: e.
        latents: T.
        blocks: how many.
        heads: that share the width.
    """

    def __init__(self, width: int, latents: int, blocks: int = 2, heads: int = 8) -> None:
        super().__init__()
        size = max(width // heads, 1)
        self.queries = nn.Parameter(torch.randn(latents, width) * 0.02)
        self.selves = nn.ModuleList(CrossAttention(width, heads, size) for _ in range(blocks))
        self.looks = nn.ModuleList(CrossAttention(width, heads, size) for _ in range(blocks))
        self.feeds = nn.ModuleList(FeedForward(width, 4 * width) for _ in range(blocks))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Gather T vectors of each text.

        Args:
            states: (b, n, e).
            mask: (b, n) bool, where tokens are; a text without any is looked at nowhere.

        Returns:
            (b, T, e).
        """
        z = self.queries.expand(len(states), -1, -1)
        some = mask.any(dim=1)  # (b,)
        hidden = torch.zeros_like(mask, dtype=z.dtype).masked_fill(some[:, None] & ~mask, -torch.inf)  # (b, n)
        for own, look, feed in zip(self.selves, self.looks, self.feeds, strict=True):
            z = z + own(z, *_apart(own, z))
            if states.shape[1]:
                z = z + look(z, *_apart(look, states), hidden) * some[:, None, None]
            z = z + feed(z)
        return z


def _apart(look: nn.Module, bank: Tensor) -> tuple[Tensor, Tensor]:
    assert isinstance(look, CrossAttention)
    return look.keys_values(bank)


class PositionNets(nn.Module):
    """A network for each of T positions: `skip(z) + W2 tanh(W1 LN(z))`, (b, T, e) -> (b, T, D).

    `skip` is the identity where e = D and linear otherwise.
    """

    def __init__(self, latents: int, width_in: int, width: int) -> None:
        super().__init__()
        self.norm = OwnNorm(latents, width_in)
        self.into, self.back = OwnLinear(latents, width_in, width), OwnLinear(latents, width, width)
        self.skip = nn.Identity() if width_in == width else OwnLinear(latents, width_in, width)

    def forward(self, z: Tensor) -> Tensor:
        """Each position through its own."""
        out: Tensor = self.skip(z) + self.back(torch.tanh(self.into(self.norm(z))))
        return out


class EncoderDecoder(nn.Module):
    """T5 with T learned input embeddings for its decoder, then the positions' networks; all of it is trained.

    The decoder is causal, so latent i knows those before it.

    Args:
        option: the config's name of `model`, for messages.
        model: a name on the hub, a folder, or "tiny".
        tokens: of a text at most.
        latents: T.
        width: D.

    Raises:
        DataError: the model cannot be had, or is no T5.
    """

    def __init__(self, option: str, model: str, tokens: int, latents: int, width: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.net, self.tokenizer = _tiny() if model == TINY else _loaded(option, model)
        self.net.requires_grad_(True)
        e = int(self.net.config.d_model)
        self.queries = nn.Parameter(torch.randn(latents, e) * 0.02)
        self.positions = PositionNets(latents, e, width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (b, T, D); the longest of them says how far the others are padded, which changes nothing."""
        device = self.queries.device
        batch = self.tokenizer(list(texts), truncation=True, max_length=self.tokens, padding=True, return_tensors="pt")
        states: Tensor = self.net(
            input_ids=batch["input_ids"].to(device),
            attention_mask=batch["attention_mask"].to(device),
            decoder_inputs_embeds=self.queries.expand(len(texts), -1, -1),
            use_cache=False,
        ).last_hidden_state
        out: Tensor = self.positions(states)
        return out


def _tiny() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A T5 drawn from torch's global generator, and the tokenizer of bytes, which needs no file."""
    require("transformers")
    from transformers import ByT5Tokenizer, T5Config, T5Model

    tokenizer = ByT5Tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
    )
    return T5Model(config), tokenizer


def _loaded(option: str, model: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    require("transformers", "tokenizers")
    from safetensors import SafetensorError
    from transformers import AutoTokenizer, T5Model

    try:
        with quietly():
            # Any: transformers declares no pair, which is what it gives where it is asked for what it found
            both: Any = T5Model.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
            net, found = both
            tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"{option}={model} could not be loaded: {first}; give a T5 in Hugging Face's layout, or t5: null for a "
            "frozen encoder"
        ) from error
    if missing := sorted(found["missing_keys"]):
        raise DataError(
            f"{option}={model} lacks {len(missing)} of a T5's tensors (first {missing[0]}): give weights and config of "
            "one T5 model"
        )
    return net, tokenizer
