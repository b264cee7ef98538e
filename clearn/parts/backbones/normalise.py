"""The first module of every network: stored values in, normalised float32 out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clearn.errors import ConfigError
from clearn.stream import Inputs


class Normalise(nn.Module):
    """(x / 255 - mean) / std for uint8, (x - mean) / std for float32, as one x * scale + shift.

    Carries nothing: its two vectors follow from the stream's `Inputs`, and are buffers outside the state dict
    only to move along to the device. float32 inputs without mean and std pass through untouched.

    Args:
        inputs: shape (channels, height, width) or (d,); mean and std have one value per channel, or none.

    Raises:
        ConfigError: mean or std of another length, or a std that is not positive.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        mean, std = _per_channel("mean", inputs, 0.0), _per_channel("std", inputs, 1.0)
        if not bool((std > 0).all()):
            raise ConfigError(f"std must be above 0 in every channel, got {inputs.std}: mend the stream's inputs")
        full = 255.0 if inputs.dtype == "uint8" else 1.0
        self.untouched = inputs.dtype != "uint8" and not inputs.mean and not inputs.std
        self.register_buffer("scale", (1 / (full * std)).float(), persistent=False)  # (channels, 1, 1) or (d,)
        self.register_buffer("shift", (-mean / std).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, *shape) as stored -> (b, *shape) float32."""
        return x if self.untouched else (x * self.scale).add_(self.shift)


def _per_channel(what: str, inputs: Inputs, default: float) -> Tensor:
    """Give `inputs.mean` or `inputs.std` as float64, shaped to broadcast over a batch."""
    values: tuple[float, ...] = getattr(inputs, what)
    channels = inputs.shape[0]
    if len(values) not in (0, channels):
        raise ConfigError(
            f"{what} must have one value for each of {channels} channels, or none, got {len(values)}: "
            f"{values}; mend the stream's inputs"
        )
    vector = torch.tensor(values or (default,) * channels, dtype=torch.float64)
    return vector.view(-1, *(1,) * (len(inputs.shape) - 1))
