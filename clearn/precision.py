"""Mixed precision outside of training: features for herding and scoring run as training's forward passes do."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Run forward passes as Lightning does under this precision; heads and distances are float32 all the same.

    Args:
        precision: as in section `trainer`, e.g. "32-true" or "bf16-mixed".
        device: where the networks are.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16-mixed" else nullcontext()
