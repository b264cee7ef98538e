"""The two ways in which a memory enters a frozen language model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prefix:
    """Keys and values that all tokens attend to beside their own (P-tuning v2; specs "mbc", section 4).

    They stand in the cache before token 0 as they are, not rotated; the tokens' positions start at P.

    Attributes:
        keys: (b, L, H_kv, P, h) float, for each row and layer.
        values: likewise.
    """

    keys: Tensor
    values: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def length(self) -> int:
        """P, the positions it takes."""
        return self.keys.shape[3]

    def rows(self, index: Tensor) -> Prefix:
        """Pick rows by (k,) int64 index."""
        return Prefix(self.keys[index], self.values[index])

    def finite(self) -> bool:
        """Say whether all its numbers are."""
        return bool(self.keys.isfinite().all() and self.values.isfinite().all())


@dataclass(frozen=True)
class Embeds:
    """Input embeddings put before a question's own (specs "cmt", section 6).

    Attributes:
        vectors: (b, m, D) float.
    """

    vectors: Tensor

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def length(self) -> int:
        """m, the positions it takes."""
        return self.vectors.shape[1]

    def rows(self, index: Tensor) -> Embeds:
        """Pick rows by (k,) int64 index."""
        return Embeds(self.vectors[index])

    def finite(self) -> bool:
        """Say whether all its numbers are."""
        return bool(self.vectors.isfinite().all())


Memory = Prefix | Embeds
