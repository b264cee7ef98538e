"""Methods by name: a file beside the engine, or an entry point of an installed package.

`strategies/memo.py` is the strategy `memo`: its one public class that derives from the base of its kind. A
file of several methods says so in a literal, `__methods__ = {"grr": "RandomizedResponse", ...}`, name: class;
`{}` means it holds none at all. Listing reads the files without importing them, so it needs no torch.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from clearn.errors import ConfigError, UserError
from clearn.mistakes import nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ROOT = Path(__file__).resolve().parent.parent  # the folder that holds clearn and the method folders


@dataclass(frozen=True)
class Kind:
    """A folder of methods.

    Attributes:
        section: of a config, which names one of them.
        base: "module:class" that all derive from, imported only when a method is.
        given: constructor parameters that the engine gives; they are no options.
        listed: the word after `clearn list`, where it is not the kind.
    """

    section: str
    base: str
    given: tuple[str, ...] = ()
    listed: str = ""


KINDS = {
    "strategies": Kind("strategy", "clearn.learner:Learner", ("inputs",)),
    "unlearn": Kind("unlearner", "clearn.unlearner:Unlearner"),
    "privacy": Kind("protocol", "clearn.frequency:FrequencyProtocol", ("domains",), "protocols"),
}


@dataclass(frozen=True)
class _Shipped:
    """A method of ours.

    Attributes:
        path: its file.
        cls: its class; None for the only one there.
        summary: on one line.
        reader: whether it reads documents.
        alone: why several processes cannot train it together; see `clearn.learner.Learner`.
    """

    path: Path
    cls: str | None
    summary: str
    reader: bool = False
    alone: str = ""


def names(kind: str) -> dict[str, str]:
    """List the methods of a kind, ours and those of installed packages, each with one line on what it is.

    Args:
        kind: "strategies", "unlearn" or "privacy".

    Returns:
        Name -> summary, sorted by name. Nothing is imported.
    """
    listed = {name: f"from {_owner(point)} ({point.value})" for name, point in _entry_points(kind)}
    listed.update({name: method.summary for name, method in _shipped(kind).items()})
    return dict(sorted(listed.items()))


def readers() -> frozenset[str]:
    """Which of our strategies read documents and answer questions; the others classify samples. Nothing is imported."""
    return frozenset(name for name, method in _shipped("strategies").items() if method.reader)


def alone() -> dict[str, str]:
    """Which of our strategies several processes cannot train in shares, some by default alone, and why."""
    return {name: method.alone for name, method in _shipped("strategies").items() if method.alone}


def find(kind: str, name: str) -> type:
    """Import a method's class by its name.

    Raises:
        ConfigError: if there is no such method, or the name is an import path, which a config may not hold.
        UserError: if two packages offer the name, its package is hidden by another, or it cannot be imported.
    """
    section, ours = KINDS[kind].section, _shipped(kind)
    theirs = [point for other, point in _entry_points(kind) if other == name]
    owners = [f"clearn ({kind}/{ours[name].path.name})"] if name in ours else []
    owners += [_owner(point) for point in theirs]
    if len(owners) > 1:
        raise UserError(f"{section} {name!r} is offered by {' and '.join(owners)}: uninstall all but one")
    if name in ours:
        _check_sibling(kind)
        method = ours[name]
        return _class(kind, _import_ours(f"{kind}.{method.path.stem}", f"{section} {name!r}"), method.cls)
    if theirs:
        module = _import_theirs(theirs[0].module, f"{section} {name!r} of {owners[0]}")
        return _class(kind, module, theirs[0].attr or None)
    if any(mark in name for mark in ".:/"):
        right = f"register the class under the entry-point group clearn.{kind}"
        raise ConfigError(f"{section} {name!r} is not a name: a config holds no import path; {right}")
    hint = nearest(name, names(kind)) or "it may be misspelt or not installed"
    raise ConfigError(
        f"{section} {name!r} is unknown; {hint}; 'clearn list {KINDS[kind].listed or kind}' shows them all"
    )


def find_reference(kind: str, reference: str) -> type:
    """Import a third party's class by "module:class", or "module" where it has only one; never for a config.

    Raises:
        UserError: if it cannot be imported or is not a method of this kind.
    """
    path, _, cls = reference.partition(":")
    if not all(part.isidentifier() for part in path.split(".")):
        raise UserError(f"{reference!r} is no import path: write module:class, e.g. my_package.replay:Replay")
    return _class(kind, _import_theirs(path, repr(reference)), cls or None)


def _shipped(kind: str) -> dict[str, _Shipped]:
    """Read the method folder of a kind: method name -> where it is."""
    return _read(tuple((path, path.stat().st_mtime_ns) for path in sorted((ROOT / kind).glob("[!_]*.py"))))


@cache
def _read(files: tuple[tuple[Path, int], ...]) -> dict[str, _Shipped]:
    """Read method files; each as long as its time of change stays."""
    found: dict[str, _Shipped] = {}
    for path, _ in files:
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError as error:
            found[path.stem] = _Shipped(path, None, f"cannot be read: syntax error in line {error.lineno}")
            continue
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        family = _family(tree)
        if family is not None:
            for name, cls in family.items():
                found[name] = _Shipped(path, cls, _first_line(classes.get(cls, tree)))
        elif public := [node for name, node in classes.items() if node.bases and not name.startswith("_")]:
            bases = {getattr(base, "id", "") for node in public for base in node.bases}
            found[path.stem] = _Shipped(path, None, _first_line(tree), "Reader" in bases, _why_alone(tree))
    return found


def _why_alone(tree: ast.Module) -> str:
    """Read what a class, or its constructor under some options, calls `alone`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            names = {getattr(target, "attr", getattr(target, "id", "")) for target in node.targets}
            value = node.value.body if isinstance(node.value, ast.IfExp) else node.value
            if names == {"alone"} and isinstance(value, ast.Constant):
                return str(value.value)
    return ""


def _family(tree: ast.Module) -> dict[str, str] | None:
    """Read `__methods__` without running the file; None where there is no such literal."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if value is not None and any(isinstance(t, ast.Name) and t.id == "__methods__" for t in targets):
            return dict(ast.literal_eval(value))
    return None


def _first_line(node: ast.Module | ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").split("\n", 1)[0].strip()


def _entry_points(kind: str) -> Iterator[tuple[str, EntryPoint]]:
    for point in _points(kind, tuple(sys.path)):
        yield point.name, point


@cache
def _points(kind: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """What the packages on the import path offer; finding it takes some ten milliseconds."""
    from importlib.metadata import entry_points

    return tuple(sorted(entry_points(group=f"clearn.{kind}"), key=lambda p: (p.name, p.value)))


def _owner(point: EntryPoint) -> str:
    return f"package {point.dist.name}" if point.dist is not None else f"module {point.module}"


def _check_sibling(kind: str) -> None:
    """Make sure that importing `kind` finds the folder beside clearn, since others may use that word too."""
    wanted = ROOT / kind
    try:
        spec = importlib.util.find_spec(kind)
    except ValueError:  # a stand-in without a spec in sys.modules
        spec = None
    found = [Path(p).resolve() for p in (spec.submodule_search_locations or [])] if spec else []
    if found[:1] == [wanted]:
        return
    if spec is None:
        raise UserError(f"the folder {wanted} cannot be imported: put {ROOT} on the Python path, or install clearn")
    hiding = found[0] if found else spec.origin
    raise UserError(
        f"the package {kind!r} is found at {hiding}, which hides clearn's own at {wanted}: "
        f"rename it, or run from another folder"
    )


def _import_ours(path: str, what: str) -> ModuleType:
    """Import a method file; an absent third-party package is the user's to mend, other faults are ours."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if (error.name or "clearn").partition(".")[0] in ("clearn", *KINDS):
            raise
        raise UserError(f"{what} needs the package {error.name!r}, which is missing: install it") from error


def _import_theirs(path: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ImportError as error:
        raise UserError(f"{what} cannot be imported ({error}): install or mend that package") from error


def _class(kind: str, module: ModuleType, name: str | None) -> type:
    """Take the named class of a module, or its only public one of this kind."""
    home, _, attribute = KINDS[kind].base.partition(":")
    base: type = getattr(importlib.import_module(home), attribute)
    if name is not None:
        cls = getattr(module, name, None)
        if not (inspect.isclass(cls) and issubclass(cls, base)):
            raise UserError(f"{module.__name__}:{name} must be a class derived from {home}.{attribute}, got {cls!r}")
        return cls
    own = [cls for cls in vars(module).values() if inspect.isclass(cls) and cls.__module__ == module.__name__]
    found = [cls for cls in own if issubclass(cls, base) and not cls.__name__.startswith("_")]
    if len(found) != 1:
        got = ", ".join(cls.__name__ for cls in found) or "none"
        right = f"must define exactly one public class derived from {home}.{attribute}"
        raise UserError(f"{module.__name__} {right}, or list them in __methods__; got {got}")
    return found[0]
