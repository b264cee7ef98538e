"""An experiment: a stream, a way to make its learner, a budget and settings, bound from a config or put together in Python."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clearn import plugins, seeds
from clearn.errors import ConfigError
from clearn.ledger import Account, Budget, account
from clearn.mistakes import Mistake, nearest, raise_all
from clearn.options import BudgetOptions, RunnerOptions, TrainerOptions, parse_bytes
from clearn.state import freeze
from clearn.streams import STREAMS

if TYPE_CHECKING:
    from clearn.strategy import Strategy
    from clearn.stream import Stream


@dataclass(frozen=True)
class Experiment:
    """What the runner runs.

    Attributes:
        stream: tasks in order.
        make: makes a fresh learner; the same each time but for what it draws from torch's global generator.
        budget: bytes that may be carried.
        seed: of training; the class order's is the stream's.
        trainer: settings of training.
        runner: settings of the loop.
        config: the resolved config, as written into the run folder.
        title: what a person sees.
    """

    stream: Stream
    make: Callable[[], Strategy]
    budget: Budget = Budget()
    seed: int = 0
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    runner: RunnerOptions = field(default_factory=RunnerOptions)
    config: dict[str, Any] = field(default_factory=dict)
    title: str = "run"

    def build(self) -> Strategy:
        """Make a fresh learner whose first weights depend on the seed alone."""
        with seeds.scope(self.seed, 0, "build"):
            return self.make()

    def plan(self) -> list[Account]:
        """Weigh the bare structure after each task, without training: what the model alone will carry."""
        with seeds.scope(self.seed, 0, "plan"):
            strategy = self.make()
            found = []
            for info in self.stream.infos:
                strategy.grow(info)
                found.append(account(freeze(strategy.state(), strategy.untouched()), strategy.category))
        return found

    def weights(self, plan: list[Account]) -> list[int]:
        """Bytes of the bare structure after each task in the budget's own counting."""
        return [step.paper() if self.budget.count == "paper" else step.carried for step in plan]

    def check_budget(self, plan: list[Account]) -> None:
        """Refuse a budget that the bare model outweighs at some boundary.

        Raises:
            BudgetExceeded: with the first boundary that is over.
        """
        for index, weight in enumerate(self.weights(plan)):
            self.budget.check(weight, index, len(plan), of="the model alone")


def bind(config: Mapping[str, Any]) -> Experiment:
    """Make an experiment of a loaded config, reporting all its mistakes together.

    Raises:
        ConfigError: every unknown, missing or ill-typed option.
        DataError: the stream's data cannot be had.
    """
    from clearn.config import build, coerce, plain
    from clearn.config import bind as bind_options

    errors: list[Mistake] = []
    stream_section, strategy_section = dict(config.get("stream") or {}), dict(config.get("strategy") or {})
    stream_name = stream_section.pop("name", "class_incremental")
    method = strategy_section.pop("name", None)
    if stream_name not in STREAMS:
        errors.append(Mistake("", "stream.name", str(stream_name), f"must be one of {', '.join(STREAMS)}", nearest(stream_name, STREAMS)))
    if method is None:
        errors.append(Mistake("", "strategy.name", "nothing", "must name a method", "'clearn list strategies' shows them"))
    for section, later in (("unlearner", "unlearn"), ("protocol", "privacy")):
        if section in config:
            errors.append(Mistake("", section, "a section", f"but no {later} method is part of this version", "remove it"))
    cls = None
    try:
        cls = plugins.find("strategies", str(method)) if method is not None else None
    except ConfigError as error:
        errors.append(Mistake("", "strategy.name", "", str(error)))
    factory = importlib.import_module(f"clearn.streams.{stream_name}").build if stream_name in STREAMS else None
    stream_options = bind_options(factory, stream_section, "stream", errors) if factory else {}
    options = bind_options(cls, strategy_section, "strategy", errors, skip=("inputs",)) if cls else {}
    budget_options = build(BudgetOptions, config.get("budget") or {}, "budget", errors)
    trainer = build(TrainerOptions, config.get("trainer") or {}, "trainer", errors)
    runner = build(RunnerOptions, config.get("runner") or {}, "runner", errors)
    seed = coerce(config.get("seed", 0), int, "seed", errors)
    raise_all(errors, getattr(config, "origins", {}))
    assert cls is not None and factory is not None and budget_options and trainer and runner

    stream = factory(**stream_options)
    trainer = _settled(trainer)
    resolved = {
        "name": config.get("name") or method,
        "stream": {"name": stream_name, **plain(stream_options)},
        "strategy": {"name": method, **plain(options)},
        "budget": plain(budget_options),
        "trainer": plain(trainer),
        "runner": plain(runner),
        "seed": seed,
    }
    return Experiment(
        stream=stream,
        make=lambda: cls(stream.inputs, **options),
        budget=_budget(budget_options, stream),
        seed=seed,
        trainer=trainer,
        runner=runner,
        config=resolved,
        title=str(config.get("name") or method),
    )


def _settled(trainer: TrainerOptions) -> TrainerOptions:
    """Replace "auto" by what it means on this machine, so that a resumed run computes with the same."""
    import dataclasses

    import torch

    threads = torch.get_num_threads() if trainer.threads == "auto" else trainer.threads
    accelerator = trainer.accelerator
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    elif accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer.accelerator=gpu, but torch sees no GPU here: write cpu or auto")
    if trainer.devices != 1:
        raise ConfigError(
            f"trainer.devices={trainer.devices}: this version trains on one device; write 1, and run several seeds side by side"
        )
    return dataclasses.replace(trainer, threads=threads, accelerator=accelerator)


def _budget(options: BudgetOptions, stream: Stream) -> Budget:
    """Turn the budget section into bytes: an amount, so many nominal exemplars, or another method's final weight."""
    shape = stream.inputs.shape
    nominal = shape[1] * shape[2] * 3 if len(shape) == 3 else 4 * shape[0]

    def amount(value: int | str) -> int:
        if isinstance(value, str) and value.strip().endswith("x"):
            return int(value.strip()[:-1]) * nominal
        return parse_bytes(value)

    total = None if options.bytes is None else amount(options.bytes)
    if options.like is not None:
        from clearn.published import final_bytes

        like = options.like
        if like.method not in plugins.names("strategies"):
            known = plugins.names("strategies")
            raise ConfigError(f"budget.like.method={like.method!r} is no method: {nearest(like.method, known) or ', '.join(known)}")
        total = final_bytes(like.method, like.backbone, like.tasks, like.exemplars, shape)
    step = 0 if options.step is None else amount(options.step)
    return Budget(total, options.policy, step, options.count)
