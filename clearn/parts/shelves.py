"""Encoded items in order, for one codec: rows of one tensor, or byte strings where items differ in size.

A shelf is never changed: `keep`, `add` and `load` make a new one, so an update that fails half-way has done
nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from clearn.errors import StateError
from clearn.parts.codecs import FixedCodec, VariableCodec


class Shelf(ABC):
    """K encoded items."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def keep(self, index: Tensor) -> Shelf:
        """Keep items `index` (k,) int64 only, in that order."""

    @abstractmethod
    def add(self, parts: Sequence[Tensor]) -> Shelf:
        """Encode and append items, given as tensors (n, *shape)."""

    @abstractmethod
    def items(self) -> Tensor:
        """Decode all items: (K, *shape)."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Give the tensors to carry."""

    @abstractmethod
    def load(self, state: dict[str, Tensor], n: int) -> Shelf:
        """Make a shelf of n items from what `state` gave; StateError where dtypes or shapes are others."""

    @property
    def nbytes(self) -> int:
        """Bytes carried."""
        return sum(tensor.nbytes for tensor in self.state().values())


class Rows(Shelf):
    """Items of one size: `images` (K, *stored_shape) of the codec's stored dtype."""

    def __init__(self, codec: FixedCodec, images: Tensor | None = None) -> None:
        self.codec = codec
        empty = torch.empty((0, *codec.stored_shape), dtype=codec.stored_dtype)
        self.images = empty if images is None else images

    def __len__(self) -> int:
        return len(self.images)

    def keep(self, index: Tensor) -> Rows:
        return Rows(self.codec, self.images[index])

    def add(self, parts: Sequence[Tensor]) -> Rows:
        return Rows(self.codec, torch.cat([self.images, *(self.codec.encode(part) for part in parts)]))

    def items(self) -> Tensor:
        return self.codec.decode(self.images)

    def state(self) -> dict[str, Tensor]:
        return {"images": self.images}

    def load(self, state: dict[str, Tensor], n: int) -> Rows:
        images, shape = state["images"], (n, *self.codec.stored_shape)
        if images.shape != shape or images.dtype != self.codec.stored_dtype:
            raise StateError(
                f"the memory's images are {images.dtype} {tuple(images.shape)}, but {n} items of codec "
                f"{self.codec.name!r} are {self.codec.stored_dtype} {shape}: load them with the memory.codec "
                "and the stream they were written with"
            )
        return Rows(self.codec, images)


class Blobs(Shelf):
    """Items of different sizes: `payload` (bytes,) uint8, all items end to end, and `lengths` (K,) int32."""

    def __init__(self, codec: VariableCodec, blobs: Sequence[bytes] = ()) -> None:
        self.codec, self.blobs = codec, list(blobs)

    def __len__(self) -> int:
        return len(self.blobs)

    def keep(self, index: Tensor) -> Blobs:
        return Blobs(self.codec, [self.blobs[i] for i in index.tolist()])

    def add(self, parts: Sequence[Tensor]) -> Blobs:
        return Blobs(self.codec, self.blobs + [blob for part in parts for blob in self.codec.encode(part)])

    def items(self) -> Tensor:
        return self.codec.decode(self.blobs)

    def state(self) -> dict[str, Tensor]:
        payload = torch.tensor([], dtype=torch.uint8)
        if self.blobs:
            payload = torch.frombuffer(bytearray(b"".join(self.blobs)), dtype=torch.uint8)
        return {"payload": payload, "lengths": torch.tensor([len(b) for b in self.blobs], dtype=torch.int32)}

    def load(self, state: dict[str, Tensor], n: int) -> Blobs:
        payload, lengths = state["payload"], state["lengths"]
        kinds = (payload.dtype, payload.ndim, lengths.dtype, tuple(lengths.shape))
        if kinds != (torch.uint8, 1, torch.int32, (n,)):
            raise StateError(
                f"the memory holds payload {payload.dtype} {tuple(payload.shape)} and lengths "
                f"{lengths.dtype} {tuple(lengths.shape)}, but must hold uint8 (bytes,) and int32 ({n},): the "
                "state is damaged"
            )
        sizes = lengths.tolist()
        if sum(sizes) != len(payload) or any(size < 1 for size in sizes):
            raise StateError(
                f"the memory's lengths add up to {sum(sizes)}, but its payload has {len(payload)} bytes and "
                "no item is empty: the state is damaged"
            )
        whole, blobs, start = payload.numpy().tobytes(), [], 0
        for size in sizes:
            blobs.append(whole[start : start + size])
            start += size
        return Blobs(self.codec, blobs)


def empty_shelf(codec: FixedCodec | VariableCodec) -> Shelf:
    """Make the kind of shelf that a codec's items need."""
    return Rows(codec) if isinstance(codec, FixedCodec) else Blobs(codec)
