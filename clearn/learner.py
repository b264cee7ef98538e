"""The base of everything that learns in a stream: the state that is carried, and how it is taken up again.

After every task the runner throws the object away and rebuilds it from the bytes of `state`, so anything that is
neither parameter nor buffer nor memory nor regrown is lost, on purpose. `clearn.strategy` learns classes of samples,
`clearn.reader` reads documents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from clearn.errors import StateError
from clearn.state import State, content_hash, nbytes
from clearn.stream import TaskInfo


class Carried(Protocol):
    """A part that carries tensors of its own beside the network."""

    def state(self) -> dict[str, Tensor]:
        """What it carries, by name."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned; strict."""

    def __len__(self) -> int:
        """How many items it holds."""

    @property
    def nominal_bytes(self) -> int:
        """What its items cost in the published counting: height x width x 3 bytes an image, 0 for what is none."""


class Learner(LightningModule):
    """What is carried over a boundary, weighed, and rebuilt.

    Attributes:
        categories: ledger category of state entries by prefix ('model/aux' -> 'head'); longest prefix wins. Without
            an entry, anything under a module named `head` is head, other parameters are params, other buffers are
            buffers, and what the memory holds is exemplars.
        rebuilds: whether it can be made again from its state, as the law of the ledger asks. False is for bridges to
            foreign code alone: what they hold is weighed by inspection, they stay alive from task to task, rows and
            reports say so, and their runs can only be started anew.
        seen: the tasks grown for so far.
        memory: what is carried beside the network, or None.
        alone: why several processes cannot train it together, each on a share of every batch: "its loss ..."; empty
            where they can. Set by the class, or by the constructor where it depends on options.
    """

    categories: ClassVar[dict[str, str]] = {}
    rebuilds: ClassVar[bool] = True
    alone: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[TaskInfo] = []
        self.memory: Carried | None = None

    def grow(self, info: TaskInfo) -> None:
        """Add the structure that a task needs; depends on `info`, earlier calls and the generator's seed alone."""
        self.seen.append(info)

    def model_state(self) -> State:
        """Parameters and buffers, without pretrained leaves that are still as their checkpoint has them."""
        untouched = self.untouched()
        return {f"model/{k}": v for k, v in self.state_dict().items() if f"model/{k}" not in untouched}

    def state(self) -> State:
        """Everything that is carried to the next task: dense tensors under 'owner/name'."""
        held: State = {} if self.memory is None else {f"memory/{k}": v for k, v in self.memory.state().items()}
        return self.model_state() | held

    def untouched(self) -> dict[str, tuple[str, int]]:
        """Pretrained leaves that are bit-identical to their checkpoint: state name -> (SHA-256, bytes).

        Of tied weights, such as an output matrix that is the embeddings', the first name has the bytes.
        """
        found: dict[str, tuple[str, int]] = {}
        places: set[tuple[int, torch.Size]] = set()
        for prefix, module in self.named_modules():
            published: dict[str, str] = getattr(module, "pretrained_hashes", {})
            if not published:
                continue
            hashes: Callable[[], dict[str, str]] | None = getattr(module, "content_hashes", None)
            known = {} if hashes is None else hashes()  # a large network knows which of its weights it has hashed
            for key, value in module.state_dict().items():
                if key in published and published[key] == (known.get(key) or content_hash(value)):
                    place = (value.data_ptr(), value.shape)
                    found[f"model/{prefix}.{key}"] = (published[key], 0 if place in places else nbytes(value))
                    if value.numel():
                        places.add(place)
        return found

    def load(self, state: State, seen: Sequence[TaskInfo]) -> None:
        """Rebuild a fresh learner from what was carried: regrow for each task seen, then load values, strictly.

        Raises:
            StateError: entries are missing, unknown or of another shape.
        """
        for info in seen:
            self.grow(info)
        model = {k.removeprefix("model/"): torch.as_tensor(v) for k, v in state.items() if k.startswith("model/")}
        held = {k.removeprefix("memory/"): torch.as_tensor(v) for k, v in state.items() if k.startswith("memory/")}
        untouched = {name.removeprefix("model/") for name in self.untouched()}
        own = self.state_dict()
        missing = sorted(own.keys() - model.keys() - untouched)
        unknown = sorted(
            (model.keys() - own.keys()) | {k for k in state if k.partition("/")[0] not in ("model", "memory")}
        )
        misshapen = [k for k in sorted(model.keys() & own.keys()) if model[k].shape != own[k].shape]
        if missing or unknown or misshapen or (held and self.memory is None):
            raise StateError(
                f"this state does not fit {type(self).__name__} after {len(seen)} tasks: missing "
                f"{missing or 'nothing'}, unknown "
                f"{unknown or 'nothing'}, of another shape {misshapen or 'nothing'}; it was written by another "
                "method, option or "
                "version: resume it with the config in its own run folder"
            )
        self.load_state_dict(model, strict=False)
        if self.memory is not None:
            self.memory.load(held)

    def category(self, name: str) -> str:
        """The ledger category of a state entry."""
        prefixes = [
            prefix for prefix in self.categories if name == prefix or name.startswith((prefix + ".", prefix + "/"))
        ]
        if prefixes:
            return self.categories[max(prefixes, key=len)]
        owner, _, rest = name.partition("/")
        if owner == "memory":
            return "exemplars"
        if "head" in rest.split("."):
            return "head"
        return "params" if self._is_parameter(rest) else "buffers"

    def _is_parameter(self, key: str) -> bool:
        """Look one key of `state_dict` up by its path: going through all for each would take their number squared."""
        path, _, name = key.rpartition(".")
        try:
            module = self.get_submodule(path)
        except AttributeError:  # an entry that no module holds, such as a statistic
            return False
        return name in dict(module.named_parameters(recurse=False))
