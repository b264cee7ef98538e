"""The base of every method that learns a stream of tasks: structure, losses, read-outs, and the state that is carried.

A method's structure is a function of the classes seen (`grow`), its values are what `state` returns. After every task
the runner throws the object away and rebuilds it from those bytes, so anything that is neither parameter nor buffer
nor memory nor regrown is lost, on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from clearn.errors import StateError
from clearn.state import State, content_hash, nbytes
from clearn.stream import Inputs, Task, TaskInfo

if TYPE_CHECKING:
    from clearn.context import Context
    from clearn.parts.samples import Samples


class Store(Protocol):
    """A part that carries tensors of its own beside the network: exemplars, codes, statistics."""

    def state(self) -> dict[str, Tensor]:
        """What it carries, by name."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned; strict."""

    def forget(self, samples: Samples, classes: Sequence[int] = ()) -> int:
        """Throw out whatever it holds of some samples and of whole classes; give how many items went."""

    def __len__(self) -> int:
        """How many items it holds."""

    @property
    def nominal_bytes(self) -> int:
        """What its items cost in the published counting: height x width x 3 bytes an image."""


class Strategy(LightningModule):
    """A continual learner.

    Subclasses take the stream's `inputs` first and their options after it; the signature is the schema of their config.

    Attributes:
        readout: the name of the read-out that the method is judged by, a key of what `read` returns.
        categories: ledger category of state entries by prefix ('model/aux' -> 'head'); longest prefix wins. Without
            an entry, anything under a module named `head` is head, other parameters are params, other buffers are
            buffers, and what the memory holds is exemplars.
        inputs: what one input of the stream looks like.
        seen: the tasks grown for so far.
        memory: what is carried beside the network, or None.
    """

    readout: ClassVar[str] = "classifier"
    categories: ClassVar[dict[str, str]] = {}

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs
        self.seen: list[TaskInfo] = []
        self._labels: set[int] = set()
        self.memory: Store | None = None

    @property
    def classes(self) -> list[int]:
        """Labels seen so far, ascending."""
        return sorted(self._labels)

    def grow(self, info: TaskInfo) -> None:
        """Add the structure that a task needs; depends on `info`, earlier calls and the generator's seed alone."""
        self.seen.append(info)
        self._labels.update(info.classes)

    def learn(self, task: Task, ctx: Context) -> None:
        """Learn one task; a method with more phases spells them out."""
        self.grow(task.info)
        ctx.fit(self, task.train)
        self.finish(task, ctx)

    def finish(self, task: Task, ctx: Context) -> None:
        """Do what follows training: exemplars, prototypes, merges."""

    def predict(self, inputs: Tensor) -> Tensor:
        """Score the classes seen.

        Args:
            inputs: (b, *shape) raw inputs as stored.

        Returns:
            (b, C) float, higher is more likely; column j is label j. Changes nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define predict")

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """All read-outs of one batch: name -> (b, C) scores. The default has the classifier alone."""
        return {"classifier": self.predict(inputs)}

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """(b,) loss of each sample; shared by training, unlearning and attacks. Default: cross-entropy of `predict`."""
        return nn.functional.cross_entropy(self.predict(inputs), targets, reduction="none")

    def model_state(self) -> State:
        """Parameters and buffers, without pretrained leaves that are still as their checkpoint has them."""
        untouched = self.untouched()
        return {f"model/{k}": v for k, v in self.state_dict().items() if f"model/{k}" not in untouched}

    def state(self) -> State:
        """Everything that is carried to the next task: dense tensors under 'owner/name'."""
        held: State = {} if self.memory is None else {f"memory/{k}": v for k, v in self.memory.state().items()}
        return self.model_state() | held

    def untouched(self) -> dict[str, tuple[str, int]]:
        """Pretrained leaves that are bit-identical to their checkpoint: state name -> (SHA-256, bytes)."""
        found: dict[str, tuple[str, int]] = {}
        for prefix, module in self.named_modules():
            published: dict[str, str] = getattr(module, "pretrained_hashes", {})
            if not published:
                continue
            for key, value in module.state_dict().items():
                if published.get(key) == content_hash(value):
                    found[f"model/{prefix}.{key}"] = (published[key], nbytes(value))
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
