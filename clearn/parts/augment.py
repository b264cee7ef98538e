"""Random changes to training images: a whole batch of raw uint8 pixels at once, draws from a given generator.

One gather does crop and flip. Measured on one CPU thread, batches of 128 images of 3x32x32: 0.007 ms an image
for the whole CIFAR chain, a twentieth or less of what torchvision takes on PIL images; so small sets need no
worker processes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import UnionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clearn.errors import ConfigError

ASPECT = (3 / 4, 4 / 3)  # width / height of a random-resized crop, as in torchvision
TRIES = 10  # boxes drawn before a random-resized crop gives up and takes the centre, as in torchvision


@dataclass(frozen=True)
class Augment:
    """Random crop, flip and brightness, in the order and with the arithmetic of torchvision's PIL transforms.

    Attributes:
        crop: zero pixels added on each side before an image-sized window is cut out; 0 means no crop.
        flip: mirror left and right with probability 1/2.
        brightness: b >= 0; each image is scaled by a factor uniform in [max(0, 1 - b), 1 + b].
        resized_crop: (low, high) share of the area, 0 < low <= high <= 1: cut out a box of random place, area
            and aspect ratio (3/4 to 4/3), and enlarge it to the whole image. Not together with `crop`.
        whole: cut that box out of the picture as its file has it, at every access, and not out of the centre that is
            kept of it. Needs `resized_crop`, and a data set of pictures with a `size`; they are decoded when they are
            asked for.
    """

    crop: int = 0
    flip: bool = False
    brightness: float = 0.0
    resized_crop: tuple[float, float] | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        wrong = []
        if self.crop < 0:
            wrong.append(f"augment crop={self.crop} must be 0 or more: the zero pixels added on each side")
        if self.brightness < 0:
            wrong.append(f"augment brightness={self.brightness} must be 0 or more; CIFAR uses 63/255")
        if self.resized_crop is not None:
            object.__setattr__(self, "resized_crop", tuple(self.resized_crop))  # a list in YAML
            if len(self.resized_crop) != 2 or not 0 < self.resized_crop[0] <= self.resized_crop[1] <= 1:
                wrong.append(
                    f"augment resized_crop={list(self.resized_crop)} must be two shares of the area, "
                    "0 < low <= high <= 1; ImageNet uses [0.08, 1.0]"
                )
            if self.crop:
                wrong.append(f"augment crop={self.crop} and resized_crop both cut the image: give one of the two")
        if self.whole and self.resized_crop is None:
            wrong.append("augment whole=True says where resized_crop cuts: give that, or leave whole out")
        if wrong:
            raise ConfigError("\n".join(wrong))

    def __call__(self, inputs: Tensor, rng: torch.Generator) -> Tensor:
        """Change each image of a batch at random.

        Draws, where switched on, in this order: row offsets, column offsets; boxes; flips; brightness
        factors. They are made on the generator's device and moved, so that a CPU generator draws the same
        on every device.

        Args:
            inputs: (b, C, H, W) uint8, left as it is.
            rng: where every draw comes from.

        Returns:
            (b, C, H, W) uint8.
        """
        assert not self.whole, "whole pictures are cut where they are decoded; see `on_batches`"
        assert (inputs.dtype, inputs.ndim) == (torch.uint8, 4), f"images expected, got {inputs.dtype} {inputs.shape}"
        if not len(inputs):
            return inputs
        b, height, width = len(inputs), inputs.shape[-2], inputs.shape[-1]
        tops = lefts = torch.zeros(b, dtype=torch.int64, device=inputs.device)
        flips = torch.zeros(b, dtype=torch.bool, device=inputs.device)

        if self.crop:
            tops = _integers(2 * self.crop + 1, b, rng).to(inputs.device)
            lefts = _integers(2 * self.crop + 1, b, rng).to(inputs.device)
        elif self.resized_crop is not None:
            boxes = draw_boxes(b, height, width, self.resized_crop, rng)
            inputs = cut_and_enlarge(inputs, boxes.to(inputs.device))

        if self.flip:
            flips = (_uniform((b,), rng) < 0.5).to(inputs.device)
        if self.crop or self.flip:
            inputs = shift_and_flip(inputs, self.crop, tops, lefts, flips)

        if self.brightness:
            low, high = max(0.0, 1 - self.brightness), 1 + self.brightness
            factors = low + (high - low) * _uniform((b,), rng)
            inputs = brighten(inputs, factors.to(inputs.device))
        return inputs

    def on_batches(self) -> Augment:
        """What is left to do once whole pictures are cut."""
        return replace(self, resized_crop=None, whole=False) if self.whole else self


PRESETS: dict[str, Augment | None] = {
    "none": None,
    "flip": Augment(flip=True),
    "crop_flip": Augment(crop=4, flip=True),
    "cifar": Augment(crop=4, flip=True, brightness=63 / 255),  # the chain of the PyCIL line of work
    "imagenet": Augment(flip=True, resized_crop=(0.08, 1.0)),
    "pilot": Augment(flip=True, resized_crop=(0.05, 1.0), whole=True),  # of methods on pretrained vision transformers
}

KINDS: dict[str, tuple[type | UnionType, str]] = {  # of the fields, for options that come from a config
    "crop": (int, "a whole number of pixels"),
    "flip": (bool, "true or false"),
    "brightness": (int | float, "a number"),
    "resized_crop": (list | tuple, "two shares of the area, as in [0.08, 1.0]"),
    "whole": (bool, "true or false"),
}


def augment(spec: str | Mapping[str, Any] | None) -> Augment | None:
    """Find an augmentation by its name, or make one from options.

    Args:
        spec: a name of `PRESETS`, a mapping with the fields of `Augment`, or None.

    Raises:
        ConfigError: there is no such name or option.
    """
    if spec is None:
        return None
    if isinstance(spec, str):
        if spec not in PRESETS:
            raise ConfigError(f"augment={spec!r} is not known{_nearest(spec, list(PRESETS))}")
        return PRESETS[spec]
    wrong = [f"augment has no option {key!r}{_nearest(str(key), list(KINDS))}" for key in spec if key not in KINDS]
    for key, (kind, right) in KINDS.items():
        value = spec.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)):
            wrong.append(f"augment {key}={value!r} must be {right}")
    if wrong:
        raise ConfigError("\n".join(wrong))
    return Augment(**{key: value for key, value in spec.items() if value is not None})


def shift_and_flip(images: Tensor, pad: int, tops: Tensor, lefts: Tensor, flips: Tensor) -> Tensor:
    """Pad with zeros, cut an image-sized window out of each image, mirror some: one gather.

    Args:
        images: (b, C, H, W) uint8.
        pad: zero pixels on each side.
        tops: (b,) int64 first row of the window in the padded image, 0 to 2 pad.
        lefts: (b,) int64 first column.
        flips: (b,) bool, mirror the window left and right.

    Returns:
        (b, C, H, W) uint8.
    """
    b, channels, height, width = images.shape
    padded = F.pad(images, (pad, pad, pad, pad)) if pad else images.contiguous()
    across = torch.arange(width, device=images.device)
    columns = torch.where(flips[:, None], width - 1 - across, across) + lefts[:, None]  # (b, W)
    rows = torch.arange(height, device=images.device) + tops[:, None]  # (b, H)
    index = rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]  # (b, H, W) into one padded plane
    index = index.view(b, 1, height * width).expand(b, channels, height * width)
    return padded.view(b, channels, -1).gather(2, index).view_as(images)


def brighten(images: Tensor, factors: Tensor) -> Tensor:
    """Scale pixels as PIL's blend with black does: float32 product, clamped to 255, truncated.

    Args:
        images: (b, C, H, W) uint8.
        factors: (b,) float32, 0 or more.

    Returns:
        (b, C, H, W) uint8.
    """
    return (images * factors.view(-1, 1, 1, 1)).clamp_(max=255).to(torch.uint8)


def draw_boxes(count: int, height: int, width: int, area: tuple[float, float], rng: torch.Generator) -> Tensor:
    """Draw boxes as torchvision's RandomResizedCrop does: uniform area, log-uniform aspect.

    Args:
        count: how many boxes.
        height: of the image.
        width: of the image.
        area: (low, high) share of the image's area.
        rng: where every draw comes from.

    Returns:
        (count, 4) int64: top, left, height, width; the centre where none of ten tries fits the image.
    """
    low, high = torch.tensor(ASPECT).log().tolist()
    share = area[0] + (area[1] - area[0]) * _uniform((count, TRIES), rng)
    aspect = (low + (high - low) * _uniform((count, TRIES), rng)).exp()
    wide = (height * width * share * aspect).sqrt().round().long()  # (count, TRIES)
    tall = (height * width * share / aspect).sqrt().round().long()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)

    first = fits.int().argmax(1, keepdim=True)  # the first that fits
    w, h = wide.gather(1, first)[:, 0], tall.gather(1, first)[:, 0]
    top = (_uniform((count,), rng) * (height - h + 1)).long()
    left = (_uniform((count,), rng) * (width - w + 1)).long()

    w0, h0 = min(width, round(height * ASPECT[1])), min(height, round(width / ASPECT[0]))
    centre = torch.tensor([(height - h0) // 2, (width - w0) // 2, h0, w0], device=rng.device)
    return torch.where(fits.any(1, keepdim=True), torch.stack([top, left, h, w], 1), centre)


def cut_and_enlarge(images: Tensor, boxes: Tensor) -> Tensor:
    """Enlarge a box of each image to the whole image, bilinearly (PIL's values to within one).

    Args:
        images: (b, C, H, W) uint8.
        boxes: (b, 4) int64: top, left, height, width.

    Returns:
        (b, C, H, W) uint8.
    """
    height, width = images.shape[-2:]
    y = _sources(boxes[:, 0], boxes[:, 2], height)  # (b, H) in pixels
    x = _sources(boxes[:, 1], boxes[:, 3], width)  # (b, W)
    y = (2 * y + 1) / height - 1  # in grid_sample's units: -1 and 1 are the outer edges
    x = (2 * x + 1) / width - 1
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3)
    enlarged = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return enlarged.round_().clamp_(0, 255).to(torch.uint8)


def _sources(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Centres of `size` pixels laid evenly over [start, start + length), kept inside: (b, size) float32."""
    at = (torch.arange(size, device=start.device) + 0.5) * (length[:, None] / size) - 0.5
    return start[:, None] + torch.minimum(at.clamp(min=0), length[:, None] - 1.0)


def _uniform(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=rng, device=rng.device)


def _integers(below: int, count: int, rng: torch.Generator) -> Tensor:
    return torch.randint(below, (count,), generator=rng, device=rng.device)


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
