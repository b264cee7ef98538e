"""A vision transformer's weights: what is known of a network by its name, fresh ones, timm's own, and those of a file.

What was read once is kept, with the content hash of each of its tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn

from clearn.errors import ConfigError, DataError
from clearn.parts.adapted_block import AdaptedBlock
from clearn.parts.backbones.timm_models import aside, check_name, content_hash

CLASSIFIER = ("head.", "head_dist.")
"""timm's names for what a checkpoint holds beyond the features."""


@dataclass(frozen=True)
class Plan:
    """What is known of a network before it is built.

    Attributes:
        native: side of the checkpoint's own images, in pixels.
        patch: (height, width) of a patch.
        mean: of the checkpoint's three channels.
        std: likewise.
    """

    native: int
    patch: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@lru_cache
def plan(name: str) -> Plan:
    """Look at a network without weights, and refuse what is no row of plain pre-norm blocks."""
    check_name(name)
    try:
        with aside(), torch.device("meta"):
            net = timm.create_model(name, pretrained=False, num_classes=0)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ConfigError(f"vit.name={name} cannot be built by timm: {error}; take another network") from error
    if not isinstance(net, VisionTransformer) or any(type(block) is not Block for block in net.blocks):
        raise ConfigError(
            f"vit.name={name} is no plain vision transformer (its class is {type(net).__name__}): adapters stand "
            "beside the MLPs of timm's pre-norm blocks; take one such as vit_small_patch14_dinov2 or "
            "vit_base_patch16_224"
        )
    cfg: Any = net.pretrained_cfg
    if cfg["input_size"][0] != 3:
        raise ConfigError(f"vit.name={name} sees {cfg['input_size'][0]} channels, but images have 3: take another one")
    patch = tuple(int(side) for side in net.patch_embed.patch_size)
    return Plan(int(cfg["input_size"][-1]), (patch[0], patch[1]), tuple(cfg["mean"]), tuple(cfg["std"]))


def fresh(name: str, image_size: int) -> VisionTransformer:
    """Draw weights from torch's global generator."""
    net = timm.create_model(name, pretrained=False, num_classes=0, img_size=image_size, block_fn=AdaptedBlock)
    assert isinstance(net, VisionTransformer)
    return net


def stamp(weights: str | bool) -> tuple[int, int]:
    """Size and time of a file of weights, so that a file that was changed is read again."""
    if isinstance(weights, bool):
        return (0, 0)
    path = Path(weights).expanduser()
    if path.suffix != ".safetensors" or not path.is_file():
        raise DataError(
            f"vit.weights={weights} is no .safetensors file that can be found (looked for {path.absolute()}); "
            "give true, or the path of weights in timm's layout"
        )
    facts = path.stat()
    return (facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=1)
def pretrained(
    name: str, weights: str | bool, stamp: tuple[int, int], image_size: int
) -> tuple[VisionTransformer, dict[str, str]]:
    """Read weights once for all the times that a run rebuilds its learner; `stamp` tells files of one name apart."""
    with aside():
        net = _from_file(name, weights, image_size) if isinstance(weights, str) else _published(name, image_size)
    return net, {key: content_hash(value) for key, value in net.state_dict().items()}


def _published(name: str, image_size: int) -> VisionTransformer:
    try:
        net = timm.create_model(name, pretrained=True, num_classes=0, img_size=image_size, block_fn=AdaptedBlock)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"the weights of {name} could not be had: {str(error).rstrip('.')}; "
            "give a local file instead, vit.weights=FILE.safetensors"
        ) from error
    assert isinstance(net, VisionTransformer)
    return net


def _from_file(name: str, weights: str, image_size: int) -> VisionTransformer:
    """Read a file in the form that timm reads its own: positions are resampled, a classifier is left out."""
    path, net = Path(weights).expanduser(), fresh(name, image_size)
    try:
        found = checkpoint_filter_fn(load_file(path), net)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{path} does not hold the weights of {name}: {error}; give that network's file") from error
    own = net.state_dict()
    ours = {key: value for key, value in found.items() if not key.startswith(CLASSIFIER)}
    missing, unknown = sorted(own.keys() - ours.keys()), sorted(ours.keys() - own.keys())
    misshapen = sorted(key for key in own.keys() & ours.keys() if own[key].shape != ours[key].shape)
    if missing or unknown or misshapen:
        raise DataError(
            f"{path} does not hold the weights of {name}: of {len(own)} tensors {len(missing)} are not in it"
            f"{_first(missing)}, {len(misshapen)} have another shape{_first(misshapen)}, and {len(unknown)} more are "
            f"not the network's{_first(unknown)}; give that network's file, or name the network that the file is of"
        )
    net.load_state_dict(ours)
    return net


def _first(keys: list[str]) -> str:
    return f" (first {keys[0]})" if keys else ""
