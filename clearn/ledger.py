"""The byte ledger: what is carried over a task boundary, by owner and category, and the budget it must fit.

Everything is measured from the frozen state that goes into the state file; a method only names the category of an
entry, never its size. Rules and categories: specs of this project, "budgets" part C. Torch is not needed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from clearn.errors import BudgetExceeded
from clearn.state import Frozen, nbytes

CATEGORIES = (
    "params",
    "buffers",
    "head",
    "frozen_copy",
    "exemplars",
    "codes",
    "codebooks",
    "memo",
    "counts",
    "features",
    "prototypes",
    "covariances",
    "index",
    "keys",
    "importance",
    "updates",
    "subspace",
    "optimizer",
    "rng",
    "meta",
    "shared_pretrained",
)
NETWORKS = ("params", "buffers", "head", "frozen_copy", "shared_pretrained")
TRAINING = ("importance", "updates", "subspace", "optimizer", "rng")
BANK = tuple(category for category in CATEGORIES if category not in NETWORKS + TRAINING)
"""Categories of what is kept of the data, and what is needed to read that: neither networks nor what training needs."""

Policy = Literal["every", "final", "growth", "none"]
Count = Literal["full", "paper", "bank"]


@dataclass(frozen=True)
class Leaf:
    """One entry of the carried state.

    Attributes:
        name: 'owner/name'.
        category: one of CATEGORIES.
        nbytes: as stored; 0 for an alias of another entry.
        elements: how many numbers it holds.
    """

    name: str
    category: str
    nbytes: int
    elements: int

    @property
    def owner(self) -> str:
        """Who carries it: model, memory, unlearner, client or server."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class Account:
    """All entries of one boundary."""

    leaves: tuple[Leaf, ...]

    @property
    def carried(self) -> int:
        """Bytes in the state file: everything but untouched pretrained weights (`bytes_delta`)."""
        return sum(leaf.nbytes for leaf in self.leaves if leaf.category != "shared_pretrained")

    @property
    def shared(self) -> int:
        """Bytes of weights that are bit-identical to their published checkpoint (`bytes_shared`)."""
        return sum(leaf.nbytes for leaf in self.leaves if leaf.category == "shared_pretrained")

    @property
    def bank(self) -> int:
        """Bytes of what is kept of the data, networks left out (categories in BANK)."""
        return sum(leaf.nbytes for leaf in self.leaves if leaf.category in BANK)

    def rows(self) -> dict[tuple[str, str], int]:
        """(owner, category) -> bytes, in the order of CATEGORIES."""
        totals: dict[tuple[str, str], int] = {}
        for leaf in sorted(self.leaves, key=lambda leaf: (leaf.owner, CATEGORIES.index(leaf.category))):
            key = (leaf.owner, leaf.category)
            totals[key] = totals.get(key, 0) + leaf.nbytes
        return totals

    def paper(self, nominal_items: int = 0) -> int:
        """Bytes as MEMO (Zhou et al. 2023, section 3) counts them: backbone parameters and nominal images alone.

        Args:
            nominal_items: what the exemplars cost in the published currency: height x width x 3 bytes an image.
        """
        return 4 * sum(leaf.elements for leaf in self.leaves if leaf.category == "params") + nominal_items


def account(frozen: Frozen, category: Callable[[str], str]) -> Account:
    """Weigh a frozen state, entry by entry.

    Args:
        frozen: what goes into the state file.
        category: names the category of an entry; anything outside CATEGORIES is refused.

    Raises:
        ValueError: a category that is not in CATEGORIES.
    """
    leaves = [
        _leaf(name, category(name), nbytes(value), _elements(value.shape)) for name, value in frozen.tensors.items()
    ]
    leaves += [_leaf(name, category(name), 0, 0) for name in frozen.aliases]
    leaves += [Leaf(name, "shared_pretrained", size, 0) for name, (_, size) in frozen.shared.items()]
    return Account(tuple(leaves))


@dataclass(frozen=True)
class Budget:
    """How many bytes may be carried over which boundary.

    Attributes:
        total: bytes, or None for no limit.
        policy: "every": at each boundary at most `total` (default). "final": only after the last task, as published;
            the quota of the last task is then used from the first. "growth": `total` after the first task and `step`
            more after each later one. "none": weigh only.
        step: bytes added per task under "growth".
        count: "full": what is stored. "paper": 4 bytes a backbone parameter and height x width x 3 an image, as MEMO
            counts. "bank": what is kept of the data, networks left out, so that a bank can be compared with a text.
    """

    total: int | None = None
    policy: Policy = "every"
    step: int = 0
    count: Count = "full"

    def counted(self, weights: Account, nominal_items: int = 0) -> int:
        """Bytes of a boundary in the budget's own counting; see `Account.paper` for the nominal ones."""
        if self.count == "paper":
            return weights.paper(nominal_items)
        return weights.bank if self.count == "bank" else weights.carried

    def at(self, index: int, n_tasks: int) -> int | None:
        """The limit at the boundary after task `index` (from 0), or None where there is none."""
        if self.total is None or self.policy == "none":
            return None
        if self.policy == "growth":
            return self.total + index * self.step
        if self.policy == "final" and index < n_tasks - 1:
            return None
        return self.total

    def room(self, model: int, index: int, planned: Sequence[int]) -> int | None:
        """Bytes left for exemplars and the like beside a model, in the budget's own counting; None without a limit.

        Args:
            model: bytes of everything else that is carried now.
            index: the task just learned, from 0.
            planned: bytes of the model alone after each task. Under "final" the room is what the last task will leave.
        """
        if self.total is None or self.policy == "none":
            return None
        if self.policy == "final":
            return self.total - (model + planned[-1] - planned[index])
        return self.total + (index * self.step if self.policy == "growth" else 0) - model

    def check(self, weight: int, index: int, n_tasks: int, of: str = "the carried state") -> None:
        """Refuse a boundary that is over its limit.

        Raises:
            BudgetExceeded: with both numbers, and what can be done.
        """
        limit = self.at(index, n_tasks)
        if limit is not None and weight > limit:
            raise BudgetExceeded(
                f"after task {index + 1} {of} weighs {weight:,} bytes ({self.count} counting), {weight - limit:,} over "
                f"budget.bytes={limit:,} (policy {self.policy}): raise budget.bytes, choose a smaller backbone or "
                "fewer "
                "exemplars, or weigh only with budget.policy=none"
            )


def _leaf(name: str, category: str, size: int, elements: int) -> Leaf:
    if category not in CATEGORIES or category == "shared_pretrained":
        raise ValueError(f"state entry '{name}' has category '{category}': choose one of {', '.join(CATEGORIES[:-1])}")
    return Leaf(name, category, size, elements)


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for length in shape:
        count *= int(length)
    return count
