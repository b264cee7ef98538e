"""What was tried on a model around a request beyond asking it: arrays of the evidence that older runs do not have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearn.forgetting import RelearnTime, relearn_time

Array = NDArray[Any]


@dataclass(frozen=True)
class Probed:
    """Accuracy of a linear probe on frozen features; None where it was asked about no such sample.

    Attributes:
        forgotten: on test samples of the forgotten classes, a fraction.
        others: on test samples of the other classes.
    """

    forgotten: float | None = None
    others: float | None = None


@dataclass(frozen=True, eq=False)
class Examined:
    """What was tried; None, or an empty probe, where it was not.

    Attributes:
        random: (m, c) float, scores of a learner with fresh weights on the forgotten samples.
        probed_before: as the request came.
        probed: after it.
        relearned: steps of training until the forgotten samples are known again; None too where they never were.
    """

    random: Array | None = None
    probed_before: Probed = field(default_factory=Probed)
    probed: Probed = field(default_factory=Probed)
    relearned: RelearnTime | None = None


def read(arrays: Mapping[str, Array], shape: tuple[int, ...]) -> Examined:
    """Read what was tried from the arrays of the evidence.

    Args:
        arrays: by name.
        shape: (m, c) of the scores on the forgotten samples.

    Raises:
        ValueError: an array is there and not what it must be.
    """
    random = arrays.get("random/forget")
    if random is not None and (random.shape != shape or not np.isfinite(random).all()):
        raise ValueError(f"random/forget must be {shape} finite scores, got {random.shape}")
    return Examined(random, _probed(arrays, "probe/before"), _probed(arrays, "probe/after"), _relearned(arrays))


def _relearned(arrays: Mapping[str, Array]) -> RelearnTime | None:
    """Count the steps of relearning from the curve and the original's accuracy."""
    curve, original = arrays.get("relearn/curve"), arrays.get("relearn/original")
    if curve is None:
        return None
    if original is None or original.shape != (1,):
        raise ValueError("relearn/curve needs relearn/original beside it, one accuracy")
    return relearn_time(curve, float(original[0])) if original[0] != 0 else None


def _probed(arrays: Mapping[str, Array], name: str) -> Probed:
    """Give the shares of [right, asked, right, asked]."""
    found = arrays.get(name)
    if found is None:
        return Probed()
    if found.shape != (4,) or found.dtype.kind not in "iu":
        raise ValueError(f"{name} must be 4 integers, got {found.dtype} of shape {found.shape}")
    counts = [int(one) for one in found]
    pairs = counts[:2], counts[2:]
    if not all(0 <= right <= asked for right, asked in pairs):
        raise ValueError(f"{name} must count right answers among those asked, got {counts}")
    return Probed(*(right / asked if asked else None for right, asked in pairs))
