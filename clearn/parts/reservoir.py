"""A reservoir: each sample met has the same chance to be held; beside each item, what the network answered to it.

Vitter 1985, "Random sampling with a reservoir", algorithm R, as Buzzega et al. 2020 ("Dark experience for general
continual learning", Alg. 3) fill the buffer of DER. Letters: K items held, C classes seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from clearn.errors import ConfigError, StateError
from clearn.parts.exemplars import Exemplars, Memory
from clearn.parts.rehearsal import Rehearsal
from clearn.parts.samples import Samples
from clearn.stream import Inputs

UNKNOWN = -torch.inf
"""The logit of a class that was not known yet when the item was stored: it is no target."""


def reservoir(held: int, met: int, capacity: int, arriving: int, rng: torch.Generator) -> list[int]:
    """Draw what a reservoir holds after more samples have come by.

    Args:
        held: items in it, each of those met equally likely to be among them.
        met: samples that have come by so far, at least `held`.
        capacity: items it may hold from now on; where that is fewer than `held`, chance decides which go.
        arriving: samples that come now, in order.
        rng: draws a permutation if items have to go, then one number a sample.

    Returns:
        At most `capacity` numbers: i < held is an old item, held + i is sample i of the new ones.

    >>> reservoir(2, 2, 5, 3, torch.Generator())
    [0, 1, 2, 3, 4]
    """
    slots = list(range(held))
    if held > capacity:
        slots = sorted(torch.randperm(held, generator=rng)[:capacity].tolist())
    places = torch.rand(arriving, generator=rng, dtype=torch.float64)
    places *= torch.arange(met + 1, met + arriving + 1)  # sample i is the (met + i + 1)-th
    for i, place in enumerate(places.long().tolist()):
        if len(slots) < capacity:
            slots.append(held + i)
        elif place < capacity:
            slots[place] = held + i
    return slots


class SoftExemplars(Exemplars):
    """Exemplars with a column of logits beside them.

    Carried beside what exemplars carry: `logits` (K, C) float32, 4 C bytes an item, where C are the classes seen when
    something was last stored; -inf for classes that came after the item.
    """

    def __init__(self, options: Memory, inputs: Inputs) -> None:
        super().__init__(options, inputs)
        self.logits = torch.empty(0, 0)

    def store(self, kept: Tensor, new: Samples, logits: Tensor, room: int | None = None, paper: bool = False) -> None:
        """Keep some items and store new ones with their logits; see `exchange`.

        Args:
            kept: (k,) int64 rows of what is held.
            new: m samples.
            logits: (m, C) float32, answers to the new ones.
            room: bytes left for all items, logits included; None = not limited.
            paper: whether `room` is in the published counting, which charges no logits.
        """
        n_classes = logits.shape[1]
        self.exchange(kept, new, n_classes, room, paper)
        old = torch.full((len(kept), n_classes), UNKNOWN)
        old[:, : self.logits.shape[1]] = self.logits[kept]
        self.logits = torch.cat([old, logits])

    def state(self) -> dict[str, Tensor]:
        """Give what is carried; nothing at all for an empty memory."""
        return {**super().state(), "logits": self.logits} if len(self) else {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave.

        Raises:
            StateError: for other names, dtypes or shapes; the memory is then unchanged.
        """
        items = {name: value for name, value in state.items() if name != "logits"}
        logits = state.get("logits", torch.empty(0, 0))
        count = len(items.get("labels", ()))
        if (logits.dtype, logits.ndim, len(logits)) != (torch.float32, 2, count):
            raise StateError(
                f"the memory's logits are {logits.dtype} {tuple(logits.shape)}, but must be float32 ({count}, C), "
                "a row for each item: the state is damaged or from another method"
            )
        super().load(items)
        self.logits = logits

    def _keep(self, kept: Tensor) -> None:
        super()._keep(kept)
        self.logits = self.logits[kept]

    def _beside_bytes(self, n_classes: int) -> int:
        return 4 * n_classes


class Reservoir(Rehearsal):
    """Exemplars with logits, drawn by reservoir sampling; the rest as in `Rehearsal`.

    Carried beside the exemplars: `met`, 8 bytes, how many samples have come by.

    Args:
        options: how many and how stored; what it says of selection and remainder is not asked, since chance selects.
        inputs: what one input looks like.
    """

    exemplars: SoftExemplars

    def __init__(self, options: Memory, inputs: Inputs) -> None:
        super().__init__(options, inputs)
        self.exemplars = SoftExemplars(options, inputs)
        self.met = 0

    @property
    def logits(self) -> Tensor:
        """(K, C) float32, a row an exemplar; -inf for classes that came after it."""
        return self.exemplars.logits

    def capacity(self, room: int | None, n_classes: int, paper: bool = False) -> int:
        """Count the items that the options or the bytes left allow.

        Raises:
            BudgetExceeded: when room is negative.
            ConfigError: when nothing says how many, or bytes have to and items differ in size.
        """
        count = self.exemplars.quota(room, n_classes, paper)
        if count is None:
            raise ConfigError(
                "a reservoir fills bytes with items of one size, but those of "
                f"memory.codec={self.exemplars.codec.name!r} differ: give memory.total, or take the codec "
                "raw, kbit or paper"
            )
        return count

    def draw(self, capacity: int, arriving: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw which items stay, and which samples of those that come now are taken up; nothing is stored yet.

        Returns:
            (k,) int64 rows of what is held and (m,) int64 rows of what comes, each in the order of their slots.
        """
        held = len(self)
        slots = torch.tensor(reservoir(held, self.met, capacity, arriving, rng), dtype=torch.int64)
        return slots[slots < held], slots[slots >= held] - held

    def store(
        self, kept: Tensor, new: Samples, logits: Tensor, arrived: int, room: int | None, paper: bool = False
    ) -> None:
        """Store what was drawn.

        Args:
            kept: (k,) int64 rows of what is held.
            new: m samples.
            logits: (m, C) float32.
            arrived: how many samples they were drawn from.
            room: bytes left for all items; None = not limited.
            paper: whether `room` is in the published counting.
        """
        self._means = None
        self.exemplars.store(kept, new, logits, room, paper)
        self.met += arrived

    def forget(self, samples: Samples, classes: Sequence[int] = ()) -> int:
        """Throw out exemplars with their logits; also what the others' logits say of whole classes.

        The count of samples met shrinks by the same share, so that what stays is as dense a sample as before.
        """
        before, gone = len(self), super().forget(samples, classes)
        if gone:
            self.met = round(self.met * len(self) / before)
        self.exemplars.logits[:, [c for c in classes if c < self.logits.shape[1]]] = UNKNOWN
        return gone

    def state(self) -> dict[str, Tensor]:
        """The exemplars' tensors and the count."""
        return {**super().state(), "met": torch.tensor(self.met)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned.

        Raises:
            StateError: for other names, dtypes or shapes.
        """
        met = state.get("met")
        if met is None or met.dtype != torch.int64 or met.ndim or int(met) < len(state.get("labels", ())):
            raise StateError(
                f"the memory's count of samples met is {met}, but must be one int64, at least the number of items: the "
                "state is damaged or from another method"
            )
        super().load({name: value for name, value in state.items() if name != "met"})
        self.met = int(met)


class Traced(Samples):
    """The same samples; remembers the rows of each batch that was read, until they are asked for.

    A loss is given inputs and labels. What else belongs to a sample is found by its row.
    """

    def __init__(self, base: Samples) -> None:
        self.base, self.labels = base, base.labels
        self.in_memory, self.workers, self.varied = base.in_memory, base.workers, base.varied
        self._ahead: deque[Tensor] = deque()

    def rows(self) -> Tensor:
        """(b,) int64 of the oldest batch that was not asked for yet; what comes first is read first."""
        return self._ahead.popleft()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    def fetch(self, index: Tensor) -> Tensor:
        self._ahead.append(index)
        return self.base.fetch(index)

    def take(self, index: Tensor) -> Samples:
        return self.base.take(index)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self.base.batches(size)

    def loader(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        return self._told(self.base.loader, order)

    def training_loader(self, order: Iterable[Tensor], rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        return self._told(lambda steps: self.base.training_loader(steps, rng), order)

    def _told(
        self, load: Callable[[Iterable[Tensor]], Iterator[tuple[Tensor, Tensor]]], order: Iterable[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        steps = list(order)
        for batch, index in zip(load(steps), steps, strict=True):
            self._ahead.append(index)
            yield batch
