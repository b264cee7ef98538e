from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as pil

from clearn.errors import ConfigError
from clearn.parts.augment import (
    PRESETS,
    Augment,
    augment,
    brighten,
    cut_and_enlarge,
    draw_boxes,
    shift_and_flip,
)

torch.set_num_threads(1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=seeded(7))


def to_pil(image: Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def from_pil(image: Image.Image) -> Tensor:
    array = np.array(image)
    return torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_cifar_chain_equals_torchvisions_pil_chain_for_the_same_draws(channels: int) -> None:
    images, rng = noise(64, channels, 12, 10), seeded(3)
    changed = PRESETS["cifar"](images, seeded(3))
    tops, lefts = (torch.randint(9, (64,), generator=rng) for _ in range(2))
    flips = torch.rand(64, generator=rng) < 0.5
    b = 63 / 255
    factors = max(0.0, 1 - b) + (1 + b - max(0.0, 1 - b)) * torch.rand(64, generator=rng)
    for i in range(64):
        x = pil.crop(pil.pad(to_pil(images[i]), 4), int(tops[i]), int(lefts[i]), 12, 10)
        x = pil.adjust_brightness(pil.hflip(x) if flips[i] else x, float(factors[i]))
        assert torch.equal(changed[i], from_pil(x)), i


def test_brightness_equals_pil_for_every_pixel_value() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    factors = torch.cat([torch.tensor([0.0, 0.5, 1.0, 2.0]), torch.rand(100, generator=seeded()) * 2])
    changed = brighten(ramp.expand(len(factors), -1, -1, -1), factors)
    for row, factor in zip(changed, factors.tolist(), strict=True):
        assert torch.equal(row, from_pil(pil.adjust_brightness(to_pil(ramp[0]), factor))), factor


def test_shift_and_flip_by_hand() -> None:
    image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
    zero, no, yes = torch.tensor([0]), torch.tensor([False]), torch.tensor([True])
    assert shift_and_flip(image, 0, zero, zero, no).tolist() == [[[[1, 2], [3, 4]]]]
    assert shift_and_flip(image, 0, zero, zero, yes).tolist() == [[[[2, 1], [4, 3]]]]
    assert shift_and_flip(image, 1, zero, zero, no).tolist() == [[[[0, 0], [0, 1]]]]
    assert shift_and_flip(image, 1, zero, zero, yes).tolist() == [[[[0, 0], [1, 0]]]]
    assert shift_and_flip(image, 1, torch.tensor([2]), torch.tensor([1]), no).tolist() == [[[[3, 4], [0, 0]]]]


def test_cut_and_enlarge_is_pils_bilinear_to_within_one() -> None:
    images = noise(40, 3, 24, 20)
    boxes = draw_boxes(40, 24, 20, (0.08, 1.0), seeded(1))
    changed = cut_and_enlarge(images, boxes)
    for i, (top, left, height, width) in enumerate(boxes.tolist()):
        x = pil.resized_crop(to_pil(images[i]), top, left, height, width, [24, 20])
        assert (changed[i].int() - from_pil(x).int()).abs().max() <= 1
    whole = torch.tensor([[0, 0, 24, 20]]).expand(40, 4)
    assert torch.equal(cut_and_enlarge(images, whole), images)


def test_boxes_lie_inside_and_follow_torchvisions_distribution() -> None:
    boxes = draw_boxes(4000, 30, 40, (0.2, 0.8), seeded(2)).double()
    top, left, height, width = boxes.unbind(1)
    assert boxes.min() >= 0
    assert (top + height <= 30).all()
    assert (left + width <= 40).all()
    random.seed(0)
    torch.manual_seed(0)
    blank = torch.zeros(1, 30, 40)
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(blank, (0.2, 0.8), (3 / 4, 4 / 3)) for _ in range(4000)]
    ).double()
    error = 4 * ((boxes.var(0) + theirs.var(0)) / 4000).sqrt()
    assert ((boxes.mean(0) - theirs.mean(0)).abs() <= error).all()


def test_boxes_fall_back_to_the_centre_when_none_fits() -> None:
    assert draw_boxes(3, 100, 4, (0.9, 1.0), seeded()).tolist() == [[47, 0, 5, 4]] * 3  # round(4 / (3/4)) = 5


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset and not preset.whole])
def test_presets_keep_shape_and_input_and_repeat_by_seed(name: str) -> None:
    images = noise(16, 3, 16, 16)
    before, change = images.clone(), augment(name)
    first, again, other = (change(images, seeded(s)) for s in (5, 5, 6))
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    assert torch.equal(images, before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert change(images[:0], seeded()).shape == (0, 3, 16, 16)
    assert torch.equal(change(images.mT.contiguous().mT, seeded(5)), first)  # whatever the strides


def test_a_step_that_is_off_draws_nothing() -> None:
    images, rng = noise(8, 1, 8, 8), seeded(4)
    changed = Augment(brightness=0.5)(images, seeded(4))
    assert torch.equal(changed, brighten(images, 0.5 + torch.rand(8, generator=rng)))
    assert torch.equal(Augment()(images, rng), images)


def test_half_of_the_images_are_flipped_and_all_offsets_occur() -> None:
    image = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3) + 1
    changed = Augment(flip=True)(image.expand(4000, -1, -1, -1), seeded(8))
    flipped = (changed[:, 0, 0, 0] == 3).double().mean()
    assert abs(flipped - 0.5) <= 4 * (0.25 / 4000) ** 0.5
    moved = Augment(crop=1)(image.expand(500, -1, -1, -1), seeded(9))
    assert len({tuple(m.flatten().tolist()) for m in moved}) == 9


def test_augment_by_name_options_or_not_at_all() -> None:
    assert augment(None) is None
    assert augment("none") is None
    assert augment("cifar") == augment({"crop": 4, "flip": True, "brightness": 63 / 255})
    assert augment({"resized_crop": [0.08, 1]}) == Augment(resized_crop=(0.08, 1))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("cifr", "did you mean 'cifar'"),
        ({"flipp": True}, "did you mean 'flip'"),
        ({"crop": -1}, "0 or more"),
        ({"crop": True}, "whole number"),
        ({"flip": 1}, "true or false"),
        ({"brightness": -0.1}, "0 or more"),
        ({"brightness": "much"}, "a number"),
        ({"resized_crop": [0, 1]}, "0 < low"),
        ({"resized_crop": [0.5]}, "0 < low"),
        ({"resized_crop": [0.5, 1.0], "crop": 4}, "one of the two"),
    ],
)
def test_wrong_options_name_the_remedy(spec: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        augment(spec)  # type: ignore[arg-type]
