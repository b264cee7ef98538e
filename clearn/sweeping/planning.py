"""From a config with a grid to jobs, all of them checked before the first is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearn.config import Config, SweepOptions, build, load, raise_all, save
from clearn.errors import ConfigError, UserError
from clearn.experiment import bind, prepare
from clearn.folder import CONFIG
from clearn.grids import Cell, cells, narrowed
from clearn.mistakes import Mistake
from clearn.runner import Experiment
from clearn.sweeping.jobs import Job
from clearn.sweeping.naming import anywhere, digest, slug

GRID = "grid.yaml"
ABOUT = ("grid", "sweep", "expects", "out", "name")  # sections that say nothing of a single run


@dataclass(frozen=True)
class Plan:
    """What a sweep runs.

    Attributes:
        title: what a person sees.
        folder: of all its runs.
        jobs: one a cell; cells that come to the same config are one.
        options: section `sweep`.
        threads: the most that a run asks for; 0 where one leaves them to the machine.
        on_gpu: whether a run uses one.
    """

    title: str
    folder: Path
    jobs: tuple[Job, ...]
    options: SweepOptions
    threads: int
    on_gpu: bool


def plan(source: str, overrides: Sequence[str] = ()) -> Plan:
    """Read a config with a grid, or a sweep's folder, and check every cell.

    Args:
        source: as `clearn.config.find` takes it, or a folder that a sweep left.
        overrides: of every cell, and of the grid; one of a key that the grid has picks the cells with that value.

    Raises:
        ConfigError: there is no cell, or some cannot be run: all of them, with what is wrong.
    """
    begun = Path(source) / GRID
    if begun.exists():
        config = load(str(begun), overrides)
        config["out"], source = source, str(begun)
    else:
        config = load(source, overrides)
    title = str(config.get("name") or Path(source).stem)
    folder = Path(config.get("out") or Path("runs") / title)
    errors: list[Mistake] = []
    options = build(SweepOptions, config.get("sweep") or {}, "sweep", errors)
    raise_all(errors, config.origins)
    assert options is not None
    listed = list(cells(narrowed(config["grid"], overrides))) if config.get("grid") else []
    if not listed:
        raise ConfigError(
            f"{source} has an empty grid, so there is nothing to sweep: write e.g. grid: {{seed: [0, 1, 2]}} into it, "
            "or 'grid={seed: [0, 1, 2]}' behind the command"
        )
    found = _checked(source, overrides, listed)
    trainers = [dict(resolved.get("trainer") or {"threads": 1}) for _, _, resolved in found]
    asked = [loaded.get("trainer", {}).get("threads", "auto") for _, loaded, _ in found if "protocol" not in loaded]
    return Plan(
        title,
        folder,
        tuple(_jobs(folder, found)),
        options,
        0 if "auto" in asked else max(trainer["threads"] for trainer in trainers),
        any(trainer.get("accelerator") == "gpu" for trainer in trainers),
    )


def keep(plan: Plan, source: str, overrides: Sequence[str]) -> None:
    """Write into a sweep's folder what goes on with it: the config and its grid."""
    begun = Path(source) / GRID
    config = load(str(begun) if begun.exists() else source, overrides)
    if config.get("grid") and not begun.exists():  # what is picked out of a folder's grid leaves the others in it
        config["grid"] = narrowed(config["grid"], overrides)
    save({key: value for key, value in config.items() if key != "out"}, plan.folder / GRID)


def _checked(
    source: str, overrides: Sequence[str], listed: Sequence[Cell]
) -> list[tuple[Cell, Config, dict[str, Any]]]:
    """Load and check every cell; give each with its config as loaded and as resolved."""
    found, wrong = [], dict[str, list[str]]()
    for cell in listed:
        try:
            loaded = load(source, [*overrides, *cell.overrides])
            for section in ABOUT:
                loaded.pop(section, None)
            found.append((cell, loaded, prepare(loaded).config))
        except UserError as error:
            wrong.setdefault(str(error), []).append(cell.label)
    if not wrong:
        return found
    if len(listed) == 1 or (len(wrong) == 1 and not found):
        raise ConfigError(next(iter(wrong)))
    bad = sum(map(len, wrong.values()))
    lines = [f"{bad} of {len(listed)} cells cannot be run, and none was started:"]
    for message, labels in wrong.items():
        others = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        lines.append(f"  {labels[0]}{others}: " + message.replace("\n", "\n  "))
    raise ConfigError("\n".join(lines))


def _jobs(folder: Path, found: Sequence[tuple[Cell, Config, Mapping[str, Any]]]) -> list[Job]:
    """Make a job a config; one that lies in the folder already, under whatever label, keeps its place."""
    jobs: dict[str, Job] = {}
    for cell, loaded, resolved in found:
        name = digest(anywhere(resolved, loaded))
        if name not in jobs:
            there = sorted(path.parent for path in folder.glob(f"*-{name}/{CONFIG}"))
            path = there[0] if there else folder / f"{slug(cell.label)}-{name}"
            jobs[name] = Job(cell.label, path, _build(path, loaded), loaded)
    return list(jobs.values())


def _build(path: Path, loaded: Config) -> Callable[[], Experiment]:
    """Make what goes on with a run as it was begun, on whatever machine, or begins it."""
    return lambda: bind(load(str(path / CONFIG)) if (path / CONFIG).exists() else loaded)
