"""Configs: one YAML file is one run, read by OmegaConf and checked before anything is built.

`find` -> `load` (extends, overrides, interpolations) -> sections of plain values, read by `bind` and `build`
against signatures. A config names things and cannot run code: no tags, no resolvers, no import paths.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from clearn.binding import bind, build, coerce
from clearn.errors import ConfigError, UserError
from clearn.layers import (
    NAMED,
    SCALARS,
    SECTIONS,
    Layer,
    command_line,
    keys,
    overlay,
    read,
    shown_path,
)
from clearn.mistakes import Mistake, join, listing, located, nearest, raise_all, show
from clearn.options import BudgetOptions, Like, RunnerOptions, SlurmOptions, SweepOptions, TrainerOptions, parse_bytes
from clearn.signatures import defaults, describe, plain

__all__ = [
    "BudgetOptions",
    "Config",
    "Like",
    "Mistake",
    "RunnerOptions",
    "SlurmOptions",
    "SweepOptions",
    "TrainerOptions",
    "bind",
    "build",
    "defaults",
    "describe",
    "find",
    "load",
    "parse_bytes",
    "plain",
    "raise_all",
    "save",
    "shipped",
    "summary",
]


class Config(dict[str, Any]):
    """A loaded config: sections of plain values, and where each was written.

    Attributes:
        origins: dotted key -> "memo.yaml:12" or "command line"; for `raise_all`.
    """

    def __init__(self, sections: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        super().__init__(sections)
        self.origins = dict(origins)


def find(name: str) -> Path:
    """Find a config: a file as given, else with .yaml added, else the shipped one of that name.

    Raises:
        ConfigError: naming the nearest shipped configs, if there is none.
    """
    for path in (Path(name), Path(f"{name}.yaml")):
        if name and _is_file(path):
            return path
    return _shipped_path(name) or _unknown(f"config {name!r} is neither a file nor a shipped config", name)


def shipped() -> list[str]:
    """Names of the configs that come with clearn, e.g. "class_incremental/memo", sorted."""
    folder = _folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def summary(name: str) -> str:
    """The first sentence of a shipped config's opening comment, after the line that shows its command."""
    lines = (_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    words = " ".join(line.lstrip("# ") for line in comment if not line.startswith("# clearn "))
    return words.partition(". ")[0].rstrip(".")


def load(name: str, overrides: Sequence[str] = ()) -> Config:
    """Read a config and everything it extends, apply overrides, and resolve its interpolations.

    Args:
        name: as `find` takes it.
        overrides: "strategy.lr=0.1", "strategy=icarl" (strategy.name), "budget=4MiB" (budget.bytes). A
            new method name drops the options that only the old method has, except those in `overrides`.

    Returns:
        The sections given, without `extends`; no defaults are filled in.

    Raises:
        ConfigError: naming every mistake with its file and line.
    """
    errors: list[Mistake] = []
    path = find(name)
    merged = Layer({}, {"": shown_path(path)})
    for layer in (*_chain(path, ()), command_line(overrides, errors)):
        merged = overlay(merged, layer, errors)
    errors += [_no_section(key, merged.sections) for key in merged.sections if key not in SECTIONS]
    errors += [mistake for key, value in _leaves(merged.sections, "") if (mistake := _unready(key, value))]
    raise_all(errors, merged.origins)
    config = Config(_resolve(merged), merged.origins)
    for section, value in config.items():
        if section in SCALARS:
            config[section] = coerce(value, SCALARS[section], section, errors)
        elif section == "grid" and isinstance(value, list):
            continue
        elif not isinstance(value, Mapping):
            errors.append(Mistake("", section, show(value), "must be a mapping of options"))
        elif section in NAMED and "name" in value:
            coerce(value["name"], str, f"{section}.name", errors)
    raise_all(errors, config.origins)
    return config


def save(config: Mapping[str, Any], path: Path | str) -> None:
    """Write a config as YAML that loads back equal; a file of that name is replaced at once or not at all.

    Raises:
        ConfigError: if it would come back different, such as text that reads like an interpolation.
        UserError: if it cannot be written.
        TypeError: if a value is not plain, e.g. a tensor.
    """
    from omegaconf import OmegaConf

    path, values = Path(path), plain(config)
    special = [(key, v) for key, v in _leaves(values, "") if isinstance(v, str) and ("${" in v or v == "???")]
    raise_all([Mistake(str(path), key, show(v), "has a meaning of its own in YAML") for key, v in special])
    temporary = path.with_name(f".{path.name}.part.yaml")
    try:
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(values)), encoding="utf-8")
        if _canonical(load(str(temporary))) != _canonical(values):
            raise ConfigError(f"{path} would not load back as it was: spell short forms and sections out")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; make room, or choose another folder with out=FOLDER"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _canonical(config: Mapping[str, Any]) -> str:
    return json.dumps(dict(config), sort_keys=True)


def _folder() -> Path:
    """Where the shipped configs lie: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def _shipped_path(name: str) -> Path | None:
    stem = name.removeprefix("configs/").removesuffix(".yaml")
    return _folder() / f"{stem}.yaml" if stem in shipped() else None


def _unknown(problem: str, name: str) -> NoReturn:
    """Raise with the nearest shipped names: by the whole name, else those that end in it."""
    stem = Path(name).name.removesuffix(".yaml")
    same = [known for known in shipped() if known.rpartition("/")[2] == stem]
    hint = f"did you mean {' or '.join(map(repr, same))}?" if same else nearest(name, shipped())
    advice = hint or "give the path of a YAML file"
    raise ConfigError(f"{problem}; {advice}; 'clearn list configs' shows them all")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system
        return False


def _chain(path: Path, below: tuple[Path, ...]) -> list[Layer]:
    """Read a file and what it extends, the farthest parent first."""
    if path.resolve() in below:
        circle = " extends ".join(shown_path(p) for p in (*below, path))
        raise ConfigError(f"{circle}: a config cannot extend itself; take one of these 'extends' out")
    layer = read(path)
    parent = layer.sections.pop("extends", None)
    if parent is None:
        return [layer]
    place = layer.origins["extends"]
    if not isinstance(parent, str) or not parent:
        right = "must name one config: a file relative to this one, or a shipped name"
        raise ConfigError(str(Mistake(place, "extends", show(parent), right)))
    near = [path.parent / parent, path.parent / f"{parent}.yaml"]
    found = next((p for p in near if _is_file(p) and not p.samefile(path)), None) or _shipped_path(parent)
    if found is None and any(_is_file(p) for p in near):
        found = path
    if found is None:
        _unknown(f"{place}: extends: {parent!r} is neither beside {shown_path(path)} nor shipped", parent)
    return [*_chain(found, (*below, path.resolve())), layer]


def _no_section(key: object, sections: Mapping[Any, Any]) -> Mistake:
    """Say that a word at the top is no section, and where it belongs."""
    name = str(key)
    section, _, option = name.partition(".")
    homes = [known for known in keys(sections) if known.endswith(f".{name}")][:3]
    if option and section in SECTIONS:
        hint = f"write {section!r} and, indented below it, {option!r}"
    elif homes:
        hint = f"did you mean {' or '.join(map(repr, homes))}?"
    else:
        hint = nearest(name, SECTIONS) or listing(SECTIONS, "sections")
    return Mistake("", name, show(sections[key]), "but there is no such section", hint)


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Give the dotted key, with [i] in lists, and the value of all that is neither mapping nor list."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, join(key, name))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{key}[{i}]")
    else:
        yield key, value


def _unready(key: str, value: Any) -> Mistake | None:
    """Find a value that cannot be resolved: left open, of a foreign type, or the call of a resolver."""
    if value == "???":
        hint = f"write it in the config, or {key}=VALUE behind the command"
        return Mistake("", key, "???", "must be given", hint)
    if not isinstance(value, bool | int | float | str | None):
        return Mistake("", key, show(value), "must be text, a number, true, false or null")
    if isinstance(value, str) and _calls(value):
        right = "may refer to options of this config only, e.g. ${seed}"
        return Mistake("", key, show(value), right, "write the value itself")
    return None


def _calls(text: str) -> bool:
    """Tell whether an interpolation in the text has a colon, which makes it the call of a resolver."""
    depth = 0
    for i, letter in enumerate(text):
        if text.startswith("${", i):
            depth += 1
        elif letter == "}" and depth:
            depth -= 1
        elif letter == ":" and depth:
            return True
    return False


def _resolve(layer: Layer) -> dict[str, Any]:
    """Replace interpolations by what they refer to.

    Raises:
        ConfigError: if one refers to nothing or to itself, or a literal "${" is left.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        sections: Any = OmegaConf.to_container(OmegaConf.create(layer.sections), resolve=True)
    except OmegaConfBaseException as error:
        key, problem = str(error.full_key or ""), str(error).partition("\n")[0]
        got = show(dict(_leaves(layer.sections, "")).get(key, ""))
        mistake = Mistake("", key, got, "must refer to options of this config", f"{problem}: check the name")
        raise ConfigError(str(located(mistake, layer.origins))) from error
    except RecursionError:
        place = layer.origins[""]
        raise ConfigError(f"{place}: an interpolation refers to itself; write one value out") from None
    right, hint = "is no plain text: '${' begins an interpolation", "write it otherwise"
    left = [(key, value) for key, value in _leaves(sections, "") if isinstance(value, str) and "${" in value]
    raise_all([Mistake("", key, show(value), right, hint) for key, value in left], layer.origins)
    return dict(sections)
