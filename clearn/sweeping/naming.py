"""Folders named by what is run: another config goes into another folder, the same one into the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from clearn.runner import Experiment


def default_folder(experiment: Experiment) -> Path:
    """Give runs/NAME-HASH."""
    return Path("runs") / f"{slug(experiment.title)}-{digest(experiment.config)}"


def digest(config: Mapping[str, Any]) -> str:
    """Hash a resolved config, but for its name, where it goes, and where it is also logged to."""
    facts = {key: value for key, value in config.items() if key not in ("name", "out", "tracker")}
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def anywhere(resolved: Mapping[str, Any], loaded: Mapping[str, Any]) -> dict[str, Any]:
    """Give a resolved config that is the same on every machine: what `auto` came to on this one is left out.

    A sweep is submitted from one machine, run on others, and gone on with from a third. An accelerator left to the
    machine counts as the CPU, threads as "auto"; neither may move a result.
    """
    if "trainer" not in resolved:
        return dict(resolved)
    asked, trainer = loaded.get("trainer") or {}, dict(resolved["trainer"])
    if asked.get("accelerator", "auto") == "auto":
        trainer["accelerator"] = "cpu"
    if asked.get("threads", "auto") == "auto":
        trainer["threads"] = "auto"
    return {**resolved, "trainer": trainer}


def slug(text: str) -> str:
    """Turn a label into a name for a folder."""
    for word in ("strategy.name=", "strategy=", "protocol.name=", "protocol="):
        text = text.replace(word, "")
    return "".join(c if c.isalnum() or c in "._=-" else "-" for c in text)[:120]
