"""From a config to an experiment: which kind it is, and a check of all of it before any data is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from clearn.errors import ConfigError
from clearn.runner import Experiment
from clearn.tracking import check_installed

E = TypeVar("E", bound=Experiment, covariant=True)


@dataclass(frozen=True)
class Prepared(Generic[E]):
    """A config that was checked, before its data is read.

    Attributes:
        config: resolved, all defaults filled in.
        build: reads the data and gives the experiment.
    """

    config: dict[str, Any]
    build: Callable[[], E]


def bind(config: Mapping[str, Any]) -> Experiment:
    """Make an experiment of a loaded config.

    Raises:
        ConfigError: every unknown, missing or ill-typed option.
        DataError: the stream's data cannot be had.
    """
    return prepare(config).build()


def prepare(config: Mapping[str, Any]) -> Prepared[Experiment]:
    """Check a loaded config, reporting all its mistakes together.

    Raises:
        ConfigError: every unknown, missing or ill-typed option, or a tracker that is not installed.
    """
    prepared = _prepared(config)
    check_installed(prepared.config)
    return prepared


def _prepared(config: Mapping[str, Any]) -> Prepared[Experiment]:
    if "protocol" not in config:
        if (config.get("stream") or {}).get("name") == "documents":
            from clearn.reading import prepare as prepare_reading

            return prepare_reading(config)
        from clearn.learning import prepare as prepare_learning

        return prepare_learning(config)
    if "strategy" in config:
        raise ConfigError("sections strategy and protocol are two kinds of experiment: keep one of them")
    from clearn.collecting import prepare as prepare_collecting

    return prepare_collecting(config)
