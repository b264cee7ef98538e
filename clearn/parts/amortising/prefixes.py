"""MAC's prefix head: latents become keys and values that a language model attends to before its first token.

Tack et al. 2024 (MAC), after P-tuning v2 (Liu et al. 2022). Layout and layer sizes as in their code (specs "mbc",
section 4).

Letters: b questions, T latents each, D width, L layers of the language model, P prefix slots a layer, A = 2 L P
positions, H key/value heads of size h.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from clearn.errors import ConfigError
from clearn.parts.amortising.aggregator import FeedForward
from clearn.parts.amortising.positions import OwnLinear, OwnNorm
from clearn.parts.language.memories import Prefix

HIDDEN = 768
"""Inner width of MAC's heads, whatever D is."""

GENTLE = 0.05
"""The share of a prefix beside an opening before it is learned."""


class PrefixHead(nn.Module):
    """(b, T, D) latents -> a prefix of P slots for each of L layers.

    Latents are repeated to A positions, and each position has a residual feed-forward layer of its own, `x + W2
    gelu(W1 LN(x))`. Where the model's keys are narrower than D (grouped queries), x itself goes through a linear layer.

    Args:
        width: D.
        latents: T.
        prefix: P.
        layers: L.
        kv_heads: H.
        head_size: h.
        form: "per_position", as published; "shared": one feed-forward layer for all positions, which a learned
            embedding, added first, tells apart: 24 times fewer weights for a model of six layers.
        opening: of one row, that the prefix is added to, with a learned factor that starts at
            `GENTLE`; None gives the prefix as it is, as published. With those of the model's own start tokens training
            begins where the model is, and not where a foreign prefix has broken its answers.

    Raises:
        ConfigError: more latents than positions, so some would be lost.
    """

    keys: Tensor | None
    values: Tensor | None

    def __init__(
        self,
        width: int,
        latents: int,
        prefix: int,
        layers: int,
        kv_heads: int,
        head_size: int,
        form: Literal["per_position", "shared"] = "per_position",
        opening: Prefix | None = None,
    ) -> None:
        super().__init__()
        positions, out = 2 * layers * prefix, kv_heads * head_size
        if latents > positions:
            raise ConfigError(
                f"latents={latents} must be at most {positions}, 2 x {layers} layers x prefix={prefix}, or some of "
                f"them would reach no layer: write latents: {positions} or prefix: {-(-latents // (2 * layers))}"
            )
        self.prefix, self.layers, self.kv_heads, self.head_size = prefix, layers, kv_heads, head_size
        self.copies = copies(latents, positions)
        self.feed = OwnFeed(positions, width, out) if form == "per_position" else SharedFeed(positions, width, out)
        self.share = None if opening is None else nn.Parameter(torch.tensor(GENTLE))
        keys, values = (None, None) if opening is None else (opening.keys, opening.values)
        self.register_buffer("keys", keys, persistent=False)  # the model's own, so they are not carried
        self.register_buffer("values", values, persistent=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(b, T, D) -> keys and values, each (b, L, H, P, h)."""
        repeats = torch.tensor(self.copies, device=z.device)
        x = z.repeat_interleave(repeats, dim=1, output_size=sum(self.copies))  # (b, A, D)
        keys, values = self.arranged(self.feed(x))
        if self.share is None or self.keys is None or self.values is None:
            return keys, values
        return self.keys + self.share * keys, self.values + self.share * values

    def arranged(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give position a to slot a div 2L of layer (a mod 2L) div 2, as a key if even, else as a value."""
        slots = x.reshape(len(x), self.prefix, self.layers, 2, self.kv_heads, self.head_size)
        keys, values = slots.permute(3, 0, 2, 4, 1, 5)  # (2, b, L, H, P, h)
        return keys, values


class OwnFeed(nn.Module):
    """A residual feed-forward layer for each of A positions: (b, A, D) -> (b, A, out)."""

    def __init__(self, positions: int, width: int, out: int) -> None:
        super().__init__()
        self.norm = OwnNorm(positions, width)
        self.into, self.back = OwnLinear(positions, width, HIDDEN), OwnLinear(positions, HIDDEN, out)
        self.skip = nn.Identity() if width == out else OwnLinear(positions, width, out)

    def forward(self, x: Tensor) -> Tensor:
        """Each position through its own."""
        out: Tensor = self.skip(x) + self.back(gelu(self.into(self.norm(x))))
        return out


class SharedFeed(nn.Module):
    """One residual feed-forward layer for all positions, told apart by an embedding: (b, A, D) -> (b, A, out)."""

    def __init__(self, positions: int, width: int, out: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(positions, width) * 0.02)
        self.feed = FeedForward(width, HIDDEN, out)
        self.skip = nn.Identity() if width == out else nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        """All positions through one."""
        x = x + self.places
        out: Tensor = self.skip(x) + self.feed(x)
        return out


def copies(latents: int, positions: int) -> list[int]:
    """Say how often each latent is repeated, so that all positions are filled; the first ones once more.

    >>> copies(3, 8), copies(4, 6)
    ([3, 3, 2], [2, 2, 1, 1])
    """
    times, more = divmod(positions, latents)
    return [times + (i < more) for i in range(latents)]
