"""What each command does. Heavy imports happen inside the commands that need them."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearn.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from clearn.runner import Experiment
    from clearn.sweeping import Job

MARKS = """\
  [documents]    reads documents and answers questions; all others learn to classify samples
  [one process]  cannot be shared out among several processes, by default at least: 'clearn show NAME' says why"""


def run(args: argparse.Namespace) -> int:
    """Run a config, or every cell of its grid, one after the other in this process."""
    from clearn.config import load

    config = load(args.config, args.overrides)
    if config.get("grid"):
        return _sweep_here(args.config, args.overrides)
    return _run_one(_bound(config), config.get("out"))


def resume(args: argparse.Namespace) -> int:
    """Go on with what lies in a folder."""
    from clearn.config import load
    from clearn.sweeping.planning import GRID

    path = _existing(args.run)
    if (path / GRID).exists():
        return _sweep_here(str(path), [])
    experiment = _bound(load(str(_config_of(path))))
    _refuse_to_go_on(experiment, path)
    return _run_one(experiment, str(path))


def sweep(args: argparse.Namespace) -> int:
    """Run every cell of a grid in processes of their own, here or on a cluster."""
    from clearn.sweeping import commanding

    return commanding.sweep(args.config, args.overrides, args.workers, args.slurm, _console())


def fork(args: argparse.Namespace) -> int:
    """Copy a run's first K tasks into a new folder under a changed config, and go on there."""
    from clearn import forking
    from clearn.config import load

    old = _existing(args.run)
    config = load(str(_config_of(old)), args.overrides)
    experiment, path = forking.fork(old, load(str(_config_of(old))), config, args.after, _default_folder)
    return _run_one(experiment, str(path))


def unlearn(args: argparse.Namespace) -> int:
    """Copy a finished run into a new folder, and answer one more request to forget there; or many, by many methods."""
    from clearn import plugins
    from clearn.config import load
    from clearn.sweeping import Job, commanding
    from clearn.sweeping.naming import slug

    request = {**_asked(args), "look_back": not args.no_look_back}
    old, methods = _existing(args.run), args.method.split(",")
    if len(methods) == 1 and (old / "config.yaml").exists():
        experiment, path = _forgetting(old, methods[0], args.overrides, request)
        return _run_one(experiment, str(path))
    olds = [old] if (old / "config.yaml").exists() else sorted(path.parent for path in old.glob("*/config.yaml"))
    if not olds:
        raise UserError(f"{old} is no run folder, and no folder of them: give what 'clearn run' named")
    for method in methods:
        plugins.find("unlearn", method)  # one message for a misspelt name, before the first of many runs
    out = load(str(_config_of(olds[0])), args.overrides).get("out")
    base = Path(out) if out else Path("runs") / f"{slug(old.name)}-unlearned"

    def job(one: Path, method: str) -> Job:
        folder = base / method / one.name
        return Job(f"{one.name} {method}", folder, lambda: _forgetting(one, method, args.overrides, request, folder)[0])

    jobs = [job(one, method) for one, method in itertools.product(olds, methods)]
    return commanding.one_by_one(jobs, base, base.name, _console())


def _forgetting(
    old: Path, method: str, overrides: Sequence[str], request: Mapping[str, Any], into: Path | None = None
) -> tuple[Experiment, Path]:
    """A run after its end with one more request; in a folder that may hold it already where one is given."""
    from clearn import forking
    from clearn.config import load

    config = load(str(_config_of(old)), [f"unlearner.name={method}", *overrides])
    if into is not None:
        config["out"] = str(into)
    return forking.unlearn(old, load(str(_config_of(old))), config, request, _default_folder, into is not None)


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    """What is to be forgotten, as an entry of `stream.requests` has it."""
    if (args.column is None) != (args.values is None):
        raise UserError(
            f"--column {args.column or 'NAME'} and --values {' '.join(args.values or ['VALUE'])} must come together: a "
            "column of the data, and the values there whose samples go"
        )
    if args.column is not None:
        return {"column": args.column, "values": args.values}
    return {"classes": args.classes} if args.classes else {"file": str(Path(args.forget).resolve())}


def report(args: argparse.Namespace) -> int:
    """Print the comparison, and write the files asked for."""
    from clearn import report as reports
    from clearn.sweeping.commanding import write_text

    console = _console()
    runs = reports.load([Path(path) for path in args.runs])
    groups = reports.groups(runs)
    reports.terminal(groups, console)
    if args.curve:
        reports.curve(groups, console)
    texts: dict[Path, str] = {}
    if args.markdown:
        texts[Path(args.markdown)] = reports.markdown(groups, args.curve)
    if args.csv:
        texts |= reports.csv_files(groups, Path(args.csv))  # one a kind of run, which share no columns
    if args.html:
        texts[Path(args.html)] = reports.html(groups, runs, args.title)
    for path, text in texts.items():
        write_text(path, text)
        console.print(f"written: {path}", highlight=False)
    return 0


def list_(args: argparse.Namespace) -> int:
    """Print names, each with one line on what it is."""
    from clearn import plugins
    from clearn.config import shipped, summary
    from clearn.parts.backbones.names import BACKBONES
    from clearn.streams import COLLECTIONS, CORPORA, DATASETS, STREAMS

    tables: dict[str, Mapping[str, str]] = {
        "strategies": _marked(plugins.names("strategies")),
        "unlearn": plugins.names("unlearn"),
        "protocols": plugins.names("privacy"),
        "streams": STREAMS,
        "datasets": DATASETS,
        "corpora": CORPORA,
        "tables": COLLECTIONS,
        "backbones": BACKBONES,
        "configs": {name: summary(name) for name in shipped()},
    }
    console = _console()
    for title, names in tables.items():
        if args.what in (None, title):
            width = max(map(len, names), default=0)
            console.print(f"[bold]{title}[/bold]")
            for name, text in names.items():
                console.print(f"  {name:<{width}}  {text}".rstrip(), highlight=False, markup=False, soft_wrap=True)
            if title == "strategies":
                console.print(MARKS, highlight=False, markup=False, soft_wrap=True)
    return 0


def _marked(strategies: Mapping[str, str]) -> dict[str, str]:
    """Say behind summaries what a strategy is for, and whether it trains in one process only."""
    from clearn import plugins

    marks = {**dict.fromkeys(plugins.alone(), "  [one process]"), **dict.fromkeys(plugins.readers(), "  [documents]")}
    return {name: text + marks.get(name, "") for name, text in strategies.items()}


def show(args: argparse.Namespace) -> int:
    """Print what a config will do, what a method's options are, what a run carried, or the published tables."""
    from clearn import showing

    console = _console()
    if args.what == "published":
        showing.published(console)
    elif Path(args.what).is_dir():
        showing.run(Path(args.what), console)
    elif (kind := showing.kind_of(args.what)) is not None:
        showing.method(kind, args.what, console)
    else:
        from clearn.config import load

        showing.config(load(args.what, args.overrides), console)
    return 0


def check(args: argparse.Namespace) -> int:
    """Run the conformance suite on one method."""
    from clearn import plugins

    console = _console()
    kind = args.kind or ("privacy" if args.what in plugins.names("privacy") else "strategies")
    if kind == "privacy":
        from clearn.collecting import checks as protocol_checks

        of = protocol_checks.subject(args.what, args.option)
        return _conforms(of.name, protocol_checks.run(of), console)
    from clearn import checks
    from clearn.reader import Reader
    from clearn.reading import checks as reader_checks

    named = args.what in plugins.names("strategies")
    try:
        cls = plugins.find("strategies", args.what) if named else plugins.find_reference("strategies", args.what)
        if issubclass(cls, Reader):
            reader = reader_checks.subject(args.what, args.option)
            return _conforms(reader.name, reader_checks.run(reader), console)
        subject = checks.subject(args.what, args.option)
    except UserError as error:
        if args.kind or named:
            raise
        raise UserError(f"{error}; if it is a protocol, write --kind privacy") from None
    left_out = len(checks.ALL) - len(checks.promised(subject))
    if left_out:
        console.print(
            f"{subject.name} declares that it cannot be rebuilt from its bytes, which are weighed by inspection: "
            f"{left_out} checks that rest on a rebuild are left out",
            highlight=False,
            soft_wrap=True,
        )
    return _conforms(subject.name, checks.run(subject), console)


def _conforms(name: str, results: Iterator[tuple[str, str | None]], console: Console) -> int:
    """Print a line a check; 1 where one failed."""
    failed = 0
    for promise, problem in results:
        failed += problem is not None
        mark = "[green]ok[/green]    " if problem is None else "[red]failed[/red]"
        console.print(f"{mark} {promise}", highlight=False, soft_wrap=True)
        if problem is not None:
            console.print(f"         {problem}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{name}: " + (f"{failed} checks failed" if failed else "conforms"), highlight=False)
    return 1 if failed else 0


def audit(args: argparse.Namespace) -> int:
    """Attack a protocol's device code."""
    from clearn.collecting import auditing

    console = _console()
    held = auditing.show(args.name, args.option, args.k, args.attributes, args.trials, args.rounds, console)
    return 0 if held else 1


def reproduce(args: argparse.Namespace) -> int:
    """Compare a config's measured figures with those it expects; runs that are finished are taken as they are."""
    from clearn import reproducing

    console = _console()
    if args.name is None:
        reproducing.listing(console)
        return 0
    plan = reproducing.plan(args.name, args.overrides)
    paths = []
    for number, cell in enumerate(plan.cells, start=1):
        experiment = _bound(_load_cell(args.name, [*args.overrides, *cell.overrides]))
        path = _default_folder(experiment)
        if plan.out:
            path = Path(plan.out) / path.name if cell.label else Path(plan.out)
        if cell.label:
            console.print(f"{number}/{len(plan.cells)} {cell.label}", highlight=False, soft_wrap=True)
        code = _run_one(experiment, str(path), quiet=True, again=["reproduce", args.name, *args.overrides])
        if code:
            return code
        paths.append(path)
    return 0 if reproducing.compare(plan, paths, console) else 1


def _sweep_here(source: str, overrides: Sequence[str]) -> int:
    from clearn.launch import check_alone
    from clearn.sweeping import commanding

    check_alone("a grid")
    return commanding.sweep_here(source, overrides, _console())


def _run_one(experiment: Experiment, out: str | None, quiet: bool = False, again: Sequence[str] = ()) -> int:
    """Carry out one run; say how to go on if a person stops it, by `again` where it is part of something larger."""
    from clearn.launch import launched, this_process
    from clearn.options import TrainerOptions
    from clearn.sweeping.commanding import STOPPED, stopped_words, summary
    from clearn.sweeping.launching import execute

    console = _console()
    path = Path(out) if out else _default_folder(experiment)
    if stopped := execute(experiment, path, console):
        go_on = ["-m", "clearn", *(again or ["resume", str(path)])]
        words = stopped_words(stopped, launched(experiment.asks_for or TrainerOptions(), go_on))
        console.print(words, highlight=False, soft_wrap=True)
        return STOPPED
    if not quiet and this_process().first:
        summary(path, experiment.title, console)
    return 0


def _refuse_to_go_on(experiment: Experiment, path: Path) -> None:
    """Refuse to resume what can only start anew.

    Raises:
        StateError: the strategy cannot be rebuilt, and the run has steps left.
    """
    from clearn.errors import StateError
    from clearn.folder import RunFolder

    if not experiment.no_resume(0):
        return
    whole, _ = RunFolder(path).newest()
    if whole is not None and whole.step < experiment.steps:
        reason = experiment.no_resume(whole.step)
        raise StateError(f"{reason}: repeat it with 'clearn run {path / 'config.yaml'} out={path}'")


def _bound(config: Mapping[str, Any]) -> Experiment:
    from clearn.experiment import bind

    return bind(config)


def _load_cell(source: str, overrides: Sequence[str]) -> Mapping[str, Any]:
    from clearn.config import load
    from clearn.sweeping.planning import ABOUT

    config = load(source, overrides)
    return {key: value for key, value in config.items() if key not in ABOUT}


def _default_folder(experiment: Experiment) -> Path:
    from clearn.sweeping.naming import default_folder

    return default_folder(experiment)


def _existing(path: str) -> Path:
    if not Path(path).is_dir():
        raise UserError(f"{path} is no folder: give the folder that 'clearn run' named")
    return Path(path)


def _config_of(path: Path) -> Path:
    if not (path / "config.yaml").exists():
        raise UserError(f"{path} is no run folder: it has no config.yaml; give the folder that 'clearn run' named")
    return path / "config.yaml"


def _console() -> Console:
    from rich.console import Console

    from clearn.launch import this_process

    return Console(quiet=not this_process().first)  # of several processes one speaks
