"""A user's own images: folders of files, or any torch map-style dataset."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset

from clearn.errors import DataError
from clearn.parts.samples import DatasetSamples, Indexed, Samples, TensorSamples
from clearn.streams.datasets.arrays import as_columns, as_inputs, encode, labels_among
from clearn.streams.datasets.record import HALF, MIB, DataSet, Options, finish, sha256_of

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
Item = tuple[Tensor, Any]  # (C, H, W) uint8 or (d,) float32, and a label


class ImageFiles(Dataset[Item]):
    """Images decoded on access: RGB (3, H, W) uint8.

    Args:
        paths: of the files.
        labels: one for each.
        size: resize the shorter side to it and cut out the centre; None keeps the images as they are.
    """

    def __init__(self, paths: list[str], labels: list[int], size: int | None) -> None:
        self.paths, self.labels, self.size = paths, labels, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Item:
        try:
            with Image.open(self.paths[index]) as image:
                return pixels(image, self.size, self.paths[index]).expand(3, -1, -1), self.labels[index]
        except OSError as error:  # PIL's own errors are among them
            raise DataError(f"{self.paths[index]} cannot be decoded ({error}): replace or remove this file") from error


class Converted(Dataset[Item]):
    """A user's dataset with its inputs as they are stored here.

    Args:
        dataset: gives (PIL image, array or tensor; label).
        size: resize PIL images and cut out the centre; None keeps them as they are.
        name: shown in errors.
    """

    def __init__(self, dataset: Indexed, size: int | None, name: str) -> None:
        self.dataset, self.size, self.name = dataset, size, name

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item:
        item = self.dataset[index]
        if not isinstance(item, tuple | list) or len(item) < 2:
            raise DataError(f"{self.name}: item {index} is {type(item).__name__}; a pair (image, label) is right")
        x, label = item[0], item[1]
        if isinstance(x, Image.Image):
            return pixels(x, self.size, f"{self.name} item {index}"), label
        if not isinstance(x, Tensor | np.ndarray):
            raise DataError(
                f"{self.name}: the input of item {index} is {type(x).__name__}; a PIL image, array or tensor is right"
            )
        return as_inputs(x[None], None, f"{self.name} item {index}")[0], label


def pixels(image: Image.Image, size: int | None, name: str = "an image") -> Tensor:
    """Turn a PIL image into (C, H, W) uint8: C = 1 for grey, 3 for all others.

    With a size, the shorter side is resized to it (bilinear) and the centre cut out, as torchvision's Resize
    and CenterCrop do.
    """
    if image.mode[0] in "IF":
        raise DataError(f"{name} has mode {image.mode}, values beyond 0..255; convert it to 8 bits a channel")
    image = image.convert("L" if image.mode in ("L", "1") else "RGB")
    if size is not None:
        width, height = image.size
        short = min(width, height)
        wide, tall = size * width // short, size * height // short
        image = image.resize((wide, tall), Image.Resampling.BILINEAR)
        left, top = round((wide - size) / 2), round((tall - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    values = torch.from_numpy(np.array(image))  # (H, W) or (H, W, 3)
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()


def folder(options: Options) -> DataSet:
    """Read ROOT/train/CLASS/* and ROOT/test/CLASS/* (or ROOT/val): always RGB, classes by sorted folder name.

    Sets of at most `in_memory` bytes are decoded once; of larger ones names and sizes are hashed.

    Raises:
        DataError: folders are missing or empty, or images cannot be decoded or differ in size.
    """
    root = Path(str(options.root)).expanduser()
    places = {"train": root / "train", "test": root / "test" if (root / "test").is_dir() else root / "val"}
    for part, place in places.items():
        if not place.is_dir():
            raise DataError(
                f"data=folder: {part} images were not found: looked for {root / part}"
                f"{f' and {place}' if part == 'test' else ''}; images belong into {root}/train/CLASS/ and "
                f"{root}/test/CLASS/ (or val/): set root to the folder above them"
            )
    found = {part: _list(place) for part, place in places.items()}
    classes = sorted(found["train"])
    if strange := sorted(set(found["test"]) - set(classes)):
        raise DataError(
            f"{places['test']} has classes {', '.join(strange[:5])} that {places['train']} lacks: "
            "move or remove these folders"
        )
    parts = {part: _files(paths, classes, options.size) for part, paths in found.items()}
    labels = {part: torch.tensor(files.labels) for part, files in parts.items()}
    samples: dict[str, Samples] = {}
    checksums = {}
    keep = _fits(list(parts.values()), options.in_memory)
    for part, files in parts.items():
        if keep:
            inputs, _ = _read(files, options.workers, "give `size: 224`, say")
            samples[part] = TensorSamples(inputs, labels[part])
            checksums[part] = sha256_of(inputs, labels[part])
        else:
            samples[part] = DatasetSamples(files, torch.arange(len(files)), labels[part], options.workers)
            checksums[f"{part} names and sizes"] = _listing(files, root)
    return DataSet("folder", samples["train"], samples["test"], tuple(classes), HALF[0] * 3, HALF[1] * 3, checksums)


def from_dataset(
    train: Indexed,
    test: Indexed,
    *,
    size: int | None = None,
    normalise: str | Mapping[str, Any] = "auto",
    in_memory: int = 512 * MIB,
    workers: int = 0,
    columns: Mapping[str, Any] | None = None,
    name: str = "dataset",
) -> DataSet:
    """Take two torch map-style datasets that give (image, label), torchvision's for example.

    Images may be PIL images (grey or RGB), arrays or tensors by the rules of `from_arrays`; ToTensor's floats
    are turned back into bytes, so leave Normalize and random transforms out. Sets of at most `in_memory`
    bytes are read once and kept. Of larger ones the labels are read from `targets` or `labels` where the
    dataset has them (through Subset, too), or else by going over all items once.

    Args:
        train: training items.
        test: test items; their labels must occur in `train`.
        size: resize PIL images to it and cut out the centre.
        normalise: one of `record.NORMALISE` or {mean, std}; "auto" is 0.5 and 0.5.
        in_memory: bytes.
        workers: processes that decode images of a larger set.
        columns: whole numbers or text by name, one for each training item; requests to forget can name their values.
        name: shown in reports and errors.

    Raises:
        DataError: items are not such pairs, or differ in shape.
    """
    options = Options(normalise=normalise, in_memory=in_memory, workers=workers)
    parts = [Converted(train, size, f"{name} train"), Converted(test, size, f"{name} test")]
    for part in parts:
        if not len(part):
            raise DataError(f"{part.name} is empty; give a dataset with at least one item")
    known = as_columns(columns or {}, len(parts[0]))
    samples: list[Samples]
    checksums = {}
    if _fits(parts, options.in_memory):
        (x, y), (x_test, y_test) = (_read(part, 0, "resize them, or give `size` for PIL images") for part in parts)
        classes, labels = encode(y, name)
        samples = [TensorSamples(x, labels), TensorSamples(x_test, labels_among(classes, y_test, name))]
        checksums = {"train": sha256_of(x, labels), "test": sha256_of(x_test, samples[1].labels)}
    else:
        y, y_test = (_known_labels(part.dataset) or [_plain(item[1]) for item in _items(part)] for part in parts)
        classes, labels = encode(y, name)
        both = zip(parts, (labels, labels_among(classes, y_test, name)), strict=True)
        samples = [DatasetSamples(part, torch.arange(len(part)), of, options.workers) for part, of in both]
    mean, std = HALF if len(samples[0].shape) == 3 else ((), ())
    names = tuple(str(c) for c in classes.tolist())
    return finish(DataSet(name, samples[0], samples[1], names, mean, std, checksums, known), options)


def _list(place: Path) -> dict[str, list[str]]:
    """Image files of each class folder, sorted, folders inside it included."""
    classes = {}
    for name in sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith(".")):
        inside = (os.path.join(top, file) for top, _, files in os.walk(place / name) for file in files)
        classes[name] = sorted(path for path in inside if path.lower().endswith(ENDINGS))
        if not classes[name]:
            raise DataError(f"{place / name} holds no image ({', '.join(ENDINGS)}); put some there or remove it")
    if not classes:
        raise DataError(f"{place} holds no class folder; {place}/CLASS/IMAGE is right: make a folder for each class")
    return classes


def _files(found: dict[str, list[str]], classes: list[str], size: int | None) -> ImageFiles:
    labels = [label for label, name in enumerate(classes) for _ in found.get(name, [])]
    return ImageFiles([path for name in classes for path in found.get(name, [])], labels, size)


def _fits(parts: Sequence[ImageFiles | Converted], in_memory: int) -> bool:
    """Whether all items, as large as the first, are at most `in_memory` bytes."""
    return parts[0][0][0].nbytes * sum(len(part) for part in parts) <= in_memory


def _read(part: ImageFiles | Converted, threads: int, remedy: str) -> tuple[Tensor, list[Any]]:
    """Read all items: inputs (n, ...) as stored, and n labels."""
    first = part[0][0]
    inputs = first.new_empty((len(part), *first.shape))
    labels = []
    for i, (x, label) in enumerate(_items(part, threads)):
        if x.shape != first.shape or x.dtype != first.dtype:
            raise DataError(
                f"{part.paths[i] if isinstance(part, ImageFiles) else f'{part.name} item {i}'} is {x.dtype} "
                f"{tuple(x.shape)}, the first is {first.dtype} {tuple(first.shape)}; all must be alike: "
                f"{remedy}"
            )
        inputs[i] = x
        labels.append(_plain(label))
    return inputs, labels


def _items(part: ImageFiles | Converted, threads: int = 0) -> Iterator[Item]:
    if not threads:
        yield from (part[i] for i in range(len(part)))
        return
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(part), 64 * threads):  # few enough decoded images wait at a time
            yield from pool.map(part.__getitem__, range(start, min(start + 64 * threads, len(part))))


def _known_labels(dataset: Any) -> list[Any] | None:
    """Labels of torchvision's datasets without reading items; None where they are not to be had."""
    if isinstance(dataset, Subset):
        labels = _known_labels(dataset.dataset)
        return None if labels is None else [labels[i] for i in dataset.indices]
    if getattr(dataset, "target_transform", None) is not None:
        return None
    labels = getattr(dataset, "targets", getattr(dataset, "labels", None))
    return None if labels is None or len(labels) != len(dataset) else [_plain(v) for v in labels]


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, Tensor | np.generic) else label


def _listing(files: ImageFiles, root: Path) -> str:
    digest = hashlib.sha256()
    for path in files.paths:
        digest.update(f"{os.path.relpath(path, root)}\t{os.path.getsize(path)}\n".encode())
    return digest.hexdigest()
