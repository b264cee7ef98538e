"""Pictures: folders of files, published or a user's own, arrays seen at another size, any torch map-style dataset."""

from __future__ import annotations

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset

from clearn.errors import ConfigError, DataError
from clearn.parts.augment import draw_boxes
from clearn.parts.samples import CutSamples, DatasetSamples, Indexed, Samples, TensorSamples
from clearn.streams.datasets.arrays import as_columns, as_inputs, encode, labels_among
from clearn.streams.datasets.record import HALF, MIB, PICTURES, DataSet, Options, finish, root_of, sha256_of

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
Item = tuple[Tensor, Any]  # (C, H, W) uint8 or (d,) float32, and a label


@dataclass(frozen=True)
class View:
    """How a picture of any size becomes a square, as torchvision's transforms of PIL images do it.

    Attributes:
        size: side of the square.
        resize: the shorter side is resized to it before the centre is cut out; None means `size`.
        bicubic: resize by cubics instead of lines; boxes cut at random are always enlarged by lines.
    """

    size: int
    resize: int | None = None
    bicubic: bool = False

    def centre(self, image: Image.Image) -> Image.Image:
        """Resize and CenterCrop."""
        width, height = image.size
        short, side = min(width, height), self.resize or self.size
        wide, tall = side * width // short, side * height // short
        if (wide, tall) != image.size:
            image = image.resize((wide, tall), Image.Resampling.BICUBIC if self.bicubic else Image.Resampling.BILINEAR)
        left, top = round((wide - self.size) / 2), round((tall - self.size) / 2)
        return image.crop((left, top, left + self.size, top + self.size))

    def box(self, image: Image.Image, area: tuple[float, float], seed: int) -> Image.Image:
        """RandomResizedCrop, its box drawn by `draw_boxes`."""
        width, height = image.size
        top, left, tall, wide = draw_boxes(1, height, width, area, torch.Generator().manual_seed(seed))[0].tolist()
        cut = image.crop((left, top, left + wide, top + tall))
        return cut.resize((self.size, self.size), Image.Resampling.BILINEAR)


class Pictures(Dataset[Item], ABC):
    """Pictures that are decoded on access: RGB (3, H, W) uint8.

    Args:
        labels: one for each.
        view: makes squares of them; None keeps them as they are.
        area: share of a picture that `cut` cuts out, (low, high).
    """

    def __init__(self, labels: list[int], view: View | None, area: tuple[float, float] | None = None) -> None:
        self.labels, self.view, self.area = labels, view, area

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int, view: Callable[[Image.Image], Image.Image] | None) -> Tensor:
        """Decode picture `index`, and change it as `view` says: (3, H, W) uint8."""

    def __getitem__(self, index: int) -> Item:
        return self.read(index, None if self.view is None else self.view.centre), self.labels[index]

    def cut(self, index: int, seed: int) -> Tensor:
        """Cut a random box out of picture `index`, where and how large as `seed` alone decides."""
        view, area = self.view, self.area
        assert view is not None, "see `cut_at_random`"
        assert area is not None, "see `cut_at_random`"
        return self.read(index, lambda image: view.box(image, area, seed))


class ImageFiles(Pictures):
    """Files of images.

    Args:
        paths: of the files.
        labels: as of `Pictures`.
        view: likewise.
        area: likewise.
    """

    def __init__(
        self, paths: list[str], labels: list[int], view: View | None, area: tuple[float, float] | None = None
    ) -> None:
        super().__init__(labels, view, area)
        self.paths = paths

    def read(self, index: int, view: Callable[[Image.Image], Image.Image] | None) -> Tensor:
        path = self.paths[index]
        try:
            with Image.open(path) as image:
                return pixels(image, view, path).expand(3, -1, -1)
        except OSError as error:  # PIL's own errors are among them
            raise DataError(f"{path} cannot be decoded ({error}): replace or remove this file") from error


class ImageArrays(Pictures):
    """Images that lie in memory, seen at another size.

    Args:
        inputs: (n, 3, H, W) uint8.
        labels: as of `Pictures`.
        view: likewise.
        area: likewise.
    """

    def __init__(self, inputs: Tensor, labels: list[int], view: View, area: tuple[float, float] | None = None) -> None:
        super().__init__(labels, view, area)
        self.inputs = inputs

    def read(self, index: int, view: Callable[[Image.Image], Image.Image] | None) -> Tensor:
        return pixels(Image.fromarray(self.inputs[index].permute(1, 2, 0).contiguous().numpy()), view)


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
            view = None if self.size is None else View(self.size).centre
            return pixels(x, view, f"{self.name} item {index}"), label
        if not isinstance(x, Tensor | np.ndarray):
            raise DataError(
                f"{self.name}: the input of item {index} is {type(x).__name__}; a PIL image, array or tensor is right"
            )
        return as_inputs(x[None], None, f"{self.name} item {index}")[0], label


def pixels(image: Image.Image, view: Callable[[Image.Image], Image.Image] | None, name: str = "an image") -> Tensor:
    """Turn a PIL image into (C, H, W) uint8: C = 1 for grey, 3 for all others; `view` changes it before."""
    if image.mode[0] in "IF":
        raise DataError(f"{name} has mode {image.mode}, values beyond 0..255; convert it to 8 bits a channel")
    image = image.convert("L" if image.mode in ("L", "1") else "RGB")
    if view is not None:
        image = view(image)
    values = torch.from_numpy(np.array(image))  # (H, W) or (H, W, 3)
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()


def view_of(options: Options) -> View | None:
    """The squares that the options ask for."""
    return None if options.size is None else View(options.size, options.resize, options.resample == "bicubic")


def folder(options: Options) -> DataSet:
    """Read ROOT/train/CLASS/* and ROOT/test/CLASS/* (or ROOT/val): always RGB, classes by sorted folder name.

    Sets of at most `in_memory` bytes are decoded once; of larger ones names and sizes are hashed.

    Raises:
        DataError: folders are missing or empty, or images cannot be decoded or differ in size.
    """
    root = Path(str(options.root)).expanduser()
    for part, place in _parts(root).items():
        if not place.is_dir():
            raise DataError(
                f"data=folder: {part} images were not found: looked for {root / part}"
                f"{f' and {place}' if part == 'test' else ''}; images belong into {root}/train/CLASS/ and "
                f"{root}/test/CLASS/ (or val/): set root to the folder above them"
            )
    return _folder("folder", root, options)


def _parts(root: Path) -> dict[str, Path]:
    return {"train": root / "train", "test": root / "test" if (root / "test").is_dir() else root / "val"}


def _folder(name: str, root: Path, options: Options) -> DataSet:
    places = _parts(root)
    found = {part: _list(place) for part, place in places.items()}
    classes = sorted(found["train"])
    if strange := sorted(set(found["test"]) - set(classes)):
        raise DataError(
            f"{places['test']} has classes {', '.join(strange[:5])} that {places['train']} lacks: "
            "move or remove these folders"
        )
    view = view_of(options)
    parts = {part: _files(paths, classes, view) for part, paths in found.items()}
    samples: dict[str, Samples] = {}
    checksums = {}
    keep = _fits(list(parts.values()), options.in_memory)
    for part, files in parts.items():
        samples[part] = stored(files, options.workers, keep)
        if isinstance(kept := samples[part], TensorSamples):
            checksums[part] = sha256_of(kept.inputs, kept.labels)
        else:
            checksums[f"{part} names and sizes"] = _listing(files, root)
    return DataSet(name, samples["train"], samples["test"], tuple(classes), HALF[0] * 3, HALF[1] * 3, checksums)


def stored(pictures: Pictures, workers: int, keep: bool) -> Samples:
    """Decode all pictures now, or at each access."""
    labels = torch.tensor(pictures.labels)
    if keep:
        return TensorSamples(_read(pictures, workers, "give `size: 224`, say")[0], labels)
    return DatasetSamples(pictures, torch.arange(len(pictures)), labels, workers)


def resized(train: TensorSamples, test: TensorSamples, options: Options) -> tuple[Samples, Samples]:
    """See images in memory at another size, decoded by the rules of a folder of files; without `size` as they are."""
    view = view_of(options)
    if view is None:
        return train, test
    parts = [ImageArrays(part.inputs, part.labels.tolist(), view) for part in (train, test)]
    keep = _fits(parts, options.in_memory)
    first, second = (stored(part, options.workers, keep) for part in parts)
    return first, second


def cut_at_random(data: DataSet, area: tuple[float, float]) -> DataSet:
    """Have training cut boxes out of whole pictures.

    Args:
        data: read with a `size`, and with `in_memory=0`, so that pictures are decoded when they are asked for.
        area: (low, high) share of a picture.

    Raises:
        ConfigError: its inputs are no pictures of which a square is stored.
    """
    train = data.train
    pictures = train.dataset if isinstance(train, DatasetSamples) else None
    if not isinstance(pictures, Pictures) or pictures.view is None:
        raise ConfigError(
            f"augment whole=True cuts boxes out of pictures, but data={data.name} has none, or no size: give "
            f"size: 224, say, with data one of {', '.join(PICTURES)}; or augment: imagenet, which cuts stored images"
        )
    assert isinstance(train, DatasetSamples)
    again = copy.copy(pictures)
    again.area = area
    return replace(data, train=CutSamples(again, train.index, train.labels, train.workers))


@dataclass(frozen=True)
class Release:
    """An image set as the authors of APER prepared it, in train/CLASS/* and test/CLASS/*.

    Attributes:
        folders: below the root, any of them; the first is what we name in messages.
    """

    folders: tuple[str, ...]


RELEASES = {  # the folders' names in the LAMDA-PILOT toolbox (utils/data.py) and in EASE's code
    "cub": Release(("cub",)),
    "imagenet_r": Release(("imagenet-r",)),
    "imagenet_a": Release(("imagenet-a",)),
    "objectnet": Release(("objectnet",)),
    "omnibenchmark": Release(("omnibenchmark",)),
    "vtab": Release(("vtab", "vtab-cil/vtab")),
}
SOURCE = "https://github.com/zhoudw-zdw/RevisitingCIL#dataset"


def release(options: Options) -> DataSet:
    """Read one of `RELEASES`: always RGB, classes by sorted folder name, as torchvision's ImageFolder numbers them.

    Raises:
        DataError: it is not there.
    """
    root, folders = root_of(options), RELEASES[options.name].folders
    for place in (root / folder for folder in folders):
        if (place / "train").is_dir() and _parts(place)["test"].is_dir():
            return _folder(options.name, place, options)
    looked = " and ".join(f"{root / folder}/{{train,test}}" for folder in folders)
    raise DataError(
        f"data={options.name} was not found: looked for {looked}; its subset is released by the authors of APER, see "
        f"{SOURCE}: unpack it as {root / folders[0]}/train/CLASS/* and test/CLASS/*, or set root (or CLEARN_DATA) to "
        f"the folder that holds {folders[0]}"
    )


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


def _files(found: dict[str, list[str]], classes: list[str], view: View | None) -> ImageFiles:
    labels = [label for label, name in enumerate(classes) for _ in found.get(name, [])]
    return ImageFiles([path for name in classes for path in found.get(name, [])], labels, view)


def _fits(parts: Sequence[Pictures | Converted], in_memory: int) -> bool:
    """Whether all items, as large as the first, are at most `in_memory` bytes."""
    return parts[0][0][0].nbytes * sum(len(part) for part in parts) <= in_memory


def _read(part: Pictures | Converted, threads: int, remedy: str) -> tuple[Tensor, list[Any]]:
    """Read all items: inputs (n, ...) as stored, and n labels."""
    first = part[0][0]
    inputs = first.new_empty((len(part), *first.shape))
    labels = []
    for i, (x, label) in enumerate(_items(part, threads)):
        if x.shape != first.shape or x.dtype != first.dtype:
            raise DataError(
                f"{_named(part, i)} is {x.dtype} "
                f"{tuple(x.shape)}, the first is {first.dtype} {tuple(first.shape)}; all must be alike: "
                f"{remedy}"
            )
        inputs[i] = x
        labels.append(_plain(label))
    return inputs, labels


def _named(part: Pictures | Converted, index: int) -> str:
    if isinstance(part, ImageFiles):
        return part.paths[index]
    return f"{part.name} item {index}" if isinstance(part, Converted) else f"image {index}"


def _items(part: Pictures | Converted, threads: int = 0) -> Iterator[Item]:
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
