"""How one exemplar is written as bytes: raw values, the published counting, compressed images, packed pixels.

A codec is named in a config as `kind` or `kind:option`:

| name    | bytes per item           | what comes back                                          |
|---------|--------------------------|----------------------------------------------------------|
| raw     | values x dtype size      | the same                                                 |
| paper   | H x W x 3                | the same; grey is stored three times, as papers count it |
| kbit:4  | ceil(values x 4 / 8) + 2 | within about half a step, see `KBit`; 1 to 8 bits        |
| zlib    | varies                   | the same                                                 |
| png     | varies                   | the same                                                 |
| webp    | varies                   | the same; webp:90 is lossy                               |
| jpeg:90 | varies                   | about the same; quality 1 to 100, 90 if not given        |

No codec learns anything from data, so none adds to the carried state but its items. What a lossy codec wrote
can only be read back decoded: an exemplar's original is gone.
Letters used below: n items of `shape`; images are (C, H, W) uint8.
"""

from __future__ import annotations

import io
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor

from clearn.errors import ConfigError

# kind -> (default option, lowest, highest); None where there is no option,
# where it must be given (kbit), or where leaving it out means lossless (webp)
OPTIONS: dict[str, tuple[int | None, int, int] | None] = {
    "raw": None,
    "paper": None,
    "kbit": (None, 1, 8),
    "zlib": None,
    "png": None,
    "webp": (None, 0, 100),
    "jpeg": (90, 1, 100),
}
_DTYPES = {"uint8": torch.uint8, "float32": torch.float32}


class Codec:
    """Writes and reads items of one shape and dtype.

    Attributes:
        name: as in the config, e.g. "jpeg:90".
        shape: of one decoded item.
        dtype: of decoded items, torch.uint8 or torch.float32.
        lossless: whether decode(encode(x)) is x, bit for bit.
    """

    lossless: bool = True

    def __init__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype

    @property
    def raw_bytes(self) -> int:
        """Bytes of one decoded item."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def paper_bytes(self) -> int:
        """Bytes of one item in the published counting: H x W x 3 for images, as stored for vectors."""
        return self.shape[1] * self.shape[2] * 3 if len(self.shape) == 3 else self.raw_bytes

    def fitted_state(self) -> dict[str, Tensor]:
        """Tables learned from data, which would count as carried state; none of these codecs has any."""
        return {}


class FixedCodec(Codec, ABC):
    """All items take the same number of bytes.

    Attributes:
        stored_shape: of one encoded item.
        stored_dtype: of encoded items.
    """

    stored_shape: tuple[int, ...]
    stored_dtype: torch.dtype

    @property
    def item_bytes(self) -> int:
        """Bytes of one encoded item, label apart."""
        return math.prod(self.stored_shape) * self.stored_dtype.itemsize

    @abstractmethod
    def encode(self, items: Tensor) -> Tensor:
        """Write (n, *shape) as (n, *stored_shape) of the stored dtype."""

    @abstractmethod
    def decode(self, stored: Tensor) -> Tensor:
        """Read (n, *stored_shape) as (n, *shape)."""


class VariableCodec(Codec, ABC):
    """Items differ in size; a store adds 4 bytes for the length of each."""

    @abstractmethod
    def write(self, item: Tensor) -> bytes:
        """Write one item (*shape)."""

    @abstractmethod
    def read(self, blob: bytes) -> Tensor:
        """Read one item as (*shape)."""

    def encode(self, items: Tensor) -> list[bytes]:
        """Write (n, *shape) as n byte strings."""
        return [self.write(item) for item in items]

    def decode(self, blobs: Sequence[bytes]) -> Tensor:
        """Read n byte strings as (n, *shape)."""
        if not blobs:
            return torch.empty((0, *self.shape), dtype=self.dtype)
        return torch.stack([self.read(blob) for blob in blobs])


class Raw(FixedCodec):
    """Native values and shape."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__(name, shape, dtype)
        self.stored_shape, self.stored_dtype = shape, dtype

    def encode(self, items: Tensor) -> Tensor:
        return items

    def decode(self, stored: Tensor) -> Tensor:
        return stored


class Paper(FixedCodec):
    """Images as H x W x 3 bytes, whatever they cost: for repeating published tables byte for byte."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__(name, shape, dtype)
        self.stored_shape, self.stored_dtype = (3, *shape[1:]), torch.uint8

    def encode(self, items: Tensor) -> Tensor:
        return items.expand(-1, 3, -1, -1).contiguous()

    def decode(self, stored: Tensor) -> Tensor:
        return stored[:, : self.shape[0]].contiguous()


class KBit(FixedCodec):
    """k bits per pixel, packed, on a grid between the item's lowest and highest value.

    With low and span = high - low of an item, step = span / (2^k - 1) and code = round((x - low) / step), so
    that |decode(encode(x)) - x| <= step / 2 + 1 / 2 (the second half is the rounding to whole pixel values),
    low and high come back exactly, and nothing is lost where span < 2^k. Whole-number arithmetic throughout:
    same bits everywhere. A stored item is low (1 B), span (1 B; step without its rounding), then the codes,
    first code in the lowest bits.
    """

    def __init__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, bits: int) -> None:
        super().__init__(name, shape, dtype)
        self.bits, self.levels, self.lossless = bits, 2**bits - 1, bits == 8
        self.stored_shape, self.stored_dtype = (math.ceil(math.prod(shape) * bits / 8) + 2,), torch.uint8

    def encode(self, items: Tensor) -> Tensor:
        return torch.cat([self._encode(chunk) for chunk in items.split(self._chunk)])

    def decode(self, stored: Tensor) -> Tensor:
        return torch.cat([self._decode(chunk) for chunk in stored.split(self._chunk)])

    @property
    def _chunk(self) -> int:
        """Items worked on at once: unpacked codes take up to 12 times an item's size."""
        return max(1, 2**22 // math.prod(self.shape))

    def _encode(self, items: Tensor) -> Tensor:
        values = items.reshape(len(items), math.prod(self.shape)).int()  # (n, values)
        low = values.amin(1, keepdim=True)  # (n, 1)
        span = values.amax(1, keepdim=True) - low
        codes = (2 * self.levels * (values - low) + span) // (2 * span).clamp(min=1)  # (n, values) 0..levels
        return torch.cat([low.byte(), span.byte(), pack_bits(codes.byte(), self.bits)], dim=1)

    def _decode(self, stored: Tensor) -> Tensor:
        low, span = stored[:, :1].int(), stored[:, 1:2].int()
        codes = unpack_bits(stored[:, 2:], self.bits, math.prod(self.shape)).int()
        values = low + (2 * codes * span + self.levels) // (2 * self.levels)
        return values.byte().reshape(len(stored), *self.shape)


class Deflate(VariableCodec):
    """zlib at level 9 over the values in storage order."""

    def write(self, item: Tensor) -> bytes:
        return zlib.compress(item.contiguous().numpy().tobytes(), 9)

    def read(self, blob: bytes) -> Tensor:
        return torch.frombuffer(bytearray(zlib.decompress(blob)), dtype=self.dtype).reshape(self.shape)


class ImageFile(VariableCodec):
    """A PNG, WebP or JPEG file in memory, as Pillow writes it (lossy colour: chroma at half resolution)."""

    # Not torchvision.io: files of the same size, but importing it takes 1.3 s, Pillow 10 ms.

    def __init__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, kind: str, quality: int | None) -> None:
        super().__init__(name, shape, dtype)
        self.kind, self.lossless = kind.upper(), quality is None
        self.settings = {"lossless": True} if quality is None else {"quality": quality}

    def write(self, item: Tensor) -> bytes:
        from PIL import Image

        size = (self.shape[2], self.shape[1])
        pixels = item.permute(1, 2, 0).contiguous().numpy().tobytes()  # H x W x C
        image = Image.frombytes("L" if self.shape[0] == 1 else "RGB", size, pixels)
        blob = io.BytesIO()
        image.save(blob, self.kind, **self.settings)
        return blob.getvalue()

    def read(self, blob: bytes) -> Tensor:
        from PIL import Image

        with Image.open(io.BytesIO(blob)) as image:
            planes = image.getchannel(0) if self.shape[0] == 1 else image.convert("RGB")
        pixels = torch.frombuffer(bytearray(planes.tobytes()), dtype=torch.uint8)
        return pixels.reshape(*self.shape[1:], self.shape[0]).permute(2, 0, 1).contiguous()


def codec(name: str, shape: Sequence[int], dtype: str) -> FixedCodec | VariableCodec:
    """Make the codec that a config names.

    Args:
        name: "kind" or "kind:option", see the table on top of this file.
        shape: of one item, (C, H, W) for images or (d,) for vectors.
        dtype: "uint8" or "float32", as in `Inputs`.

    Raises:
        ConfigError: for an unknown name, an option out of range, or items the codec cannot hold.
    """
    kind, option = parse_codec(name)
    shape = tuple(shape)
    if dtype not in _DTYPES:
        raise ConfigError(f"inputs are {dtype!r}, but exemplars are stored as uint8 or float32: convert the inputs")
    image = dtype == "uint8" and len(shape) == 3
    if kind in ("paper", "png", "webp", "jpeg") and not (image and shape[0] in (1, 3)):
        raise ConfigError(
            f"memory.codec={name!r} holds grey or RGB images (1 or 3, H, W) of uint8, but these inputs are "
            f"{dtype} {shape}: use 'raw' or 'zlib'"
        )
    if kind == "kbit" and dtype != "uint8":
        raise ConfigError(
            f"memory.codec={name!r} holds uint8 values, but these inputs are {dtype}: use 'raw' or 'zlib'"
        )
    match kind:
        case "raw":
            return Raw(name, shape, _DTYPES[dtype])
        case "paper":
            return Paper(name, shape, torch.uint8)
        case "kbit":
            assert option is not None, "parse_codec lets no kbit through without its bits"
            return KBit(name, shape, torch.uint8, option)
        case "zlib":
            return Deflate(name, shape, _DTYPES[dtype])
        case _:
            return ImageFile(name, shape, torch.uint8, kind, option)


def parse_codec(name: str) -> tuple[str, int | None]:
    """Split a codec's name into kind and option, with the default filled in.

    >>> parse_codec("kbit:4"), parse_codec("jpeg"), parse_codec("webp")
    (('kbit', 4), ('jpeg', 90), ('webp', None))

    Raises:
        ConfigError: for an unknown kind, or an option that is missing, not a whole number, out of range or
            not taken.
    """
    kind, colon, text = name.partition(":")
    if kind not in OPTIONS:
        near = get_close_matches(kind, OPTIONS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "pick one of these"
        raise ConfigError(f"memory.codec={name!r} is not one of {', '.join(OPTIONS)}: {hint}")
    allowed = OPTIONS[kind]
    if allowed is None:
        if colon:
            raise ConfigError(f"memory.codec={name!r} has an option, but {kind} takes none: write {kind!r}")
        return kind, None
    default, low, high = allowed
    if not colon and kind != "kbit":
        return kind, default
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        example = "kbit:4" if kind == "kbit" else f"{kind}:90"
        raise ConfigError(
            f"memory.codec={name!r} needs a whole number from {low} to {high} after {kind + ':'!r}: write "
            f"{example!r}, say"
        )
    return kind, int(text)


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Pack codes (n, m) uint8 < 2^bits into (n, ceil(m * bits / 8)) uint8, first code in the lowest bits.

    >>> pack_bits(torch.tensor([[1, 2, 3]], dtype=torch.uint8), 4).tolist()
    [[33, 3]]
    """
    n, m = codes.shape
    n_bytes = math.ceil(m * bits / 8)
    places = torch.arange(bits, dtype=torch.uint8)
    flags = (codes[:, :, None] >> places & 1).reshape(n, m * bits)  # (n, m * bits) of 0 and 1
    flags = torch.nn.functional.pad(flags, (0, n_bytes * 8 - m * bits)).reshape(n, n_bytes, 8)
    return (flags << torch.arange(8, dtype=torch.uint8)).sum(2, dtype=torch.uint8)


def unpack_bits(packed: Tensor, bits: int, m: int) -> Tensor:
    """Undo `pack_bits` for m codes a row: (n, ceil(m * bits / 8)) uint8 to (n, m) uint8."""
    flags = (packed[:, :, None] >> torch.arange(8, dtype=torch.uint8) & 1).reshape(len(packed), packed.shape[1] * 8)
    flags = flags[:, : m * bits].reshape(len(packed), m, bits)
    return (flags << torch.arange(bits, dtype=torch.uint8)).sum(2, dtype=torch.uint8)
