"""A pretrained vision transformer that is never trained: stored images in, features out; adapters and prompts beside.

All methods on pretrained models share it. Its weights are bit-identical to their checkpoint, so they are found by
content hash and neither written nor weighed with what is carried (specs "mos", sections 5 and 7).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from timm.layers.attention import Attention
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.hooks import RemovableHandle

from clearn.errors import ConfigError
from clearn.parts.adapted_block import AdaptedBlock
from clearn.parts.adapters import Adapters, Place
from clearn.parts.prompts import Prefixes
from clearn.parts.vit_weights import Plan, fresh, plan, pretrained, stamp
from clearn.stream import Inputs


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


@dataclass(frozen=True)
class Begun:
    """Images as far as a network goes with them before it matters which adapters it has.

    Attributes:
        tokens: (b, N, d): with adapters beside the MLPs the first block's residual stream, which its branch reads; with
            those on projections what enters that block.
        after: (b, N, d) what the first block gives without a branch; None if it has not begun.
    """

    tokens: Tensor
    after: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> Begun:
        """Take some of the images: (m,) int64."""
        return Begun(self.tokens[rows], None if self.after is None else self.after[rows])


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
        known = plan(options.name)
        self.image_size = options.image_size or known.native
        _check_images(inputs)
        _check_size(options, known, self.image_size)
        self.pretrained_hashes: dict[str, str] = {}
        if options.weights is False:
            self.net = fresh(options.name, self.image_size)
        else:
            kept, hashes = pretrained(options.name, options.weights, stamp(options.weights), self.image_size)
            self.net = copy.deepcopy(kept)
            self.pretrained_hashes = {f"net.{key}": value for key, value in hashes.items()}
        self.net.requires_grad_(False).eval()
        self.plain: Callable[[Tensor], Tensor] = self.net.forward_features
        if options.compile:
            self.plain = torch.compile(self.net.forward_features)
        self.depth, self.width = len(self.net.blocks), int(self.net.num_features)
        plain_attention = type(self.net.blocks[-1].attn) is Attention
        self._n_read = 1 if self.net.global_pool == "token" and plain_attention else None  # the class token alone
        self.channels, self.full = inputs.shape[0], 255.0 if inputs.dtype == "uint8" else 1.0
        as_trained = options.normalise == "checkpoint"
        mean, std = (known.mean, known.std) if as_trained else ((0.0,) * 3, (1.0,) * 3)
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
        with self._hosting(adapters, prefixes):
            run = self.plain if adapters is None and prefixes is None else self.net.forward_features
            tokens = run(self.images(inputs))
        features: Tensor = self.net.forward_head(tokens, pre_logits=True)
        return features

    def begin(self, inputs: Tensor, at: Place) -> Begun:
        """Go as far as the network goes before it matters which adapters it has.

        Args:
            inputs: (b, c, h, w) raw inputs as stored.
            at: what the adapters stand beside.
        """
        net = self.net
        tokens = net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(self.images(inputs)))))
        if at == "qkv":
            return Begun(tokens)
        block: AdaptedBlock = net.blocks[0]  # type: ignore[assignment]
        r = block.residual(tokens)
        return Begun(r, block.plain(r))

    def resume(self, begun: Begun, adapters: Adapters) -> Tensor:
        """Compute phi(x; A) from where `begin` stopped: what `forward` gives.

        Args:
            begun: of b images, by the place of these adapters.
            adapters: of the same images.

        Returns:
            (b, d).
        """
        with self._hosting(adapters, None):
            tokens, blocks = begun.tokens, self.net.blocks
            if begun.after is not None:
                tokens, blocks = begun.after + adapters.branch(0, tokens), blocks[1:]
            for block in blocks:
                tokens = block(tokens)
        features: Tensor = self.net.forward_head(self.net.norm(tokens), pre_logits=True)
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
        """Have the blocks hold adapters and prefixes for one forward pass to the head."""
        blocks: list[AdaptedBlock] = list(self.net.blocks)  # type: ignore[arg-type]
        hooks: list[RemovableHandle] = []
        try:
            for index, block in enumerate(blocks):
                if adapters is not None and adapters.at == "qkv":
                    hooks.append(block.attn.qkv.register_forward_hook(partial(_added, adapters, index)))
                else:
                    block.beside = None if adapters is None else partial(adapters.branch, index)
                block.prefix = None if prefixes is None else prefixes.get(index)
            blocks[-1].n_read, blocks[-1].projects = self._n_read, bool(hooks)
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for block in blocks:
                block.beside = block.prefix = block.n_read = None
                block.projects = False


def _added(adapters: Adapters, index: int, _: nn.Module, args: tuple[Tensor], projected: Tensor) -> Tensor:
    """Add a block's branch to its projection: a forward hook."""
    return projected + adapters.branch(index, args[0])


def _check_images(inputs: Inputs) -> None:
    if len(inputs.shape) != 3 or inputs.shape[0] not in (1, 3):
        raise ConfigError(
            f"a vision transformer sees images of shape (1 or 3, height, width), but this stream's inputs are of shape "
            f"{inputs.shape}: choose another stream, or a method with a backbone for such inputs"
        )


def _check_size(options: Vit, known: Plan, size: int) -> None:
    if any(size % side for side in known.patch):
        step = max(known.patch)
        near = max(step, round(size / step) * step)
        raise ConfigError(
            f"vit.image_size={size} must be a multiple of the patches of {options.name}, which are {known.patch[0]} x "
            f"{known.patch[1]} pixels: write {near}"
        )
