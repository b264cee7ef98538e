"""What meta-training leaves on the disk: checkpoints, prepared weights, and the name that equal trainings share."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from clearn.errors import UserError
from clearn.recipe import MetaRecipe
from clearn.state import checksum, write
from clearn.stream import Split, Upstream

if TYPE_CHECKING:
    from clearn.reader import Reader

VERSION = 1  # of what is kept; another one is trained again


@dataclass(frozen=True)
class Shelf:
    """Where prepared weights are kept, and what tells two preparations apart beside data, recipe and weights.

    Attributes:
        root: the folder; None keeps nothing.
        facts: JSON-able: the method's options, without those that come after preparing.
    """

    root: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def folder(self, reader: Reader, upstream: Upstream, recipe: MetaRecipe) -> Path | None:
        """Make the folder of one preparation; None where nothing is kept.

        Raises:
            UserError: it cannot be written.
        """
        if self.root is None:
            return None
        found = self.root / key(reader, upstream, recipe, self.facts)
        try:
            found.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write {found}, where meta-training is kept: {error.strerror or error}; name another folder "
                "with CLEARN_CACHE=FOLDER, or keep nothing with runner.cache=false"
            ) from error
        return found


@dataclass
class History:
    """How a training went.

    Attributes:
        losses: mean training loss of each epoch.
        f1: on the validation questions after each epoch.
        seconds: of each epoch, its validation included.
        samples: rows trained on.
        steps: of the optimiser.
    """

    losses: list[float] = field(default_factory=list)
    f1: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    samples: int = 0
    steps: int = 0

    @property
    def best(self) -> int:
        """The epoch with the highest F1, the first of equals, from 0."""
        return max(range(len(self.f1)), key=lambda epoch: (self.f1[epoch], -epoch))

    def done(self, recipe: MetaRecipe) -> bool:
        """Whether no further epoch is due."""
        epochs = len(self.f1)
        patient = not recipe.patience or not epochs or epochs - 1 - self.best < recipe.patience
        return epochs >= recipe.epochs or not patient


class Kept:
    """One preparation's folder: a checkpoint after each epoch, the best weights, and the prepared ones at the end.

    Every file is written beside its place and moved there at once, and carries the SHA-256 of its tensors; one that is
    damaged counts as missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepared(self) -> tuple[dict[str, Tensor], History] | None:
        """What a finished training left."""
        found = _read(self.folder / "prepared.safetensors")
        return None if found is None else (found[0], found[1])

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], History] | None:
        """Weights, moments, best weights and history of the newest whole epoch."""
        for path in sorted(self.folder.glob("epoch-*.safetensors"), reverse=True):
            found = _read(path)
            if found is None:
                continue
            tensors, history = found
            parts: dict[str, dict[str, Tensor]] = {"now": {}, "moments": {}, "best": {}}
            for name, value in tensors.items():
                part, _, rest = name.partition(":")
                parts[part][rest] = value
            best = parts["best"] or parts["now"]
            return parts["now"], parts["moments"], best, history
        return None

    def put(
        self, now: dict[str, Tensor], moments: dict[str, Tensor], best: dict[str, Tensor], history: History
    ) -> None:
        """Leave a checkpoint, and remove older ones but the last."""
        named = {"now": now, "moments": moments}
        if history.best != len(history.f1) - 1:
            named["best"] = best
        tensors = {f"{part}:{name}": value for part, values in named.items() for name, value in values.items()}
        _write(self.folder / f"epoch-{len(history.f1):04d}.safetensors", tensors, history)
        for path in sorted(self.folder.glob("epoch-*.safetensors"))[:-2]:
            path.unlink()

    def finish(self, best: dict[str, Tensor], history: History) -> None:
        """Keep the best weights alone."""
        _write(self.folder / "prepared.safetensors", best, history)
        for path in self.folder.glob("epoch-*.safetensors"):
            path.unlink()


def _write(path: Path, tensors: dict[str, Tensor], history: History) -> None:
    own = {name: value.contiguous() for name, value in tensors.items()}
    written = json.dumps(asdict(history))
    digest = hashlib.sha256(checksum(save(own)).encode() + written.encode()).hexdigest()
    write(path, save(own, metadata={"history": written, "sha256": digest}))


def _read(path: Path) -> tuple[dict[str, Tensor], History] | None:
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
        tensors = load_file(path)
        history = History(**json.loads(facts["history"]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None
    digest = hashlib.sha256(checksum(save(tensors)).encode() + facts["history"].encode()).hexdigest()
    return (tensors, history) if digest == facts.get("sha256") else None


def key(reader: Reader, upstream: Upstream, recipe: MetaRecipe, facts: dict[str, Any]) -> str:
    """Name a preparation by all that decides what is learned: code, options, recipe, data, weights underneath."""
    told = {
        "version": VERSION,
        "code": _code(type(reader)),
        "facts": facts,
        "recipe": asdict(recipe),
        "data": [_digest(split) for split in (upstream.train, upstream.val)],
        "weights": sorted({digest for digest, _ in reader.untouched().values()}),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _digest(split: Split) -> str:
    told = [[asdict(one) for one in split.documents], [asdict(one) for one in split.questions]]
    return hashlib.sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()


def _code(cls: type) -> str:
    """Hash the sources of a method and of the parts that it is built from, however deep."""
    found: dict[str, ModuleType] = {}
    waiting = [importlib.import_module(cls.__module__)]
    while waiting:
        module = waiting.pop()
        if module.__name__ in found:
            continue
        found[module.__name__] = module
        for value in vars(module).values():
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or ""
            if isinstance(name, str) and name.startswith("clearn.parts."):
                waiting.append(importlib.import_module(name))
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(name.encode() + inspect.getsource(found[name]).encode())
    return digest.hexdigest()
