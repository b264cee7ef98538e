"""The MNIST family: idx files, read without torchvision, plain or gzipped."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clearn.errors import DataError
from clearn.parts.samples import TensorSamples
from clearn.streams.datasets.record import MOMENTS, DataSet, Options, root_of

DEBIAN = Path("/usr/share/datasets")
UBYTE = 0x08  # the idx format's code for unsigned bytes
FILES = {  # as published, in the order they are read
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Family:
    """A set published as four idx files.

    Attributes:
        folder: torchvision's class, and its folder below the root.
        classes: names in label order.
        package: Debian's package, installed below /usr/share/datasets without the word "dataset-"; or None.
    """

    folder: str
    classes: tuple[str, ...]
    package: str | None = None


FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FAMILIES = {
    "fashion_mnist": Family("FashionMNIST", FASHION, "dataset-fashion-mnist"),
    "mnist": Family("MNIST", DIGITS),
    "kmnist": Family("KMNIST", ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")),
}


def load(options: Options) -> DataSet:
    """Read one of `FAMILIES` into memory.

    The checksums are those of the unpacked files, so that a gzipped and a plain copy agree.

    Raises:
        DataError: the files are not there, damaged, or do not belong together.
    """
    family = FAMILIES[options.name]
    folder = _find(options, family)
    samples: dict[str, TensorSamples] = {}
    checksums: dict[str, str] = {}
    for part, names in FILES.items():
        contents = {name: _contents(_either(folder, name)) for name in names}
        checksums |= {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        images, labels = (parse_idx(content, folder / name) for name, content in contents.items())
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise DataError(
                f"{folder}: {names[0]} of shape {tuple(images.shape)} and {names[1]} of shape "
                f"{tuple(labels.shape)} do not belong together, (n, H, W) and (n,) would be right: copy "
                "both files afresh"
            )
        samples[part] = TensorSamples(images[:, None], labels.long())
    mean, std = MOMENTS[options.name]
    return DataSet(options.name, samples["train"], samples["test"], family.classes, mean, std, checksums)


def parse_idx(content: bytes, path: Path) -> Tensor:
    """Decode an idx file (LeCun's MNIST page): two zero bytes, type, rank, big-endian sizes, values.

    Args:
        content: of the file, unpacked.
        path: named in errors.

    Returns:
        uint8, shaped as the header says.

    Raises:
        DataError: the header is another one, or the file is shorter or longer than it says.
    """
    if len(content) < 4 or content[:3] != bytes([0, 0, UBYTE]):
        raise DataError(
            f"{path} starts with bytes {content[:4].hex(' ')}, an idx file of unsigned bytes starts "
            "with 00 00 08: it is something else (a web page, perhaps); copy the file afresh"
        )
    header = 4 + 4 * content[3]
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    if len(content) < header or len(content) != header + math.prod(shape):
        raise DataError(
            f"{path} holds {len(content)} bytes, its header of {' x '.join(map(str, shape))} values asks for "
            f"{header + math.prod(shape)}: it is truncated or damaged; copy the file afresh"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)


def _contents(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be unpacked ({error}): it is truncated or damaged; copy the file afresh"
        ) from None


def _either(folder: Path, name: str) -> Path:
    plain, packed = folder / name, folder / f"{name}.gz"
    return plain if plain.is_file() else packed


def _find(options: Options, family: Family) -> Path:
    """The first folder that holds all four files; download where that is asked for."""
    names = [name for pair in FILES.values() for name in pair]
    root = root_of(options)
    places = [root / family.folder / "raw"]
    if family.package:
        places += [top / family.package.removeprefix("dataset-") for top in (root, DEBIAN)]
    for place in places:
        if all(_either(place, name).is_file() for name in names):
            return place
    if options.download:
        return _download(root, family)

    lacking = {str(p): [n for n in names if not _either(p, n).is_file()] for p in places if p.is_dir()}
    partly = "".join(f"; {p} lacks {', '.join(missing)}" for p, missing in lacking.items() if len(missing) < len(names))
    install = f"install it with `apt install {family.package}`, or " if family.package else ""
    raise DataError(
        f"data={options.name} was not found: looked for {names[0]} (or .gz) and three more files in "
        f"{', '.join(map(str, places))}{partly}; {install}add `download: true` to the stream, or put the "
        f"files into {places[0]}, or set root (or CLEARN_DATA) to the folder that holds {family.folder}/raw"
    )


def _download(root: Path, family: Family) -> Path:
    import torchvision.datasets

    kind = {"FashionMNIST": torchvision.datasets.FashionMNIST, "MNIST": torchvision.datasets.MNIST}
    try:
        os.makedirs(root, exist_ok=True)
        (kind | {"KMNIST": torchvision.datasets.KMNIST})[family.folder](str(root), download=True)
    except (RuntimeError, OSError) as error:  # URLError is an OSError
        raise DataError(
            f"downloading {family.folder} to {root} failed ({error}): check the network, or copy the four "
            f"idx files into {root / family.folder / 'raw'}"
        ) from error
    return root / family.folder / "raw"
