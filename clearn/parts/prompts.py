"""Prompts for a frozen vision transformer: keys and values before a block's own, and pools from which an image draws.

What L2P, DualPrompt and CODA-Prompt share (specs "mos", section 8). Letters used below: b images, N tokens, d width,
p rows of a prefix, B blocks that take one, M entries of a pool, k of them chosen, l rows of an entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from clearn.parts.cosine import cosines


@dataclass(frozen=True)
class Prefix:
    """What all tokens of a block attend to beside themselves, each image to its own (Li and Liang 2021).

    Attributes:
        keys: (b, p, d), in the place of projected keys: heads are cut from the width as from theirs.
        values: (b, p, d).
    """

    keys: Tensor
    values: Tensor


Prefixes = Mapping[int, Prefix]
"""By block, from 0; the other blocks stay plain."""


class PromptPool(nn.Module):
    """M prompts, each with a key by which an image finds it: 4 M (l + 1) d bytes (L2P, Wang et al. 2022, section 4).

    Prompts and keys are drawn from U(-1, 1) by torch's global generator.

    Args:
        size: M.
        length: l.
        width: d.

    Attributes:
        prompts: (M, l, d).
        keys: (M, d).
    """

    def __init__(self, size: int, length: int, width: int) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.empty(size, length, width).uniform_(-1, 1))
        self.keys = nn.Parameter(torch.empty(size, width).uniform_(-1, 1))

    def cosines(self, queries: Tensor) -> Tensor:
        """(b, d) -> (b, M) float32."""
        return cosines(queries, self.keys)

    def tokens(self, rows: Tensor) -> Tensor:
        """(b, k) int64 prompts of each image -> (b, k l, d)."""
        return self.prompts[rows].flatten(1, 2)


def nearest(similarities: Tensor, k: int) -> Tensor:
    """Find each image's k most similar entries, best first; of equal ones the lower.

    Args:
        similarities: (b, M).
        k: 1 <= k <= M.

    Returns:
        (b, k) int64.

    >>> nearest(torch.tensor([[0.1, 0.9, 0.5, 0.9]]), 3)
    tensor([[1, 3, 2]])
    """
    return similarities.sort(dim=1, descending=True, stable=True).indices[:, :k]


def majority(rows: Tensor, size: int) -> Tensor:
    """Give every image the k entries that were chosen most often in the batch; of equal ones the lower.

    Args:
        rows: (b, k) int64 in [0, size), what each image would choose, all different.
        size: M.

    Returns:
        (b, k) int64, all rows equal.

    >>> majority(torch.tensor([[0, 1], [3, 1], [3, 2]]), 4)
    tensor([[1, 3],
            [1, 3],
            [1, 3]])
    """
    counts = torch.bincount(rows.flatten(), minlength=size)  # (M,)
    return nearest(counts[None], rows.shape[1]).expand_as(rows)


class PrefixBank(nn.Module):
    """Prefixes for some blocks in several versions, of which an image takes one: 4 * 2 B M l d bytes.

    Args:
        blocks: which blocks get one, from 0.
        length: l, of the keys and of the values.
        width: d.

    Attributes:
        rows: (B, 2, M, l, d); keys at 0 of the second dimension, values at 1. M is 0 at first.
    """

    def __init__(self, blocks: Sequence[int], length: int, width: int) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        self.rows = nn.Parameter(torch.empty(len(self.blocks), 2, 0, length, width))

    def __len__(self) -> int:
        return self.rows.shape[2]

    def grow(self) -> None:
        """Add a version: a copy of the newest; the first is drawn from U(-1, 1) by torch's global generator."""
        old = self.rows.detach()
        shape = (*old.shape[:2], 1, *old.shape[3:])
        new = old[:, :, -1:] if len(self) else torch.empty(shape).uniform_(-1, 1).to(old)
        self.rows = nn.Parameter(torch.cat([old, new], dim=2))

    def select(self, which: Tensor) -> dict[int, Prefix]:
        """Give each image its own version.

        The common PyTorch port of DualPrompt gathers (B, 2, b, l, d) and reshapes that to (B, b, 2, l, d), which hands
        images the keys and values of others (specs "mos", section 8); here every index says what it means.

        Args:
            which: (b,) int64 in [0, M).
        """
        return {block: Prefix(*rows[:, which]) for block, rows in zip(self.blocks, self.rows, strict=True)}


class Components(nn.Module):
    """Prompts mixed from components, each weighted by how much an image resembles it (Smith et al. 2023, section 4).

    Block by block, with component p_m (l, d), its key K_m (d,) and attention A_m (d,), an image with query q gets

        sum_m cos(q * A_m, K_m) p_m        (* elementwise)

    whose first l/2 rows stand before the keys and the others before the values. The components of earlier tasks still
    take part, but they are buffers: nothing trains them any more. 4 B M (l + 2) d bytes; in the ledger a strategy names
    them by `categories = {"model/components": "params"}`.

    Args:
        blocks: which blocks get a prompt, from 0.
        length: l, even.
        width: d.

    Attributes:
        prompts: (B, m, l, d), the newest task's; `old_prompts` (B, M - m, l, d) those before.
        keys: (B, m, d), likewise.
        attention: (B, m, d), likewise.
    """

    prompts: nn.Parameter
    keys: nn.Parameter
    attention: nn.Parameter
    NAMES = ("prompts", "keys", "attention")

    def __init__(self, blocks: Sequence[int], length: int, width: int) -> None:
        super().__init__()
        self.blocks, self.width = tuple(blocks), width
        for name, shape in zip(self.NAMES, ((length, width), (width,), (width,)), strict=True):
            self.register_buffer(f"old_{name}", torch.empty(len(self.blocks), 0, *shape))
            self.register_parameter(name, nn.Parameter(torch.empty(len(self.blocks), 0, *shape)))

    def __len__(self) -> int:
        return self.all("keys").shape[1]

    def grow(self, count: int) -> None:
        """Add components, standard normal by torch's global generator; those so far are not trained any more."""
        for name in self.NAMES:
            old = self.all(name).detach()
            setattr(self, f"old_{name}", old)
            shape = (old.shape[0], count, *old.shape[2:])
            setattr(self, name, nn.Parameter(torch.randn(shape).to(old)))

    @torch.no_grad()
    def orthogonalise(self) -> None:
        """Set the newest prompts, keys and attentions at right angles to all before, block by block, with length 1."""
        for name in self.NAMES:
            for old, new in zip(getattr(self, f"old_{name}"), getattr(self, name), strict=True):
                new.copy_(at_right_angles(old.flatten(1), new.flatten(1)).view_as(new))

    def all(self, name: str) -> Tensor:
        """(B, M, ...): what there is of one of `NAMES`, oldest first."""
        return torch.cat([getattr(self, f"old_{name}"), getattr(self, name)], dim=1)

    def mix(self, queries: Tensor) -> dict[int, Prefix]:
        """(b, d) queries -> a prefix of l/2 rows for each block."""
        prompts, weights = self.all("prompts"), self.weights(queries)
        mixed = torch.einsum("Bbm,Bmld->Bbld", weights, prompts)
        return {block: Prefix(*rows.chunk(2, dim=1)) for block, rows in zip(self.blocks, mixed, strict=True)}

    def weights(self, queries: Tensor) -> Tensor:
        """(b, d) queries -> (B, b, M) float32 cosines of q * A_m with K_m.

        cos(q * A, K) = q . (A * K) / (|K| |q * A|), so no product of all queries with all attentions is built.
        """
        with torch.autocast(queries.device.type, enabled=False):
            q, attention = queries.float(), self.all("attention").float()
            dots = q @ (attention * normalize(self.all("keys").float(), dim=2)).mT
            squares = q.square() @ attention.square().mT
            return dots / squares.clamp(min=1e-24).sqrt()

    def skew(self) -> Tensor:
        """() how far they are from right angles: mean square of V V^T - I, summed over blocks and the three `NAMES`."""
        sums = []
        for name in self.NAMES:
            v = self.all(name).flatten(2)  # (B, M, n)
            sums.append((v @ v.mT - torch.eye(len(self), device=v.device)).square().mean((1, 2)).sum())
        return torch.stack(sums).sum()


def at_right_angles(old: Tensor, new: Tensor) -> Tensor:
    """Make rows orthogonal to others and to each other, with length 1, in the order given (Gram and Schmidt).

    Args:
        old: (s, n) float, which need not be orthogonal.
        new: (m, n) float, with s + m <= n.

    Returns:
        (m, n) in the type of `new`.

    >>> at_right_angles(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[1.0, 3.0, 0.0], [1.0, 1.0, -2.0]]))
    tensor([[ 0.,  1.,  0.],
            [ 0.,  0., -1.]])
    """
    if len(old) + len(new) > new.shape[1]:
        raise ValueError(f"{len(old)} + {len(new)} rows cannot be at right angles in {new.shape[1]} dimensions")
    q, r = torch.linalg.qr(torch.cat([old, new]).double().T)  # (n, s + m): column j spans what is new in row j
    rows = q.T[len(old) :] * r.diagonal()[len(old) :, None].sign()
    return rows.to(new) + 0.0  # no -0
