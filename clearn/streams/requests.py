"""Requests to forget, put into a stream: which samples they mean, and what an unlearner is given of them."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearn.errors import ConfigError, DataError
from clearn.mistakes import listing, nearest
from clearn.parts.columns import Column
from clearn.parts.samples import concat
from clearn.stream import Forget, Request, Stream, Task


@dataclass(frozen=True)
class RequestOptions:
    """One entry of `stream.requests`; one of classes, ids, file, count and column says what goes.

    Attributes:
        after: so many tasks are learned before it.
        classes: labels as the stream numbers them (the j-th class of the class order is j), with all their samples.
        ids: training samples, numbered from 0 through the tasks in their order; an empty list changes nothing.
        file: of such numbers, one a line.
        count: so many training samples at random, of all tasks before the request.
        seed: of that draw.
        column: of the data; all training samples with one of `values` there, of all tasks before the request.
        values: as the data prints them.
        look_back: whether the training samples that stay may be read again; without it only what is carried can be.
    """

    after: int
    classes: tuple[int, ...] | None = None
    ids: tuple[int, ...] | None = None
    file: Path | None = None
    count: int | None = None
    seed: int = 0
    column: str | None = None
    values: tuple[int | str, ...] | None = None
    look_back: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("classes", "ids", "file", "count", "column") if getattr(self, name) is not None]
        if self.after < 1:
            raise ConfigError(f"after={self.after} must be at least 1: something has to be learned first")
        if len(given) != 1:
            raise ConfigError(
                f"after={self.after}: {' and '.join(given) or 'nothing'} says what goes, and exactly one of classes, "
                "ids, file, count and column must"
            )
        if (self.column is None) != (not self.values):
            raise ConfigError(
                f"values={list(self.values or ())} and column={self.column!r} must come together: a column, and at "
                "least one value of it"
            )
        if self.count is not None and self.count < 1:
            raise ConfigError(f"count={self.count} must be at least 1; ids: [] is the empty request")


class WithRequests(Stream):
    """A stream of tasks with requests between them.

    Args:
        base: the tasks.
        options: the requests; those after one task come in the order given.

    Raises:
        ConfigError: a request that comes too late, names what does not exist or is forgotten already, or leaves
            nothing.
        DataError: a file of numbers that cannot be read.
    """

    def __init__(self, base: Stream, options: Sequence[RequestOptions]) -> None:
        self.base = base
        in_order = sorted(options, key=lambda one: one.after)
        requests: tuple[Request, ...] = ()
        for one in in_order:
            requests = (*requests, _resolved(base, one, requests))
        about = {**base.about, "requests": [_said(*pair) for pair in zip(requests, in_order, strict=True)]}
        super().__init__(replace(base.facts, requests=requests, about=about))

    def task(self, index: int) -> Task:
        """The task as it is: who will want it forgotten is not known yet."""
        return self.base.task(index)

    def column(self, name: str, index: int) -> Column:
        """As of the stream without requests."""
        return self.base.column(name, index)

    def forget(self, request: Request) -> Forget:
        """What an unlearner is given; what stays holds no sample of this request or an earlier one."""
        parts = [task.train.take(_rows(task, [request])) for task in self._learned(request)]
        past = self.staying(request)
        return Forget(
            request=request,
            forget=concat([part for part in parts if len(part)] or parts[:1]),
            past=past if request.look_back else None,
            probes=tuple(probe for task in past for probe in task.probes),
        )

    def staying(self, request: Request) -> tuple[Task, ...]:
        """The tasks learned before a request without what was to be forgotten so far, for whoever judges."""
        gone = self.requests[: self.requests.index(request) + 1]
        found = []
        for task in self._learned(request):
            stays = torch.ones(len(task.train), dtype=torch.bool)
            stays[_rows(task, gone)] = False
            found.append(replace(task, train=task.train.take(stays.nonzero().flatten())))
        return tuple(found)

    def _learned(self, request: Request) -> Iterator[Task]:
        return (self.base.task(index) for index in range(request.after))


def _rows(task: Task, requests: Sequence[Request]) -> Tensor:
    """Rows of a task's training samples that some requests mean, ascending."""
    gone = torch.zeros(len(task.train), dtype=torch.bool)
    for request in requests:
        gone |= torch.isin(task.train.labels, torch.tensor(request.classes, dtype=torch.int64))
        gone[[row for of, row in request.rows if of == task.info.index]] = True
    return gone.nonzero().flatten()


def _resolved(base: Stream, one: RequestOptions, earlier: Sequence[Request]) -> Request:
    """Find the samples that an entry means, and refuse what cannot be meant."""
    if one.after > len(base):
        raise ConfigError(f"requests: after={one.after} must lie in [1, {len(base)}]: the stream has {len(base)} tasks")
    seen = {label for info in base.infos[: one.after] for label in info.classes}
    gone = {label for request in earlier for label in request.classes}
    if one.classes is not None:
        classes = tuple(sorted(set(one.classes)))
        unknown = sorted(set(classes) - seen)
        if unknown:
            raise ConfigError(
                f"requests: class {unknown[0]} was not learned in the first {one.after} tasks, which brought "
                f"{sorted(seen)}: name one of those, or ask later"
            )
        if again := sorted(set(classes) & gone):
            raise ConfigError(f"requests: class {again[0]} is forgotten already: leave it out")
        if not seen - gone - set(classes):
            raise ConfigError(
                f"requests: after={one.after} would forget all classes: leave at least one, or start anew"
            )
        return Request(one.after, classes, (), one.look_back)
    return Request(one.after, (), _samples(base, one, earlier), one.look_back)


def _samples(base: Stream, one: RequestOptions, earlier: Sequence[Request]) -> tuple[tuple[int, int], ...]:
    """(task, row) of the samples that ids, a file, a draw or a column mean."""
    tasks = [base.task(index) for index in range(one.after)]
    edges = [0, *accumulate(len(task.train) for task in tasks)]
    free = torch.ones(edges[-1], dtype=torch.bool)
    for start, task in zip(edges, tasks, strict=False):
        free[start + _rows(task, earlier)] = False
    if one.count is not None:
        choices = free.nonzero().flatten()
        if one.count >= len(choices):
            raise ConfigError(f"requests: count={one.count} must be below {len(choices)}, the samples learned by then")
        rng = torch.Generator().manual_seed(one.seed)
        ids = choices[torch.randperm(len(choices), generator=rng)[: one.count]].sort().values.tolist()
    elif one.column is not None:
        ids = _with_values(base, one, free)
    else:
        ids = sorted(set(one.ids if one.ids is not None else numbers(one.file)))
        wrong = [number for number in ids if not 0 <= number < edges[-1]]
        if wrong:
            raise ConfigError(
                f"requests: sample {wrong[0]} is unknown: the first {one.after} tasks have {edges[-1]} training "
                f"samples, numbered 0 to {edges[-1] - 1} ({len(wrong)} such numbers)"
            )
        if again := [number for number in ids if not free[number]]:
            raise ConfigError(f"requests: sample {again[0]} is forgotten already ({len(again)} such): leave it out")
    found = tuple((bisect_right(edges, number) - 1, number - edges[bisect_right(edges, number) - 1]) for number in ids)
    _check_classes_stay(tasks, [*earlier, Request(one.after, (), found)])
    return found


def _with_values(base: Stream, one: RequestOptions, free: Tensor) -> list[int]:
    """Numbers of the samples that have one of the values asked for, ascending.

    Args:
        base: the tasks.
        one: a request by column.
        free: (n,) bool, of the samples learned by then, which are not forgotten yet.

    Raises:
        ConfigError: an unknown column or value, or one of which no sample is left to be forgotten.
    """
    name, wanted = str(one.column), list(dict.fromkeys(map(str, one.values or ())))
    if name not in base.columns:
        hint = nearest(name, base.columns) or listing(base.columns, "columns")
        raise ConfigError(
            f"requests: the data has no column {name!r}; {hint}: stream.columns names those of your data, stream.merge "
            "makes the column 'class'"
        )
    known = dict.fromkeys(value for index in range(len(base)) for value in base.column(name, index).values)
    learned = [base.column(name, index) for index in range(one.after)]
    parts = free.split([len(column) for column in learned])
    seen = set().union(*(column.occurring() for column in learned))
    left = set().union(
        *(column.take(part.nonzero()[:, 0]).occurring() for column, part in zip(learned, parts, strict=True))
    )
    for value in wanted:
        if value not in known:
            near = nearest(value, known) or listing(known, "values", most=5)
            raise ConfigError(f"requests: column {name!r} has no value {value!r}; {near}")
        if value not in seen:
            raise ConfigError(
                f"requests: no sample with {name} {value!r} was learned in the first {one.after} tasks: ask later, or "
                "leave it out"
            )
        if value not in left:
            raise ConfigError(f"requests: all samples with {name} {value!r} are forgotten already: leave it out")
    means = torch.zeros_like(free)
    for column, part in zip(learned, means.split([len(column) for column in learned]), strict=True):
        part[column.rows(wanted)] = True
    return (means & free).nonzero()[:, 0].tolist()


def _check_classes_stay(tasks: Sequence[Task], requests: Sequence[Request]) -> None:
    """Refuse samples that are all of a class: then the class goes, and has to be named."""
    classes = {label for request in requests for label in request.classes}
    for task in tasks:
        stays = torch.ones(len(task.train), dtype=torch.bool)
        stays[_rows(task, requests)] = False
        left = classes | set(task.train.labels[stays].tolist())
        empty = [label for label in task.info.classes if label not in left]
        if empty:
            raise ConfigError(
                f"requests: these samples are all of class {empty[0]}, which its probe would go on testing: write "
                f"classes: [{empty[0]}]"
            )


def numbers(file: Path | None) -> list[int]:
    """Read whole numbers, one a line.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    assert file is not None
    try:
        lines = file.read_text().split()
        return [int(line) for line in lines]
    except OSError as error:
        raise DataError(
            f"cannot read {file}: {error.strerror or error}; give a file of sample numbers, one a line"
        ) from error
    except ValueError as error:
        raise DataError(f"{file} must hold whole numbers, one a line: {error}") from error


def _said(request: Request, option: RequestOptions) -> dict[str, Any]:
    """A request for the run folder; many samples as a checksum, and the column that named them."""
    rows = [list(pair) for pair in request.rows]
    said: dict[str, Any] = {"after": request.after, "look_back": request.look_back}
    if request.classes:
        return {**said, "classes": list(request.classes)}
    if option.column is not None:
        said |= {"column": option.column, "values": list(map(str, option.values or ()))}
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return {**said, "samples": len(rows), "sha256": digest}
