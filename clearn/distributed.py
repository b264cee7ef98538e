"""What several processes of one run share: a group, what all must agree on, and the folder that one of them writes.

torchrun starts the processes (`clearn.launch`), Lightning's DDP strategy trains them together (`clearn.shares`). All
else every rank does alike, from the same seeds: it reads the data, herds, computes statistics, rebuilds and scores. So
nothing is gathered but gradients, and what the ranks carry must be the same bytes, which is checked at every boundary.
Rank 0 alone writes and speaks. No torch is loaded here before there are several processes.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from clearn.errors import ConfigError, StateError
from clearn.folder import RunFolder, Whole
from clearn.launch import Process
from clearn.state import checksum, content_hash, decode

if TYPE_CHECKING:
    from torch import Tensor

    from clearn.options import TrainerOptions

T = TypeVar("T")


def join(asked: TrainerOptions, process: Process) -> None:
    """Join the group of all processes; once, for as long as this one lives.

    Raises:
        ConfigError: fewer GPUs than processes.
    """
    import torch
    from torch import distributed

    if distributed.is_initialized():
        return
    if asked.accelerator == "gpu":
        if process.per_node > torch.cuda.device_count():
            raise ConfigError(
                f"trainer.devices={asked.devices}, but torch sees {torch.cuda.device_count()} GPUs here: each process "
                "takes one; write as many, or trainer.accelerator=cpu"
            )
        torch.cuda.set_device(process.local_rank)
    # Gradients go over NCCL where they are on GPUs; what is told in words goes over gloo in any case.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if asked.accelerator == "gpu" else "gloo")
    atexit.register(distributed.destroy_process_group)


def told(value: T) -> T:
    """Give every rank what rank 0 has."""
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: T) -> list[T]:
    """Give every rank what each has, in order of ranks."""
    from torch import distributed

    box: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(box, value)
    return box


def odd_one(values: list[Any]) -> int | None:
    """Find the first that differs from rank 0's."""
    return next((rank for rank, value in enumerate(values) if value != values[0]), None)


def agree(facts: Mapping[str, Any]) -> None:
    """Refuse to begin where a rank has another config or other data; every rank says the same.

    Args:
        facts: flat.

    Raises:
        ConfigError: names the first that differs.
    """
    everyone = gathered(dict(facts))
    if (rank := odd_one(everyone)) is None:
        return
    mine, theirs = everyone[0], everyone[rank]
    key = min(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    raise ConfigError(
        f"rank {rank} has {key}={theirs.get(key)} where rank 0 has {mine.get(key)}: every process must be given the "
        "same config and read the same data; start them with the same command, with the data on every node"
    )


class SharedFolder(RunFolder):
    """A run folder that rank 0 alone reads and writes; the others are told what it read, and need not see its disk."""

    def __init__(self, path: Path, process: Process) -> None:
        super().__init__(path)
        self._own = RunFolder(path) if process.first else None

    def create(self) -> None:
        if self._own:
            self._own.create()

    def newest(self) -> tuple[Whole | None, list[str]]:
        return told(self._own.newest() if self._own else (None, []))

    def rows(self, name: str) -> list[dict[str, Any]]:
        return told(self._own.rows(name) if self._own else [])

    def write_state(self, step: int, blob: bytes) -> str:
        """Hold the ranks' states against one another, then write one of them.

        Raises:
            StateError: they are not the same bytes; every rank says so.
        """
        digest = checksum(blob)
        if odd_one(gathered(digest)) is not None:
            raise _disagreement(step, blob)
        return self._own.write_state(step, blob) if self._own else digest

    def write_evidence(self, step: int, answers: Mapping[str, Tensor]) -> None:
        if self._own:
            self._own.write_evidence(step, answers)

    def add_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        if self._own:
            self._own.add_rows(name, rows)

    def drop_after(self, step: int) -> None:
        if self._own:
            self._own.drop_after(step)

    def put_json(self, name: str, value: Mapping[str, Any]) -> None:
        if self._own:
            self._own.put_json(name, value)


def _disagreement(step: int, blob: bytes) -> StateError:
    """Say which rank carries what else; asked on every rank."""
    held = gathered({name: content_hash(value) for name, value in decode(blob).tensors.items()})
    rank = odd_one(held) or 0
    names = sorted(name for name in held[0].keys() | held[rank].keys() if held[0].get(name) != held[rank].get(name))
    return StateError(
        f"after step {step} rank {rank} carries something else than rank 0 in {len(names)} entries"
        f"{f', first {names[0]!r}' if names else ''}: ranks must compute alike, so nothing was written; use nodes of "
        "one kind, and draw every random number from ctx.rng; a method that cannot work in shares says so by `alone`"
    )
