"""The command line: parses, calls, and turns mistakes into one clear message and an exit code.

Exit codes: 0 done, 2 a user's mistake (one message, no traceback), 1 a fault of ours, a check that fails or a sweep in
which a run failed, 130 stopped by Ctrl-C. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from clearn.errors import UserError

RANK_WAITS = 10.0  # seconds

RUN_EPILOG = """examples:
  clearn run quickstart
  clearn run class_incremental/memo_fashion_mnist budget.bytes=1MiB seed=1
  clearn run my.yaml strategy=icarl out=runs/icarl"""

SWEEP_EPILOG = """examples:
  clearn sweep sweeps/budget_curve_digits --workers 2
  clearn sweep my.yaml 'grid={strategy.name: [icarl, memo], budget.bytes: [1MiB, 4MiB], seed: [0, 1, 2]}'
  clearn sweep runs/budget_curve_digits    go on with what lies in a folder
  clearn sweep my.yaml --slurm sweep.slurm.minutes=120"""


def parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    top = argparse.ArgumentParser(
        prog="clearn",
        description="Continual learning under byte budgets: what is carried is weighed, and nothing else is carried.",
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def add(name: str, text: str, epilog: str | None = None) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=text, description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    run = add("run", "run a config; a folder that holds an unfinished run of it is gone on with", RUN_EPILOG)
    run.add_argument("config", help="a YAML file, or the name of a shipped config ('clearn list configs')")
    run.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. budget.bytes=4MiB strategy=icarl seed=3")

    sweep = add(
        "sweep", "run a grid or a list of runs side by side, or on a cluster; what is finished is left", SWEEP_EPILOG
    )
    sweep.add_argument("config", help="a config with a grid, or the folder of a sweep to go on with")
    where = sweep.add_mutually_exclusive_group()
    where.add_argument("--workers", type=_count, metavar="N", help="processes on this machine (default: sweep.workers)")
    where.add_argument("--slurm", action="store_true", help="on a SLURM cluster, with what sweep.slurm asks for")
    sweep.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. grid.seed=[0,1,2] sweep.workers=4")

    resume = add("resume", "go on with a run that was stopped, bit for bit")
    resume.add_argument("run", help="a run folder, or a folder of a grid")

    fork = add("fork", "go on from a task of an earlier run with something changed; the earlier run is left as it is")
    fork.add_argument("run", help="the run folder to start from")
    fork.add_argument("--after", type=int, required=True, metavar="K", help="how many tasks to take over")
    fork.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what to change, e.g. strategy.later.lr=0.01")

    unlearn = add("unlearn", "make a run's model forget samples or classes, in a new folder; the run is left as it is")
    unlearn.add_argument("run", help="the run folder to start from, or a folder of runs")
    what = unlearn.add_mutually_exclusive_group(required=True)
    what.add_argument("--forget", metavar="FILE", help="numbers of training samples, one a line, in the stream's order")
    what.add_argument(
        "--classes", type=int, nargs="+", metavar="LABEL", help="whole classes, as the stream numbers them"
    )
    what.add_argument("--column", metavar="NAME", help="training samples by a column of the data, with --values")
    unlearn.add_argument("--values", nargs="+", metavar="VALUE", help="of that column; KEY=VALUE goes before it")
    unlearn.add_argument("--method", required=True, metavar="NAME[,NAME]", help="unlearners ('clearn list unlearn')")
    unlearn.add_argument(
        "--no-look-back", action="store_true", help="the training samples that stay may not be read again"
    )
    unlearn.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. unlearner.alpha=5 out=runs/forgot")

    report = add("report", "compare runs: a table here, and Markdown, CSV and one HTML page on request")
    report.add_argument("runs", nargs="+", help="run folders, or folders of them")
    report.add_argument("--curve", action="store_true", help="also accuracy at each budget, and the areas under it")
    report.add_argument("--html", metavar="FILE", help="write one self-contained page")
    report.add_argument("--markdown", metavar="FILE", help="write the tables as Markdown")
    report.add_argument("--csv", metavar="FILE", help="write the table as CSV, bytes exact")
    report.add_argument("--title", default="clearn", help="of the page")

    listing = add("list", "what there is: methods, streams, data, backbones, configs")
    kinds = ("strategies", "unlearn", "protocols", "streams", "datasets", "corpora", "tables", "backbones", "configs")
    listing.add_argument("what", nargs="?", choices=kinds)

    show = add("show", "look before you run: a config's stream, parameters, bytes and exemplar quota at every step")
    show.add_argument(
        "what", help="a config, a method's name, a run folder, or 'published' for the published budget tables"
    )
    show.add_argument("overrides", nargs="*", metavar="KEY=VALUE")

    check = add("check", "hold a method to the conformance suite")
    check.add_argument("what", help="a method's name, or a module of yours: mypkg.mymethod or mypkg.mymethod:MyClass")
    check.add_argument("--kind", choices=("strategies", "privacy"), help="of a module of yours (default: strategies)")
    check.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="an option of its constructor"
    )

    audit = add("audit", "attack a privacy protocol's own device code, and print the loss that this proves")
    audit.add_argument("name", help="a protocol's name ('clearn list protocols')")
    audit.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="e.g. eps_inf=2")
    audit.add_argument("--k", type=_count, default=25, help="values of each attribute (default: 25)")
    audit.add_argument("--attributes", type=_count, default=1, help="how many (default: 1)")
    audit.add_argument("--trials", type=_count, default=1_000_000, help="devices of either kind (default: 1000000)")
    audit.add_argument("--rounds", type=_count, default=1, help="reports of each, of one unchanged value (default: 1)")

    reproduce = add("reproduce", "run a config that states an expected figure, and compare; without a name: list them")
    reproduce.add_argument("name", nargs="?", help="e.g. class_incremental/parity/memo")
    reproduce.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    return top


def _count(text: str) -> int:
    """Read a whole number of at least 1, also as 1e6."""
    try:
        value = float(text)
    except ValueError:
        value = 0.5
    if not value.is_integer() or value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number of at least 1, e.g. 1000000 or 1e6")
    return int(value)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; give the exit code."""
    arguments = parser()
    args, unknown = arguments.parse_known_args(argv)
    overrides = [word for word in unknown if "=" in word and not word.startswith("-")]
    if len(overrides) != len(unknown) or (overrides and not hasattr(args, "overrides")):
        arguments.error(f"unknown arguments: {' '.join(w for w in unknown if w not in overrides) or ' '.join(unknown)}")
    if overrides:
        args.overrides = [*args.overrides, *overrides]
    if args.version:
        from importlib.metadata import version

        sys.stdout.write(f"clearn {version('clearn')}\n")
        return 0
    if args.command is None:
        arguments.print_help()
        return 2
    try:
        from clearn import commands
        from clearn.launch import check_alone, quieten

        quieten()
        if args.command not in ("run", "resume"):
            check_alone(args.command)
        result: int = getattr(commands, args.command.replace("list", "list_"))(args)
    except UserError as error:
        _complain(_by_rank(str(error)))
        return 2
    except KeyboardInterrupt:
        _complain("stopped by Ctrl-C before anything was learned")
        return 130
    except BrokenPipeError:
        return 0
    return result


def _by_rank(text: str) -> str:
    """Leave it to rank 0 to say what all ranks find: when one ends, torchrun ends the others that still wait here."""
    from clearn.launch import this_process

    process = this_process()
    if process.first:
        return text
    time.sleep(RANK_WAITS)
    return f"rank {process.rank}: {text}"


def _complain(text: str) -> None:
    sys.stderr.write(f"clearn: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
