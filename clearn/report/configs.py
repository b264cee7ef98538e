"""What tells configurations apart, in words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

SECTIONS = ("stream", "strategy", "unlearner", "protocol")  # a bare value there is its name


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give a nested config with dotted keys; a section given by its bare name has it under `.name`."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        elif not prefix and key in SECTIONS and isinstance(value, str):
            found[f"{key}.name"] = value
        else:
            found[f"{prefix}{key}"] = _told(value)
    return found


def _told(value: Any) -> Any:
    """Leave out what is null in the mappings of a list, such as `stream.requests`."""
    if not isinstance(value, list):
        return value
    return [{k: v for k, v in one.items() if v is not None} if isinstance(one, dict) else one for one in value]


def differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Name the keys on whose values flat configs do not agree, in order of appearance.

    Where a section is off (`budget: null`), its keys are not missing: the section itself is what differs. A key that is
    missing says the same as one that is null: an option that is newer than a run is off in it.
    """

    def text(config: dict[str, Any], key: str) -> str | None:
        if any(key[:at] in config for at, letter in enumerate(key) if letter == "."):
            return None
        if key not in config and any(other.startswith(f"{key}.") for other in config):
            return "a section"
        return value_text(config.get(key))

    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({text(config, key) for config in configs} - {None}) > 1]


def chosen(config: dict[str, Any], own: Collection[str], shared: Collection[str]) -> dict[str, str]:
    """Print what a flat config says of keys that tell it apart, in its order.

    Args:
        config: flat.
        own: what runs of one method differ in; a section that others have off is "on".
        shared: what methods differ in.

    >>> chosen({"lora.rank": 8, "lora.alpha": 16.0, "k": 3}, ["lora"], ["k"])
    {'lora': 'on', 'k': '3'}
    >>> chosen({"lora": None, "k": 4}, ["lora"], ["k"])
    {'lora': 'none', 'k': '4'}
    """
    sections = [key for key in own if key not in config and not any(other.startswith(f"{key}.") for other in own)]
    found: dict[str, str] = {}
    for key, value in config.items():
        section = next((one for one in sections if key.startswith(f"{one}.")), None)
        if key in own or key in shared:
            found[key] = value_text(value)
        elif section:
            found[section] = "on"
    return found


def value_text(value: Any) -> str:
    """Print a value of a config."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(value_text, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


def named(method: str, options: dict[str, str]) -> str:
    """Put options behind a method, each by the last part of its key."""
    return " ".join([method, *(f"{key.rpartition('.')[2]}={value}" for key, value in options.items())])


def setting(stream: dict[str, Any], streams: Sequence[dict[str, Any]]) -> str:
    """Name a stream by its kind and data, and by what tells it apart from others of the same kind and data.

    Args:
        stream: its section of a config, flat.
        streams: of all runs of the report.
    """

    def plain(one: dict[str, Any]) -> list[str]:
        return [value_text(one.get("name", "unknown stream")), value_text(one.get("data", one.get("data.name", "")))]

    told = ("name", "data", "data.name", "order_seed")
    apart = differing([one for one in streams if plain(one) == plain(stream)])
    words = [f"{key}={value_text(stream[key])}" for key in apart if key in stream and key not in told]
    return " · ".join(word for word in (*plain(stream), *words) if word)
