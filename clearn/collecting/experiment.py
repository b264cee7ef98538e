"""A collection as an experiment: a protocol, a population, what a device may keep and send, and how it is simulated."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from clearn import plugins
from clearn.binding import bind, build, coerce
from clearn.collecting.options import CollectOptions, DeviceBudget
from clearn.errors import ConfigError, DataError
from clearn.experiment import Prepared
from clearn.folder import RunFolder
from clearn.frequency import FrequencyProtocol
from clearn.frequency.accounting import ProtocolCost, cost
from clearn.frequency.engines import Engine, Exactness, choose, exactness
from clearn.frequency.postprocess import postprocess
from clearn.mistakes import Mistake, raise_all
from clearn.progress import Progress
from clearn.runner import Experiment, package_version
from clearn.signatures import plain
from clearn.stream import Collection
from clearn.tracking import TrackerOptions

if TYPE_CHECKING:
    from clearn.collecting.loop import CollectingLoop

SECTIONS = (
    "name",
    "stream",
    "protocol",
    "budget",
    "runner",
    "tracker",
    "seed",
    "out",
    "grid",
    "sweep",
    "expects",
    "extends",
)


@dataclass(frozen=True)
class Collecting(Experiment):
    """A population answers a protocol, round by round.

    Attributes:
        collection: the true values.
        protocol: how they are asked for.
        budget: what a device may keep and send.
        options: how the collection is simulated.
        seed: of the simulation.
        config: the resolved config.
        title: what a person sees.
        name: the protocol's.
    """

    collection: Collection
    protocol: FrequencyProtocol
    budget: DeviceBudget = field(default_factory=DeviceBudget)
    options: CollectOptions = field(default_factory=CollectOptions)
    seed: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    title: str = "collection"
    name: str = "protocol"

    @property
    def steps(self) -> int:
        """Rounds."""
        return len(self.collection)

    @property
    def about(self) -> dict[str, Any]:
        """The collection's facts."""
        return self.collection.about

    @property
    def environment(self) -> dict[str, Any]:
        """Versions of what computes, and the engine."""
        return {"scipy": package_version("scipy"), "device": "cpu", "engine": self.engine, "engine_why": self.why}

    @property
    def engine(self) -> Engine:
        """ "per_user" or "aggregate"."""
        return self._chosen[0]

    @property
    def why(self) -> str:
        """Why that engine."""
        return self._chosen[1]

    @cached_property
    def _chosen(self) -> tuple[Engine, str]:
        return choose(self.protocol, self.collection, self.options.engine, self.options.decode)

    @property
    def exactness(self) -> Exactness:
        """What the engine gets right: the joint law of all counts, moments, or marginals."""
        return exactness(self.protocol, self.collection, self.engine)

    @cached_property
    def cost(self) -> ProtocolCost:
        """What a device keeps and sends at worst, and what the server holds."""
        return cost(
            self.protocol,
            self.collection.n_users,
            self.steps,
            memo=self.options.memo,
            linked=self.options.decode == "linked",
        )

    def check(self) -> None:
        """Refuse what would be wrong, before anybody is asked.

        Raises:
            ConfigError: an engine or a post-processing that doesn't suit the protocol.
            DataError: an attribute that less than one user would answer.
            BudgetExceeded: a protocol that is over the device's budget.
        """
        _ = self.engine
        protocol, n = self.protocol, self.collection.n_users
        for j, (attribute, share) in enumerate(zip(self.collection.attributes, protocol.shares, strict=True)):
            uniform = np.full(protocol.mechanisms[j].answers, 1 / protocol.mechanisms[j].answers)
            postprocess(self.options.post or protocol.post, uniform, protocol, j, n)
            if protocol.asks == "one" and n * share < 1:
                raise DataError(
                    f"attribute {attribute.name!r} would be answered by {n * share:.2g} of {n} users: ask more users, "
                    "or name fewer attributes in stream.columns"
                )
        self.budget.check(self.cost, self.name)

    def loop(self, folder: RunFolder, progress: Progress) -> CollectingLoop:
        """Ask round by round."""
        from clearn.collecting.loop import CollectingLoop

        return CollectingLoop(self, folder, progress)


def prepare(config: Mapping[str, Any]) -> Prepared[Collecting]:
    """Check a loaded config, reporting all its mistakes together.

    Raises:
        ConfigError: every unknown, missing or ill-typed option.
    """
    errors = [
        Mistake("", section, "a section", "but a collection has none of that name", "remove it")
        for section in config
        if section not in SECTIONS
    ]
    stream = dict(config.get("stream") or {})
    name = stream.pop("name", "collections")
    if name != "collections":
        errors.append(Mistake("", "stream.name", str(name), "but protocols ask collections", "write collections"))
    make_stream: Callable[..., Collection] = importlib.import_module("clearn.streams.collections").build
    options = bind(make_stream, stream, "stream", errors) if name == "collections" else {}
    settings = _settings(config, errors)
    raise_all(errors, getattr(config, "origins", {}))
    resolved = settings.resolved({"name": "collections", **plain(options)}, config.get("name"))
    return Prepared(resolved, lambda: settings.on(make_stream(**options), resolved))


def on_collection(
    collection: Collection,
    protocol: str,
    options: Mapping[str, Any],
    budget: Mapping[str, Any],
    runner: Mapping[str, Any],
    seed: int,
) -> Collecting:
    """Make an experiment of a collection that exists already; see `clearn.collect`."""
    errors: list[Mistake] = []
    sections = {"protocol": {"name": protocol, **options}, "budget": budget, "runner": runner, "seed": seed}
    settings = _settings(sections, errors)
    raise_all(errors)
    return settings.on(collection, settings.resolved(plain(collection.about), None))


def protocol_of(name: str, options: Mapping[str, Any], domains: tuple[int, ...]) -> FrequencyProtocol:
    """Make a protocol by its name and options, as in a config.

    Raises:
        ConfigError: every unknown or ill-typed option, or one that the protocol refuses.
    """
    errors: list[Mistake] = []
    cls, bound = _protocol({"name": name, **options}, errors)
    raise_all(errors)
    return _made(name, cls, bound, domains)


@dataclass(frozen=True)
class _Settings:
    """Everything of a collection but the values, bound."""

    name: str
    cls: type
    options: dict[str, Any]
    budget: DeviceBudget
    runner: CollectOptions
    seed: int
    tracker: TrackerOptions | None = None

    def resolved(self, stream: dict[str, Any], title: str | None) -> dict[str, Any]:
        """The config with all defaults filled in; `stream` is its section of that name."""
        return {
            "name": title or self.name,
            "stream": stream,
            "protocol": {"name": self.name, **plain(self.options)},
            "budget": plain(self.budget),
            "runner": plain(self.runner),
            "seed": self.seed,
            **({"tracker": plain(self.tracker)} if self.tracker else {}),
        }

    def on(self, collection: Collection, resolved: dict[str, Any]) -> Collecting:
        """Put a collection under these settings."""
        asked = _made(self.name, self.cls, self.options, collection.domains)
        protocol = asked.within(self.budget.over, collection.n_users, len(collection), self.runner.memo)
        title = resolved["name"]
        return Collecting(collection, protocol, self.budget, self.runner, self.seed, resolved, title, self.name)


def _settings(config: Mapping[str, Any], errors: list[Mistake]) -> _Settings:
    """Bind every section but the stream's; mistakes are appended."""
    section = dict(config.get("protocol") or {})
    cls, options = _protocol(section, errors)
    return _Settings(
        str(section.get("name")),
        cls,
        options,
        build(DeviceBudget, config.get("budget") or {}, "budget", errors) or DeviceBudget(),
        build(CollectOptions, config.get("runner") or {}, "runner", errors) or CollectOptions(),
        coerce(config.get("seed", 0), int, "seed", errors),
        build(TrackerOptions, config["tracker"], "tracker", errors) if config.get("tracker") else None,
    )


def _protocol(section: Mapping[str, Any], errors: list[Mistake]) -> tuple[type, dict[str, Any]]:
    """Find the protocol's class and bind its options; mistakes are appended."""
    options = dict(section)
    name = options.pop("name", None)
    if name is None:
        errors.append(
            Mistake("", "protocol.name", "nothing", "must name a protocol", "'clearn list protocols' shows them")
        )
        return object, {}
    try:
        cls = plugins.find("privacy", str(name))
    except ConfigError as error:
        errors.append(Mistake("", "protocol.name", "", str(error)))
        return object, {}
    return cls, bind(cls, options, "protocol", errors, skip=("domains",))


def _made(name: str, cls: type, options: Mapping[str, Any], domains: tuple[int, ...]) -> FrequencyProtocol:
    try:
        protocol = cls(domains, **options)
    except ConfigError as error:
        raise ConfigError(f"protocol {name}: {error}") from None
    assert isinstance(protocol, FrequencyProtocol)
    return protocol
