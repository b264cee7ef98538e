"""Layers of a config: what one YAML file or the command line says, with the place of every word.

Values are raw here: interpolations are still text. OmegaConf reads the YAML, lines come from its node tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearn.errors import ConfigError, UserError
from clearn.mistakes import Mistake, join, origin, show
from clearn.plugins import KINDS, find
from clearn.signatures import parameters
from clearn.tracking.options import switched as switched_tracker

NAMED = (
    "stream",
    "strategy",
    "unlearner",
    "protocol",
)  # `strategy: memo` is short for `strategy: {name: memo}`
MAPPINGS = (*NAMED, "budget", "trainer", "runner", "tracker", "grid", "sweep", "expects")
SCALARS = {"name": str, "seed": int, "out": str}
SECTIONS = ("extends", *SCALARS, *MAPPINGS)
LEFT_OUT = (
    "unlearner",
    "tracker",
    "grid",
    "sweep",
    "expects",
)  # `grid=null` on the command line takes such a section away
COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Layer:
    """Sections as written, short forms spelled out.

    Attributes:
        sections: raw plain values.
        origins: dotted key -> "memo.yaml:12" or "command line".
        without: sections of the layers below that it takes away.
    """

    sections: dict[str, Any]
    origins: dict[str, str]
    without: frozenset[str] = frozenset()


def read(path: Path) -> Layer:
    """Parse one file.

    Raises:
        ConfigError: with file and line, if it is no YAML mapping of plain values.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    shown = shown_path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{shown}: holds no sections: write e.g. 'strategy:' and its options below it")
        lines = {key: f"{shown}:{line}" for key, line in _lines(node, "")}
        sections = _shape(OmegaConf.to_container(OmegaConf.create(text)))
        return Layer(sections, {**lines, **{key: origin(key, lines) for key in keys(sections)}})
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax(shown, text, error)) from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{shown}: cannot be read: {_first_line(error)}") from error
    except RecursionError:
        raise ConfigError(f"{shown}: a value contains itself, or is nested too deep: write it flat") from None
    except ConfigError:
        raise
    except ValueError as error:  # of Python, for numbers and dates that cannot be
        raise ConfigError(f"{shown}: holds a value that cannot be: {_first_line(error)}") from error


def command_line(overrides: Sequence[str], errors: list[Mistake]) -> Layer:
    """Parse overrides, "strategy.lr=0.1", later over earlier ones; what cannot be read goes to `errors`."""
    sections: dict[str, Any] = {}
    without: set[str] = set()
    for text in overrides:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        advice = _key_trouble(parts, equals, value)
        if advice:
            right = "must be of the form section.option=value"
            errors.append(Mistake(COMMAND_LINE, "", show(text), right, advice))
            continue
        try:
            tree = _value(value)
        except ValueError as error:
            hint = f"put quotes around it, or write its brackets in full ({error})"
            errors.append(Mistake(COMMAND_LINE, key.strip(), show(value), "must be a YAML value", hint))
            continue
        if len(parts) == 1 and parts[0] in LEFT_OUT and tree is None:
            without.add(parts[0])
            sections.pop(parts[0], None)
            continue
        if len(parts) == 1 and parts[0] in MAPPINGS and tree == {}:
            hint = f"{parts[0]}=null takes it away" if parts[0] in LEFT_OUT else f"write {parts[0]}.OPTION=VALUE"
            right = "must name options: an empty mapping changes none"
            errors.append(Mistake(COMMAND_LINE, parts[0], "{}", right, hint))
            continue
        for part in reversed(parts):
            tree = {part: tree}
        sections = _merge(sections, _shape(tree))
    return Layer(sections, dict.fromkeys(keys(sections), COMMAND_LINE), frozenset(without))


def overlay(base: Layer, layer: Layer, errors: list[Mistake]) -> Layer:
    """Lay one layer over another: options replace options, mappings merge.

    A new method name drops the options that only the old method has. A budget given one way (bytes or like)
    drops the other way.
    """
    below = {section: value for section, value in base.sections.items() if section not in layer.without}
    for kind, known in KINDS.items():
        old, new = below.get(known.section), layer.sections.get(known.section)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            try:
                below[known.section] = _switched(kind, old, new.get("name"))
            except ConfigError as error:
                errors.append(Mistake("", f"{known.section}.name", "", str(error)))
    old, new = below.get("budget"), layer.sections.get("budget")
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        other = {"bytes": "like", "like": "bytes"}
        replaced = {other[way] for way in other if new.get(way) is not None}
        below["budget"] = {key: value for key, value in old.items() if key not in replaced}
    old, new = below.get("tracker"), layer.sections.get("tracker")
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        below["tracker"] = switched_tracker(old, new)
    return Layer(_merge(below, layer.sections), {**base.origins, **layer.origins})


def shown_path(path: Path) -> str:
    """Spell a path for messages: from the current folder where it lies inside."""
    full, here = path.resolve(), Path.cwd().resolve()
    return str(full.relative_to(here) if full.is_relative_to(here) else path)


def _switched(kind: str, old: Mapping[str, Any], name: object) -> dict[str, Any]:
    """Keep what the new method takes, and what the old one did not take either: that is a mistake to show."""
    before = old.get("name")
    if name == before or not isinstance(name, str) or not isinstance(before, str) or "${" in name + before:
        return dict(old)
    has = parameters(find(kind, name))
    try:
        had = set(parameters(find(kind, before)))
    except UserError:  # a method that is not installed here has no options to tell apart
        had = set(old)
    return {key: value for key, value in old.items() if key == "name" or key in has or key not in had}


def _merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in layer.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def keys(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """Give the dotted key of every option, mappings and what is in them."""
    for name, value in tree.items():
        yield join(prefix, name)
        if isinstance(value, Mapping):
            yield from keys(value, join(prefix, name))


def _key_trouble(parts: list[str], equals: str, value: str) -> str:
    """Say what to change about an override, or nothing if it can be read."""
    if not equals:
        return f"write {'.'.join(parts)}=VALUE"
    if not value.strip():
        return f"write {'.'.join(parts)}=null for no value"
    if parts[0] == "extends":
        return "only a file can extend another"
    if parts[0][:1] in ("+", "~", "-"):
        return f"leave out the {parts[0][:1]!r}"
    if any("[" in part for part in parts):
        return f"give the whole list: {'.'.join(parts).partition('[')[0]}=[...]"
    if not all(part.replace("-", "_").isidentifier() or part.isdigit() for part in parts):
        return "options are words, joined by single dots"
    return ""


def _value(text: str) -> Any:
    """Read the right side of an override as YAML.

    Raises:
        ValueError: if it is none; the message is one line.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        tree = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
    except yaml.MarkedYAMLError as error:
        raise ValueError(str(error.problem or error.context)) from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ValueError(_first_line(error)) from error
    return tree["value"]  # type: ignore[call-overload, index]


def _lines(node: Any, prefix: str) -> Iterator[tuple[str, int]]:
    """Give the dotted key and the line, from 1, of every option in a tree of YAML nodes."""
    for key, value in node.value:
        name = join(prefix, key.value)
        yield name, key.start_mark.line + 1
        if value.id == "mapping":
            yield from _lines(value, name)


def _syntax(shown: str, text: str, error: Any) -> str:
    """Say what is wrong with the YAML and in which line, in our words for the usual mistakes."""
    mark = error.problem_mark or error.context_mark
    line = mark.line if mark else 0
    written = (text.splitlines() or [""])[min(line, max(len(text.splitlines()) - 1, 0))]
    problem = str(error.problem or error.context)
    if "duplicate key" in problem:
        advice = f"{problem.replace('found', 'the')} is given twice: keep one of them"
    elif "\t" in written[: len(written) - len(written.lstrip())] or "'\\t'" in problem:
        advice = "a tab stands before the text: YAML is indented with spaces"
    elif "tag:" in problem:
        advice = f"{problem}: a config holds plain values only, without tags"
    else:
        near = show(written.strip())
        advice = f"YAML cannot be read here ({problem}): check indentation, brackets and quotes near {near}"
    return f"{shown}:{line + 1}: {advice}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _shape(layer: Any) -> dict[str, Any]:
    """Spell short forms out: a section's bare name, a bare budget, an empty section, a nested grid."""
    shaped = {}
    for section, value in layer.items():
        bare = isinstance(value, bool | int | float | str) and "${" not in str(value)
        if section in MAPPINGS and value is None:
            value = {"bytes": None, "like": None} if section == "budget" else {}
        elif section in NAMED and bare:
            value = {"name": value}
        elif section == "budget" and bare:
            value = {"bytes": value}
        elif section == "tracker" and (bare or isinstance(value, list)):
            value = {"name": value}
        elif section == "grid" and isinstance(value, Mapping):
            value = dict(flat(value, ""))
        elif section == "grid" and isinstance(value, list):
            value = [dict(flat(one, "")) if isinstance(one, Mapping) else one for one in value]
        shaped[section] = value
    return shaped


def flat(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give the dotted key and the value of every leaf; lists and empty mappings are leaves."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, join(prefix, name))
        else:
            yield join(prefix, name), value
