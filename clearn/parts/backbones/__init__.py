"""Networks by name, as rows of groups that a method can share, copy and freeze one by one.

`blueprint("resnet32", inputs)` builds nothing yet: it holds one builder per group, from the stem to the last
stage with pooling. The groups work on normalised float inputs; a strategy puts `normalise.Normalise(inputs)`
in front. Importing this package loads neither torch nor timm.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from clearn.errors import ConfigError
from clearn.parts.backbones.names import BACKBONES
from clearn.stream import Inputs

if TYPE_CHECKING:
    from torch import nn

    Builder = Callable[[], nn.Module]


@dataclass(frozen=True)
class Blueprint:
    """A network that is not built yet.

    Attributes:
        name: as in the config.
        width: d of the features (b, d).
        stages: builders of the groups, in order: stem, stage 1, ..., last stage with pooling. Each call gives
            a fresh module; fresh weights are drawn from torch's global generator, pretrained ones are copied
            and draw nothing.
        first_stage: the group with which the stages of feature maps begin: 1 after a stem, 0 without one; None where
            what lies between the groups is not known to be maps (b, c, h, w).
    """

    name: str
    width: int
    stages: tuple[Builder, ...]
    first_stage: int | None = None

    def whole(self) -> nn.Sequential:
        """Build all groups, in order: normalised inputs (b, *shape) -> features (b, width)."""
        return _row(self.stages)

    def split(self, specialized: int = 1) -> tuple[Builder, Builder]:
        """Cut in two at a group's border, as MEMO does (Zhou et al. 2023; `specialized=2` is their MEMO-2).

        Args:
            specialized: how many of the last groups every task gets for itself, 1 to all; with all of them
                the generalized part is `nn.Identity`, and the specialized one draws what `whole` draws.

        Returns:
            Builders of the generalized and of the specialized part.

        Raises:
            ConfigError: `specialized` out of range.
        """
        count = len(self.stages)
        if not 1 <= specialized <= count:
            raise ConfigError(
                f"specialized={specialized} must lie in [1, {count}]: {self.name} has {count} groups; "
                "choose how many of the last ones every task gets"
            )
        shared, own = self.stages[: count - specialized], self.stages[count - specialized :]
        return partial(_row, shared) if shared else _nothing, partial(_row, own)


def blueprint(name: str, inputs: Inputs, pretrained: str | bool = False) -> Blueprint:
    """Plan the network `name` for inputs of a given shape.

    Args:
        name: one of `names.BACKBONES`, or `timm/NAME`.
        inputs: what the stream gives; only its shape matters here.
        pretrained: False for fresh weights, True for those timm publishes, or the path of a .safetensors file
            in timm's layout; ImageNet ResNets and timm models only.

    Raises:
        ConfigError: an unknown name, inputs the network cannot take, a timm model that cannot be cut into
            groups, or weights for a network that has none.
        DataError: pretrained weights that cannot be had, or are those of another network.
    """
    match name:
        case "mlp":
            from clearn.parts.backbones import mlp

            _fresh_only(name, pretrained)
            return Blueprint(name, mlp.WIDTH, mlp.stages(math.prod(inputs.shape)))
        case "convnet2" | "convnet4":
            from clearn.parts.backbones import convnet

            _fresh_only(name, pretrained)
            channels, *_ = _image(name, inputs, convnet.LEAST[name])
            return Blueprint(name, convnet.WIDTHS[name], convnet.stages(name, channels), first_stage=0)
        case "resnet8" | "resnet14" | "resnet20" | "resnet26" | "resnet32" | "cosine_resnet32":
            from clearn.parts.backbones import cifar_resnet

            _fresh_only(name, pretrained)
            channels, *_ = _image(name, inputs)
            return Blueprint(name, cifar_resnet.WIDTH, cifar_resnet.stages(name, channels), first_stage=1)
        case "resnet10" | "resnet18" | "resnet34" | "resnet50":
            from clearn.parts.backbones import imagenet_resnet

            builders = imagenet_resnet.stages(name, _image(name, inputs), pretrained)
            return Blueprint(name, imagenet_resnet.WIDTHS[name], builders, first_stage=1)
        case _ if name.startswith("timm/"):
            from clearn.parts.backbones import timm_models

            width, builders = timm_models.stages(name.removeprefix("timm/"), _image(name, inputs), pretrained)
            return Blueprint(name, width, builders)
    known = [known for known in BACKBONES if known != "timm/NAME"]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    raise ConfigError(f"no backbone '{name}'; did you mean '{near}'? There are {', '.join(known)}, and timm/NAME")


def _image(name: str, inputs: Inputs, least: int = 1) -> tuple[int, int, int]:
    """Return (channels, height, width), or refuse inputs that are no images or too small."""
    match inputs.shape:
        case (channels, height, width) if min(height, width) >= least:
            return channels, height, width
        case (_, _, _):
            raise ConfigError(
                f"{name} needs images of at least {least}x{least}, got shape {inputs.shape} "
                "(channels, height, width): take larger images or a smaller backbone"
            )
    raise ConfigError(
        f"{name} needs images of shape (channels, height, width), got inputs of shape {inputs.shape}: take backbone mlp"
    )


def _fresh_only(name: str, pretrained: str | bool) -> None:
    """Refuse weights for a net that has no published ones."""
    if pretrained:
        raise ConfigError(
            f"{name} has no pretrained weights, got pretrained={pretrained}: leave it out, or take "
            "resnet18, resnet34, resnet50 or timm/NAME"
        )


def _row(builders: tuple[Builder, ...]) -> nn.Sequential:
    from torch import nn

    return nn.Sequential(*(build() for build in builders))


def _nothing() -> nn.Identity:
    from torch import nn

    return nn.Identity()
