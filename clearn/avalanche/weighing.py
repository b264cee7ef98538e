"""What an Avalanche strategy carries from one experience to the next, found by walking its objects.

Counted are all tensors and arrays at their bytes, 8 bytes a number, text in UTF-8. A sample that a buffer refers to
counts as the sample with its label: task data is gone after its task, so whoever keeps a reference keeps the sample.
Free is what the constructor makes of the config alone, and what a state file too would hold as names and shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clearn.avalanche.data import TaskData
from clearn.avalanche.inspecting import Children, known_places, lies_at, walk
from clearn.errors import StateError
from clearn.parts.backbones.normalise import Normalise
from clearn.parts.samples import Samples
from clearn.state import content_hash
from clearn.stream import Inputs

CATEGORIES = {  # what Avalanche's own plugins call what they keep
    "importance": ("importances", "importance", "saved_params", "params", "ewc_data", "syn_data"),
    "frozen_copy": ("prev_model", "old_model", "init_model"),
    "subspace": ("G", "reference_gradients"),
    "prototypes": ("class_means", "class_means_dict"),
    "index": ("order", "buffer_score", "_buffer_weights"),
    "exemplars": (
        *("x_memory", "y_memory", "memory_x", "memory_y", "memory_tid", "ext_mem_list_x", "ext_mem_list_y"),
        "logits",
    ),
}
KNOWN = {word: category for category, words in CATEGORIES.items() for word in words}


class Holdings:
    """What a strategy object holds beside its network, as tensors under 'category/path'.

    Args:
        guest: Avalanche's strategy, as its constructor left it.
        inputs: what one input looks like.
    """

    def __init__(self, guest: Any, inputs: Inputs) -> None:
        self.guest, self.inputs = guest, inputs
        self._given: dict[str, str] = {}
        self._given = {path: content_hash(value) for path, value in self._found()}

    def state(self) -> dict[str, Tensor]:
        """Everything found, by 'category/path'."""
        found: dict[str, Tensor] = {}
        for path, value in self._found():
            if path in self._given and self._given[path] == content_hash(value):
                continue  # as the constructor made it
            category = _category(path, value, self.inputs)
            name = f"{category}/{path.replace('/', '.')}"
            found[name if name not in found else f"{name}.{len(found)}"] = value
        return found

    def load(self, state: dict[str, Tensor]) -> None:
        """Refuse: objects of foreign classes cannot be made from their tensors."""
        raise StateError(
            f"what {type(self.guest).__name__} of Avalanche kept ({len(state)} tensors) was weighed by inspection and "
            "cannot be taken up again: start the run anew"
        )

    def __len__(self) -> int:
        """How many samples are held, by reference or copied."""
        return sum(len(value) for name, value in self.state().items() if _is_samples(name, value, self.inputs))

    @property
    def nominal_bytes(self) -> int:
        """Height x width x 3 bytes an image; 4 bytes a number of vectors."""
        shape = self.inputs.shape
        return len(self) * (shape[1] * shape[2] * 3 if len(shape) == 3 else 4 * shape[0])

    def forget(self, samples: Samples, classes: Sequence[int] = ()) -> int:
        """Refuse: nobody knows what a foreign object made of a sample."""
        raise StateError(
            f"{type(self.guest).__name__} of Avalanche cannot be asked to forget: take a strategy of ours, or "
            "unlearner retrain on one"
        )

    @property
    def nbytes(self) -> int:
        """Bytes of `state`."""
        return sum(value.nbytes for value in self.state().values())

    def _found(self) -> list[tuple[str, Tensor]]:
        """(path, tensor) of all that is held and not the network's own; samples behind references come last."""
        network: nn.Module = self.guest.model
        own, references = known_places(network.state_dict().values()), _References()
        found = [
            (path, value)
            for path, value in walk(self.guest, references.view)
            if value.numel() and not lies_at(value, own)
        ]
        return found + references.samples()


class _References:
    """Rows of task data that were met on the way."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[TaskData, set[int]]] = {}

    def view(self, found: Any) -> Children | None:
        """What of Avalanche's own classes is held: no caches, no names, and of datasets what is referred to."""
        from avalanche.benchmarks.utils import AvalancheDataset
        from avalanche.benchmarks.utils.data_attribute import DataAttribute
        from avalanche.benchmarks.utils.flat_data import ConstantSequence, FlatData
        from avalanche.benchmarks.utils.transform_groups import TransformGroups
        from avalanche.training.utils import ParamData

        match found:
            case Normalise() | ConstantSequence():
                return ()  # follow from the stream, and from one number
            case TransformGroups():
                return (("groups", found.transform_groups),)
            case ParamData():
                return (("data", found.data),)
            case TaskData():
                self._refer(found, range(len(found)))
                return ()
            case AvalancheDataset():
                return self._of_dataset(found)
            case DataAttribute():
                return (("data", found.data),)
            case FlatData():
                return self._of_flat(found)
        return None

    def samples(self) -> list[tuple[str, Tensor]]:
        """Inputs and labels behind all references, task by task; a label takes 1 byte, above 256 classes 2."""
        found = []
        for i, (data, rows) in enumerate(self._rows.values()):
            index = torch.tensor(sorted(rows), dtype=torch.int64)
            labels = data.samples.labels[index]
            narrow = torch.uint8 if not len(labels) or int(data.samples.labels.max()) < 256 else torch.int16
            found += [(f"samples/{i}.inputs", data.samples.fetch(index)), (f"samples/{i}.labels", labels.to(narrow))]
        return [(path, value) for path, value in found if value.numel()]

    def _refer(self, data: TaskData, rows: Any) -> None:
        self._rows.setdefault(id(data), (data, set()))[1].update(rows)

    def _of_dataset(self, found: Any) -> Children:
        """Its items; labels of referred samples come with these, all other attributes are data of their own."""
        told = ("targets", "targets_task_labels") if self._all_referred(found._flat_data) else ()
        yield "items", found._flat_data
        yield from ((name, one) for name, one in found._data_attributes.items() if name not in told)

    def _of_flat(self, found: Any, asked: Iterable[int] | None = None) -> Children:
        """The items that its indices name, not all that its parts hold; `asked` are some of its rows, or all."""
        from avalanche.benchmarks.utils.flat_data import FlatData

        wanted: list[list[int]] = [[] for _ in found._datasets]
        for i in range(len(found)) if asked is None else asked:
            part, row = found._get_idx(i)
            wanted[part].append(row)
        for number, (part, rows) in enumerate(zip(found._datasets, wanted, strict=True)):
            if isinstance(part, TaskData):
                self._refer(part, rows)
            elif isinstance(part, FlatData):
                yield from ((f"part{number}.{name}", child) for name, child in self._of_flat(part, rows))
            elif isinstance(part, list):
                yield f"part{number}", _stacked([part[row] for row in rows])
            elif rows:
                yield f"part{number}", part
        for name in ("_transform_groups", "_frozen_transform_groups"):
            if getattr(found, name, None) is not None:
                yield name, getattr(found, name)

    def _all_referred(self, flat: Any) -> bool:
        from avalanche.benchmarks.utils.flat_data import FlatData

        return all(
            isinstance(part, TaskData) or (isinstance(part, FlatData) and self._all_referred(part))
            for part in flat._datasets
        )


def _stacked(items: list[Any]) -> object:
    """Tensors of one kind as one tensor; anything else as it is."""
    first = items[0] if items else None
    if isinstance(first, Tensor) and all(isinstance(one, Tensor) and one.shape == first.shape for one in items):
        return torch.stack([one.detach() for one in items])
    return items


def _category(path: str, value: Tensor, inputs: Inputs) -> str:
    """The ledger category of what lies at a path."""
    if path.startswith("samples/"):
        return "exemplars"
    words = path.split(".")
    named = next((KNOWN[word] for word in words if word in KNOWN), None)
    if named is not None:
        return named
    shaped = tuple(value.shape[1:]) == inputs.shape
    return "exemplars" if shaped else "meta"


def _is_samples(name: str, value: Tensor, inputs: Inputs) -> bool:
    return name.startswith("exemplars/") and tuple(value.shape[1:]) == inputs.shape
