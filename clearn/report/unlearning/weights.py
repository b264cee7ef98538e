"""How far a request moved a model's weights, from the states before and after it; no torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearn.errors import StateError
from clearn.folder import RunFolder
from clearn.forgetting import layer_distances

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norms: counted, not learned


def moved(path: Path, step: int) -> float | None:
    """Give ||after - before|| / ||before|| over all parameters that a state holds, for the request of a step.

    None where a state is missing or damaged, where both do not hold the same tensors (pretrained ones are held only
    once they differ from their checkpoint), and where a weight is not finite.
    """
    folder = RunFolder(path, arrays="numpy")
    try:
        before, after = (parameters(folder.read_state(at).frozen.tensors) for at in (step - 1, step))
        far = layer_distances(after, before)
    except (StateError, ValueError):
        return None
    long = _norm(np.linalg.norm(one.astype(np.float64)) for one in before.values())
    return _norm(far.values()) / long if long else None


def parameters(tensors: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Give a model's tensors of floats, without the statistics of its batch norms."""
    return {
        name: np.asarray(one)
        for name, one in tensors.items()
        if name.startswith("model/") and one.dtype.kind == "f" and not name.endswith(STATISTICS)
    }


def _norm(lengths: Any) -> float:
    return float(np.linalg.norm(list(lengths)))
