"""Amnesiac: take back the logged updates of every batch that held what goes (Graves, Nagisetty, Ganesh, AAAI 2021).

While a task is learned, Delta_b = theta after - theta before the step is logged for each batch b that holds a
declared sample, fresh or replayed. At a request theta <- theta - sum of Delta_b over the batches that held what goes,
then a short repair on what stays. What is not declared before training cannot be asked for.

The paper keeps every Delta_b: 4 P bytes a batch, 7 TB for "any sample" of CIFAR-100 (ResNet18, 200 epochs of 782
batches), 3.3 TB for one class. Only sums are ever subtracted, so sums are kept: the classes and the set of samples
declared are groups, and there is one sum for each combination of groups that met in a batch. Each batch is in exactly
one sum, so none is taken back twice, whether groups are asked for at once or one after the other.

A group that holds a share s of the data is in 1 - (1 - s)^b of the batches of b samples: one of ten classes in 97 % of
those of 32. Nearly all of learning is then taken back, and what is left is what the repair teaches.

Weights that are copied or grown carry their log along: a new row or column owes nothing, a block that starts as
another's copy (MEMO, DER) owes what that one owed, a weight drawn anew (joint) nothing. Not undone: BatchNorm's
statistics, which fade by themselves (a sum of their changes is no inverse and can make a variance negative); momentum
that the batches left to later steps; what is changed outside of steps (weight alignment); and what a teacher tells of
the forgotten through other samples (iCaRL's distillation).

Kept from training until a request: 4 P bytes a sum: one for one group, at most 2^g - 1 for g; 16 bytes a sum beside;
for declared samples 8 bytes a task and 32 a sample. Read at a request: nothing; with repair what stays, or the
strategy's exemplars. Cost: while training 8 to 12 P bytes and two passes over the weights for each logged step; at a
request one pass over the weights, and the repair's epochs over what stays (3 by default).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import accumulate
from operator import or_
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from clearn.context import Context
from clearn.errors import ConfigError, StateError
from clearn.parts.forgetting import thawed
from clearn.parts.rehearsal import Rehearsal
from clearn.parts.samples import Samples
from clearn.recipe import Recipe
from clearn.state import State
from clearn.strategy import Strategy
from clearn.stream import Forget, Request, Task, TaskInfo
from clearn.streams.requests import numbers
from clearn.unlearner import Unlearner, remaining

MOST_GROUPS = 16  # so many may need 65,535 sums


class Amnesiac(Unlearner):
    """Log the updates of batches that hold declared samples, and take them back.

    Args:
        classes: declared classes, each a group of its own.
        samples: declared training samples, numbered from 0 through the tasks in their order; together one group, so
            that a request has to name all of them that were learned by then.
        file: of such numbers, one a line, instead of `samples`.
        repair: training on what stays after the updates were taken back; null leaves it out.
    """

    def __init__(
        self,
        classes: tuple[int, ...] = (),
        samples: tuple[int, ...] = (),
        file: Path | None = None,
        repair: Recipe | None = Recipe(epochs=3, lr=0.02, schedule="constant", weight_decay=5e-4),
    ) -> None:
        if samples and file is not None:
            raise ConfigError(
                f"samples ({len(samples)} numbers) and file={file} both declare samples: give one of them"
            )
        declared = samples if file is None else tuple(numbers(file))
        if not classes and not declared:
            raise ConfigError(
                "amnesiac logs the batches of what is declared before training, and nothing is: write classes: [3], or "
                "samples: [17, 42], or a file of such numbers"
            )
        if wrong := [number for number in (*classes, *declared) if number < 0]:
            raise ConfigError(f"{wrong[0]} is no class and no sample: both are numbered from 0")
        self.classes = tuple(sorted(set(classes)))
        self.declared = frozenset(declared)
        if (n_groups := len(self.classes) + bool(declared)) > MOST_GROUPS:
            raise ConfigError(
                f"{n_groups} groups are declared, and each combination of them in a batch needs a sum of its own: "
                f"declare at most {MOST_GROUPS}"
            )
        self.repair = repair
        self.looks_back = repair is not None
        self._log = UpdateLog()
        self._met = Met()

    def foresee(self, requests: Sequence[Request]) -> None:
        """Refuse classes that are not declared, and more samples than are."""
        for request in requests:
            self._refuse_undeclared(request)

    @contextmanager
    def during(self, strategy: Strategy, task: Task, ctx: Context) -> Iterator[None]:
        """Log the steps of a task."""
        if self.declared:
            self._met.add(task.train, self.declared, strategy)
        start = {name: p.detach().cpu().clone() for name, p in strategy.named_parameters()} if self._log.sums else {}
        with ctx.observed(self._recorder(strategy, start)):
            yield
        self._log.rest()
        ctx.log("unlearn/logged_steps", sum(self._log.steps.values()))
        ctx.log("unlearn/sums", len(self._log.sums))

    def check(self, request: Forget) -> None:
        """Refuse what was not declared, what a sum cannot give alone, and a model whose steps nobody logged."""
        self._refuse_undeclared(request.request)
        if request.request.rows:
            self._refuse_other_samples(request.request)
        for group in self._groups(request.request):
            if not any(key & group for key in self._log.steps):
                raise ConfigError(
                    f"{len(request.forget)} samples have to go, and of the {sum(self._log.steps.values())} steps that "
                    "are logged none held them: amnesiac must be the run's unlearner while the task is learned, and "
                    "the strategy must learn by ctx.fit; otherwise choose another method, e.g. ssd"
                )

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Take the updates back, drop them from the log, repair; the repair's own steps are logged as well."""
        kept = None if self.repair is None else remaining(strategy, request)
        total, steps = self._log.take(sum(self._groups(request.request)))
        with torch.no_grad():
            for name, parameter in strategy.named_parameters():
                if name in total:
                    parameter.sub_(_grown(total[name], parameter.shape).to(parameter.device))
        self._met.forget(request.request.classes)
        ctx.log("unlearn/steps", steps)
        if kept is not None:
            with thawed(strategy), ctx.observed(self._recorder(strategy, {})):
                ctx.fit(strategy, kept, self.repair)
            self._log.rest()

    def state(self) -> State:
        """The log, and the declared samples that were met."""
        return {f"unlearner/{name}": value for name, value in (self._log.state() | self._met.state()).items()}

    def load(self, state: State, seen: Sequence[TaskInfo]) -> None:
        """Take both back.

        Raises:
            StateError: other entries, or samples that are not declared.
        """
        left = {name.removeprefix("unlearner/"): torch.as_tensor(value) for name, value in state.items()}
        self._met, self._log = Met.taken(left), UpdateLog.taken(left)
        strangers = sorted(set(self._met.numbers.tolist()) - self.declared)
        all_groups = sum(self._bits.values())
        foreign = [key for key in self._log.sums if key & ~all_groups]
        if left or strangers or foreign:
            raise StateError(
                f"this state holds {sorted(left) or 'a log'} of {len(strangers)} samples and {len(foreign)} groups "
                "that are not declared: resume it with the config in its own run folder"
            )

    def category(self, name: str) -> str:
        """Sums of updates, and what tells samples and sums apart."""
        return "updates" if name.startswith("unlearner/log/") else "index"

    @property
    def _bits(self) -> dict[int | str, int]:
        """The bit of each group: classes in ascending order, then the samples."""
        names: tuple[int | str, ...] = (*self.classes, *(("samples",) if self.declared else ()))
        return {name: 1 << place for place, name in enumerate(names)}

    def _groups(self, request: Request) -> list[int]:
        return [self._bits[c] for c in request.classes] + ([self._bits["samples"]] if request.rows else [])

    def _recorder(self, strategy: Strategy, start: Mapping[str, Tensor]) -> Recorder:
        return Recorder(strategy, start, self._bits, self._met, self._log)

    def _refuse_undeclared(self, request: Request) -> None:
        if unknown := sorted(set(request.classes) - set(self.classes)):
            raise ConfigError(
                f"class {unknown[0]} is to be forgotten after task {request.after}, and amnesiac logs the batches of "
                f"classes {list(self.classes)} alone ({len(unknown)} such): declare it before training, "
                f"unlearner.classes: {sorted({*self.classes, *request.classes})}"
            )
        if len(request.rows) > len(self.declared):
            raise ConfigError(
                f"{len(request.rows)} samples are to be forgotten after task {request.after}, and amnesiac logs the "
                f"batches of {len(self.declared)} declared ones: declare those before training by unlearner.samples or "
                "unlearner.file"
            )

    def _refuse_other_samples(self, request: Request) -> None:
        """Refuse single samples unless they are all the declared ones that are there."""
        starts = [0, *accumulate(self._met.sizes.tolist())]
        asked = {starts[task] + row for task, row in request.rows if task < len(self._met.sizes)}
        there = set(self._met.numbers.tolist())
        if missing := len(request.rows) - len(asked & there):
            raise ConfigError(
                f"{missing} of the {len(request.rows)} samples to be forgotten were not declared when they were learned"
                f"{''.join(f', the first is number {one}' for one in sorted(asked - there)[:1])}: amnesiac logged the "
                f"batches of {len(there)} samples; declare them before training"
            )
        if others := sorted(there - asked):
            raise ConfigError(
                f"{len(asked)} samples are to be forgotten, and the log has one sum for all {len(there)} declared ones "
                f"learned so far; the first that is not asked for is number {others[0]}: ask for all of them, or "
                "declare only those"
            )


class Recorder:
    """Logs the steps of phases; an observer (see `clearn.context`). Marks are bits of groups.

    Args:
        strategy: whose parameters are logged.
        start: values on the CPU before it grew for the task, by name; empty where nothing has to be carried along.
        bits: of groups: classes, and "samples".
        met: the declared samples.
        log: gets the updates.
    """

    def __init__(
        self, strategy: Strategy, start: Mapping[str, Tensor], bits: Mapping[int | str, int], met: Met, log: UpdateLog
    ) -> None:
        self.strategy, self.start, self.bits, self.met, self.log = strategy, start, bits, met, log
        self.trained: dict[str, nn.Parameter] = {}

    def begin(self, sources: Sequence[Samples]) -> list[Tensor]:
        """Mark declared samples, by label and by content."""
        parameters = dict(self.strategy.named_parameters())
        if self.start:
            self.log.carry_along(parameters, self.start)
            self.start = {}
        self.trained = {name: p for name, p in parameters.items() if p.requires_grad}
        return [self._marks(source) for source in sources]

    @contextmanager
    def step(self, marks: Tensor) -> Iterator[None]:
        """Log theta after - theta before under the groups that met in the batch."""
        before = {name: p.detach().clone() for name, p in self.trained.items()}
        yield
        groups = reduce(or_, marks.unique().tolist())
        self.log.add(groups, {name: p.detach() - before[name] for name, p in self.trained.items()})

    def _marks(self, source: Samples) -> Tensor:
        """(n,) int64 bits of the groups that a sample is in."""
        marks = torch.zeros(len(source), dtype=torch.int64)
        for group, bit in self.bits.items():
            marks |= bit * (self.met.among(source) if group == "samples" else source.labels == group)
        return marks


class UpdateLog:
    """Sums of updates by the groups that met in a batch.

    Attributes:
        sums: groups (bits) -> parameter -> sum of Delta_b, float32 like the parameter.
        steps: groups -> how many steps are in the sum.
    """

    def __init__(self) -> None:
        self.sums: dict[int, dict[str, Tensor]] = {}
        self.steps: dict[int, int] = {}

    def add(self, groups: int, update: Mapping[str, Tensor]) -> None:
        """Add one step's update."""
        sums = self.sums.setdefault(groups, {})
        for name, delta in update.items():
            total = sums.get(name)
            sums[name] = delta if total is None else _grown(total, delta.shape).to(delta.device) + delta
        self.steps[groups] = self.steps.get(groups, 0) + 1

    def take(self, groups: int) -> tuple[dict[str, Tensor], int]:
        """Take out every sum of a batch that held one of these groups: their total by parameter, and their steps."""
        total, steps = UpdateLog(), 0
        for key in sorted(key for key in self.sums if key & groups):
            total.add(groups, self.sums.pop(key))
            steps += self.steps.pop(key)
        return total.sums.get(groups, {}), steps

    def carry_along(self, parameters: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> None:
        """Follow the weights through a change of structure.

        Args:
            parameters: as they are, grown.
            start: as they were before.
        """
        origins: dict[str, str] = {}
        for name, parameter in parameters.items():
            now = parameter.detach().cpu()
            if name in start:
                found = name if _begins_with(now, start[name]) else None
            else:
                found = next((old for old, value in start.items() if _same(now, value)), None)
            if found is not None:
                origins[name] = found
        for key, sums in list(self.sums.items()):
            self.sums[key] = {
                name: _grown(sums[old], parameters[name].shape).clone() for name, old in origins.items() if old in sums
            }
            if not self.sums[key]:  # all that these steps changed was drawn anew
                del self.sums[key], self.steps[key]

    def rest(self) -> None:
        """Move to the CPU."""
        self.sums = {key: {name: total.cpu() for name, total in sums.items()} for key, sums in self.sums.items()}

    def state(self) -> dict[str, Tensor]:
        """`steps` (s, 2) int64, groups and how many steps; `log/GROUPS/NAME` the sums."""
        if not self.steps:
            return {}
        found = {"steps": torch.tensor(sorted(self.steps.items()), dtype=torch.int64)}
        return found | {f"log/{key}/{name}": total for key, sums in self.sums.items() for name, total in sums.items()}

    @classmethod
    def taken(cls, state: dict[str, Tensor]) -> UpdateLog:
        """Take back what `state` gave; takes its entries out of `state`."""
        log = cls()
        log.steps = dict(state.pop("steps", torch.empty(0, 2, dtype=torch.int64)).tolist())
        log.sums = {key: {} for key in log.steps}
        for name in sorted(name for name in state if name.startswith("log/")):
            _, key, parameter = name.split("/", 2)
            if key.isdecimal() and int(key) in log.sums:
                log.sums[int(key)][parameter] = state.pop(name)
        return log


class Met:
    """The declared samples that were met and not forgotten: k of them.

    Attributes:
        sizes: (tasks,) int64 training samples of each task, by which samples are numbered.
        numbers: (k,) int64.
        labels: (k,) int64.
        digests: (k, 2) int64 of content and label: as it came, and as the strategy's memory gives it back.
    """

    NAMES: ClassVar = ("sizes", "numbers", "labels", "digests")

    def __init__(self) -> None:
        self.sizes = self.numbers = self.labels = torch.empty(0, dtype=torch.int64)
        self.digests = torch.empty(0, 2, dtype=torch.int64)

    def add(self, train: Samples, declared: frozenset[int], strategy: Strategy) -> None:
        """Take note of a task's declared samples."""
        first = int(self.sizes.sum())
        rows = torch.tensor([n - first for n in sorted(declared) if 0 <= n - first < len(train)], dtype=torch.int64)
        own = train.take(rows)
        memory = strategy.memory
        kept = memory.exemplars.as_read(own) if isinstance(memory, Rehearsal) and len(own) else own
        self.sizes = torch.cat([self.sizes, torch.tensor([len(train)])])
        self.numbers = torch.cat([self.numbers, first + rows])
        self.labels = torch.cat([self.labels, own.labels])
        self.digests = torch.cat([self.digests, torch.tensor([_digests(own), _digests(kept)], dtype=torch.int64).T])

    def among(self, source: Samples) -> Tensor:
        """(n,) bool, which samples are declared ones; copies of them count as well."""
        wanted, found = set(self.digests.flatten().tolist()), torch.zeros(len(source), dtype=torch.bool)
        rows = torch.isin(source.labels, self.labels).nonzero().flatten()
        found[rows] = torch.tensor([one in wanted for one in _digests(source.take(rows))], dtype=torch.bool)
        return found

    def forget(self, classes: Sequence[int]) -> None:
        """Drop the samples of some classes or, without classes, all."""
        stays = ~torch.isin(self.labels, torch.tensor(classes, dtype=torch.int64)) if classes else slice(0)
        self.numbers, self.labels, self.digests = self.numbers[stays], self.labels[stays], self.digests[stays]

    def state(self) -> dict[str, Tensor]:
        """All four; nothing where no sample is declared."""
        if not len(self.sizes):
            return {}
        return dict(zip(self.NAMES, (self.sizes, self.numbers, self.labels, self.digests), strict=True))

    @classmethod
    def taken(cls, state: dict[str, Tensor]) -> Met:
        """Take back what `state` gave; takes its entries out of `state`."""
        met = cls()
        if "sizes" in state:
            met.sizes, met.numbers, met.labels, met.digests = (state.pop(name) for name in cls.NAMES)
        return met


def _digests(samples: Samples) -> list[int]:
    """64 bits of each sample's label and content."""
    found = []
    for inputs, labels in samples.batches(4096):
        for row, label in zip(inputs.contiguous().numpy(), labels.tolist(), strict=True):
            word = hashlib.blake2b(row.tobytes(), digest_size=8, key=str(label).encode()).digest()
            found.append(int.from_bytes(word, "little", signed=True))
    return found


def _grown(total: Tensor, shape: torch.Size) -> Tensor:
    """Fill up with zeros to a larger shape."""
    if total.shape == shape:
        return total
    padded = total.new_zeros(shape)
    padded[tuple(slice(size) for size in total.shape)] = total
    return padded


def _same(now: Tensor, before: Tensor) -> bool:
    """Whether a weight is another's copy."""
    return now.shape == before.shape and torch.equal(now, before)


def _begins_with(now: Tensor, before: Tensor) -> bool:
    """Whether a weight is what it was, with new rows or columns at most."""
    if now.ndim != before.ndim or any(a < b for a, b in zip(now.shape, before.shape, strict=True)):
        return False
    return torch.equal(now[tuple(slice(size) for size in before.shape)], before)
