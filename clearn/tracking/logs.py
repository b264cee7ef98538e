"""Log what a run folder's rows say, a step at a time: each step once, however often the run was stopped.

Trackers read the rows that are on the disk and nothing else, so they can be added to a run that is half done or
finished: all its steps are logged then. How far each log has come stands in `tracking/logged.json`; only a kill in the
very moment between logging a step and writing that down logs that step again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clearn.errors import ConfigError
from clearn.folder import CONFIG, LEDGER, SCORES, RunFolder
from clearn.progress import Progress
from clearn.tracking.numbers import numbers
from clearn.tracking.options import TrackerOptions
from clearn.tracking.trackers import TRACKERS, Ending, Tracker

FOLDER, LOGGED = "tracking", "tracking/logged.json"
BLOCK = 2**16  # bytes read at a time, from the end of a file
NONE = -1  # before step 0, which only a reader has


@contextmanager
def following(config: Mapping[str, Any], folder: RunFolder, progress: Progress) -> Iterator[Callable[[], None]]:
    """Open the trackers that a resolved config asks for, and log all that is there.

    Args:
        config: of the run.
        folder: where its rows are.
        progress: what a person sees; is told of a tracker that fails.

    Yields:
        What logs the steps that came since. A tracker that fails there is left, for the run matters more; the next one
        who goes on with the run catches up.

    Raises:
        ConfigError: a tracker cannot be opened.
    """
    _keep(config, folder)
    if not config.get("tracker"):
        yield lambda: None
        return
    logs = _Logs(config, folder, progress)
    how: Ending = "success"
    try:
        logs.begin()
        logs.catch_up()
        yield logs.catch_up
    except BaseException as error:
        how = "failed" if isinstance(error, Exception) else "stopped"  # by a person or a cluster
        raise
    finally:
        logs.end(how)


class _Logs:
    """The trackers of one run and how far each has come."""

    def __init__(self, config: Mapping[str, Any], folder: RunFolder, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self.params = params(config)
        self.options = TrackerOptions(**config["tracker"])
        self.open: dict[str, Tracker] = {}
        self.logged: dict[str, dict[str, Any]] = folder.get_json(LOGGED) or {}

    def begin(self) -> None:
        """Open all trackers."""
        for name in self.options.names:
            path = self.folder.path / FOLDER / name
            tracker = TRACKERS[name](self.options, path, self.folder.path.name)
            before = self.logged.get(name) or {}
            if before.get("address") != tracker.address or not path.exists():
                before = {}
            try:
                found = tracker.begin(self.params, before.get("id"))
            except Exception as error:
                raise ConfigError(
                    f"tracker={name} cannot be opened: {_said(error)}; {REMEDIES.get(name, REMEDY)}, or leave it out "
                    "with tracker=null"
                ) from error
            self.open[name] = tracker
            step = NONE if tracker.rewrites else before.get("step", NONE)
            self.logged[name] = {"address": tracker.address, "id": found, "step": step}

    def catch_up(self) -> None:
        """Log every step that stands in the rows and not in the log."""
        for name, tracker in list(self.open.items()):
            try:
                for step, found in _steps(self.folder.path, self.logged[name]["step"]):
                    tracker.log(found, step)
                    self.logged[name]["step"] = step
                self.folder.put_json(LOGGED, self.logged)
            except Exception as error:  # noqa: BLE001 - whatever a tracker raises must not end the run
                self._leave(name, error)

    def end(self, how: Ending) -> None:
        """Close all trackers that are still open."""
        for name, tracker in list(self.open.items()):
            try:
                tracker.end(how)
            except Exception as error:  # noqa: BLE001 - as above
                self._leave(name, error)
        self.open.clear()

    def _leave(self, name: str, error: Exception) -> None:
        del self.open[name]
        self.progress.note(
            f"tracker {name} failed after step {max(self.logged[name]['step'], 0)} ({_said(error)}): the run goes on "
            f"without it; 'clearn resume {self.folder.path}' logs what is missing"
        )


REMEDY = "see docs/trackers.md"
REMEDIES = {
    "wandb": "run 'wandb login', or write tracker.offline=true to log without a network",
    "mlflow": "check tracker.uri, and that its server runs",
}


def params(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give a resolved config as hyper-parameters: dotted keys to plain values, lists as text."""
    from clearn.layers import flat

    told = {key: value for key, value in config.items() if key not in ("tracker", "out")}
    return {
        key: value if isinstance(value, bool | int | float | str | None) else json.dumps(value)
        for key, value in flat(told)
    }


def _keep(config: Mapping[str, Any], folder: RunFolder) -> None:
    """Let the folder's config name the trackers of whoever went on with the run last, for `clearn resume`."""
    from clearn.config import load, save

    there = load(str(folder.path / CONFIG))
    if there.get("tracker") != config.get("tracker"):
        kept = {key: value for key, value in there.items() if key != "tracker"}
        save(kept | ({"tracker": config["tracker"]} if config.get("tracker") else {}), folder.path / CONFIG)


def _steps(path: Path, after: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Give each whole step after one, with its numbers. A step is whole once its ledger row of figures is there."""
    scores = {step: list(rows) for step, rows in itertools.groupby(_rows(path / SCORES, after), _step_of)}
    for step, rows in itertools.groupby(_rows(path / LEDGER, after), _step_of):
        weights = list(rows)
        if any(row["kind"] == "figures" for row in weights):
            yield step, numbers(scores.get(step, []), weights)


def _step_of(row: Mapping[str, Any]) -> int:
    return int(row["step"])


def _rows(path: Path, after: int) -> list[dict[str, Any]]:
    """Read the rows of steps after one from the end, so that a long run is not read again at every step."""
    found: list[dict[str, Any]] = []
    for line in _lines_backwards(path):
        row = json.loads(line)
        if row["step"] <= after:
            break
        found.append(row)
    return found[::-1]


def _lines_backwards(path: Path) -> Iterator[bytes]:
    """Give the lines of a file, the last first; none of a file that is not there."""
    if not path.exists():
        return
    with path.open("rb") as file:
        at, rest = file.seek(0, 2), b""
        while at:
            size = min(BLOCK, at)
            at = file.seek(at - size)
            first, *lines = (file.read(size) + rest).split(b"\n")
            yield from (line for line in reversed(lines) if line)
            rest = first
        if rest:
            yield rest


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
