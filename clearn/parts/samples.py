"""Labelled inputs in their stored form: all in memory, or decoded on access.

Whatever trains, scores or herds asks for rows by index and gets raw values (uint8 pixels 0..255, or float32
vectors). Letters used below: n samples, b of them in a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clearn.errors import DataError

STORED_DTYPES = (torch.uint8, torch.float32)


class Indexed(Protocol):
    """A map-style data set, torchvision's for instance: item i is (input, anything else)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


class Samples(ABC):
    """n labelled inputs.

    Attributes:
        labels: (n,) int64.
        in_memory: whether `fetch` costs no more than copying the rows.
        workers: processes that decode ahead in `loader`, 0 = decode where asked.
        varied: whether `fetch_varied` reads something else at each access: another cut of the picture.
    """

    labels: Tensor
    in_memory: bool = True
    workers: int = 0
    varied: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Stored dtype, uint8 or float32."""

    @abstractmethod
    def fetch(self, index: Tensor) -> Tensor:
        """Read rows `index` (b,) int64, 0 <= index < n, as (b, *shape) in the stored dtype."""

    @abstractmethod
    def take(self, index: Tensor) -> Samples:
        """Keep rows `index` (b,) int64 only, in that order; repeated rows are allowed."""

    def loader(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs, labels) for each index batch (b,) int64 of `order`."""
        for index in order:
            yield self.fetch(index), self.labels[index]

    def fetch_varied(self, index: Tensor, seeds: Tensor) -> Tensor:
        """Read rows as `fetch` does, but cut at random where samples are `varied`.

        Args:
            index: (b,) int64.
            seeds: (b,) int64; all that a row's cut depends on beside the picture.
        """
        return self.fetch(index)

    def training_loader(self, order: Iterable[Tensor], rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield as `loader` does; of `varied` samples a new cut of each row, whatever the number of workers.

        Args:
            order: index batches (b,) int64.
            rng: draws one seed a row, for these samples alone.
        """
        if not self.varied:
            return self.loader(order)
        return _decode_ahead(self, ((rows, torch.randint(2**62, rows.shape, generator=rng)) for rows in order))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs, labels) in row order, `size` rows at a time; the last batch may be shorter."""
        if size < 1:
            raise ValueError(f"size={size} must be at least 1: a batch holds one row or more")
        return self.loader(torch.arange(a, min(a + size, len(self))) for a in range(0, len(self), size))


class TensorSamples(Samples):
    """Samples that lie in memory as two tensors.

    Args:
        inputs: (n, *shape) uint8 or float32.
        labels: (n,) int64.

    Raises:
        TypeError: for another dtype.
        ValueError: when the lengths differ.
    """

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        if inputs.dtype not in STORED_DTYPES:
            raise TypeError(
                f"inputs are {inputs.dtype}, but samples are stored as torch.uint8 (images, 0..255) or "
                "torch.float32 (vectors): convert them first"
            )
        if inputs.ndim < 2:
            raise ValueError(
                f"inputs have shape {tuple(inputs.shape)}, but must be (n, *shape): add the missing dimension"
            )
        self.inputs = inputs
        self.labels = _checked_labels(labels, len(inputs))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.inputs.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self.inputs.dtype

    def fetch(self, index: Tensor) -> Tensor:
        return self.inputs.index_select(0, index)

    def take(self, index: Tensor) -> TensorSamples:
        return TensorSamples(self.fetch(index), self.labels.index_select(0, index))


class DatasetSamples(Samples):
    """Rows of a data set too large for memory, decoded at each access.

    Decoding must not draw random numbers: augmentation works on batches, and a row always reads the same. What is cut
    out of whole pictures at random is a matter of `CutSamples`.

    Args:
        dataset: item i is (input, anything else), all inputs uint8 (or float32) tensors of one shape; labels
            in it are not read.
        index: (n,) int64, rows of `dataset`.
        labels: (n,) int64, the remapped label of each of these rows.
        workers: processes that decode ahead in `loader` and `batches`; 0 decodes in this process.

    Raises:
        TypeError, ValueError: for labels of another dtype or length, or rows that the data set does not have.
    """

    in_memory = False

    def __init__(self, dataset: Indexed, index: Tensor, labels: Tensor, workers: int = 0) -> None:
        if index.dtype != torch.int64 or index.ndim != 1:
            raise TypeError(f"index is {index.dtype} {tuple(index.shape)}, but must be int64 (n,): call .long()")
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= len(dataset)):
            raise ValueError(
                f"index runs from {int(index.min())} to {int(index.max())}, but must lie in [0, "
                f"{len(dataset)}): this data set has {len(dataset)} items"
            )
        if workers < 0:
            raise ValueError(f"workers={workers} must be 0 or more: 0 decodes in this process")
        self.dataset, self.index, self.workers = dataset, index, workers
        self.labels = _checked_labels(labels, len(index))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._first.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self._first.dtype

    def fetch(self, index: Tensor) -> Tensor:
        if not len(index):
            return torch.empty((0, *self.shape), dtype=self.dtype)
        rows = self.index[index].tolist()
        return _stacked(rows, [self._decode(row) for row in rows])

    def take(self, index: Tensor) -> DatasetSamples:
        return DatasetSamples(self.dataset, self.index[index], self.labels[index], self.workers)

    def loader(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        return _decode_ahead(self, order)

    @cached_property
    def _first(self) -> Tensor:
        if not len(self.dataset):
            raise DataError("the data set is empty, so the shape of its items is unknown: check its folder and split")
        return self._decode(int(self.index[0]) if len(self.index) else 0)

    def _decode(self, row: int) -> Tensor:
        x = self.dataset[row][0]
        if not isinstance(x, Tensor) or x.dtype not in STORED_DTYPES:
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise DataError(
                f"item {row} of the data set is a {kind}, but must be a uint8 tensor (or a float32 one): "
                "let its transform end in torchvision's PILToTensor"
            )
        return x


class Cuttable(Indexed, Protocol):
    """A data set of pictures that gives a centre as item i, and other cuts of the picture where asked."""

    def cut(self, index: int, seed: int) -> Tensor:
        """Cut item `index` at random, as `seed` alone decides: shape and dtype as those of the item itself."""


class CutSamples(DatasetSamples):
    """Pictures decoded at each access: the centre for looking at them, another cut each time for training.

    Args:
        dataset: of pictures.
        index: as of `DatasetSamples`.
        labels: likewise.
        workers: likewise.
    """

    dataset: Cuttable
    varied = True

    def __init__(self, dataset: Cuttable, index: Tensor, labels: Tensor, workers: int = 0) -> None:
        super().__init__(dataset, index, labels, workers)

    def fetch_varied(self, index: Tensor, seeds: Tensor) -> Tensor:
        if not len(index):
            return self.fetch(index)
        rows = self.index[index].tolist()
        return _stacked(rows, [self.dataset.cut(*which) for which in zip(rows, seeds.tolist(), strict=True)])

    def take(self, index: Tensor) -> CutSamples:
        return CutSamples(self.dataset, self.index[index], self.labels[index], self.workers)


def _stacked(rows: list[int], inputs: list[Tensor]) -> Tensor:
    """Stack items that must be alike; `rows` are their numbers in the data set."""
    for row, x in zip(rows, inputs, strict=True):
        if x.shape != inputs[0].shape or x.dtype != inputs[0].dtype:
            raise DataError(
                f"item {row} is {x.dtype} {tuple(x.shape)}, but item {rows[0]} is {inputs[0].dtype} "
                f"{tuple(inputs[0].shape)}: resize or convert all items alike in the data set's transform, "
                "or, in a stream of files, give size: 224, say"
            )
    return torch.stack(inputs)


class _Concat(Samples):
    """Samples of several kinds, one after the other; row i here is row `index[i]` of their concatenation."""

    in_memory = False

    def __init__(self, parts: Sequence[Samples], index: Tensor) -> None:
        self.parts, self.index = tuple(parts), index
        self.ends = torch.tensor([len(part) for part in parts]).cumsum(0)  # (parts,) row after each part's last
        self.labels = torch.cat([part.labels for part in parts])[index]
        self.workers = max(part.workers for part in parts)
        self.varied = any(part.varied for part in parts)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parts[0].shape

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].dtype

    def fetch(self, index: Tensor) -> Tensor:
        return self._gathered(index, lambda part, rows, _: part.fetch(rows))

    def fetch_varied(self, index: Tensor, seeds: Tensor) -> Tensor:
        return self._gathered(index, lambda part, rows, mine: part.fetch_varied(rows, seeds[mine]))

    def _gathered(self, index: Tensor, read: Callable[[Samples, Tensor, Tensor], Tensor]) -> Tensor:
        """Have each part read its rows; `read` is given the part, its own rows, and (b,) bool which of all they are."""
        rows = self.index[index]  # (b,)
        owner = torch.bucketize(rows, self.ends, right=True)  # (b,) which part holds the row
        inputs = torch.empty((len(rows), *self.shape), dtype=self.dtype)
        for k in owner.unique().tolist():
            mine = owner == k
            inputs[mine] = read(self.parts[k], rows[mine] - (self.ends[k] - len(self.parts[k])), mine)
        return inputs

    def take(self, index: Tensor) -> _Concat:
        return _Concat(self.parts, self.index[index])

    def loader(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        return _decode_ahead(self, order)


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """Whole batches as items, so that a worker fetches a batch at once; with seeds beside the rows, at random."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, asked: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if isinstance(asked, Tensor):
            return self.samples.fetch(asked), self.samples.labels[asked]
        return self.samples.fetch_varied(*asked), self.samples.labels[asked[0]]


def concat(parts: Sequence[Samples]) -> Samples:
    """Join samples of one shape and dtype, keeping the order.

    Args:
        parts: at least one; empty ones are dropped.

    Returns:
        TensorSamples when all parts are in memory, otherwise a view that asks each part for its rows.

    Raises:
        ValueError: without parts, or when shapes or dtypes differ.
    """
    if not parts:
        raise ValueError("parts is empty, but concat needs at least one: the result has their shape and dtype")
    for part in parts[1:]:
        if (part.shape, part.dtype) != (parts[0].shape, parts[0].dtype):
            raise ValueError(
                f"samples of {part.dtype} {part.shape} cannot follow {parts[0].dtype} {parts[0].shape}: "
                "convert them to one shape and dtype first"
            )
    filled = [part for part in parts if len(part)] or [parts[0]]
    if len(filled) == 1:
        return filled[0]
    if all(part.in_memory for part in filled):
        inputs = torch.cat([part.fetch(torch.arange(len(part))) for part in filled])
        return TensorSamples(inputs, torch.cat([part.labels for part in filled]))
    return _Concat(filled, torch.arange(sum(len(part) for part in filled)))


def _decode_ahead(samples: Samples, order: Iterable[Tensor | tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Read index batches through a DataLoader, in order, with `samples.workers` processes."""
    # A generator of its own: a DataLoader without one draws a seed from torch's global generator.
    return iter(
        DataLoader(
            _Batches(samples),
            batch_size=None,
            sampler=order,
            num_workers=samples.workers,
            generator=torch.Generator(),
        )
    )


def _checked_labels(labels: Tensor, n: int) -> Tensor:
    if labels.dtype != torch.int64:
        raise TypeError(f"labels are {labels.dtype}, but must be torch.int64: call labels.long()")
    if labels.shape != (n,):
        raise ValueError(f"labels have shape {tuple(labels.shape)}, but must be ({n},): one label for each input")
    return labels


def occurring(held: Samples, among: Samples) -> Tensor:
    """Find which samples occur among others: (n,) bool, by label and by every byte of the input."""
    wanted = {key for inputs, labels in among.batches(4096) for key in _keys(inputs, labels)}
    found = [key in wanted for inputs, labels in held.batches(4096) for key in _keys(inputs, labels)]
    return torch.tensor(found, dtype=torch.bool)


def _keys(inputs: Tensor, labels: Tensor) -> Iterator[tuple[int, bytes]]:
    rows = inputs.contiguous().numpy()
    return ((label, row.tobytes()) for label, row in zip(labels.tolist(), rows, strict=True))
