"""Section `tracker` of a config, the same for every kind of run; it says where rows go and nothing of the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from clearn.errors import ConfigError

Name = Literal["csv", "tensorboard", "wandb", "mlflow"]
TAKEN_BY = {  # options that only some trackers take
    "project": ("wandb", "mlflow"),
    "entity": ("wandb",),
    "offline": ("wandb",),
    "uri": ("mlflow",),
}
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}  # beside what clearn itself needs


@dataclass(frozen=True)
class TrackerOptions:
    """Section `tracker`: where the rows of a run are logged to besides its folder; none of it may move a result.

    Attributes:
        name: csv, tensorboard, wandb or mlflow, or a list of them.
        project: under which W&B files the run; MLflow calls it the experiment. null: clearn.
        entity: W&B's user or team; null takes your default.
        offline: W&B writes into the run folder alone, for `wandb sync` later; no network is used.
        uri: MLflow's server or database, e.g. http://localhost:5000; null takes MLFLOW_TRACKING_URI, else a database in
            the run folder.
    """

    name: Name | list[Name]
    project: str | None = None
    entity: str | None = None
    offline: bool = False
    uri: str | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigError("name=[] must name a tracker: csv, tensorboard, wandb or mlflow, or write tracker: null")
        if len(set(self.names)) < len(self.names):
            raise ConfigError(f"name={list(self.names)} must name each tracker once: leave the second one out")
        without = [
            f"{option}={getattr(self, option)} has no effect without {' or '.join(takers)}: leave it out, or name that "
            "tracker"
            for option, takers in TAKEN_BY.items()
            if getattr(self, option) not in (None, False) and not set(takers) & set(self.names)
        ]
        if without:
            raise ConfigError("; ".join(without))

    @property
    def names(self) -> tuple[Name, ...]:
        """All of them."""
        return (self.name,) if isinstance(self.name, str) else tuple(self.name)


def asked(tracker: str | list[str] | Mapping[str, Any] | None) -> dict[str, Any]:
    """Give the resolved section of a tracker named in Python: a name, a list of names, or a mapping; empty for none.

    Raises:
        ConfigError: there is no such tracker or option, or its package is not installed.
    """
    from clearn.binding import build
    from clearn.mistakes import Mistake, raise_all
    from clearn.signatures import plain

    if tracker is None:
        return {}
    errors: list[Mistake] = []
    section = tracker if isinstance(tracker, Mapping) else {"name": tracker}
    options = build(TrackerOptions, section, "tracker", errors)
    raise_all(errors)
    check_installed({"tracker": plain(options)})
    return {"tracker": plain(options)}


def check_installed(config: Mapping[str, Any]) -> None:
    """Refuse a resolved config whose trackers cannot be imported here, before data is read or anything is trained.

    Raises:
        ConfigError: with the line that installs them.
    """
    if not config.get("tracker"):
        return
    missing = [one for one in TrackerOptions(**config["tracker"]).names if one in PACKAGES and not _found(one)]
    if missing:
        packages = " and ".join(PACKAGES[one] for one in missing)
        raise ConfigError(
            f"tracker={', '.join(missing)} needs what is not installed here ({packages}): "
            "pip install 'clearn[trackers]', or leave it out with tracker=null (tracker=csv needs nothing more)"
        )


def switched(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a section what still has an effect under the trackers that a layer above it names."""
    named = new.get("name", old.get("name"))
    names = named if isinstance(named, list) else [named]
    return {key: value for key, value in old.items() if key not in TAKEN_BY or set(TAKEN_BY[key]) & set(names)}


def _found(name: str) -> bool:
    try:
        return find_spec(PACKAGES[name]) is not None
    except ValueError:  # something put None into sys.modules
        return False
