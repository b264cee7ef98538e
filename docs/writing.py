"""The generated pages of the site: one a method, the listings, the command line, the expected figures, the budgets.

Everything comes from where `clearn list` and `clearn show` have it: docstrings, constructors, shipped configs, the
ledger, and the tables in docs/results. Nothing is trained.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from measured import results
from typesetting import code, one_line, paragraphs, prose, table

from clearn import plugins

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = {"Strategies": "strategies", "Unlearners": "unlearn", "Protocols": "privacy"}
HEADS = {
    "strategies": "Each learns a stream of tasks, or reads one of documents, and is weighed after every task.",
    "unlearn": "Each answers requests to forget, in a stream or after it: see [unlearning](../../unlearning.md).",
    "privacy": "Each asks users for a value, round after round: see [privacy](../../privacy.md).",
}
MODULES = (
    "strategy",
    "learner",
    "reader",
    "unlearner",
    "frequency",
    "context",
    "recipe",
    "stream",
    "streams",
    "state",
    "ledger",
    "metrics",
    "checks",
)
"""Public modules that have a page of their own; those of `clearn.parts` follow."""
USERS, VALUES = 10_000, 25  # of the table on a protocol's page


LISTED = (*SECTIONS, "API")


def listed(section: str) -> list[tuple[str, str]]:
    """(name, path) of a section's generated pages, the overview first."""
    if section == "API":
        return [(f"clearn.{name}", f"api/{name}.md") for name in (*MODULES, "parts")]
    kind = SECTIONS[section]
    return [("Overview", f"methods/{kind}/index.md"), *((n, f"methods/{kind}/{n}.md") for n in plugins.names(kind))]


@cache
def pages() -> dict[str, str]:
    """Write every generated page: path -> Markdown."""
    found = {"commands.md": commands(), "configs.md": configs(), **api()}
    for section, kind in SECTIONS.items():
        found[f"methods/{kind}/index.md"] = overview(section, kind)
        for name in plugins.names(kind):
            found[f"methods/{kind}/{name}.md"] = method(kind, name)
    return found


def filled(markdown: str) -> str:
    """Put generated tables where a page asks for them."""
    tables = {"reproduce": reproduce, "budgets": budgets}
    return re.sub(r"<!-- generated: (\w+) -->", lambda found: tables[found[1]](), markdown)


def overview(section: str, kind: str) -> str:
    """List the methods of a kind."""
    rows = [[f"[{code(name)}]({name}.md)", prose(text)] for name, text in plugins.names(kind).items()]
    return "\n".join([f"# {section}", "", HEADS[kind], "", *table(("name", "what it is"), rows)])


def method(kind: str, name: str) -> str:
    """A method's page: idea, what it keeps and weighs, options, configs, measured results."""
    cls = plugins.find(kind, name)
    lines = [f"# {code(name)}", "", *described(cls, plugins.names(kind)[name])]
    if kind == "privacy":
        lines += closed_forms(name)
    elif kind == "strategies":
        lines += structure(cls)
    lines += options(kind, cls)
    lines += ["## Try it", "", "```sh", *commands_for(kind, name), "```", ""]
    lines += results(name)
    return "\n".join(lines)


def described(cls: type, summary: str) -> list[str]:
    """The docstrings of a method's file and class; what it keeps under a heading of its own."""
    module = inspect.cleandoc(inspect.getmodule(cls).__doc__ or "").split("\n\n")  # type: ignore[union-attr]
    own = inspect.cleandoc(cls.__doc__ or "").partition("\nArgs:")[0].strip().split("\n\n")
    parts = {one_line(part): part for part in (summary, module[0], *own, *module[1:])}  # each once
    kept = [part for part in parts.values() if KEEPS.match(part)]
    lines = paragraphs(part for part in parts.values() if part not in kept)
    if kept:
        lines += ["## What it keeps", "", *paragraphs(kept)]
    return lines


KEEPS = re.compile(r"(Carried|Kept|Keeps|A device keeps|Carries)\b")


def structure(cls: type) -> list[str]:
    """Bytes of the bare network on CIFAR-100, ten tasks of ten classes, by ledger category; exemplars come on top."""
    from clearn.parts.rehearsal import Rehearsal
    from clearn.strategy import Strategy
    from clearn.stream import Inputs, TaskInfo

    if not issubclass(cls, Strategy) or not cls.rebuilds or "backbone" not in inspect.signature(cls).parameters:
        return []
    learner = cls(Inputs((3, 32, 32)))  # type: ignore[call-arg]
    found: dict[int, dict[str, int]] = {}
    for index in range(10):
        learner.grow(TaskInfo(index, tuple(range(10 * index, 10 * index + 10))))
        totals = found.setdefault(index + 1, {})
        for name, value in learner.model_state().items():
            totals[learner.category(name)] = totals.get(learner.category(name), 0) + value.nbytes
    categories = list(found[10])
    rows = [
        [str(task), *(f"{found[task].get(name, 0):,}" for name in categories), f"{sum(found[task].values()):,}"]
        for task in (1, 2, 5, 10)
    ]
    lines = [
        "### On CIFAR-100, ten tasks of ten classes",
        "",
        "Bytes of the structure by ledger category, with the options' defaults; nothing is trained for this table.",
        "",
        *table(("after task", *categories, "together"), rows),
    ]
    if isinstance(learner.memory, Rehearsal):
        item = learner.memory.exemplars.item_cost(100)
        lines += [f"Each exemplar costs {item:,} bytes more, pixels and label; they fill what a budget leaves.", ""]
    return lines


def closed_forms(name: str) -> list[str]:
    """Error, loss and cost of a protocol, all in closed form."""
    from clearn import protocol
    from clearn.errors import ConfigError
    from clearn.frequency.accounting import cost

    domains: tuple[int, ...] = (VALUES,)
    try:
        made = protocol(name, domains)
    except ConfigError:  # it hides one attribute among several
        domains = (VALUES, VALUES)
        made = protocol(name, domains)
    answering = USERS if made.asks == "all" else USERS * float(made.shares[0])
    paid = cost(made, USERS, 100)
    over = f"{VALUES} values" if len(domains) == 1 else f"two attributes of {VALUES} values"
    rows = [
        [
            f"standard deviation of a rare value's estimate, {USERS:,} users",
            f"{float(made.variance(0, answering).mean()) ** 0.5:.4f}",
        ],
        ["loss of the first report", f"{made.loss(1):.3f}"],
        ["loss of 100 reports of one value", f"{made.loss(100):.3f}"],
        ["loss for ever, every value met", f"{made.loss_for_ever():.3f}"],
        ["secret bits on a device, at most", f"{paid.client_worst:,}"],
        ["bits a round", f"{paid.bits_round:,.1f}"],
    ]
    head = f"With the defaults, over {over}; `clearn show CONFIG` prints the same for your table."
    return ["## What it costs", "", head, "", *table(("figure", "value"), rows)]


def options(kind: str, cls: type) -> list[str]:
    """The constructor's options; those of nested records folded away."""
    from clearn.config import describe

    found = describe(cls, skip=plugins.KINDS[kind].given)
    if not found:
        return ["## Options", "", "None.", ""]
    cells = [[code(name), code(hint), code(default), prose(about)] for name, hint, default, about in found]
    plain = [row for row, option in zip(cells, found, strict=True) if "." not in option.name]
    nested = [row for row, option in zip(cells, found, strict=True) if "." in option.name]
    head = ("option", "type", "default", "meaning")
    lines = ["## Options", "", *table(head, plain)]
    if nested:
        inner = [f"    {line}".rstrip() for line in table(head, nested)]
        lines += [f'??? note "Options of {", ".join(records(found))}"', "", *inner, ""]
    return lines


def records(found: Sequence[Any]) -> list[str]:
    """Names of options that have options of their own."""
    return list(dict.fromkeys(code(option.name.partition(".")[0]) for option in found if "." in option.name))


def commands_for(kind: str, name: str) -> list[str]:
    """Shipped configs that are about a method, and how it is checked."""
    from clearn.config import shipped

    own = [config for config in shipped() if re.match(rf"{name}(_|$)", config.rpartition("/")[2])]
    own = [config for config in own if "/common" not in config]
    verb = "reproduce" if kind == "strategies" else "run"
    lines = [f"clearn {verb if '/published/' in config or '/parity/' in config else 'run'} {config}" for config in own]
    section = plugins.KINDS[kind].section
    example = {"strategies": "quickstart", "unlearn": "unlearning/class_digits", "privacy": "ldp/allomfree_nursery"}[
        kind
    ]
    if not own and kind != "strategies":
        lines = [f"clearn run {example} {section}={name}"]
    check = [] if kind == "unlearn" else [f"clearn check {name}"]
    return [f"clearn show {name}", *lines, *check]


def commands() -> str:
    """The command line's own help."""
    from clearn.cli import parser

    top = parser()
    lines = ["# Command line", "", "```text", _help(top), "```", ""]
    (subparsers,) = (one for one in top._actions if isinstance(one, argparse._SubParsersAction))
    for name, command in subparsers.choices.items():
        lines += [f"## clearn {name}", "", "```text", _help(command), "```", ""]
    return "\n".join(lines)


def _help(command: argparse.ArgumentParser) -> str:
    command.formatter_class = _formatter(command.formatter_class)
    command.prog = re.sub(r"^\S+", "clearn", command.prog)
    return command.format_help().rstrip()


def _formatter(base: Any) -> Any:
    return lambda prog: base(prog, width=100)


def api() -> dict[str, str]:
    """A page each public module; mkdocstrings reads them without importing."""
    found = {f"api/{name}.md": f"# clearn.{name}\n\n::: clearn.{name}\n" for name in MODULES}
    rows = []
    for path in sorted((ROOT / "clearn" / "parts").glob("[!_]*")):
        if path.suffix == ".py" or (path / "__init__.py").exists():
            source = path if path.suffix else path / "__init__.py"
            summary = (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            rows.append([f"[{code(path.stem)}](parts/{path.stem}.md)", prose(summary)])
            found[f"api/parts/{path.stem}.md"] = f"# clearn.parts.{path.stem}\n\n::: clearn.parts.{path.stem}\n"
    head = "Method-agnostic bricks: a method of yours may take them, or bring its own."
    found["api/parts.md"] = "\n".join(["# clearn.parts", "", head, "", *table(("module", "what is in it"), rows)])
    return found


def configs() -> str:
    """The shipped configs by folder."""
    from clearn.config import shipped, summary

    lines = ["# Shipped configs", "", "`clearn show NAME` prints one resolved, with its stream and bytes.", ""]
    folders: dict[str, list[str]] = {}
    for name in shipped():
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    for folder, names in folders.items():
        lines += [
            f"## {folder or 'top'}",
            "",
            *table(("config", "what it is"), ([code(n), prose(summary(n))] for n in names)),
        ]
    return "\n".join(lines)


def reproduce() -> str:
    """Configs that state an expected figure."""
    from clearn.config import load, shipped
    from clearn.reproducing import plan

    rows = []
    for name in shipped():
        if "expects" in load(name):
            expects = plan(name).expects
            figures = ", ".join(f"{readout} {value:.1f}" for readout, value in expects.figures.items())
            rows.append(
                [code(name), figures, f"{expects.tolerance:g}", prose(expects.source), expects.verified or "not yet"]
            )
    return "\n".join(table(("config", "average accuracy %", "within", "published in", "verified"), rows))


def budgets() -> str:
    """The published protocols, as `clearn show published` has them."""
    from clearn.published_tables import HEAD, tables
    from clearn.report.plain import markdown_part

    lines = [line for rows, part in tables() for line in markdown_part(rows, part)]
    return "\n".join([HEAD.rpartition("\nTo run")[0].replace("\n", " "), "", *lines])
