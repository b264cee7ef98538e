"""A learning experiment: a stream, a way to make its strategy, a budget and settings, from a config or from Python."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from clearn import plugins, seeds
from clearn.binding import bind as bind_options
from clearn.binding import build
from clearn.errors import ConfigError
from clearn.experiment import Prepared
from clearn.folder import RunFolder
from clearn.ledger import Account, Budget, account
from clearn.mistakes import Mistake, nearest, raise_all, show
from clearn.options import BudgetOptions, RunnerOptions, TrainerOptions, parse_bytes
from clearn.progress import Progress
from clearn.runner import Experiment, package_version
from clearn.settings import Settings, settings
from clearn.signatures import plain
from clearn.state import freeze
from clearn.strategy import Strategy
from clearn.stream import TaskInfo
from clearn.streams import STREAMS

if TYPE_CHECKING:
    from clearn.learning.loop import LearningLoop
    from clearn.stream import Stream
    from clearn.streams.requests import RequestOptions
    from clearn.unlearner import Unlearner


@dataclass(frozen=True)
class Learning(Experiment):
    """A strategy, a stream of tasks, and how both meet.

    Attributes:
        stream: tasks in order.
        make: makes a fresh learner; the same each time but for what it draws from torch's global generator.
        budget: bytes that may be carried.
        seed: of training; the class order's is the stream's.
        trainer: settings of training.
        runner: settings of the loop.
        config: the resolved config, as written into the run folder.
        title: what a person sees.
        unlearner: makes what answers the stream's requests; None where there are none.
    """

    stream: Stream
    make: Callable[[], Strategy]
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    runner: RunnerOptions = field(default_factory=RunnerOptions)
    config: dict[str, Any] = field(default_factory=dict)
    title: str = "run"
    unlearner: Callable[[], Unlearner] | None = None

    def build(self) -> Strategy:
        """Make a fresh learner whose first weights depend on the seed alone."""
        with seeds.scope(self.seed, 0, "build"):
            return self.make()

    @cached_property
    def rebuilds(self) -> bool:
        """Whether the strategy can be made again from its state; see `clearn.learner.Learner`."""
        return self.build().rebuilds

    def no_resume(self, step: int) -> str:
        """Say why a run that stopped after so many steps cannot be gone on with; empty where it can."""
        if self.rebuilds:
            return ""
        return (
            f"{self.title} stopped after task {step} of {self.steps}, and its strategy was weighed by inspection: it "
            "cannot be rebuilt from its bytes, so such a run can only start anew"
        )

    @property
    def steps(self) -> int:
        """Tasks, and requests to forget."""
        return len(self.stream.events)

    @property
    def about(self) -> dict[str, Any]:
        """The stream's facts."""
        return self.stream.about

    @property
    def environment(self) -> dict[str, Any]:
        """Versions of what computes, device and threads."""
        packages = ("torch", "torchvision", "lightning", "timm")
        return {
            **{name: package_version(name) for name in packages},
            "device": self.trainer.accelerator,
            "threads": self.trainer.threads,
            "processes": self.trainer.processes,
        }

    @property
    def asks_for(self) -> TrainerOptions:
        """The trainer says how many processes train together."""
        return self.trainer

    def check(self) -> None:
        """Refuse a budget that the bare model outweighs, requests that nothing answers, and shares where none can be.

        Raises:
            ConfigError: says which, and what to write instead.
        """
        if self.trainer.processes > 1:
            self.check_shares()
        self.check_budget(self.plan())
        requests = self.stream.requests
        if requests and not self.rebuilds:
            raise ConfigError(
                f"the stream has {len(requests)} requests to forget, but this strategy is weighed by inspection and "
                "cannot be made to forget: leave stream.requests out, or take another strategy"
            )
        if requests and self.unlearner is None:
            raise ConfigError(f"the stream has {len(requests)} requests to forget: name an unlearner to answer them")
        if self.unlearner is not None and not requests:
            raise ConfigError("an unlearner is named, but nothing is to be forgotten: write stream.requests")
        if self.unlearner is None:
            return
        unlearner = self.unlearner()
        unlearner.foresee(requests)
        if unlearner.looks_back and not self._replays():
            blind = [request.after for request in requests if not request.look_back]
            if blind:
                raise ConfigError(
                    f"this unlearner reads training samples that stay, the request after task {blind[0]} does not let "
                    "it look back, and the strategy keeps no exemplars: write look_back: true, or take another method"
                )

    def check_shares(self) -> None:
        """Refuse to have several processes train what only one can.

        Raises:
            ConfigError: the method says why it can't be shared out, or the stream has requests to forget.
        """
        strategy = self.build()
        name = self.config.get("strategy", {}).get("name", type(strategy).__name__)
        why = strategy.alone and f"{name} cannot be trained in shares of a batch: {strategy.alone}"
        if self.unlearner is not None:
            why = "requests to forget are answered by one process: unlearners look at single samples and gradients"
        if why:
            asked = f"trainer.devices={self.trainer.devices} and num_nodes={self.trainer.num_nodes}"
            raise ConfigError(
                f"{asked} make {self.trainer.processes} processes, but {why}; write trainer.devices=1 and "
                "trainer.num_nodes=1, and run several seeds side by side ('clearn sweep')"
            )

    def has_batch_norm(self) -> bool:
        """Whether the strategy computes with statistics of a batch once it has grown."""
        from torch.nn.modules.batchnorm import _BatchNorm

        with seeds.scope(self.seed, 0, "plan"):
            strategy = self.make()
            strategy.grow(self.stream.infos[0])
        return any(isinstance(module, _BatchNorm) for module in strategy.modules())

    def _replays(self) -> bool:
        """Whether the strategy keeps exemplars, which may stand for training samples that stay."""
        from clearn.parts.rehearsal import Rehearsal

        return isinstance(self.build().memory, Rehearsal)

    def loop(self, folder: RunFolder, progress: Progress) -> LearningLoop:
        """Learn task by task."""
        from clearn.learning.loop import LearningLoop

        return LearningLoop(self, folder, progress)

    def plan(self) -> list[Account]:
        """Weigh the bare structure after each step, without training: what the model alone will carry."""
        return self._plan

    @cached_property
    def _plan(self) -> list[Account]:
        with seeds.scope(self.seed, 0, "plan"):
            strategy = self.make()
            found = []
            for event in self.stream.events:
                if isinstance(event, TaskInfo):
                    strategy.grow(event)
                found.append(account(freeze(strategy.state(), strategy.untouched()), strategy.category))
        return found

    def weights(self, plan: list[Account]) -> list[int]:
        """Bytes of the bare structure after each task in the budget's own counting."""
        return [self.budget.counted(step) for step in plan]

    def check_budget(self, plan: list[Account]) -> None:
        """Refuse a budget that the bare model outweighs at some boundary.

        Raises:
            BudgetExceeded: with the first boundary that is over.
        """
        for index, weight in enumerate(self.weights(plan)):
            self.budget.check(weight, index, len(plan), of="the model alone")


def prepare(config: Mapping[str, Any]) -> Prepared[Learning]:
    """Check a loaded config, reporting all its mistakes together.

    Raises:
        ConfigError: every unknown, missing or ill-typed option.
    """
    errors: list[Mistake] = []
    stream_section = dict(config.get("stream") or {})
    name = stream_section.pop("name", "class_incremental")
    requests = _requests(stream_section.pop("requests", None), errors)
    factory, options = None, {}
    if name == "collections":
        errors.append(
            Mistake("", "stream.name", "collections", "but strategies learn tasks", "name a protocol, not a strategy")
        )
    elif name in STREAMS:
        factory = importlib.import_module(f"clearn.streams.{name}").build
        options = bind_options(factory, stream_section, "stream", errors)
    else:
        known = nearest(name, STREAMS) or f"it is one of {', '.join(STREAMS)}"
        errors.append(Mistake("", "stream.name", str(name), "but there is no such stream", known))
    found = _bound(config, errors)
    raise_all(errors, getattr(config, "origins", {}))
    make_stream = factory
    assert make_stream is not None
    asked = {"requests": plain(requests)} if requests else {}
    resolved = found.resolved({"name": name, **plain(options), **asked}, config.get("name"))

    def make() -> Learning:
        stream = make_stream(**options)
        if requests:
            from clearn.streams.requests import WithRequests

            stream = WithRequests(stream, requests)
        return _on(found, stream, resolved)

    return Prepared(resolved, make)


def _requests(entries: Any, errors: list[Mistake]) -> list[RequestOptions]:
    """Bind `stream.requests`; mistakes are appended."""
    if entries is None:
        return []
    if not isinstance(entries, list):
        errors.append(Mistake("", "stream.requests", show(entries), "must be a list of requests", "write [{after: 1}]"))
        return []
    from clearn.streams.requests import RequestOptions

    found = (build(RequestOptions, one, f"stream.requests[{i}]", errors) for i, one in enumerate(entries))
    return [one for one in found if one is not None]


def on_stream(
    stream: Stream,
    strategy: str,
    options: Mapping[str, Any],
    budget: str | int | Mapping[str, Any] | None,
    seed: int,
    trainer: Mapping[str, Any],
) -> Learning:
    """Make an experiment of a stream that exists already; see `clearn.run`."""
    errors: list[Mistake] = []
    section = budget if isinstance(budget, Mapping) else {} if budget is None else {"bytes": budget}
    sections = {"strategy": {"name": strategy, **options}, "budget": section, "trainer": trainer, "seed": seed}
    found = _bound(sections, errors)
    raise_all(errors)
    return _on(found, stream, found.resolved(plain(stream.about), None))


def _bound(config: Mapping[str, Any], errors: list[Mistake]) -> Settings:
    """Bind every section but the stream's; mistakes are appended."""
    found = settings(config, errors)
    if found.cls is not object and not issubclass(found.cls, Strategy):
        right, hint = "reads documents, but this stream has classes", "write stream.name=documents, or choose another"
        errors.append(Mistake("", "strategy.name", found.method, right, hint))
    return found


def _on(found: Settings, stream: Stream, resolved: dict[str, Any]) -> Learning:
    """Put a stream under these settings."""
    return Learning(
        stream=stream,
        make=lambda: found.cls(stream.inputs, **found.options),
        budget=_budget(found.budget, stream),
        seed=found.seed,
        trainer=found.trainer,
        runner=found.runner,
        config=resolved,
        title=resolved["name"],
        unlearner=partial(found.unlearner[1], **found.unlearner[2]) if found.unlearner else None,
    )


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
            raise ConfigError(
                f"budget.like.method={like.method!r} is no method: {nearest(like.method, known) or ', '.join(known)}"
            )
        total = final_bytes(like.method, like.backbone, like.tasks, like.exemplars, shape)
    step = 0 if options.step is None else amount(options.step)
    return Budget(total, options.policy, step, options.count)
