"""Our networks in the shape that Avalanche asks for: they grow when its strategies adapt a model to an experience."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor

from clearn.avalanche import library
from clearn.parts.nets import SingleNet
from clearn.stream import Inputs


def network(inputs: Inputs, backbone: str, pretrained: str | bool, classes: int | None) -> SingleNet:
    """Make the network of `replay` or `ewc` for Avalanche: normalisation, backbone, linear head.

    Args:
        inputs: what one input of the stream looks like.
        backbone: by name.
        pretrained: as for `blueprint`.
        classes: rows of the head from the start; None lets it grow with the classes, as our own methods do.
    """
    net: SingleNet = _network_class()(inputs, backbone, pretrained)
    if classes is not None:
        net.grow(classes)
    return net


@cache
def _network_class() -> Any:
    """Derive the class when Avalanche is there: it knows growing networks by their base class."""
    library()
    from avalanche.models import DynamicModule
    from avalanche.models.base_model import BaseModel

    class Network(SingleNet, DynamicModule, BaseModel):
        """A `SingleNet` whose copies, inside plugins, grow as it does."""

        def adaptation(self, experience: Any) -> None:
            """Make room for the classes of an experience."""
            n_classes = max(experience.classes_seen_so_far) + 1
            if self.head is None or n_classes > len(self.head.weight):
                self.grow(n_classes)

        def get_features(self, x: Tensor) -> Tensor:
            """(b, *shape) raw inputs -> (b, d)."""
            return self.features(x)

    return Network
