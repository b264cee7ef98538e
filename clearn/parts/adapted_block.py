"""timm's pre-norm block as methods on pretrained transformers need it.

With x the (b, N, d) tokens that enter and Branch what an adapter adds, a block computes

    r = x + attention(norm1(x); prefix)      its residual stream
    y = r + mlp(norm2(r)) + Branch(r)

and only for the first rows of it where nothing behind the block reads the others.
"""

from __future__ import annotations

from functools import partial

from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor

from clearn.parts.attention import attend, attend_unprojected, can_stay_unprojected
from clearn.parts.prompts import Prefix


class AdaptedBlock(Block):
    """A block with a prefix for its attention and a branch beside its MLP; its weights' names are timm's.

    Attributes:
        beside: (b, N, d) -> (b, N, d), or None; set for the time of one forward pass.
        prefix: likewise.
        n_read: how many of its first tokens are read by what follows; None for all. Set likewise.
        projects: whether queries, keys and values must be computed as such, since something is added to them. Likewise.
    """

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # whatever timm gives its blocks
        self.attn: Attention  # or another of timm's, which then takes no prefix and computes all tokens
        self.beside: partial[Tensor] | None = None
        self.prefix: Prefix | None = None
        self.n_read: int | None = None
        self.projects = False

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(b, N, d) -> (b, N, d), or (b, n_read, d)."""
        assert attn_mask is None, "images have no mask"
        assert not is_causal, "images have no order"
        r = self.residual(x)
        y = self.plain(r)
        return y if self.beside is None else y + self.beside(r)

    def residual(self, x: Tensor) -> Tensor:
        """Compute r."""
        r: Tensor = x[:, : self.n_read] + self.drop_path1(self.ls1(self._attended(self.norm1(x))))
        return r

    def plain(self, r: Tensor) -> Tensor:
        """Compute y without a branch."""
        y: Tensor = r + self.drop_path2(self.ls2(self.mlp(self.norm2(r))))
        return y

    def _attended(self, normed: Tensor) -> Tensor:
        if self.prefix is None and self.n_read is None:
            attended: Tensor = self.attn(normed)  # as timm has it
            return attended
        if self.n_read is None or self.prefix is not None or self.projects or not can_stay_unprojected(self.attn):
            return attend(self.attn, normed, self.prefix, self.n_read)
        return attend_unprojected(self.attn, normed, self.n_read)
