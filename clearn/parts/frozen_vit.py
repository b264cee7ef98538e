"""A pretrained vision transformer that is never trained: stored images in, features out; adapters and prompts beside.

All methods on pretrained models share it. Its weights are bit-identical to their checkpoint, so they are found by
content hash and neither written nor weighed with what is carried (specs "mos", sections 5 and 7).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.hooks import RemovableHandle

from clearn.errors import ConfigError, DataError
from clearn.parts.adapters import Adapters
from clearn.parts.backbones.timm_models import aside, check_name, content_hash
from clearn.parts.prompts import Prefix, Prefixes, attend
from clearn.stream import Inputs

CLASSIFIER = ("head.", "head_dist.")
"""timm's names for what a checkpoint holds beyond the features."""


@dataclass(frozen=True)
class Vit:
    """The pretrained backbone.

    Attributes:
        name: of one of timm's vision transformers.
        weights: true for those that timm publishes, or the path of a .safetensors file in timm's layout; false for
            fresh ones, which are carried like any other weights.
        image_size: side in pixels to which images are resized; null for the checkpoint's own. Position embeddings are
            resampled to it.
        compile: have torch compile the passes of the plain network, without adapters or prompts beside it, whose blocks
            are given others at each pass. It takes a C++ compiler and some seconds for each learner that is built.
        normalise: "checkpoint": with the mean and deviation that the weights were trained with; "none": pixels stay in
            [0, 1], as the LAMDA-PILOT toolbox has it for every such method.
    """

    name: str = "vit_base_patch16_224.augreg_in21k"
    weights: str | bool = True
    image_size: int | None = None
    normalise: Literal["checkpoint", "none"] = "checkpoint"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError(f"image_size={self.image_size} must be 1 or more pixels, or null for the checkpoint's")


class AdaptedBlock(Block):
    """timm's pre-norm block with a prefix for its attention and a branch beside its MLP; its weights' names are timm's.

    Attributes:
        beside: (b, N, d) -> (b, N, d), or None; set for the time of one forward pass.
        prefix: likewise.
    """

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # whatever timm gives its blocks
        self.attn: Attention  # or another of timm's, which then takes no prefix
        self.beside: partial[Tensor] | None = None
        self.prefix: Prefix | None = None

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(b, N, d) -> (b, N, d)."""
        assert attn_mask is None, "images have no mask"
        assert not is_causal, "images have no order"
        normed = self.norm1(x)
        attended = self.attn(normed) if self.prefix is None else attend(self.attn, normed, self.prefix)
        x = x + self.drop_path1(self.ls1(attended))
        y: Tensor = x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        return y if self.beside is None else y + self.beside(x)


class FrozenViT(nn.Module):
    """A vision transformer whose weights take no gradient and which stays in evaluation mode whatever it is told.

    Args:
        inputs: images of one channel (repeated to three) or of three; uint8, or float32 within [0, 1].
        options: which network, which weights, at which size.

    Attributes:
        depth: L, its blocks.
        width: d of the features.
        image_size: side of the images that it sees, in pixels.
        pretrained_hashes: state key -> content hash of the checkpoint's value, after the position embeddings were
            resampled; empty for fresh weights.

    Raises:
        ConfigError: no such network, no plain vision transformer, vectors instead of images, a size that its patches
            do not divide.
        DataError: the weights cannot be had, or are those of another network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, inputs: Inputs, options: Vit) -> None:
        super().__init__()
        plan = _plan(options.name)
        self.image_size = options.image_size or plan.native
        _check_images(inputs)
        _check_size(options, plan, self.image_size)
        self.pretrained_hashes: dict[str, str] = {}
        if options.weights is False:
            self.net = _fresh(options.name, self.image_size)
        else:
            stamp = _stamp(options.weights)
            kept, hashes = _pretrained(options.name, options.weights, stamp, self.image_size)
            self.net = copy.deepcopy(kept)
            self.pretrained_hashes = {f"net.{key}": value for key, value in hashes.items()}
        self.net.requires_grad_(False).eval()
        self.plain: Callable[[Tensor], Tensor] = self.net.forward_features
        if options.compile:
            self.plain = torch.compile(self.net.forward_features)
        self.depth, self.width = len(self.net.blocks), int(self.net.num_features)
        self.channels, self.full = inputs.shape[0], 255.0 if inputs.dtype == "uint8" else 1.0
        as_trained = options.normalise == "checkpoint"
        mean, std = (plan.mean, plan.std) if as_trained else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> FrozenViT:
        """Stay in evaluation mode."""
        return super().train(False)

    def images(self, inputs: Tensor) -> Tensor:
        """(b, c, h, w) as stored -> (b, 3, image_size, image_size) float32, normalised.

        Images are resized to a square (bicubic, antialiased); what overshoots is cut at [0, 1].
        """
        pixels = (inputs.float() / self.full).expand(-1, 3, -1, -1)
        size = (self.image_size, self.image_size)
        if tuple(pixels.shape[2:]) != size:
            pixels = interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return (pixels - self.mean) / self.std

    def forward(self, inputs: Tensor, adapters: Adapters | None = None, prefixes: Prefixes | None = None) -> Tensor:
        """Compute phi(x; A).

        Args:
            inputs: (b, c, h, w) raw inputs as stored.
            adapters: what is added beside each MLP; None for the plain network.
            prefixes: what tokens attend to beside themselves, by block; None for the plain network.

        Returns:
            (b, d): what the network hands to its classifier: the class token after the final norm, or what the
            model itself pools where it pools otherwise.
        """
        if adapters is None and prefixes is None:
            tokens = self.plain(self.images(inputs))
        else:
            with self._hosting(adapters, prefixes):
                tokens = self.net.forward_features(self.images(inputs))
        features: Tensor = self.net.forward_head(tokens, pre_logits=True)
        return features

    def prompted(self, inputs: Tensor, tokens: Tensor) -> Tensor:
        """Let tokens of one's own go through the network, right behind the class token and with its position.

        Args:
            inputs: (b, c, h, w) raw inputs as stored.
            tokens: (b, m, d). Each gets the class token's entry of the position embeddings, if that has one.

        Returns:
            (b, m, d): what became of them, after the final norm.
        """
        net, m = self.net, tokens.shape[1]
        x = net._pos_embed(net.patch_embed(self.images(inputs)))  # (b, 1 + N, d)
        if net.pos_embed is not None and not net.no_embed_class:
            tokens = tokens + net.pos_embed[:, :1]
        x = torch.cat([x[:, :1], tokens, x[:, 1:]], dim=1)
        x = net.norm(net.blocks(net.norm_pre(x)))
        out: Tensor = net.fc_norm(x[:, 1 : 1 + m])  # one of both norms is the identity
        return out

    def cannot_take_tokens(self) -> list[str]:
        """Say why `prompted` is not for this network: nothing, or one sentence."""
        if self.net.cls_token is not None:
            return []
        return ["this network has no class token, behind which prompts could stand: take another vit.name"]

    def cannot_take_prefixes(self, name: str, blocks: Sequence[int]) -> list[str]:
        """Say what is wrong with blocks that shall take prefixes: nothing, or one sentence.

        Args:
            name: of the option that lists them.
            blocks: from 0.
        """
        if not blocks or len(set(blocks)) != len(blocks) or not all(0 <= block < self.depth for block in blocks):
            return [f"{name}={list(blocks)} must be one or more different blocks in [0, {self.depth - 1}]"]
        other = {type(block.attn).__name__ for block in self.net.blocks if type(block.attn) is not Attention}
        return [f"prefixes join timm's plain attention, not {', '.join(other)}: take another vit.name"] if other else []

    @contextmanager
    def _hosting(self, adapters: Adapters | None, prefixes: Prefixes | None) -> Iterator[None]:
        """Have the blocks hold adapters and prefixes for one forward pass."""
        blocks: list[AdaptedBlock] = list(self.net.blocks)  # type: ignore[arg-type]
        hooks: list[RemovableHandle] = []
        try:
            for index, block in enumerate(blocks):
                if adapters is not None and adapters.at == "qkv":
                    hooks.append(block.attn.qkv.register_forward_hook(partial(_added, adapters, index)))
                else:
                    block.beside = None if adapters is None else partial(adapters.branch, index)
                block.prefix = None if prefixes is None else prefixes.get(index)
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for block in blocks:
                block.beside = block.prefix = None


def _added(adapters: Adapters, index: int, _: nn.Module, args: tuple[Tensor], projected: Tensor) -> Tensor:
    """Add a block's branch to its projection: a forward hook."""
    return projected + adapters.branch(index, args[0])


@dataclass(frozen=True)
class _Plan:
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
def _plan(name: str) -> _Plan:
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
    return _Plan(int(cfg["input_size"][-1]), (patch[0], patch[1]), tuple(cfg["mean"]), tuple(cfg["std"]))


def _check_images(inputs: Inputs) -> None:
    if len(inputs.shape) != 3 or inputs.shape[0] not in (1, 3):
        raise ConfigError(
            f"a vision transformer sees images of shape (1 or 3, height, width), but this stream's inputs are of shape "
            f"{inputs.shape}: choose another stream, or a method with a backbone for such inputs"
        )


def _check_size(options: Vit, plan: _Plan, size: int) -> None:
    if any(size % side for side in plan.patch):
        step = max(plan.patch)
        near = max(step, round(size / step) * step)
        raise ConfigError(
            f"vit.image_size={size} must be a multiple of the patches of {options.name}, which are {plan.patch[0]} x "
            f"{plan.patch[1]} pixels: write {near}"
        )


def _fresh(name: str, image_size: int) -> VisionTransformer:
    """Draw weights from torch's global generator."""
    net = timm.create_model(name, pretrained=False, num_classes=0, img_size=image_size, block_fn=AdaptedBlock)
    assert isinstance(net, VisionTransformer)
    return net


def _stamp(weights: str | bool) -> tuple[int, int]:
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
def _pretrained(
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
    path, net = Path(weights).expanduser(), _fresh(name, image_size)
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
