"""All sections of a strategy's config but its stream, bound to signatures: what learning and reading have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clearn import plugins
from clearn.binding import bind as bind_options
from clearn.binding import build, coerce
from clearn.errors import ConfigError
from clearn.mistakes import Mistake
from clearn.options import BudgetOptions, RunnerOptions, TrainerOptions
from clearn.signatures import plain
from clearn.tracking import TrackerOptions


@dataclass(frozen=True)
class Settings:
    """Everything of an experiment but its stream.

    Attributes:
        method: the strategy's name.
        cls: its class.
        options: of its constructor.
        budget: section `budget`.
        trainer: section `trainer`, with "auto" replaced.
        runner: section `runner`.
        seed: of training.
        unlearner: name, class and options; None where no section names one.
        tracker: section `tracker`; None where there is none.
    """

    method: str
    cls: type
    options: dict[str, Any]
    budget: BudgetOptions
    trainer: TrainerOptions
    runner: RunnerOptions
    seed: int
    unlearner: tuple[str, type, dict[str, Any]] | None = None
    tracker: TrackerOptions | None = None

    def resolved(self, stream: dict[str, Any], name: str | None) -> dict[str, Any]:
        """The config with all defaults filled in; `stream` is its section of that name."""
        return {
            "name": name or self.method,
            "stream": stream,
            "strategy": {"name": self.method, **plain(self.options)},
            **({"unlearner": {"name": self.unlearner[0], **plain(self.unlearner[2])}} if self.unlearner else {}),
            "budget": plain(self.budget),
            "trainer": _written(self.trainer),
            "runner": plain(self.runner),
            "seed": self.seed,
            **({"tracker": plain(self.tracker)} if self.tracker else {}),
        }


def settings(config: Mapping[str, Any], errors: list[Mistake], runner: type[RunnerOptions] = RunnerOptions) -> Settings:
    """Bind every section but the stream's; mistakes are appended.

    Args:
        config: loaded.
        errors: mistakes.
        runner: the record that section `runner` is bound to.
    """
    method, cls, options = _method("strategies", config.get("strategy"), errors)
    unlearner = _method("unlearn", config["unlearner"], errors) if config.get("unlearner") else None
    return Settings(
        method,
        cls,
        options,
        build(BudgetOptions, config.get("budget") or {}, "budget", errors) or BudgetOptions(),
        _settled(build(TrainerOptions, config.get("trainer") or {}, "trainer", errors) or TrainerOptions()),
        build(runner, config.get("runner") or {}, "runner", errors) or runner(),
        coerce(config.get("seed", 0), int, "seed", errors),
        unlearner,
        build(TrackerOptions, config["tracker"], "tracker", errors) if config.get("tracker") else None,
    )


def _written(trainer: TrainerOptions) -> dict[str, Any]:
    """The section as run folders hold it: options of several nodes only where there are some.

    A folder's name is a hash of what it holds, so folders from before these options were known are found again.
    """
    values: dict[str, Any] = plain(trainer)
    plainly = plain(TrainerOptions())
    return {k: v for k, v in values.items() if k not in ("num_nodes", "strategy") or v != plainly[k]}


def _method(kind: str, section: Any, errors: list[Mistake]) -> tuple[str, type, dict[str, Any]]:
    """Find the class that a section names and bind its options; mistakes are appended."""
    options, where = dict(section or {}), plugins.KINDS[kind].section
    name = options.pop("name", None)
    if name is None:
        hint = f"'clearn list {kind}' shows them"
        errors.append(Mistake("", f"{where}.name", "nothing", "must name a method", hint))
        return "None", object, {}
    try:
        cls = plugins.find(kind, str(name))
    except ConfigError as error:
        errors.append(Mistake("", f"{where}.name", "", str(error)))
        return str(name), object, {}
    return str(name), cls, bind_options(cls, options, where, errors, skip=plugins.KINDS[kind].given)


def _settled(trainer: TrainerOptions) -> TrainerOptions:
    """Replace "auto" by what it means on this machine, so that a resumed run computes with the same."""
    import torch

    threads = torch.get_num_threads() if trainer.threads == "auto" else trainer.threads
    accelerator = trainer.accelerator
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    elif accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer.accelerator=gpu, but torch sees no GPU here: write cpu or auto")
    return dataclasses.replace(trainer, threads=threads, accelerator=accelerator)
