"""Documents as codes: how often each code was met, and by choice whose they were, packed as small as they go.

Letters: K codes, T latents a document, g groups of a product quantiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from clearn.errors import ConfigError, DataError, StateError, demand
from clearn.parts.bank import Bank


def bits(codes: int) -> int:
    """Bits that one of K codes takes.

    >>> bits(512), bits(256), bits(2)
    (9, 8, 1)
    """
    return (codes - 1).bit_length()


def packed(codes: Tensor, width: int) -> Tensor:
    """Write m codes a row with so many bits each, the lowest first.

    Args:
        codes: (n, m) int64, below 2^width.
        width: bits.

    Returns:
        (n, ceil(m * width / 8)) uint8.

    >>> packed(torch.tensor([[1, 2, 3]]), 9).tolist()
    [[1, 4, 12, 0]]
    """
    n, m = codes.shape
    flags = (codes[:, :, None] >> torch.arange(width) & 1).reshape(n, m * width)
    flags = pad(flags, (0, -(m * width) % 8)).unflatten(1, (-1, 8))
    return (flags << torch.arange(8)).sum(-1).to(torch.uint8)


def unpacked(stored: Tensor, width: int, m: int) -> Tensor:
    """Undo `packed` for m codes a row: (n, bytes) uint8 to (n, m) int64."""
    flags = (stored.long()[:, :, None] >> torch.arange(8) & 1).flatten(1)[:, : m * width]
    return (flags.reshape(len(stored), m, width) << torch.arange(width)).sum(-1)


@dataclass(frozen=True)
class Keep:
    """What is kept of documents beside how often each code was met, in bytes a document of T latents.

    Attributes:
        codes: its codes, 2 T; with g > 1 groups 1 byte each, or 2 where K > 256. Forgetting it then needs no text.
        index: a hash of its id and text, 8, by which one that is read again counts once and one that was never read
            cannot be forgotten. Without, both are the stream's care. Kept codes always have it.
        packed: codes at ceil(log2 K) bits each, rounded up to bytes.
    """

    codes: bool = False
    index: bool = True
    packed: bool = False

    def __post_init__(self) -> None:
        demand(
            ("keep.index", self.index, self.index or not self.codes, "true where keep.codes is: codes need an owner"),
            ("keep.packed", self.packed, self.codes or not self.packed, "false where keep.codes is: nothing to pack"),
        )


class CodeMemory:
    """Documents as codes: a histogram of them all, and by choice whose they were.

    Carried: `counts` (K,) int32, 4 K bytes, where g = 1 (the counts of single groups would not say which belong
    together); what `Keep` says; 32 bytes of what made the codes and, with an index, 8 that count documents.

    Args:
        codes: K.
        latents: T, codes a document.
        groups: g; more than one cannot do without kept codes.
        keep: what is kept beside the histogram.

    Attributes:
        counts: how often each code was met; zeros where g > 1.

    Raises:
        ConfigError: groups without kept codes.
    """

    nominal_bytes = 0
    """What documents cost in the published counting of images: nothing."""

    def __init__(self, codes: int, latents: int, groups: int, keep: Keep) -> None:
        if groups > 1 and not keep.codes:
            raise ConfigError(
                f"codebook.groups={groups} needs keep.codes: true: how often each group's codes were met does not say "
                "which of them belong together; write that, or codebook.groups: 1"
            )
        self.latents, self.groups, self.keep, self.bits = latents, groups, keep, bits(codes)
        self.counts = torch.zeros(codes, dtype=torch.int32)
        self.bank = self._empty()

    def __len__(self) -> int:
        """How many documents it holds."""
        return len(self.bank) if self.keep.index else int(self.counts.sum()) // self.latents

    def clear(self) -> None:
        """Be empty."""
        self.counts = torch.zeros_like(self.counts)
        self.bank.clear()

    def stamp(self, version: bytes) -> None:
        """Say what makes the codes, before any is put in; 32 bytes.

        Raises:
            StateError: it holds codes that something else made.
        """
        self.check(version)
        self.bank.version = version

    def check(self, version: bytes) -> None:
        """Make sure that the codes held can be read.

        Raises:
            StateError: something else made them.
        """
        if len(self) and self.bank.version != version:
            made = self.bank.version.hex()[:12]
            raise StateError(
                f"the codes of {len(self)} documents were made by parameters of SHA-256 {made}, but those at hand are "
                f"{version.hex()[:12]}, for which they mean something else: load the parameters that belong to them, "
                "or clear the memory and read the documents again"
            )

    def codes(self) -> Tensor:
        """(N, T, g) int64, what is kept of single documents."""
        assert self.keep.codes, "single documents are not kept"
        return self._read(self.bank.rows)

    def add(self, ids: Sequence[int], codes: Tensor) -> None:
        """Take documents in; one that is held already changes nothing.

        Args:
            ids: n hashes.
            codes: (n, T, g) int64.
        """
        first = {one: i for i, one in reversed(list(enumerate(ids)))}
        before = len(self.bank)
        if self.keep.index:
            self.bank.add(ids, self._written(codes), dedupe=True)
        if self.keep.codes:
            new = self._read(self.bank.rows[before:])
        else:
            fresh = self.bank.ids[before:].tolist() if self.keep.index else list(first)
            new = codes[[first[one] for one in fresh]]
        self.counts += self._histogram(new)

    def remove(self, ids: Sequence[int], codes: Tensor | None = None) -> None:
        """Take documents out again, exactly.

        Args:
            ids: n hashes, all different.
            codes: (n, T, g) int64; None where codes are kept, which are then taken.

        Raises:
            DataError: a document that was never read, or was forgotten already; nothing is changed.
            StateError: more codes would go than there are; nothing is changed.
        """
        held = self.bank.ids.tolist()
        if self.keep.index and (unknown := len(set(ids) - set(held))):
            raise DataError(
                f"{unknown} of {len(ids)} documents to be forgotten are not in the memory of {len(held)}: they were "
                "never read with this text, or are forgotten already; take them out of stream.requests"
            )
        if self.keep.codes:
            wanted = set(ids)
            codes = self.codes()[[one in wanted for one in held]]
        assert codes is not None, "codes that are not kept come with the request"
        left = self.counts - self._histogram(codes)
        if (left < 0).any():
            raise StateError(
                f"{int((left < 0).sum())} of {len(left)} codes would be counted less than 0 times: documents to be "
                "forgotten were never read, or not with this text; take them out of stream.requests"
            )
        self.counts = left
        if self.keep.index:
            self.bank.drop(ids)
        if not len(self):
            self.clear()

    def state(self) -> dict[str, Tensor]:
        """Give what is carried, by name."""
        carried = {name: value for name, value in self.bank.state().items() if name not in self._implied()}
        return carried if self.groups > 1 else {"counts": self.counts, **carried}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave.

        Raises:
            StateError: for other names, dtypes or shapes; the memory is then unchanged.
        """
        empty, ids = self._empty().state(), state.get("ids", torch.empty(0))
        rest = {name: value for name, value in state.items() if name != "counts"}
        implied = {name: empty[name] for name in self._implied()}
        if "rows" in implied:
            implied["rows"] = empty["rows"].new_empty(ids.shape[0] if ids.ndim else 0, 0)
        counts = state.get("counts", torch.zeros_like(self.counts) if self.groups > 1 else None)
        if (
            counts is None
            or (self.groups > 1 and "counts" in state)
            or (counts.dtype, counts.shape) != (self.counts.dtype, self.counts.shape)
            or (counts < 0).any()
        ):
            found = None if counts is None else (counts.dtype, tuple(counts.shape))
            raise StateError(
                f"the memory's counts are {found}, but must be int32 ({len(self.counts)},) of 0 or more, and none at "
                "all with more groups than one: the state is damaged, or of other options"
            )
        self.bank.load({**rest, **implied})
        self.counts = counts

    def _empty(self) -> Bank:
        m = self.latents * self.groups
        if not self.keep.codes:
            return Bank((0,), "uint8")
        if self.keep.packed:
            return Bank((-(-m * self.bits // 8),), "uint8")
        return Bank((m,), "uint8" if self.groups > 1 and self.bits <= 8 else "uint16")

    def _implied(self) -> tuple[str, ...]:
        """What the bank knows of, and this memory keeps nothing for."""
        if self.keep.codes:
            return ()
        return ("rows",) if self.keep.index else ("ids", "rows", "met")

    def _written(self, codes: Tensor) -> Tensor:
        """(n, T, g) -> rows as the bank takes them."""
        flat = codes.flatten(1)
        if not self.keep.codes:
            return flat[:, :0]
        return packed(flat, self.bits) if self.keep.packed else flat

    def _read(self, rows: Tensor) -> Tensor:
        """Undo `_written`: (n, T, g) int64."""
        m = self.latents * self.groups
        flat = unpacked(rows, self.bits, m) if self.keep.packed else rows.long()
        return flat.reshape(-1, self.latents, self.groups)

    def _histogram(self, codes: Tensor) -> Tensor:
        """(K,) int32, how often codes occur; zeros where g > 1."""
        if self.groups > 1:
            return torch.zeros_like(self.counts)
        return torch.bincount(codes.flatten(), minlength=len(self.counts)).to(torch.int32)
