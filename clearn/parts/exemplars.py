"""A memory of exemplars: real samples kept from earlier tasks, weighed as they are stored.

    memory = Exemplars(Memory(total=2000), inputs)
    memory.update(task.train, features, n_classes=10, room=None, rng=rng)
    replayed = memory.samples()

Carried, for K items of a fixed-size codec: `images` (K, *stored) and `labels` (K,), 1 byte each up to 256
classes. Of a codec whose items differ in size: `payload`, `lengths` (4 bytes each) and `labels`. Nothing
else: order and groups are read off the labels, class means are computed again from the items.

A group is a run of one label. Each `update` appends one group per class that arrives, each in selection
order, so that cutting a group is keeping a prefix. With new classes in each task a class is one group; where
classes come back in another domain, each domain adds its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import torch
from torch import Tensor

from clearn.errors import BudgetExceeded, ConfigError, StateError
from clearn.parts.codecs import FixedCodec, VariableCodec, codec, parse_codec
from clearn.parts.herding import class_means, herd, herding, nearest_mean_scores, normalise
from clearn.parts.quotas import fill_bytes, split_quota
from clearn.parts.samples import Samples, TensorSamples, occurring
from clearn.parts.shelves import Blobs, Shelf, empty_shelf
from clearn.stream import Inputs

__all__ = [
    "Exemplars",
    "Memory",
    "class_means",
    "herd",
    "nearest_mean_scores",
    "normalise",
    "split_quota",
]

Selection = Literal["herding", "random"]
Remainder = Literal["spread", "floor"]

_LENGTH_BYTES = 4  # an int32 for each item that has a size of its own


@dataclass(frozen=True)
class Memory:
    """What a config may say of a memory; with neither total nor per_class it fills the budget.

    Attributes:
        total: exemplars in all.
        per_class: exemplars for each class seen.
        codec: how an exemplar is stored, see `clearn.parts.codecs`.
        selection: "herding" on normalised features, or "random".
        remainder: what becomes of slots that do not divide evenly, see `split_quota`.

    Raises:
        ConfigError: with all mistakes, one per line.
    """

    total: int | None = None
    per_class: int | None = None
    codec: str = "raw"
    selection: Selection = "herding"
    remainder: Remainder = "spread"

    def __post_init__(self) -> None:
        wrong = []
        for name, count in (("total", self.total), ("per_class", self.per_class)):
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
                wrong.append(f"memory.{name}={count!r} must be a whole number, 0 or more: it counts exemplars")
        if self.total is not None and self.per_class is not None:
            wrong.append(
                f"memory.total={self.total!r} and memory.per_class={self.per_class!r} are both given, but "
                "one of them decides: remove the other"
            )
        try:
            parse_codec(self.codec)
        except ConfigError as mistake:
            wrong.append(str(mistake))
        for name, choice, choices in (
            ("selection", self.selection, get_args(Selection)),
            ("remainder", self.remainder, get_args(Remainder)),
        ):
            if choice not in choices:
                wrong.append(f"memory.{name}={choice!r} is unknown: write {' or '.join(map(repr, choices))}")
        if wrong:
            raise ConfigError("\n".join(wrong))


class Exemplars:
    """The exemplars carried from task to task; empty when made.

    Args:
        options: how many, how stored, how chosen.
        inputs: shape and dtype of one exemplar.
    """

    def __init__(self, options: Memory, inputs: Inputs) -> None:
        self.options, self.inputs = options, inputs
        self.codec = codec(options.codec, inputs.shape, inputs.dtype)
        self._shelf = empty_shelf(self.codec)
        self._labels = torch.empty(0, dtype=torch.uint8)  # (K,) see label_dtype

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def nbytes(self) -> int:
        """Bytes carried now."""
        return sum(tensor.nbytes for tensor in self.state().values())

    @property
    def item_bytes(self) -> int | None:
        """Bytes of each stored item without its label; None where items differ in size."""
        return self.codec.item_bytes if isinstance(self.codec, FixedCodec) else None

    @property
    def paper_bytes(self) -> int:
        """Bytes of each item in the published counting: H x W x 3 for images, no label."""
        return self.codec.paper_bytes

    def item_cost(self, n_classes: int) -> int:
        """Bytes that one more item adds, its label included, when n_classes classes were seen.

        Raises:
            ValueError: where items differ in size.
        """
        if self.item_bytes is None:
            raise ValueError(f"items of codec {self.codec.name!r} differ in size: use a fixed-size codec, or `nbytes`")
        return self.item_bytes + label_dtype(n_classes).itemsize + self._beside_bytes(n_classes)

    def groups(self) -> list[tuple[int, int]]:
        """List (label, items) of each group, in order of arrival."""
        labels, counts = torch.unique_consecutive(self._labels, return_counts=True)
        return list(zip(labels.tolist(), counts.tolist(), strict=True))

    def samples(self) -> TensorSamples:
        """Read all exemplars as they come back from storage, in stored order; an empty memory has no rows."""
        return TensorSamples(self._shelf.items(), self._labels.long())

    def as_read(self, samples: Samples) -> TensorSamples:
        """Give samples as they would come back from storage; nothing is stored."""
        parts = [inputs for inputs, _ in samples.batches(4096)]
        return TensorSamples(empty_shelf(self.codec).add(parts).items(), samples.labels)

    def quota(self, room: int | None, n_classes: int, paper: bool = False) -> int | None:
        """Count the exemplars asked for, whether or not so many samples exist.

        Args:
            room: bytes left for exemplars, None = not limited.
            n_classes: classes seen, those of the current task included.
            paper: whether `room` is in the published counting (`paper_bytes` an item, labels free).

        Returns:
            The number, or None where items differ in size and bytes decide.

        Raises:
            BudgetExceeded: when room is negative.
            ConfigError: when nothing says how many.
        """
        if room is not None and room < 0:
            raise BudgetExceeded(
                f"the budget leaves {room} bytes for exemplars, but must leave 0 or more: what is carried "
                f"besides them outweighs it by {-room} bytes; raise budget.bytes or take a smaller model"
            )
        if self.options.total is not None:
            return self.options.total
        if self.options.per_class is not None:
            return self.options.per_class * n_classes
        if room is None:
            raise ConfigError(
                "the memory has neither a number of exemplars nor a budget to fill: give memory.total, "
                "memory.per_class or budget.bytes"
            )
        if paper:
            return room // self.paper_bytes
        return None if self.item_bytes is None else room // self.item_cost(n_classes)

    def update(
        self,
        new: Samples,
        features: Callable[[Samples], Tensor],
        n_classes: int,
        room: int | None,
        rng: torch.Generator,
        paper: bool = False,
    ) -> None:
        """Make place for the classes of the task just learned: cut old groups to a prefix, select new ones.

        Args:
            new: the task's training samples; may be empty.
            features: gives (m, d) float features of m samples, the same for a sample whatever comes with it.
                Called once for each new class that gets any exemplar, with all samples of that class.
            n_classes: classes seen, those of this task included; all labels lie below it.
            room: bytes left for exemplars, None = not limited.
            rng: draws a permutation for each new class when selection is "random", otherwise unused.
            paper: whether `room` is in the published counting.

        Raises:
            BudgetExceeded: when room is negative, or when memory.total or memory.per_class asks for more than
                fits; the memory is then unchanged. A number that samples at hand cannot fill is no error.
            ConfigError: when nothing says how many.
            ValueError: for samples that are not like `inputs`, or labels outside [0, n_classes).
        """
        count = self.quota(room, n_classes, paper)
        self._check(new, n_classes)
        old, arrivals = self.groups(), self._arrivals(new, features, rng)
        groups = old + [(arrival.label, len(arrival.rows)) for arrival in arrivals]
        if count is None:
            assert room is not None, "quota() gives a number where nothing limits the bytes"
            shelf, sizes = self._fill(room, groups, arrivals, n_classes)
        else:
            sizes = self._sizes(count, groups, n_classes)
            shelf = self._shelf.keep(_prefixes(old, sizes))
            shelf = shelf.add([a.best(size) for a, size in zip(arrivals, sizes[len(old) :], strict=True) if size])
            self._weigh(shelf, n_classes, room, paper)
        self._shelf = shelf
        labels = torch.tensor([label for label, _ in groups], dtype=label_dtype(n_classes))
        self._labels = labels.repeat_interleave(torch.tensor(sizes, dtype=torch.int64))

    def exchange(
        self, kept: Tensor, new: Samples, n_classes: int, room: int | None = None, paper: bool = False
    ) -> None:
        """Keep some items, in the order given, and store all of `new` after them: for samplers of their own.

        Args:
            kept: (k,) int64 rows of what is held.
            new: to be stored; may be empty.
            n_classes: classes seen; all labels lie below it.
            room: bytes left for exemplars, None = not limited.
            paper: whether `room` is in the published counting.

        Raises:
            BudgetExceeded: when all of it weighs more than `room`; the memory is then unchanged.
            ValueError: for samples that are not like `inputs`, or labels outside [0, n_classes).
        """
        self._check(new, n_classes)
        shelf = self._shelf.keep(kept).add([inputs for inputs, _ in new.batches(4096)])
        self._weigh(shelf, n_classes, room, paper)
        labels = torch.cat([self._labels[kept].long(), new.labels])
        self._shelf, self._labels = shelf, labels.to(label_dtype(n_classes))

    def forget(self, samples: Samples, classes: Sequence[int] = ()) -> int:
        """Throw out what was kept of some samples; what stays keeps its order, and nothing takes the freed place.

        An exemplar is one of the samples if it has the same label and is the same once stored and read again, so that
        a lossy codec hides none. Copies of them that came in by other samples go as well.

        Args:
            samples: to be forgotten; empty leaves the memory as it is.
            classes: labels whose exemplars go whatever they show.

        Returns:
            How many were thrown out.
        """
        gone = torch.isin(self._labels.long(), torch.tensor(list(classes), dtype=torch.int64))
        own = samples.take(torch.isin(samples.labels, self._labels.long()).nonzero().flatten())
        if len(own) and not bool(gone.all()):
            gone |= occurring(self.samples(), self.as_read(own))
        if bool(gone.any()):
            self._keep((~gone).nonzero().flatten())
        return int(gone.sum())

    def state(self) -> dict[str, Tensor]:
        """Give what is carried; nothing at all for an empty memory."""
        return {**self._shelf.state(), "labels": self._labels} if len(self) else {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave, of a memory with the same codec and inputs.

        Raises:
            StateError: for other names, dtypes or shapes; the memory is then unchanged.
        """
        shelf = empty_shelf(self.codec)
        labels = torch.empty(0, dtype=torch.uint8)
        if state:
            names = sorted([*shelf.state(), "labels"])
            if sorted(state) != names:
                raise StateError(
                    f"the memory's state holds {sorted(state)}, but codec {self.codec.name!r} keeps {names}: "
                    "load it with the memory.codec it was written with"
                )
            labels = state["labels"]
            if labels.ndim != 1 or labels.dtype not in (torch.uint8, torch.int16, torch.int32):
                raise StateError(
                    f"the memory's labels are {labels.dtype} {tuple(labels.shape)}, but must be uint8, int16 "
                    "or int32 (K,): the state is damaged or from something else"
                )
            shelf = shelf.load(state, len(labels))
        self._shelf, self._labels = shelf, labels

    def _keep(self, kept: Tensor) -> None:
        """Keep rows (k,) of what is held, and nothing else."""
        self._shelf, self._labels = self._shelf.keep(kept), self._labels[kept]

    def _beside_bytes(self, n_classes: int) -> int:
        """Bytes that an item has beside its input and label when n_classes classes were seen."""
        return 0

    def _check(self, new: Samples, n_classes: int) -> None:
        if (new.shape, new.dtype) != (self.codec.shape, self.codec.dtype):
            raise ValueError(
                f"new samples are {new.dtype} {new.shape}, but this memory holds {self.codec.dtype} "
                f"{self.codec.shape}: make it for the inputs of this stream"
            )
        labels = torch.cat([new.labels, self._labels.long()])
        if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= n_classes):
            raise ValueError(
                f"labels run from {int(labels.min())} to {int(labels.max())}, but must lie in [0, "
                f"{n_classes}): n_classes counts all classes seen so far"
            )

    def _arrivals(self, new: Samples, features: Callable[[Samples], Tensor], rng: torch.Generator) -> list[_Arrival]:
        """Sort new samples by class, each with its selection order, worked out only as far as asked."""
        arrivals = []
        for label in new.labels.unique(sorted=True).tolist():
            rows = (new.labels == label).nonzero().flatten()
            if self.options.selection == "random":
                order = iter(torch.randperm(len(rows), generator=rng).tolist())
            else:
                order = _herded(new, rows, features)
            arrivals.append(_Arrival(label, new, rows, order))
        if len(arrivals) > 1 and len(self) and arrivals[0].label == int(self._labels[-1]):
            arrivals.append(arrivals.pop(0))  # next to the run of its own label it would be one group with it
        return arrivals

    def _sizes(self, count: int, groups: Sequence[tuple[int, int]], n_classes: int) -> list[int]:
        """Share `count` items between groups of (label, items at hand)."""
        remainder, sizes = self.options.remainder, [0] * len(groups)
        if self.options.per_class is None:
            available = [n for _, n in groups] + [0] * _absent(groups, n_classes)
            return split_quota(count, available, remainder)[: len(groups)]
        for label in {label: None for label, _ in groups}:
            mine = [i for i, group in enumerate(groups) if group[0] == label]
            shares = split_quota(self.options.per_class, [groups[i][1] for i in mine], remainder)
            for i, share in zip(mine, shares, strict=True):
                sizes[i] = share
        return sizes

    def _fill(
        self, room: int, groups: Sequence[tuple[int, int]], arrivals: Sequence[_Arrival], n_classes: int
    ) -> tuple[Shelf, list[int]]:
        """Take items that differ in size while their bytes fit; return them and how many of each group."""
        assert isinstance(self._shelf, Blobs), "a fixed-size codec has a quota"
        codec, blobs = self._shelf.codec, self._shelf.blobs
        queues: list[Iterable[bytes]] = []
        start = 0
        for _, n in groups[: len(groups) - len(arrivals)]:
            queues.append(blobs[start : start + n])
            start += n
        queues += [arrival.encoded(codec) for arrival in arrivals]
        shares = len(groups) + _absent(groups, n_classes)
        overhead = _LENGTH_BYTES + label_dtype(n_classes).itemsize
        taken = fill_bytes(queues, room, overhead, shares, self.options.remainder == "spread")
        return Blobs(codec, [blob for group in taken for blob in group]), [len(group) for group in taken]

    def _weigh(self, shelf: Shelf, n_classes: int, room: int | None, paper: bool) -> None:
        needed = len(shelf) * self.paper_bytes
        if not paper:
            each = label_dtype(n_classes).itemsize + self._beside_bytes(n_classes)
            needed = shelf.nbytes + len(shelf) * each
        if room is not None and needed > room:
            asked = f"memory.total={self.options.total}"
            if self.options.per_class is not None:
                asked = f"memory.per_class={self.options.per_class}"
            raise BudgetExceeded(
                f"{asked} keeps {len(shelf)} exemplars of {needed} bytes, but the budget leaves {room} bytes "
                "for them: raise budget.bytes, or leave the number out to fill what is left"
            )


def label_dtype(n_classes: int) -> torch.dtype:
    """Pick the smallest dtype for labels: uint8 up to 256 classes, int16 up to 32,768, then int32."""
    if n_classes <= 256:
        return torch.uint8
    return torch.int16 if n_classes <= 32768 else torch.int32


@dataclass(frozen=True)
class _Arrival:
    """All new samples of one class: their rows (m,) in `new`, and the order worth keeping, read once."""

    label: int
    new: Samples
    rows: Tensor
    order: Iterator[int]

    def best(self, n: int) -> Tensor:
        """Read the next n inputs in order: (n, *shape)."""
        return self.new.fetch(self.rows[torch.tensor(list(islice(self.order, n)), dtype=torch.int64)])

    def encoded(self, codec: VariableCodec) -> Iterator[bytes]:
        """Encode one input after the other."""
        for i in self.order:
            yield codec.write(self.new.fetch(self.rows[i : i + 1])[0])


def _herded(new: Samples, rows: Tensor, features: Callable[[Samples], Tensor]) -> Iterator[int]:
    """Herd the rows of one class on normalised features, which are computed at the first pick."""
    found = features(new.take(rows))
    if found.ndim != 2 or len(found) != len(rows):
        raise ValueError(f"features has shape {tuple(found.shape)}, but must be ({len(rows)}, d): one row per sample")
    yield from herding(normalise(found))


def _absent(groups: Sequence[tuple[int, int]], n_classes: int) -> int:
    """Count the classes seen of which no item is at hand; under "floor" they still take up a share."""
    return n_classes - len({label for label, _ in groups})


def _prefixes(groups: Sequence[tuple[int, int]], sizes: Sequence[int]) -> Tensor:
    """Index the first sizes[g] items of each group g, of groups (label, items) stored one after the other."""
    rows, start = [torch.empty(0, dtype=torch.int64)], 0
    for (_, n), size in zip(groups, sizes, strict=False):
        rows.append(torch.arange(start, start + size))
        start += n
    return torch.cat(rows)
