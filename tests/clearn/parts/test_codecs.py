from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from clearn.errors import ConfigError
from clearn.parts.codecs import FixedCodec, VariableCodec, codec, pack_bits, parse_codec, unpack_bits

torch.set_num_threads(1)

# Debian's package dataset-fashion-mnist puts it here.
FASHION = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")

IMAGES = ["raw", "paper", "kbit:8", "kbit:3", "zlib", "png", "webp", "webp:80", "jpeg", "jpeg:75"]


def smooth_images(n: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Blobs with a little noise: (n, *shape) uint8."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, shape[0], 3, 3, generator=rng) * 255
    fine = torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
    return (fine + torch.randn(fine.shape, generator=rng) * 4).clamp(0, 255).byte()


def round_trip(name: str, items: Tensor) -> Tensor:
    made = codec(name, items.shape[1:], "uint8" if items.dtype == torch.uint8 else "float32")
    if isinstance(made, FixedCodec):
        stored = made.encode(items)
        assert stored.shape == (len(items), *made.stored_shape) and stored.dtype == made.stored_dtype
        assert stored.nbytes == len(items) * made.item_bytes
        back = made.decode(stored)
    else:
        back = made.decode(made.encode(items))
    assert back.shape == items.shape and back.dtype == items.dtype and back.is_contiguous()
    return back


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 5, 9), (1, 28, 28)])
@pytest.mark.parametrize("name", IMAGES)
def test_images_come_back(name: str, shape: tuple[int, int, int]) -> None:
    items = smooth_images(4, shape)
    gap = (round_trip(name, items).int() - items.int()).abs()
    if codec(name, shape, "uint8").lossless:
        assert int(gap.max()) == 0
    else:
        assert 0 < float(gap.float().mean()) < 20  # something is lost, and the picture is still there


@pytest.mark.parametrize("name", ["raw", "zlib"])
def test_float_vectors_come_back_exactly(name: str) -> None:
    vectors = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(round_trip(name, vectors), vectors)
    assert codec(name, (7,), "float32").paper_bytes == 28


@pytest.mark.parametrize("name", IMAGES)
def test_no_items_is_no_special_case(name: str) -> None:
    assert round_trip(name, torch.empty(0, 3, 4, 4, dtype=torch.uint8)).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("name", IMAGES)
def test_nothing_is_fitted_and_encoding_is_repeatable(name: str) -> None:
    items = smooth_images(2, (3, 16, 16))
    made = codec(name, (3, 16, 16), "uint8")
    assert made.fitted_state() == {}
    assert made.paper_bytes == 768
    if isinstance(made, VariableCodec):
        assert made.encode(items) == made.encode(items) == [made.write(item) for item in items]


def test_sizes_of_fixed_items() -> None:  # CIFAR and Fashion-MNIST figures of the published counting
    cifar, grey = (3, 32, 32), (1, 28, 28)
    sizes = {(name, shape): _fixed(name, shape).item_bytes for name in IMAGES[:2] for shape in (cifar, grey)}
    assert sizes == {("raw", cifar): 3072, ("paper", cifar): 3072, ("raw", grey): 784, ("paper", grey): 2352}
    assert [_fixed(f"kbit:{k}", cifar).item_bytes for k in (4, 2)] == [1538, 770]
    assert _fixed("kbit:3", (1, 3, 3)).item_bytes == math.ceil(27 / 8) + 2


def test_paper_stores_grey_three_times() -> None:
    made, items = _fixed("paper", (1, 4, 4)), smooth_images(2, (1, 4, 4))
    stored = made.encode(items)
    assert stored.shape == (2, 3, 4, 4)
    assert all(torch.equal(stored[:, c : c + 1], items) for c in range(3))


@pytest.mark.parametrize("bits", range(1, 9))
def test_kbit_error_stays_within_its_bound(bits: int) -> None:
    rng = torch.Generator().manual_seed(bits)
    lows = torch.randint(0, 256, (500, 1), generator=rng)
    spans = (torch.rand(500, 1, generator=rng) * (256 - lows)).long()
    items = (lows + (torch.rand(500, 60, generator=rng) * (spans + 1)).long()).byte().view(500, 3, 4, 5)
    values = items.reshape(500, 60).int()
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    back = round_trip(f"kbit:{bits}", items).reshape(500, 60).int()
    step = (high - low) / (2**bits - 1)
    assert bool(((back - values).abs() <= step / 2 + 0.5).all())
    assert torch.equal(back.amin(1, keepdim=True), low) and torch.equal(back.amax(1, keepdim=True), high)
    exact = (high - low).flatten() < 2**bits
    assert bool(exact.any()) and torch.equal(back[exact], values[exact])


def test_kbit_by_hand() -> None:  # low 10, span 20, step 20/3: 10, 16.7, 23.3, 30 as codes 0 1 2 3
    made = _fixed("kbit:2", (4,))
    stored = made.encode(torch.tensor([[10, 18, 22, 30]], dtype=torch.uint8))
    assert stored.tolist() == [[10, 20, 0b11_10_01_00]]
    assert made.decode(stored).tolist() == [[10, 17, 23, 30]]


@pytest.mark.parametrize("bits", range(1, 9))
def test_packed_bits_come_back(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (3, 13), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    packed = pack_bits(codes, bits)
    assert packed.shape == (3, math.ceil(13 * bits / 8))
    assert torch.equal(unpack_bits(packed, bits, 13), codes)


def test_lossless_codecs_shrink_real_digits() -> None:
    digits = torch.tensor(load_digits().images[:50] * 15, dtype=torch.uint8).unsqueeze(1)  # (50, 1, 8, 8) 0..240
    for name in ("zlib", "png", "webp"):
        assert torch.equal(round_trip(name, digits), digits)
    made = codec("zlib", (1, 8, 8), "uint8")
    assert isinstance(made, VariableCodec)
    assert sum(map(len, made.encode(digits))) < digits.nbytes


@pytest.mark.skipif(not FASHION.exists(), reason=f"Fashion-MNIST is not installed at {FASHION}")
@pytest.mark.parametrize(
    ("name", "grey", "padded"),
    [
        ("raw", 784, 3072),
        ("zlib", 451, None),
        ("png", 501, 1062),
        ("jpeg:50", 523, 832),
        ("jpeg:75", 600, 913),
        ("jpeg:90", 737, 1054),
        ("jpeg:95", 865, 1186),
    ],
)
def test_mean_sizes_measured_on_fashion_mnist(name: str, grey: int, padded: int | None) -> None:
    with gzip.open(FASHION) as file:
        pixels = bytearray(file.read(16 + 784 * 2000)[16:])
    images = torch.frombuffer(pixels, dtype=torch.uint8).view(-1, 1, 28, 28)
    assert _mean_bytes(name, images) == pytest.approx(grey, rel=0.01)  # other 2000 images differ by less
    if padded is not None:
        colour = torch.nn.functional.pad(images, (2, 2, 2, 2)).expand(-1, 3, -1, -1).contiguous()
        assert _mean_bytes(name, colour[:500]) == pytest.approx(padded, rel=0.03)


def test_names_are_parsed_and_mistakes_explained() -> None:
    assert parse_codec("jpeg") == parse_codec("jpeg:90") == ("jpeg", 90)
    for name, message in {
        "jpg": "did you mean 'jpeg'",
        "numpy": "pick one of these",
        "kbit": "from 1 to 8 after 'kbit:'",
        "kbit:9": "from 1 to 8",
        "jpeg:": "from 1 to 100",
        "jpeg:high": "from 1 to 100",
        "jpeg:0": "from 1 to 100",
        "png:9": "takes none",
    }.items():
        with pytest.raises(ConfigError, match=message):
            codec(name, (3, 8, 8), "uint8")


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("png", (7,), "float32"),
        ("paper", (4, 8, 8), "uint8"),
        ("jpeg", (1, 8, 8), "float32"),
        ("kbit:4", (7,), "float32"),
        ("raw", (7,), "float64"),
    ],
)
def test_inputs_that_a_codec_cannot_hold_are_refused(name: str, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ConfigError, match=dtype):
        codec(name, shape, dtype)


def _fixed(name: str, shape: tuple[int, ...]) -> FixedCodec:
    made = codec(name, shape, "uint8")
    assert isinstance(made, FixedCodec)
    return made


def _mean_bytes(name: str, images: Tensor) -> float:
    made = codec(name, images.shape[1:], "uint8")
    if isinstance(made, FixedCodec):
        return made.item_bytes
    return sum(map(len, made.encode(images))) / len(images)
