"""Which one of how many processes this is, and whether they are as many as a run asks for.

torchrun starts processes (ranks) and tells each in its environment which it is. Nothing heavy is loaded here: every
command asks.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clearn.errors import ConfigError, UserError

if TYPE_CHECKING:
    from clearn.options import TrainerOptions

MODULES = ("clearn", "__main__", "cli", "-c")  # what sys.argv[0] ends with where clearn's own command line was started


@dataclass(frozen=True)
class Process:
    """Which one of how many processes this is.

    Attributes:
        rank: of all, from 0.
        count: of all, on all nodes.
        local_rank: among those of this node, from 0; also the number of its GPU.
        per_node: on this node.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    per_node: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0


def this_process() -> Process:
    """Read what torchrun has put into the environment; a process that it did not start is alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Process()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Process(*(int(os.environ[name]) for name in names))


def check_started(asked: TrainerOptions | None, process: Process) -> None:
    """Refuse a config and a launch that do not fit together.

    Args:
        asked: how many processes are to train together; None for an experiment that one process runs.
        process: this one.

    Raises:
        ConfigError: says how many were started and how many were asked for, and gives the line that starts them.
    """
    if asked is None:
        if process.count > 1:
            raise ConfigError(
                f"torchrun started {process.count} processes, but this run is one process's work: start it without "
                "torchrun"
            )
        return
    if asked.processes > 1 and process.count == 1:
        raise ConfigError(
            f"trainer.devices={asked.devices} on num_nodes={asked.num_nodes} makes {asked.processes} processes, but "
            f"this one was started alone: start them with\n  {launched(asked, _arguments())}"
        )
    if (process.per_node, process.count) != (asked.devices, asked.processes):
        nodes = process.count // process.per_node
        raise ConfigError(
            f"torchrun started {process.count} processes, {process.per_node} of them on this node, but "
            f"trainer.devices={asked.devices} and num_nodes={asked.num_nodes}: write "
            f"trainer.devices={process.per_node} trainer.num_nodes={nodes}, or start as many as the config says with\n"
            f"  {launched(asked, _arguments())}"
        )


def quieten() -> None:
    """Have torch not say, once a process, that looking for unused parameters found none: a later task has some.

    It goes by torch's own level for such lines, which is read when torch is loaded; a level that is set stays.
    """
    if this_process().count > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def check_alone(command: str) -> None:
    """Refuse a command that several processes cannot carry out together.

    Raises:
        UserError: torchrun started several.
    """
    if (count := this_process().count) > 1:
        raise UserError(
            f"torchrun started {count} processes of '{command}', which is one process's work: start it without "
            "torchrun, or give torchrun a single run ('run CONFIG' without a grid, 'resume RUN')"
        )


def launched(asked: TrainerOptions, arguments: Iterable[str]) -> str:
    """Give the line that starts so many processes of a command; as it is for one."""
    if asked.processes == 1:
        return shlex.join(["clearn", *list(arguments)[2:]])
    words = ["torchrun", "--standalone"]
    if asked.num_nodes > 1:  # on each node
        words = ["torchrun", "--nnodes", str(asked.num_nodes)]
        words += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "HOST:29500"]
    return shlex.join([*words, "--nproc-per-node", str(asked.devices), *arguments])


def _arguments() -> list[str]:
    """What follows torchrun's own options: this program and its arguments."""
    program = Path(sys.argv[0])
    return ["-m", "clearn", *sys.argv[1:]] if program.stem in MODULES else [str(program), *sys.argv[1:]]
