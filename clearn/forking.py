"""Going on from an earlier run with something changed; the earlier run is left as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from clearn.config import Config, save
from clearn.errors import ConfigError
from clearn.experiment import bind
from clearn.folder import CONFIG, ENVIRONMENT, LEDGER, SCORES, RunFolder
from clearn.learning import Learning, rebuild
from clearn.reading import ReadingExperiment
from clearn.runner import Experiment
from clearn.state import Frozen
from clearn.stream import Request, Stream

Name = Callable[[Experiment], Path]


def fork(
    old_path: Path,
    old_config: Mapping[str, Any],
    config: Mapping[str, Any],
    after: int,
    name: Name,
    go_on: bool = False,
) -> tuple[Experiment, Path]:
    """Copy what a run carried after its first steps into a new folder, under a changed config.

    Args:
        old_path: the run folder to start from.
        old_config: its config.
        config: the changed one.
        after: how many tasks (and requests) are taken over.
        name: gives the new folder where the config has no `out`.
        go_on: whether a folder that holds a run already is gone on with; whoever runs it compares the configs.

    Returns:
        The experiment, and the folder that it goes on in.

    Raises:
        ConfigError: what was learned already would have been otherwise under the changed config.
        StateError: the state does not fit the changed method, or is damaged.
    """
    if "protocol" in old_config or "protocol" in config:
        raise ConfigError(
            f"{old_path} and the changed config must both be runs of a strategy: what users have answered to one "
            "protocol means nothing to another, so start a new run"
        )
    new, old = bind(config), bind(old_config)
    if not 1 <= after <= new.steps:
        raise ConfigError(f"--after {after} must lie in [1, {new.steps}]: the stream has {new.steps} tasks")
    if _begins(new, after) != _begins(old, after):
        raise ConfigError(
            f"the changed stream differs from {old_path} within the first {after} tasks, which are already "
            "learned: change what comes after them, or start a new run"
        )
    source = RunFolder(old_path)
    whole = source.read_state(after)
    _check_fits(new, whole.frozen, after)
    target = RunFolder(Path(config["out"]) if config.get("out") else name(new))
    if go_on and (target.path / CONFIG).exists():
        return new, target.path
    if target.path.resolve() == old_path.resolve() or (target.path / CONFIG).exists():
        raise ConfigError(
            f"{target.path} already holds a run: change an option, or choose another folder with out=FOLDER"
        )
    target.create()
    target.drop_after(0)  # of a fork that was killed before its config was written
    for step in range(after + 1):  # 0: of a reader, what it was prepared with
        for path in (source.state_path(step), source.state_path(step).with_suffix(".safetensors.sha256")):
            if path.exists():
                shutil.copyfile(path, target.path / "state" / path.name)
    for rows in (SCORES, LEDGER):
        target.add_rows(rows, (row for row in source.rows(rows) if row["step"] <= after))
    save(new.config, target.path / CONFIG)
    target.put_json(ENVIRONMENT, {"forked_from": {"run": str(old_path), "after": after, "sha256": whole.sha256}})
    return new, target.path


def unlearn(
    old_path: Path,
    old_config: Mapping[str, Any],
    config: Config,
    request: Mapping[str, Any],
    name: Name,
    go_on: bool = False,
) -> tuple[Experiment, Path]:
    """Fork a run after its last step, with one more request to forget.

    Args:
        old_path: a finished run.
        old_config: its config.
        config: the same with an unlearner named.
        request: an entry of `stream.requests`, without `after`.
        name: gives the new folder where the config has no `out`.
        go_on: as for `fork`.
    """
    learned = bind(old_config)
    if not isinstance(learned, Learning):
        raise ConfigError(
            f"{old_path} is no run of a strategy on samples: a collection has learned nothing that can be forgotten, "
            "and a run on documents takes its requests from stream.requests ('clearn fork')"
        )
    asked = list(config["stream"].get("requests") or [])
    config["stream"] = {**config["stream"], "requests": [*asked, {"after": len(learned.stream), **request}]}
    return fork(old_path, old_config, config, learned.steps, name, go_on)


def _check_fits(new: Experiment, frozen: Frozen, after: int) -> None:
    """Rebuild the changed learner from a state, or refuse it.

    Raises:
        StateError: it does not fit.
    """
    if isinstance(new, Learning):
        rebuild(new.build(), frozen, new.stream.learned(after), new.seed, after)
    elif isinstance(new, ReadingExperiment):
        rebuild(new.build(), frozen, [one.info for one in new.corpus.read(after)], new.seed, after)


def _begins(experiment: Experiment, n: int) -> tuple[Any, ...]:
    """What an experiment's first steps are made of; of readers, what they are prepared on too."""
    if isinstance(experiment, ReadingExperiment):
        return (*experiment.corpus.events[:n], experiment.corpus.upstream)
    assert isinstance(experiment, Learning)
    return _first_steps(experiment.stream, n)


def _first_steps(stream: Stream, n: int) -> tuple[Any, ...]:
    """What a stream's first steps are made of: labels, the data behind them, classes, domains, what was forgotten."""
    infos = stream.learned(n)
    n_seen = len({label for info in infos for label in info.classes})
    about = {key: value for key, value in stream.about.items() if key not in ("sizes", "requests", "columns")}
    if "order" in about:
        about.pop("order_seed", None)  # the order says more: another seed may begin alike
    for key, length in (("order", n_seen), ("classes", n_seen), ("merged", n_seen), ("domains", len(infos))):
        if key in about:
            about[key] = about[key][:length]
    return stream.inputs, tuple(_timeless(event) for event in stream.events[:n]), about


def _timeless(event: object) -> object:
    """A request may be written in other words as long as it means the same samples."""
    return replace(event, look_back=False) if isinstance(event, Request) else event
