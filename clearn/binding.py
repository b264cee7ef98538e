"""Options bound to signatures: a constructor's parameters are the schema of its part of a config.

`bind` takes a mapping of plain values (what YAML holds) and gives keyword arguments of the annotated types.
It does not stop at the first mistake: all go to a list, and `clearn.mistakes.raise_all` makes them one error.
"""

from __future__ import annotations

import collections.abc
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from clearn.mistakes import Mistake, join, listing, nearest, show
from clearn.signatures import REQUIRED, is_record, parameters

T = TypeVar("T")
_WRONG: Any = object()  # what a reader returns for a value it does not accept
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_BOOLS = ("true", "True", "false", "False")
_LISTS = (list, tuple, collections.abc.Sequence)
_DICTS = (dict, collections.abc.Mapping)


def bind(
    target: Callable[..., Any],
    options: Mapping[str, Any],
    where: str,
    errors: list[Mistake],
    skip: Sequence[str] = (),
    base: object = None,
) -> dict[str, Any]:
    """Read plain values as keyword arguments of a class or function.

    Args:
        target: its signature is the schema. `*args` and `**kwargs` hold no options.
        options: as YAML gives them, without the section's `name`.
        where: dotted key of the mapping, e.g. "strategy"; "" at the top.
        errors: every missing, unknown or ill-typed option is appended here; nothing is raised for them.
        skip: parameters that the engine gives itself; as options they are unknown.
        base: a record whose values stand in for the defaults: of `later: Recipe = Recipe(epochs=170)`, a
            config that gives `later: {lr: 0.1}` keeps the 170 epochs.

    Returns:
        Arguments in the signature's order, defaults filled in; complete if nothing was appended to `errors`.
    """
    if not isinstance(options, Mapping):
        errors.append(Mistake("", where, show(options), "must be a mapping of options"))
        return {}
    known = parameters(target, skip, base)
    bound = {name: parameter.default for name, parameter in known.items()}
    for name, value in options.items():
        key = join(where, name)
        if name in known:
            bound[name], wrong = _read(known[name].hint, value, key, known[name].default)
            errors += wrong
        else:
            hint = nearest(name, known) or listing(known)
            errors.append(Mistake("", key, show(value), "but there is no such option", hint))
    for name, value in bound.items():
        if value is REQUIRED:
            right = f"must be {wanted(known[name].hint)}"
            hint = "it has no default, so give a value"
            errors.append(Mistake("", join(where, name), "nothing", right, hint))
    return {name: value for name, value in bound.items() if value is not REQUIRED}


def build(
    cls: type[T], options: Mapping[str, Any], where: str, errors: list[Mistake], base: T | None = None
) -> T | None:
    """Bind the options of a dataclass and make it; a ValueError of its `__post_init__` becomes mistakes.

    Args:
        cls: the dataclass.
        options: as for `bind`, like `where` and `errors`.
        where: dotted key of the mapping.
        errors: mistakes are appended here.
        base: a record whose values stand in for the class's defaults.

    Returns:
        The record, or None if anything was appended to `errors`.
    """
    before = len(errors)
    bound = bind(cls, options, where, errors, base=base)
    if len(errors) > before:
        return None
    try:
        return cls(**bound)
    except ValueError as error:
        for message in re.split(r"; (?=\w+=)", str(error)):  # "devices=0 must ...": blame that option's line
            option = re.match(r"(\w+)=", message)
            key = join(where, option[1]) if option and option[1] in bound else where
            errors.append(Mistake("", key, "", message))
        return None


def coerce(value: Any, hint: Any, key: str, errors: list[Mistake]) -> Any:
    """Read one plain value as the annotated type, appending what is wrong with it to `errors`."""
    result, wrong = _read(hint, value, key)
    errors.extend(wrong)
    return result


def wanted(hint: Any) -> str:
    """Say in words what a type accepts, e.g. "an int or null"."""
    origin_, args = typing.get_origin(hint), typing.get_args(hint)
    words = {bool: "true or false", int: "an int", float: "a number", str: "a string", Path: "a path"}
    if hint in words:
        return words[hint]
    if hint is None or hint is types.NoneType:
        return "null"
    if origin_ in (typing.Union, types.UnionType):
        members = [wanted(member) for member in args]
        return ", ".join(members[:-1]) + " or " + members[-1]
    if origin_ is Literal:
        return show(args[0]) if len(args) == 1 else "one of " + ", ".join(show(a) for a in args)
    if (origin_ or hint) in _LISTS:
        if (origin_ or hint) is tuple and args and args[-1] is not Ellipsis:
            return f"a list of {len(args)} values ({', '.join(wanted(a) for a in args)})"
        return f"a list ({wanted(args[0])} each)" if args else "a list"
    if (origin_ or hint) in _DICTS:
        return f"a mapping ({wanted(args[1])} each)" if args else "a mapping"
    if is_record(hint):
        return f"a mapping with the options {', '.join(parameters(hint))}"
    return "any value" if hint in (Any, object) else "left out (it cannot be set from a config)"


def _read(hint: Any, value: Any, key: str, base: object = None) -> tuple[Any, list[Mistake]]:
    """Read a value as a type, with the mistakes in it; `base` is the default, where that is a record."""
    origin_, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in (Any, object):
        return value, []
    if origin_ in (typing.Union, types.UnionType):
        return _read_union(hint, value, key, base)
    if is_record(hint):
        return _read_record(hint, value, key, base)
    if (origin_ or hint) in _LISTS and isinstance(value, list | tuple):
        return _read_list(hint, value, key)
    if (origin_ or hint) in _DICTS and isinstance(value, Mapping):
        return _read_dict(hint, value, key)
    if origin_ is Literal:
        result = next((a for a in args if type(a) is type(value) and a == value), _WRONG)
    else:
        result = _READERS[hint](value) if hint in _READERS else _WRONG
    if result is _WRONG:
        return value, [Mistake("", key, show(value), f"must be {wanted(hint)}", _advice(hint, value))]
    return result, []


def _read_union(hint: Any, value: Any, key: str, base: object) -> tuple[Any, list[Mistake]]:
    """Take the member that keeps the value as it is, else the first that accepts it."""
    tried = [(member, *_read(member, value, key, base)) for member in typing.get_args(hint)]
    accepted = [result for _, result, wrong in tried if not wrong]
    if accepted:
        return next((r for r in accepted if type(r) is type(value) and r == value), accepted[0]), []
    inside = [wrong for member, _, wrong in tried if _looks_into(member, value)]
    if len(inside) == 1:  # say what is wrong within the one member of this form
        return value, inside[0]
    advice = next((a for member in typing.get_args(hint) if (a := _advice(member, value))), "")
    return value, [Mistake("", key, show(value), f"must be {wanted(hint)}", advice)]


def _read_record(hint: Any, value: Any, key: str, base: object) -> tuple[Any, list[Mistake]]:
    if isinstance(value, hint):
        return value, []
    if not isinstance(value, Mapping):
        return value, [Mistake("", key, show(value), f"must be {wanted(hint)}")]
    errors: list[Mistake] = []
    return build(hint, value, key, errors, base if isinstance(base, hint) else None), errors


def _read_list(hint: Any, value: Sequence[Any], key: str) -> tuple[Any, list[Mistake]]:
    form, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if form is tuple and args and args[-1] is not Ellipsis:
        if len(value) != len(args):
            return value, [Mistake("", key, show(value), f"must be {wanted(hint)}")]
        kinds = list(args)
    else:
        kinds = [args[0] if args else Any] * len(value)
    errors: list[Mistake] = []
    items = [coerce(item, kind, f"{key}[{i}]", errors) for i, (item, kind) in enumerate(zip(value, kinds, strict=True))]
    return items if form is list else tuple(items), errors


def _read_dict(hint: Any, value: Mapping[Any, Any], key: str) -> tuple[Any, list[Mistake]]:
    kind = (typing.get_args(hint) or (str, Any))[1]
    odd = [name for name in value if not isinstance(name, str)]
    right = "but keys must be strings"
    errors = [Mistake("", join(key, name), show(name), right, "write it in quotes") for name in odd]
    return {name: coerce(item, kind, join(key, name), errors) for name, item in value.items()}, errors


def _read_int(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else _WRONG


def _read_float(value: Any) -> Any:
    if isinstance(value, str):  # 1e-3 in quotes, or through a YAML reader that wants 1.0e-3
        return float(value) if _NUMBER.fullmatch(value) else _WRONG
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _WRONG
    try:
        number = float(value)
    except OverflowError:
        return _WRONG
    return _WRONG if math.isnan(number) else number


_READERS: dict[Any, Callable[[Any], Any]] = {
    bool: lambda value: value if isinstance(value, bool) else _WRONG,
    int: _read_int,
    float: _read_float,
    str: lambda value: value if isinstance(value, str) else _WRONG,
    Path: lambda value: Path(value) if isinstance(value, str | Path) and str(value) else _WRONG,
    None: lambda value: None if value is None else _WRONG,
    types.NoneType: lambda value: None if value is None else _WRONG,
}


def _advice(hint: Any, value: Any) -> str:
    """Say what to do about a value of the wrong type, or nothing where that is plain."""
    texts = [a for a in typing.get_args(hint) if isinstance(a, str)] if typing.get_origin(hint) is Literal else []
    if isinstance(value, bool) and (texts or hint is str):
        return "YAML reads yes, no, on and off as true or false, so write it in quotes"
    if isinstance(value, str) and texts:
        return nearest(value, texts)
    unquoted = (hint is int and _NUMBER.fullmatch(str(value))) or (hint is bool and value in _BOOLS)
    if isinstance(value, str) and unquoted:
        return "write it without quotes"
    if isinstance(value, int | float) and hint is str:
        return "write it in quotes"
    if (typing.get_origin(hint) or hint) in _LISTS and not isinstance(value, Mapping | None):
        return f"write [{value}]"
    return ""


def _looks_into(hint: Any, value: Any) -> bool:
    form = typing.get_origin(hint) or hint
    if isinstance(value, Mapping):
        return is_record(hint) or form in _DICTS
    return form in _LISTS and isinstance(value, list | tuple)
