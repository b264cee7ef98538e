"""Signatures as schemas: the options of a class or function, their types, defaults and descriptions."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from clearn.mistakes import show

REQUIRED: Any = inspect.Parameter.empty  # the default of a parameter that has none


@dataclass(frozen=True)
class Parameter:
    """One option of a target: its resolved annotation and its default (`REQUIRED` if it has none)."""

    name: str
    hint: Any
    default: Any


class Option(NamedTuple):
    """A row of `clearn show METHOD`; options of a nested record follow it, with dotted names."""

    name: str
    type: str
    default: str
    about: str


def parameters(target: Callable[..., Any], skip: Sequence[str] = (), base: object = None) -> dict[str, Parameter]:
    """List what may be given to a class or function by name, annotations resolved, in order.

    Args:
        target: class or function.
        skip: names to leave out.
        base: a record of class `target`, whose values are taken as the defaults.
    """
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(target).parameters.values()
    return {
        p.name: Parameter(p.name, _hint(target, p), getattr(base, p.name, _default(target, p)))
        for p in found
        if p.kind in by_name and p.name not in skip
    }


def defaults(target: Callable[..., Any], skip: Sequence[str] = ()) -> dict[str, Any]:
    """Give every default as a plain value, as a resolved config has it; options without one are left out."""
    found = parameters(target, skip).values()
    return {p.name: plain(p.default) for p in found if p.default is not REQUIRED}


def describe(
    target: Callable[..., Any], skip: Sequence[str] = (), prefix: str = "", base: object = None
) -> list[Option]:
    """Describe each option by its type, default and the docstring's `Args` (a dataclass's `Attributes`).

    Args:
        target: class or function.
        skip: parameters that are no options.
        prefix: put before every name, e.g. "later.".
        base: a record whose values are shown as the defaults.
    """
    about, rows = _documented(target), []
    for p in parameters(target, skip, base).values():
        kind = re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", inspect.formatannotation(p.hint))
        records = [m for m in (p.hint, *typing.get_args(p.hint)) if is_record(m)]
        filled = len(records) == 1 and isinstance(p.default, records[0])  # its rows show the values
        default = "required" if p.default is REQUIRED else "" if filled else show(p.default)
        rows.append(Option(prefix + p.name, kind, default, about.get(p.name, "")))
        if len(records) == 1:
            rows += describe(records[0], (), f"{prefix}{p.name}.", p.default if filled else None)
    return rows


def plain(value: Any) -> Any:
    """Turn bound values back into what YAML and JSON hold: records to dicts, tuples to lists, paths to text.

    Raises:
        TypeError: for anything else, e.g. a tensor or a function.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise TypeError(f"a config cannot hold {value!r}, of type {type(value).__name__}")


def is_record(hint: Any) -> bool:
    """Tell whether a type is a dataclass, whose options are a mapping of their own."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _hint(target: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Resolve one annotation in the module that wrote it; the skipped ones may stay unresolvable."""
    if parameter.annotation is REQUIRED:
        return Any
    while isinstance(target, functools.partial):
        target = target.func
    function = inspect.unwrap(target.__init__ if isinstance(target, type) else target)  # type: ignore[misc]
    names = getattr(function, "__globals__", {})
    if is_record(target):
        owners = [c for c in target.__mro__ if parameter.name in vars(c).get("__annotations__", {})]  # type: ignore[attr-defined]
        names = vars(sys.modules[owners[0].__module__]) if owners else names
    holder = types.SimpleNamespace(__annotations__={"option": parameter.annotation})
    try:
        return typing.get_type_hints(holder, globalns=names)["option"]
    except (NameError, TypeError) as error:
        raise TypeError(
            f"the annotation of {target}'s option {parameter.name!r} cannot be resolved: {error}"
        ) from error


def _default(target: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    if is_record(target):
        fields = {field.name: field for field in dataclasses.fields(target)}  # type: ignore[arg-type]
        field = fields.get(parameter.name)
        if field is not None and field.default_factory is not dataclasses.MISSING:
            return field.default_factory()
    return parameter.default


def _documented(target: Callable[..., Any]) -> dict[str, str]:
    """Read the `Args:` or `Attributes:` of a Google docstring: option -> its text on one line."""
    docs = [inspect.getdoc(target) or ""]
    if isinstance(target, type):
        docs.append(inspect.getdoc(target.__init__) or "")  # type: ignore[misc]
        docs += [inspect.cleandoc(base.__doc__ or "") for base in target.__mro__[1:]]  # whose options it inherits
    about: dict[str, str] = {}
    for doc in docs:
        for block in re.findall(r"^(?:Args|Attributes):\n((?:[ ]+.*\n?|\n)+)", doc, flags=re.MULTILINE):
            indent = len(block) - len(block.lstrip(" "))
            for entry in re.split(rf"^ {{{indent}}}(?=\S)", block, flags=re.MULTILINE)[1:]:
                name, _, text = entry.partition(":")
                about.setdefault(name.split("(")[0].strip().lstrip("*"), " ".join(text.split()))
    return about
