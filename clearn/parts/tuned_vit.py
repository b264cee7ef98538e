"""A pretrained vision transformer that is trained as a whole.

It is read, fed and known by its content as the frozen one is, so leaves that training left as their checkpoint has them
are neither written nor weighed; those that it changed are carried like any other weights.
"""

from __future__ import annotations

from torch import nn

from clearn.parts.frozen_vit import FrozenViT, Vit
from clearn.stream import Inputs


class TunedViT(FrozenViT):
    """The same network with weights that take gradients and modes that can be set.

    Args:
        inputs: images of one channel (repeated to three) or of three; uint8, or float32 within [0, 1].
        options: which network, which weights, at which size.
    """

    def __init__(self, inputs: Inputs, options: Vit) -> None:
        super().__init__(inputs, options)
        self.net.requires_grad_(True)

    def train(self, mode: bool = True) -> TunedViT:
        """Set the mode, as of any module: what a network drops while it is trained is dropped."""
        return nn.Module.train(self, mode)
