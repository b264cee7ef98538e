"""A text encoder that is never trained, and a cache of what it said of each text.

Its weights are found by content hash and neither written nor weighed (see `Frozen`). The cache only saves time: it is
no state, is not carried, and an encoder without it gives the same bits, because each text is encoded alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from clearn.errors import ConfigError, DataError, demand
from clearn.parts.language.frozen import Frozen
from clearn.parts.language.loading import TINY, load
from clearn.parts.language.tiny import tiny_encoder

CACHE_BYTES = 1 << 29
"""Of states kept in memory: some 2,600 documents of 129 tokens at MiniLM's width."""


@dataclass(frozen=True)
class Encoder:
    """The frozen text encoder.

    Attributes:
        model: "tiny" for a random network of two layers over 300 words; otherwise a folder in Hugging Face's layout
            with .safetensors weights, or a name on its hub.
        tokens: of a text, start and end marks included; a longer one loses its end.
        cache: keep states of texts in memory, up to half a GiB.
    """

    model: str = TINY
    tokens: int = 256
    cache: bool = True

    def __post_init__(self) -> None:
        demand(
            ("encoder.model", repr(self.model), bool(self.model.strip()), "'tiny', a folder or a name"),
            ("encoder.tokens", self.tokens, self.tokens >= 3, "3 or more: start mark, a word, end mark"),
        )


class TextEncoder(Frozen):
    """A text encoder whose weights take no gradient.

    Args:
        options: which network, and how much of a text it sees.

    Attributes:
        options: as given.
        width: e of states and vectors.

    Raises:
        ConfigError: no text encoder, or more tokens than it has positions.
        DataError: the network cannot be had, or is damaged.
    """

    def __init__(self, options: Encoder) -> None:
        tiny = options.model == TINY
        loaded = tiny_encoder() if tiny else load("text encoder", "encoder.model", options.model, torch.float32)
        super().__init__(loaded)
        self.options, self.tokenizer, self.width = options, loaded.tokenizer, int(self.net.config.hidden_size)
        self._kept: dict[str, Tensor] = {}
        self._room = CACHE_BYTES if options.cache else 0
        self._check()

    @torch.no_grad()
    def states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode texts, each alone, so that the bits of one do not depend on its neighbours.

        Args:
            texts: b of them, 1 or more; an empty one has the states of its start and end marks.

        Returns:
            (b, n, e) float32, zero where there is no token, and (b, n) bool, where there is one.
        """
        assert texts, "one or more texts"
        found = [self._states(text) for text in texts]
        sizes = torch.tensor([len(states) for states in found], device=self.net.device)
        padded = pad_sequence([states.to(self.net.device) for states in found], batch_first=True)
        return padded, torch.arange(padded.shape[1], device=self.net.device) < sizes[:, None]

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """(b, e) float32 of unit norm: the mean of each text's states, marks included."""
        return normalize(torch.stack([self._states(text).mean(0) for text in texts]), dim=1).to(self.net.device)

    @torch.no_grad()
    def _states(self, text: str) -> Tensor:
        """(n, e) float32 of one text; on the CPU where they are kept."""
        if text in self._kept:
            return self._kept[text]
        ids = self._tokens(text)
        states: Tensor = self.net(input_ids=torch.tensor([ids], device=self.net.device)).last_hidden_state[0]
        if states.nbytes <= self._room:  # once full it keeps what it has: to throw out the oldest would, over epochs,
            self._room -= states.nbytes  # throw out each text just before it is asked for again
            self._kept[text] = states.cpu()
        return states

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=self.options.tokens)["input_ids"]
        return ids

    def _check(self) -> None:
        """Try the network on an empty text, and hold its positions against the tokens it shall see."""
        limit, name = int(self.net.config.max_position_embeddings), self.options.model
        demand(("encoder.tokens", self.options.tokens, self.options.tokens <= limit, f"at most {limit} for this model"))
        if not self._tokens(""):
            raise ConfigError(
                f"the tokenizer of encoder.model={name} puts no marks around a text, so an empty one would have no "
                "states: take an encoder such as MiniLM or BERT"
            )
        if not bool(self._states("").isfinite().all()):
            raise DataError(
                f"encoder.model={name} computes numbers that are not finite: its weights are damaged; get them again"
            )
