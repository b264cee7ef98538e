"""The engine's own sections of a config, as frozen records whose signatures are the schema.

Every record checks its ranges when it is made; the messages begin with "option=value", by which
`clearn.binding.build` finds the line to blame.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from clearn.errors import ConfigError
from clearn.mistakes import nearest, show

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
PRECISIONS = ("32-true", "bf16-mixed")  # what is carried is float32 in both; float16 would need loss scaling
_AMOUNT = re.compile(r"\s*([+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,2})?)\s*([A-Za-z]*)\s*")
_COUNT = re.compile(r"\d{1,15}x")


def parse_bytes(value: int | str) -> int:
    """Read an amount of memory in bytes.

    Args:
        value: a count of bytes, or a number with a unit: B, kB, MB, GB (powers of 1000) or KiB, MiB, GiB
            (powers of 1024). A fraction of a byte is cut off, since it cannot be used.

    Raises:
        ConfigError: if it is no such amount, is negative, or its unit can be read in two ways (4M, 4KB).

    >>> parse_bytes("23.54MiB"), parse_bytes("4MB")
    (24683479, 4000000)
    """
    examples = "write e.g. 4000000, 4MB (10^6) or 4MiB (2^20)"
    if isinstance(value, int) and not isinstance(value, bool):
        number, unit = Fraction(value), "B"
    elif isinstance(value, str) and _COUNT.fullmatch(value):
        raise ConfigError(f"{show(value)} counts exemplars, which have no size here: {examples}")
    elif isinstance(value, str) and (found := _AMOUNT.fullmatch(value)):
        number, unit = Fraction(found[1]), found[2] or "B"
    else:
        raise ConfigError(f"{show(value)} is no amount of bytes: {examples}")
    if unit not in UNITS:
        raise ConfigError(f"{show(value)} {_unit_trouble(number, unit)}")
    if number < 0:
        raise ConfigError(f"{show(value)} is negative: a budget is 0 bytes or more")
    if unit == "B" and number.denominator != 1:
        raise ConfigError(f"{show(value)} is a fraction of a byte: {examples}")
    return int(number * UNITS[unit])


def _unit_trouble(number: Fraction, unit: str) -> str:
    """Say why a unit is refused, naming both readings of an ambiguous one."""
    decimal, binary = {"K": ("kB", "KiB"), "M": ("MB", "MiB"), "G": ("GB", "GiB")}.get(unit[0].upper(), ("", ""))
    if decimal and unit.lower() in (decimal[0].lower(), "kb"):
        first, second = int(number * UNITS[decimal]), int(number * UNITS[binary])
        amount = f"{float(number):.15g}"
        ways = f"{amount}{decimal} for {first:,} bytes or {amount}{binary} for {second:,}"
        return f"can be read in two ways: write {ways}"
    return f"has an unknown unit {unit!r}: {nearest(unit, UNITS) or 'the units are ' + ', '.join(UNITS)}"


def _check_amount(option: str, value: int | str | None) -> None:
    """Check bytes or a count of exemplars (603x); turning the latter into bytes needs the stream's items."""
    if value is None or (isinstance(value, str) and _COUNT.fullmatch(value)):
        return
    try:
        parse_bytes(value)
    except ConfigError as error:
        raise ConfigError(f"{option}={error}") from None


def _check_least(least: int, **values: object) -> None:
    for option, value in values.items():
        if isinstance(value, int) and not least <= value < 2**31:
            raise ConfigError(f"{option}={value} must be at least {least} and below 2^31")


@dataclass(frozen=True)
class Like:
    """The bytes that another method carries at the end of the stream, as a budget.

    Attributes:
        method: its name in the published comparison, e.g. der_expand.
        backbone: e.g. resnet32.
        tasks: how many it has learned, 1 or more.
        exemplars: how many it keeps.
    """

    method: str
    backbone: str
    tasks: int
    exemplars: int

    def __post_init__(self) -> None:
        for option, value in (("method", self.method), ("backbone", self.backbone)):
            if not value:
                raise ConfigError(f"{option}='' must name one")
        _check_least(1, tasks=self.tasks)
        _check_least(0, exemplars=self.exemplars)


@dataclass(frozen=True)
class BudgetOptions:
    """Section `budget`: how many bytes the learner may carry from one task to the next.

    Attributes:
        bytes: a count, 23.54MiB, 4MB, or 603x for so many exemplars; null for no limit.
        like: as many bytes as another method carries, instead of `bytes`.
        policy: every (at each task's end), final (after the last), growth (`step` more a task) or none.
        step: what a task adds under policy growth, written like `bytes`.
        count: full (all that is carried), paper (backbone parameters and exemplars, as published) or bank (what is kept
            of the data, networks left out).
    """

    bytes: int | str | None = None
    like: Like | None = None
    policy: Literal["every", "final", "growth", "none"] = "every"
    step: str | int | None = None
    count: Literal["full", "paper", "bank"] = "full"

    def __post_init__(self) -> None:
        _check_amount("bytes", self.bytes)
        _check_amount("step", self.step)
        if self.bytes is not None and self.like is not None:
            raise ConfigError(f"like={show(self.like)} is a second budget beside bytes={self.bytes}: give one of them")
        if self.policy == "growth" and self.step is None:
            raise ConfigError("step=null must be an amount under policy growth: give the bytes that each task adds")
        if self.policy == "growth" and self.bytes is None and self.like is None:
            raise ConfigError("bytes=null must be an amount under policy growth: give what the first task may carry")
        if self.policy != "growth" and self.step is not None:
            raise ConfigError(
                f"step={self.step} has no effect under policy {self.policy}: write policy growth or step null"
            )


@dataclass(frozen=True)
class TrainerOptions:
    """Section `trainer`: where and how fits run; none of it but `precision` may move a result.

    Attributes:
        accelerator: auto takes a GPU where there is one.
        devices: how many processes train together on each node, 1 or more; torchrun starts them.
        num_nodes: on how many nodes, 1 or more.
        strategy: Lightning's, by which several processes train together; auto is ddp.
        precision: 32-true, or bf16-mixed: forward and backward passes in bfloat16, weights and heads in float32.
        threads: of torch on the CPU, 1 or more; auto leaves torch's choice.
        eval_batch: samples per batch when scoring.
        block: batches that one call of `training_step` loops over; more is faster, the weights stay the same.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp"] = "auto"
    precision: str = "32-true"
    threads: int | Literal["auto"] = "auto"
    eval_batch: int = 500
    block: int = 16

    def __post_init__(self) -> None:
        counts = {"devices": self.devices, "num_nodes": self.num_nodes, "threads": self.threads}
        _check_least(1, **counts, eval_batch=self.eval_batch, block=self.block)
        if self.precision not in PRECISIONS:
            hint = nearest(self.precision, PRECISIONS) or f"it is one of {', '.join(PRECISIONS)}"
            raise ConfigError(f"precision={self.precision!r} is not supported: {hint}")

    @property
    def processes(self) -> int:
        """How many train together, on all nodes."""
        return self.devices * self.num_nodes


@dataclass(frozen=True)
class RunnerOptions:
    """Section `runner`.

    Attributes:
        rebuild: throw the learner away after every task and rebuild it from the written bytes; false only for
            a learner that cannot be rebuilt, whose rows then say so.
    """

    rebuild: bool = True


@dataclass(frozen=True)
class ReadingOptions(RunnerOptions):
    """Section `runner` of a run that reads documents.

    Attributes:
        controls: when a reader is also asked with an empty memory, and with one that read other documents instead: at
            the end, after every task, or never.
        cache: whether what meta-training learned is kept in the user's cache, for runs that differ only in what comes
            after it.
    """

    controls: Literal["end", "every", "never"] = "end"
    cache: bool = True


@dataclass(frozen=True)
class SlurmOptions:
    """Section `sweep.slurm`: what each run of a sweep may take on a cluster.

    Attributes:
        partition: the cluster's; null takes its default.
        cpus: processor cores, and torch's threads where the config leaves them to the machine.
        gpus: how many, 0 or more.
        memory_gb: of the node's memory, in GiB.
        minutes: after which SLURM kills the run; what it finished is kept.
        account: that the time is charged to; null takes your default.
        qos: quality of service; null takes your default.
    """

    partition: str | None = None
    cpus: int = 1
    gpus: int = 0
    memory_gb: float = 4.0
    minutes: int = 60
    account: str | None = None
    qos: str | None = None

    def __post_init__(self) -> None:
        _check_least(1, cpus=self.cpus, minutes=self.minutes)
        _check_least(0, gpus=self.gpus)
        if not 0 < self.memory_gb < 2**20:
            raise ConfigError(f"memory_gb={self.memory_gb:g} must be above 0: write e.g. 8 for 8 GiB a run")


@dataclass(frozen=True)
class SweepOptions:
    """Section `sweep`: how `clearn sweep` runs the cells of a grid; none of it may move a result.

    Attributes:
        workers: processes side by side on this machine; auto takes as many as its cores are enough for, and one
            where runs share a GPU.
        slurm: what each run may take with `--slurm`.
    """

    workers: int | Literal["auto"] = "auto"
    slurm: SlurmOptions = SlurmOptions()

    def __post_init__(self) -> None:
        _check_least(1, workers=self.workers)
