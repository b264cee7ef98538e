"""Vector quantisation: each vector becomes the number of the codebook's nearest row.

Van den Oord et al. 2017 (VQ-VAE), section 3, with the online resetting of MBC (Katraouras & Rafailidis 2026; specs
"mbc", section 5). Beside what they do, as options: k-means++ seeding, an update by moving averages (VQ-VAE, appendix
A.1), optimiser moments of reset rows set to zero, and product quantisation (Jegou et al. 2011): D is cut into g groups,
each with a codebook of its own.

Carried: the codebook, 4 K D bytes whatever g is, and 4 g K for how often codes were used in training.

Letters: n vectors of width D, K codes, g groups of width D / g.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import Optimizer

from clearn.errors import ConfigError, demand

DEAD = 1e-4
"""A code whose usage is below this is dead."""


@dataclass(frozen=True)
class Codebook:
    """How codes are learned.

    Attributes:
        groups: g; 1 quantises vectors whole, as published.
        update: "gradient": by the optimiser; "ema": each code is the moving average of the vectors nearest to it,
            with `usage` for its weight.
        lr: rate of the codebook under "gradient"; null for that of everything else, as published.
        commitment: beta, how strongly vectors are drawn to their codes.
        weight: lambda of the loss beside that of the answers.
        start: "uniform": U(-1/K, 1/K), which resetting soon replaces by vectors; "kmeans++": vectors far apart.
        decay: of usage counts, and of the moving averages.
        reset: whether dead codes become vectors of the batch.
        zero_moments: whether the optimiser forgets the moments of rows that were reset; the published code moves them
            on by what their forerunners learned.
    """

    groups: int = 1
    update: Literal["gradient", "ema"] = "gradient"
    lr: float | None = 1e-3
    commitment: float = 0.25
    weight: float = 1.0
    start: Literal["uniform", "kmeans++"] = "uniform"
    decay: float = 0.99
    reset: bool = True
    zero_moments: bool = True

    def __post_init__(self) -> None:
        finite = math.inf
        demand(
            ("codebook.groups", self.groups, self.groups >= 1, "1 or more"),
            ("codebook.lr", self.lr, self.lr is None or 0 < self.lr < finite, "above 0 and finite, or null"),
            ("codebook.commitment", self.commitment, 0 <= self.commitment < finite, "0 or more and finite"),
            ("codebook.weight", self.weight, 0 <= self.weight < finite, "0 or more and finite"),
            ("codebook.decay", self.decay, 0 < self.decay < 1, "in (0, 1)"),
        )


@dataclass(frozen=True)
class Quantised:
    """What vectors became.

    Attributes:
        vectors: (..., D); their gradient goes straight through to the vectors that came in.
        codes: (..., g) int64.
        loss: scalar, without the factor lambda.
    """

    vectors: Tensor
    codes: Tensor
    loss: Tensor


class Quantiser(nn.Module):
    """A codebook that vectors are drawn to, and that is drawn to them.

    Args:
        codes: K.
        width: D.
        options: how it is learned.

    Attributes:
        codebook: (g, K, D / g) float32.
        usage: (g, K) float32, moving average of how often a batch uses each code; it starts at 0 and is not corrected
            for that. Frozen with the codes after training, and carried because a training that is taken up needs it.

    Raises:
        ConfigError: groups do not divide the width.
    """

    usage: Tensor

    def __init__(self, codes: int, width: int, options: Codebook) -> None:
        super().__init__()
        g = options.groups
        demand(("codes", codes, 2 <= codes <= 2**16, "in [2, 65536], so that a code fits 16 bits"))
        if width % g:
            near = next(count for count in range(g, 0, -1) if width % count == 0)
            raise ConfigError(
                f"codebook.groups={g} must divide the language model's width, which is {width}: write {near}"
            )
        self.options = options
        self.codebook = nn.Parameter(torch.empty(g, codes, width // g).uniform_(-1 / codes, 1 / codes))
        self.codebook.requires_grad_(options.update == "gradient")
        self.register_buffer("usage", torch.zeros(g, codes))
        self._revived: list[tuple[int, Tensor, Tensor]] = []  # group, rows, values, since the optimiser's last step

    @property
    def fresh(self) -> bool:
        """Whether no batch was trained on yet."""
        return not bool(self.usage.any())

    def encode(self, vectors: Tensor) -> Tensor:
        """(..., D) -> (..., g) int64, the nearest code in each group; in float32 whatever comes in."""
        pairs = zip(self._parts(vectors), self.codebook, strict=True)
        return torch.stack([nearest(part, book) for part, book in pairs], dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """(..., g) int64 -> (..., D), rows of the codebook; with gradient to it."""
        return torch.cat([book[codes[..., i]] for i, book in enumerate(self.codebook)], dim=-1)

    def forward(self, vectors: Tensor) -> Quantised:
        """Quantise (..., D) vectors; in training mode also count usage, and reset what is dead."""
        x = vectors.float()
        codes = self.encode(x.detach())
        chosen = self.decode(codes)
        loss = self.options.commitment * mse_loss(x, chosen.detach())
        if self.options.update == "gradient":
            loss = loss + mse_loss(chosen, x.detach())
        out = x + (chosen - x).detach()
        if self.training:
            self._count(x.detach().flatten(0, -2), codes.flatten(0, -2))
        return Quantised(out, codes, loss)

    @torch.no_grad()
    def seed(self, vectors: Tensor, rng: torch.Generator) -> None:
        """Begin with vectors that are far apart (k-means++); with fewer than K of them the other codes stay.

        Args:
            vectors: (n, D), such as those of the first documents.
            rng: draws them.
        """
        for i, part in enumerate(self._parts(vectors)):
            found = spread(part.float().cpu(), self.codebook.shape[1], rng)
            self.codebook[i, : len(found)] = found.to(self.codebook.device)

    @torch.no_grad()
    def settle(self, optimizer: Optimizer) -> None:
        """Undo, after its step, what an optimiser did to codes that were reset before it, and zero their moments."""
        state = optimizer.state.get(self.codebook, {})
        for group, rows, values in self._revived:
            self.codebook[group, rows] = values
            for moment in (state[name] for name in ("exp_avg", "exp_avg_sq") if name in state):
                moment[group, rows] = 0
        self._revived.clear()

    @torch.no_grad()
    def _count(self, x: Tensor, codes: Tensor) -> None:
        """Take note of a training batch: x (n, D), codes (n, g)."""
        decay, n_codes = self.options.decay, self.codebook.shape[1]
        for i, part in enumerate(self._parts(x)):
            counts = torch.bincount(codes[:, i], minlength=n_codes).to(part.dtype)  # (K,)
            before = self.usage[i] * decay
            self.usage[i] = before + (1 - decay) * counts
            if self.options.update == "ema":
                self._average(i, part, codes[:, i], before)
            if self.options.reset:
                self._revive(i, part)

    def _average(self, i: int, part: Tensor, codes: Tensor, before: Tensor) -> None:
        """Move the codes of group i that were used to the moving average of their vectors, weighed by usage."""
        book = self.codebook[i]
        sums = torch.zeros_like(book).index_add_(0, codes, part)  # (K, D / g)
        used = codes.unique()
        moved = before[used, None] * book[used] + (1 - self.options.decay) * sums[used]
        book[used] = moved / self.usage[i, used, None]

    def _revive(self, i: int, part: Tensor) -> None:
        """Make dead codes of group i vectors of this batch, each another one."""
        dead = (self.usage[i] < DEAD).nonzero()[: len(part), 0]
        if not len(dead):
            return
        drawn = part[torch.randperm(len(part), device=part.device)[: len(dead)]]
        mean = self.usage[i].mean()
        self.codebook[i, dead], self.usage[i, dead] = drawn, mean
        if self.options.zero_moments and self.options.update == "gradient":
            self._revived.append((i, dead, drawn))

    def _parts(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """(..., D) -> g of (..., D / g)."""
        return vectors.chunk(len(self.codebook), dim=-1)


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Find each vector's nearest row; the first of two that are as near.

    |x|^2 is left out of the distance, and what all rows have in common out of both sides: neither moves a choice, and
    both cost digits.

    Args:
        vectors: (..., D) float.
        codebook: (K, D) float32.

    Returns:
        (...) int64.

    >>> nearest(torch.tensor([[0.2, 0.1], [0.9, 1.2]]), torch.tensor([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]])).tolist()
    [0, 1]
    """
    with torch.no_grad(), torch.autocast(vectors.device.type, enabled=False):  # in bfloat16 a fifth would be wrong
        centre = codebook.float().mean(0)
        x, rows = vectors.float() - centre, codebook.float() - centre
        return (rows.square().sum(-1) / 2 - x @ rows.T).argmin(-1)


def perplexity(counts: Tensor) -> Tensor:
    """How many codes are in use, weighed by how much: exp of the entropy of (..., K) counts, (...).

    >>> round(float(perplexity(torch.tensor([1, 1, 0]))), 4)
    2.0
    """
    p = counts.double() / counts.sum(-1, keepdim=True).clamp(min=1e-300)
    return torch.exp(-(p * torch.log(p + 1e-10)).sum(-1))


def spread(vectors: Tensor, k: int, rng: torch.Generator) -> Tensor:
    """Draw vectors that are far apart: each with odds of its squared distance to those drawn (Arthur et al. 2007).

    Args:
        vectors: (n, d) float, on the CPU.
        k: at most so many.
        rng: draws one at a time.

    Returns:
        (min(k, number of different vectors), d).
    """
    chosen = [int(torch.randint(len(vectors), (), generator=rng))]
    gaps = (vectors - vectors[chosen[0]]).square().sum(1)  # (n,) to the nearest one drawn
    while len(chosen) < k and float(gaps.max()) > 0:
        chosen.append(int(torch.multinomial(gaps, 1, generator=rng)))
        gaps = torch.minimum(gaps, (vectors - vectors[chosen[-1]]).square().sum(1))
    return vectors[chosen]
