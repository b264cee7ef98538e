"""A reading experiment: a corpus, a way to make its reader, a budget and settings, from a config or from Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearn import seeds
from clearn.binding import bind as bind_options
from clearn.errors import ConfigError
from clearn.experiment import Prepared
from clearn.folder import RunFolder
from clearn.ledger import Account, Budget, account
from clearn.mistakes import Mistake, raise_all
from clearn.options import BudgetOptions, ReadingOptions, TrainerOptions, parse_bytes
from clearn.progress import Progress
from clearn.reader import Reader
from clearn.recipe import MetaRecipe
from clearn.runner import Experiment, package_version
from clearn.settings import Settings, settings
from clearn.signatures import plain
from clearn.state import freeze
from clearn.stream import Corpus, Reading

if TYPE_CHECKING:
    from clearn.reading.loop import ReadingLoop


@dataclass(frozen=True)
class ReadingExperiment(Experiment):
    """A reader, a corpus, and how both meet.

    Attributes:
        corpus: documents in tasks, requests, upstream data.
        make: makes a fresh reader; the same each time but for what it draws from torch's global generator.
        budget: bytes that may be carried.
        seed: of the run; `build_seed` is that of the first weights.
        trainer: settings of training.
        runner: settings of the loop.
        config: the resolved config, as written into the run folder.
        title: what a person sees.
        told: what tells the reader's preparation from others: its options without those that come after it.
    """

    corpus: Corpus
    make: Callable[[], Reader]
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    build_seed: int = 0
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    runner: ReadingOptions = field(default_factory=ReadingOptions)
    config: dict[str, Any] = field(default_factory=dict)
    title: str = "run"
    told: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Reader:
        """Make a fresh reader; its first weights go by the seed of meta-training, so that seeds share a preparation."""
        with seeds.scope(self.build_seed, 0, "build"):
            return self.make()

    @property
    def steps(self) -> int:
        """Tasks, and requests to forget."""
        return len(self.corpus.events)

    @property
    def about(self) -> dict[str, Any]:
        """The corpus's facts."""
        return self.corpus.about

    @property
    def environment(self) -> dict[str, Any]:
        """Versions of what computes, device and threads."""
        packages = ("torch", "lightning", "transformers", "tokenizers", "peft")
        return {
            **{name: package_version(name) for name in packages},
            "device": self.trainer.accelerator,
            "threads": self.trainer.threads,
        }

    @property
    def cache(self) -> Path | None:
        """Where prepared weights are kept; None where they are not."""
        return cache_folder() / "prepared" if self.runner.cache else None

    def check(self) -> None:
        """Refuse a budget that the empty reader outweighs, and requests that it cannot answer."""
        for index, weight in enumerate(self.weights(self.plan())):
            self.budget.check(weight, index, self.steps, of="the reader alone, before it has read anything,")
        if self.corpus.requests and type(self.build()).forget is Reader.forget:
            raise ConfigError(
                f"{self.title} cannot forget documents, and the stream has {len(self.corpus.requests)} requests: take "
                "stream.requests out, or choose a method that can (mac, mbc, cmt, bm25, dense)"
            )

    def loop(self, folder: RunFolder, progress: Progress) -> ReadingLoop:
        """Read task by task."""
        from clearn.reading.loop import ReadingLoop

        return ReadingLoop(self, folder, progress)

    def plan(self) -> list[Account]:
        """Weigh the reader after each step as if it had read nothing: what modules and codebooks alone will carry."""
        return self._plan

    @cached_property
    def _plan(self) -> list[Account]:
        with seeds.scope(self.build_seed, 0, "plan"):
            reader = self.make()
            found = []
            for event in self.corpus.events:
                if isinstance(event, Reading):
                    reader.grow(event.info)
                    weighed = account(freeze(reader.state(), reader.untouched()), reader.category)
                found.append(weighed)
        return found

    def weights(self, plan: list[Account]) -> list[int]:
        """Bytes of the empty reader after each step in the budget's own counting."""
        return [self.budget.counted(step) for step in plan]


def cache_folder() -> Path:
    """CLEARN_CACHE, else clearn's folder in the user's cache."""
    if given := os.environ.get("CLEARN_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clearn"


def prepare(config: Mapping[str, Any]) -> Prepared[ReadingExperiment]:
    """Check a loaded config, reporting all its mistakes together.

    Raises:
        ConfigError: every unknown, missing or ill-typed option.
    """
    from clearn.streams import documents

    errors: list[Mistake] = []
    section = dict(config.get("stream") or {})
    name = section.pop("name")
    options = bind_options(documents.build, section, "stream", errors)
    found = _settings(config, errors)
    raise_all(errors, getattr(config, "origins", {}))
    resolved = found.resolved({"name": name, **plain(options)}, config.get("name"))
    return Prepared(resolved, lambda: _on(found, documents.build(**options), resolved))


def on_corpus(
    corpus: Corpus,
    strategy: str,
    options: Mapping[str, Any],
    budget: str | int | Mapping[str, Any] | None,
    seed: int,
    trainer: Mapping[str, Any],
) -> ReadingExperiment:
    """Make an experiment of a corpus that exists already; see `clearn.run`."""
    errors: list[Mistake] = []
    section = budget if isinstance(budget, Mapping) else {} if budget is None else {"bytes": budget}
    sections = {"strategy": {"name": strategy, **options}, "budget": section, "trainer": trainer, "seed": seed}
    found = _settings(sections, errors)
    raise_all(errors)
    return _on(found, corpus, found.resolved({"name": "documents", **plain(corpus.about)}, None))


def told_of(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a preparation from others of the same method: its options but those that come after it."""
    assert issubclass(cls, Reader)
    return {key: value for key, value in plain(dict(options)).items() if key not in cls.after_preparing}


def build_seed_of(options: Mapping[str, Any], seed: int) -> int:
    """The seed of the first weights: that of meta-training where a method has one, else the run's."""
    return next((value.seed for value in options.values() if isinstance(value, MetaRecipe)), seed)


def _settings(config: Mapping[str, Any], errors: list[Mistake]) -> Settings:
    """Bind every section but the stream's, and settle what a language model computes in; mistakes are appended."""
    found = settings(config, errors, ReadingOptions)
    if config.get("unlearner"):
        right = "must be left out: a reader takes documents out of its memory by itself"
        errors.append(Mistake("", "unlearner", str(config["unlearner"].get("name")), right, "keep stream.requests"))
    if found.cls is not object and not issubclass(found.cls, Reader):
        right = "learns classes, but this stream has documents"
        errors.append(Mistake("", "strategy.name", found.method, right, "choose one that reads, e.g. mbc or bm25"))
    if found.trainer.processes > 1:
        right, hint = "but one process reads documents", "write trainer.devices=1 and trainer.num_nodes=1"
        errors.append(Mistake("", "trainer.devices", str(found.trainer.processes), right, hint))
    for key, value in found.options.items():
        settled = getattr(value, "settled", None)
        if callable(settled):
            found.options[key] = settled()
    return found


def _on(found: Settings, corpus: Corpus, resolved: dict[str, Any]) -> ReadingExperiment:
    """Put a corpus under these settings."""
    assert isinstance(found.runner, ReadingOptions)
    return ReadingExperiment(
        corpus=corpus,
        make=lambda: found.cls(**found.options),
        budget=_budget(found.budget),
        seed=found.seed,
        build_seed=build_seed_of(found.options, found.seed),
        trainer=found.trainer,
        runner=found.runner,
        config=resolved,
        title=resolved["name"],
        told={"method": found.method, **told_of(found.cls, found.options)},
    )


def _budget(options: BudgetOptions) -> Budget:
    """Turn the budget section into bytes."""
    if options.like is not None or options.count == "paper":
        raise ConfigError(
            "budget.like and budget.count=paper speak of exemplar images: give budget.bytes, and count full or bank"
        )
    for option, value in (("bytes", options.bytes), ("step", options.step)):
        if isinstance(value, str) and value.strip().endswith("x"):
            raise ConfigError(f"budget.{option}={value} counts exemplar images: give bytes, e.g. 64KiB")
    total = None if options.bytes is None else parse_bytes(options.bytes)
    return Budget(total, options.policy, 0 if options.step is None else parse_bytes(options.step), options.count)
