"""Every sample ever met, as stored: what joint training carries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clearn.parts.samples import Samples, TensorSamples, concat, occurring
from clearn.stream import Inputs


class Archive:
    """Labelled inputs without a limit."""

    def __init__(self, inputs: Inputs) -> None:
        empty = torch.empty((0, *inputs.shape), dtype=getattr(torch, inputs.dtype))
        self._samples: Samples = TensorSamples(empty, torch.empty(0, dtype=torch.int64))
        self._pixels = torch.Size(inputs.shape)

    def __len__(self) -> int:
        return len(self._samples)

    def samples(self) -> Samples:
        """All of them, in order of arrival."""
        return self._samples

    def add(self, new: Samples) -> None:
        """Keep a task's samples."""
        stored = torch.cat([inputs for inputs, _ in new.batches(4096)])
        self._samples = concat([self._samples, TensorSamples(stored, new.labels)])

    def forget(self, samples: Samples, classes: Sequence[int] = ()) -> int:
        """Throw out some samples, copies of them included, and whole classes; give how many went."""
        gone = torch.isin(self._samples.labels, torch.tensor(list(classes), dtype=torch.int64))
        gone |= occurring(self._samples, samples)
        self._samples = self._samples.take((~gone).nonzero().flatten())
        return int(gone.sum())

    def state(self) -> dict[str, Tensor]:
        """`images` (n, *shape) as stored and `labels` (n,) int16."""
        if not len(self):
            return {}
        return {"images": self._samples.fetch(torch.arange(len(self))), "labels": self._samples.labels.to(torch.int16)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned."""
        if state:
            self._samples = TensorSamples(state["images"], state["labels"].to(torch.int64))

    @property
    def nominal_bytes(self) -> int:
        """Height x width x 3 bytes an image; vectors as stored."""
        images = len(self._pixels) == 3
        return len(self) * (self._pixels[1] * self._pixels[2] * 3 if images else 4 * self._pixels.numel())
