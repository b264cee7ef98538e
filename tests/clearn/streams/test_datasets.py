from __future__ import annotations

import gzip
import hashlib
import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import Subset
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

from clearn.errors import ConfigError, DataError
from clearn.parts.samples import DatasetSamples, Samples, TensorSamples
from clearn.streams import DATASETS, datasets
from clearn.streams.datasets import (
    Options,
    arrays,
    dataset,
    from_arrays,
    from_dataset,
    idx,
    images,
    published,
)
from clearn.streams.datasets.record import rank_in_class, root_of

torch.set_num_threads(1)


def stored(samples: Samples) -> torch.Tensor:
    return samples.fetch(torch.arange(len(samples)))


@pytest.fixture(autouse=True)
def no_data_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARN_DATA", str(tmp_path / "clearn_data"))
    monkeypatch.setattr(idx, "DEBIAN", tmp_path / "debian")


# Options and where sets are looked for


def test_every_listed_set_has_a_reader() -> None:
    assert list(datasets.READERS) == list(DATASETS)


def test_root_is_the_option_then_the_variable_then_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert root_of(Options(root="~/here")) == Path.home() / "here"
    assert root_of(Options()) == tmp_path / "clearn_data"
    monkeypatch.delenv("CLEARN_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert root_of(Options()) == tmp_path / "cache" / "clearn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert root_of(Options()) == Path.home() / ".cache" / "clearn"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "fashion-mnist"}, "did you mean 'fashion_mnist'"),
        ({"name": "digits", "paad": 2}, "did you mean 'pad'"),
        ({"pad": -1}, "pad=-1 must be 0 or more"),
        ({"per_class_train": 0}, "per_class_train=0 must be 1 or more"),
        ({"download": True}, "download=True is for fashion_mnist.* not data=digits"),
        ({"size": 8}, "size=8 is for folder"),
        ({"name": "folder"}, "needs root"),
        ({"name": "csv"}, "path of your .csv file"),
        ({"normalise": "imagenett"}, "did you mean 'imagenet'"),
        ({"normalise": {"mean": [0.5]}}, "mean: .*std: "),
        ({"normalise": {"mean": 0.5, "std": 0.5}}, "one number a channel"),
        ({"normalise": {"mean": [0.5], "std": [0.0]}}, "above 0"),
        ({"normalise": "imagenet"}, "3 channels, images of data=digits have 1; .*rgb: true"),
    ],
)
def test_wrong_options_name_the_remedy(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        dataset(**options)  # type: ignore[arg-type]


def test_all_mistakes_are_shown_together() -> None:
    with pytest.raises(ConfigError) as caught:
        Options(pad=-1, workers=-1, per_class_test=0)
    assert len(str(caught.value).splitlines()) == 3


# Digits, and the options common to all sets


def test_digits_are_scikit_learns_and_every_fifth_of_a_class_is_test() -> None:
    data, theirs = dataset("digits"), load_digits()
    assert data.inputs.shape == (1, 8, 8)
    assert len(data.train) == 1442
    assert len(data.test) == 355
    pixels = torch.from_numpy(theirs.images * 15).to(torch.uint8)[:, None]
    test, seen = [], [0] * 10
    for i, label in enumerate(theirs.target):
        seen[label] += 1
        if seen[label] % 5 == 0:
            test.append(i)
    train = sorted(set(range(1797)) - set(test))
    assert torch.equal(stored(data.test), pixels[test])
    assert torch.equal(stored(data.train), pixels[train])
    assert data.test.labels.tolist() == theirs.target[test].tolist()
    scaled = stored(data.train).double() / 255
    assert data.mean == (round(float(scaled.mean()), 4),)
    assert data.std == (round(float(scaled.std()), 4),)


def test_common_options() -> None:
    plain = dataset("digits")
    data = dataset("digits", pad=2, rgb=True, per_class_train=3, per_class_test=1, normalise="cifar10")
    assert data.train.labels.bincount().tolist() == [3] * 10
    assert data.test.labels.bincount().tolist() == [1] * 10
    first = (rank_in_class(plain.train.labels) < 3).nonzero()[:, 0]
    inner = stored(data.train)[:, :, 2:-2, 2:-2]
    assert torch.equal(inner, stored(plain.train)[first].expand(-1, 3, -1, -1))
    assert int(stored(data.train).sum()) == int(inner.sum())
    assert data.mean == (0.4914, 0.4822, 0.4465)
    assert data.inputs.shape == (3, 12, 12)
    assert dataset("digits", normalise="half").mean == (0.5,)
    assert dataset("digits", normalise={"mean": [0.3], "std": [0.25]}, rgb=True).std == (0.25,) * 3


# idx files


def idx_bytes(values: np.ndarray) -> bytes:  # type: ignore[type-arg]
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


def write_mnist(folder: Path, packed: bool) -> None:
    """A set of 20 training and 10 test images in torchvision's layout."""
    folder.mkdir(parents=True)
    for part, n in (("train", 20), ("t10k", 10)):
        pixels = np.arange(n * 6, dtype=np.uint8).reshape(n, 2, 3)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for name, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            path, content = folder / f"{part}-{name}-ubyte", idx_bytes(values)
            if packed:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "clearn_data/MNIST/raw"),
        ("kmnist", "clearn_data/KMNIST/raw"),
        ("fashion_mnist", "clearn_data/FashionMNIST/raw"),
        ("fashion_mnist", "clearn_data/fashion-mnist"),
        ("fashion_mnist", "debian/fashion-mnist"),
    ],
)
def test_mnist_and_its_kin_are_read_where_they_lie(name: str, place: str, tmp_path: Path) -> None:
    write_mnist(tmp_path / place, packed=True)
    data = dataset(name)
    assert data.inputs.shape == (1, 2, 3)
    assert len(data.classes) == 10
    assert len(data.mean) == 1
    assert stored(data.train).flatten().tolist() == list(range(120))
    assert data.test.labels.tolist() == list(range(10))


def test_plain_and_packed_files_have_one_checksum(tmp_path: Path) -> None:
    write_mnist(tmp_path / "a/MNIST/raw", packed=False)
    write_mnist(tmp_path / "b/MNIST/raw", packed=True)
    plain, packed = (dataset("mnist", str(tmp_path / root)) for root in "ab")
    assert plain.checksums == packed.checksums
    assert len(plain.checksums) == 4
    content = (tmp_path / "a/MNIST/raw/t10k-labels-idx1-ubyte").read_bytes()
    assert plain.checksums["t10k-labels-idx1-ubyte"] == hashlib.sha256(content).hexdigest()


def test_a_missing_set_names_all_places_and_the_ways_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        dataset("fashion_mnist")
    for part in (
        "train-images-idx3-ubyte",
        str(tmp_path / "clearn_data/FashionMNIST/raw"),
        str(tmp_path / "debian/fashion-mnist"),
        "apt install dataset-fashion-mnist",
        "download: true",
        "CLEARN_DATA",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="download: true") as caught:
        dataset("kmnist")
    assert "apt" not in str(caught.value)


def test_a_set_with_a_file_short_says_which(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST/raw", packed=True)
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="raw lacks t10k-labels-idx1-ubyte;"):
        dataset("mnist", str(tmp_path))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda c: c[:-5], "holds 131 bytes, its header of 20 x 2 x 3 values asks for 136: it is truncated"),
        (lambda c: c + b"x", "holds 137 bytes"),
        (lambda c: c[:9], "truncated"),
        (lambda c: b"<html>", "starts with bytes 3c 68 74 6d.*00 00 08"),
        (lambda c: b"\x00\x00\x0d" + c[3:], "00 00 0d 03"),
        (lambda c: b"", "starts with bytes "),
        (lambda c: idx_bytes(np.zeros((19, 2, 3), np.uint8)), r"\(19, 2, 3\) .*do not belong together"),
    ],
)
def test_damaged_files_are_named(damage, said: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write_mnist(tmp_path / "MNIST/raw", packed=False)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=said) as caught:
        dataset("mnist", str(tmp_path))
    assert "train-images-idx3-ubyte" in str(caught.value)
    assert "afresh" in str(caught.value)


def test_a_truncated_gz_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST/raw", packed=True)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"ubyte\.gz cannot be unpacked .*truncated"):
        dataset("mnist", str(tmp_path))


def test_a_download_that_fails_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torchvision.datasets.MNIST, "__init__", refuse)
    with pytest.raises(DataError, match=r"downloading MNIST .*no route.*copy the four idx files"):
        dataset("mnist", download=True)


def test_a_download_is_read_where_torchvision_puts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def deliver(self: object, root: str, download: bool) -> None:
        assert download
        write_mnist(Path(root) / "KMNIST/raw", packed=False)

    monkeypatch.setattr(torchvision.datasets.KMNIST, "__init__", deliver)
    assert len(dataset("kmnist", download=True).train) == 20


# CIFAR and SVHN


def test_cifar_in_torchvisions_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rng = np.random.RandomState(0)
    rows = {part: rng.randint(0, 256, (6, 3072)).astype(np.uint8) for part in ("train", "test")}
    files: dict[str, object] = {p: {"data": rows[p], "fine_labels": [0, 1, 2] * 2} for p in rows}
    files["meta"] = {"fine_label_names": ["apple", "baby", "bear"]}
    md5 = {}
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    kind = torchvision.datasets.CIFAR100
    monkeypatch.setattr(kind, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(kind, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5["meta"]})

    data = dataset("cifar100", str(tmp_path))
    assert torch.equal(stored(data.test), torch.from_numpy(rows["test"]).view(6, 3, 32, 32))
    assert data.train.labels.tolist() == [0, 1, 2] * 2
    assert data.classes == ("apple", "baby", "bear")
    assert data.mean == (0.5071, 0.4867, 0.4408)
    assert data.std == (0.2675, 0.2565, 0.2761)
    assert data.checksums["cifar-100-python/test"] == hashlib.sha256((folder / "test").read_bytes()).hexdigest()

    (folder / "train").write_bytes(b"never unpickled")
    with pytest.raises(DataError, match="not found or is damaged"):
        dataset("cifar100", str(tmp_path))


@pytest.mark.parametrize("name", list(published.ARCHIVES))
def test_missing_archives_name_files_place_and_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="download: true") as caught:
        dataset(name)
    assert published.ARCHIVES[name].files[0] in str(caught.value)
    assert str(tmp_path / "clearn_data") in str(caught.value)


def test_svhn_in_torchvisions_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3, 4)).astype(np.uint8)
    kind = torchvision.datasets.SVHN
    listed = dict(kind.split_list)
    for part in ("train", "test"):
        path = tmp_path / f"{part}_32x32.mat"
        savemat(path, {"X": pixels, "y": np.array([[1], [10], [3], [1]])})
        listed[part] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(kind, "split_list", listed)
    data = dataset("svhn", str(tmp_path))
    assert data.train.labels.tolist() == [1, 0, 3, 1]
    assert len(data.classes) == 10
    assert np.array_equal(stored(data.test).numpy(), pixels.transpose(3, 2, 0, 1))


# Folders


def write_folder(root: Path, held_out: str = "test", size: tuple[int, int] = (6, 4)) -> None:
    for part, n in (("train", 3), (held_out, 2)):
        for shade, name in enumerate(("zebra", "ant")):
            (root / part / name).mkdir(parents=True)
            for i in range(n):
                color = (10 * shade + i, 100, 200)
                Image.new("RGB", size, color).save(root / part / name / f"{i}.png")


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_folder(held_out: str, tmp_path: Path) -> None:
    write_folder(tmp_path, held_out)
    (tmp_path / "train/ant/notes.txt").write_text("no image")
    (tmp_path / "train/.hidden").mkdir()
    data = dataset("folder", str(tmp_path))
    assert data.classes == ("ant", "zebra")
    assert data.inputs.shape == (3, 4, 6)
    assert isinstance(data.train, TensorSamples)
    assert data.mean == data.std == (0.5,) * 3
    assert stored(data.train)[:, 0, 0, 0].tolist() == [10, 11, 12, 0, 1, 2]
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    threaded = dataset("folder", str(tmp_path), workers=2)
    assert torch.equal(stored(threaded.train), stored(data.train))
    assert threaded.checksums == data.checksums


def test_a_large_folder_is_decoded_on_access(tmp_path: Path) -> None:
    write_folder(tmp_path)
    small = dataset("folder", str(tmp_path), size=3)
    large = dataset("folder", str(tmp_path), size=3, in_memory=10, per_class_train=2)
    assert isinstance(large.train, DatasetSamples)
    assert large.inputs.shape == (3, 3, 3)
    assert torch.equal(stored(large.test), stored(small.test))
    assert large.train.labels.tolist() == [0, 0, 1, 1]
    assert list(large.checksums) == ["train names and sizes", "test names and sizes"]
    with pytest.raises(ConfigError, match="in_memory=10"):
        dataset("folder", str(tmp_path), in_memory=10, pad=1)


def test_size_is_torchvisions_resize_and_centre_crop() -> None:
    noise = np.random.RandomState(0).randint(0, 256, (21, 34, 3)).astype(np.uint8)
    for image in (
        Image.fromarray(noise),
        Image.fromarray(noise.transpose(1, 0, 2)),
        Image.fromarray(noise[..., 0]),
    ):
        for size in (8, 13, 30):
            theirs = np.array(Compose([Resize(size), CenterCrop(size)])(image))
            ours = images.pixels(image, images.View(size).centre).permute(1, 2, 0).numpy()
            assert np.array_equal(ours.squeeze(), theirs)


def test_folders_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train/CLASS/.*set root"):
        dataset("folder", str(tmp_path))
    write_folder(tmp_path)
    (tmp_path / "test/wasp").mkdir()
    with pytest.raises(DataError, match=r"test.wasp holds no image"):
        dataset("folder", str(tmp_path))
    Image.new("L", (6, 4)).save(tmp_path / "test/wasp/0.png")
    with pytest.raises(DataError, match=r"has classes wasp that .*train lacks"):
        dataset("folder", str(tmp_path))
    (tmp_path / "test/wasp").rename(tmp_path / "train/wasp")
    assert len(dataset("folder", str(tmp_path)).classes) == 3
    Image.new("L", (9, 9)).save(tmp_path / "train/wasp/0.png")
    with pytest.raises(DataError, match=r"wasp.0.png is .*\(3, 9, 9\), the first is .*\(3, 4, 6\).*give `size"):
        dataset("folder", str(tmp_path))
    (tmp_path / "train/wasp/0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"wasp.0.png cannot be decoded"):
        dataset("folder", str(tmp_path))
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(tmp_path / "train/wasp/0.png")
    with pytest.raises(DataError, match=r"wasp.0.png .*8 bits"):
        dataset("folder", str(tmp_path))


# Arrays and CSV


def test_labels_of_any_kind_are_numbered_in_sorted_order() -> None:
    x = np.arange(8.0).reshape(4, 2)
    for y, classes, labels in (
        (["b", "a", "b", "c"], ("a", "b", "c"), [1, 0, 1, 2]),
        ([30, 7, 30, 100], ("7", "30", "100"), [1, 0, 1, 2]),
        (torch.tensor([2, -1, 2, 5]), ("-1", "2", "5"), [1, 0, 1, 2]),
        (np.array([[2], [0], [2], [4]]), ("0", "2", "4"), [1, 0, 1, 2]),
    ):
        data = from_arrays(x, y, x, y)
        assert data.classes == classes
        assert data.train.labels.tolist() == data.test.labels.tolist() == labels


@pytest.mark.parametrize(
    ("shape", "layout", "kept"),
    [
        ((4, 5, 6), None, (1, 5, 6)),
        ((4, 5, 6, 3), None, (3, 5, 6)),
        ((4, 5, 6, 1), None, (1, 5, 6)),
        ((4, 3, 5, 6), None, (3, 5, 6)),
        ((4, 3, 5, 3), "NHWC", (3, 3, 5)),
        ((4, 3, 5, 3), "NCHW", (3, 5, 3)),
        ((4, 7, 5, 9), "NCHW", (7, 5, 9)),
    ],
)
def test_images_are_taken_by_their_shape(shape: tuple[int, ...], layout: str | None, kept: tuple[int, ...]) -> None:
    x = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    data = from_arrays(x, [0, 1] * 2, x, [0, 1] * 2, layout=layout)
    assert data.train.shape == kept
    assert data.mean == (0.5,) * kept[0]
    last = len(shape) == 4 and kept[0] == shape[3] and layout != "NCHW"
    expected = x.transpose(0, 3, 1, 2) if last else x.reshape(4, *kept)
    assert np.array_equal(stored(data.train).numpy(), expected)


def test_pixels_may_be_wide_integers_or_to_tensors_floats() -> None:
    x = np.arange(256).reshape(4, 8, 8)
    y = [0, 1] * 2
    exact = stored(from_arrays(x.astype(np.uint8), y, x.astype(np.uint8), y).train)
    for same in (x, x.astype(np.uint16), (x / 255).astype(np.float32), torch.from_numpy(x)):
        assert torch.equal(stored(from_arrays(same, y, same, y).train), exact)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.zeros((4, 3, 5, 3), np.uint8), [0] * 4, "both sides: say layout='NHWC'"),
        (np.zeros((4, 4, 5, 6), np.uint8), [0] * 4, "neither side: say layout"),
        (np.zeros((4, 9), np.uint8), [0] * 4, r"reshape\(n, height, width\)"),
        (np.full((4, 2, 2), 256), [0] * 4, "integers 0..255"),
        (np.full((4, 2, 2), -0.3), [0] * 4, "drop Normalize"),
        (np.full((4, 2), np.nan), [0] * 4, "NaN"),
        (np.zeros(4), [0] * 4, r"right are vectors \(n, d\)"),
        (np.zeros((4, 2)), [0] * 3, "4 inputs and 3 labels"),
        (np.zeros((0, 2)), [], "0 inputs"),
        (np.zeros((4, 2)), np.eye(4), r"argmax\(1\)"),
        (np.zeros((4, 2)), np.array([None] * 4), "text are right"),
        (np.zeros((4, 2)), [0, 1, 2, float("nan")], "labels hold NaN"),
        ([["a"], ["b"]], [0, 1], "numbers are needed"),
        ([[1], [2, 3]], [0, 1], "one shape"),
        (np.zeros((4, 2)), [0, 0, 0, 1], "5 or more are needed"),
    ],
)
def test_arrays_that_cannot_be_taken_say_why(x: object, y: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        from_arrays(x, y)  # type: ignore[arg-type]


def test_test_arrays_must_match_the_training_arrays() -> None:
    x, y = np.zeros((2, 3)), ["a", "b"]
    with pytest.raises(DataError, match="test labels c have no training sample; known are a, b"):
        from_arrays(x, y, x, ["a", "c"])
    with pytest.raises(DataError, match="one of them"):
        from_arrays(x, y, x)
    with pytest.raises(DataError, match=r"train inputs are \(3,\), test inputs \(2,\)"):
        from_arrays(x, y, x[:, :2], y)
    with pytest.raises(ConfigError, match="'NHWC'"):
        from_arrays(np.zeros((2, 2, 2, 3), np.uint8), y, layout="HWC")


def test_read_only_arrays_are_copied_and_writable_ones_shared() -> None:
    x = np.zeros((4, 2), np.float32)
    y = [0, 1, 0, 1]
    assert stored_memory(from_arrays(x, y, x, y).train) == x.ctypes.data
    x.flags.writeable = False
    assert stored_memory(from_arrays(x, y, x, y).train) != x.ctypes.data


def stored_memory(samples: Samples) -> int:
    assert isinstance(samples, TensorSamples)
    return samples.inputs.data_ptr()


def test_npz(tmp_path: Path) -> None:
    x = np.random.RandomState(0).randint(0, 256, (10, 4, 4)).astype(np.uint8)
    y = np.array(["b", "a"] * 5)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    data = dataset("arrays", str(tmp_path), file="mine.npz", rgb=True, pad=1)
    assert data.inputs.shape == (3, 6, 6)
    assert data.classes == ("a", "b")
    assert len(data.test) == 2
    np.savez(tmp_path / "split.npz", x_train=x, y_train=y)
    assert len(dataset("arrays", file=str(tmp_path / "split.npz")).test) == 2

    with pytest.raises(DataError, match=r"was not found: looked in .*other\.npz"):
        dataset("arrays", str(tmp_path), file="other.npz")
    np.savez(tmp_path / "names.npz", images=x)
    with pytest.raises(DataError, match="holds images; x_train, y_train"):
        dataset("arrays", str(tmp_path), file="names.npz")
    np.savez(tmp_path / "objects.npz", x_train=x, y_train=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="plain arrays of numbers"):
        dataset("arrays", str(tmp_path), file="objects.npz")
    for content in (b"no zip", b""):
        (tmp_path / "damaged.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read as \.npz"):
            dataset("arrays", str(tmp_path), file="damaged.npz")


def write_csv(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_csv(tmp_path: Path) -> None:
    rows = [f"{i},{i / 2},{10 if i % 2 else 9}" for i in range(10)]
    data = dataset("csv", file=write_csv(tmp_path / "one.csv", "a,b,kind", *rows), label="kind")
    assert data.inputs.shape == (2,)
    assert data.inputs.dtype == "float32"
    assert data.mean == ()
    assert data.classes == ("9", "10")  # whole numbers sort as numbers
    assert stored(data.test).tolist() == [[8.0, 4.0], [9.0, 4.5]]
    assert len(data.train) == 8

    train = write_csv(tmp_path / "train.csv", "label, a", "x,1", "", "y,2")
    write_csv(tmp_path / "test.csv", "label, a", "y,3")
    data = dataset("csv", str(tmp_path), file=train, test_file="test.csv")
    assert data.test.labels.tolist() == [1]
    assert stored(data.test).tolist() == [[3.0]]
    assert set(data.checksums) == {"train.csv", "test.csv"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a,b", "1,2"], r"has columns \['a', 'b'\]; one must be label='label'"),
        (["label", "1"], "the others numbers"),
        (["a,label", "1,x", "1,2,3"], "line 3 has 3 fields, the head line 2"),
        (["a,label", "1,x", "red,y"], "sample 2, column 'a' holds 'red'"),
        (["a,label", ",x"], "column 'a' holds ''"),
        (["a,label", "nan,x"], "NaN"),
        (["a,label"], "0 inputs"),
        ([""], "has columns"),
    ],
)
def test_bad_csv_is_named_by_line_and_column(lines: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        dataset("csv", file=write_csv(tmp_path / "bad.csv", *lines))


def test_csv_files_must_have_the_same_columns(tmp_path: Path) -> None:
    a, b = (write_csv(tmp_path / f"{c}.csv", f"{c},label", "1,x") for c in "ab")
    with pytest.raises(DataError, match="the same columns"):
        dataset("csv", file=a, test_file=b)


def test_vectors_refuse_the_options_of_images(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "v.csv", "a,label", *["1,x"] * 5)
    for options in ({"pad": 1}, {"rgb": True}, {"normalise": "half"}):
        with pytest.raises(ConfigError, match="holds vectors: leave it out"):
            dataset("csv", file=path, **options)


# Torch datasets


class Pairs(torch.utils.data.Dataset[tuple[object, object]]):
    def __init__(self, items: list[object], labels: list[object]) -> None:
        self.items, self.targets, self.read = items, labels, 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[object, object]:
        self.read += 1
        return self.items[index], self.targets[index]


def test_any_kind_of_item_is_taken() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (4, 6, 5, 3)).astype(np.uint8)
    labels = ["dog", "cat", "dog", "cat"]
    expected = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    kinds = {
        "pil": [Image.fromarray(p) for p in pixels],
        "array": list(pixels),
        "tensor": [ToTensor()(p) for p in pixels],
    }
    for kind, items in kinds.items():
        data = from_dataset(Pairs(items, labels), Pairs(items[:2], labels[:2]))
        assert torch.equal(stored(data.train), expected), kind
        assert data.classes == ("cat", "dog")
        assert data.test.labels.tolist() == [1, 0]
        assert set(data.checksums) == {"train", "test"}
        assert data.std == (0.5,) * 3
    grey = [Image.fromarray(p[..., 0]) for p in pixels]
    assert from_dataset(Pairs(grey, labels), Pairs(grey, labels), size=4).inputs.shape == (1, 4, 4)
    vectors = [torch.tensor([1.0, 2.0])] * 4
    assert from_dataset(Pairs(vectors, labels), Pairs(vectors, labels)).inputs.dtype == "float32"


def test_a_large_dataset_gives_its_labels_without_being_read() -> None:
    items: list[object] = [torch.full((3, 4, 4), i, dtype=torch.uint8) for i in range(8)]
    pairs = Pairs(items, [torch.tensor(i % 3) for i in range(8)])
    data = from_dataset(Subset(pairs, [7, 5, 3, 0]), pairs, in_memory=100)
    assert pairs.read <= 2  # the first item's shape
    assert isinstance(data.train, DatasetSamples)
    assert data.train.labels.tolist() == [1, 2, 0, 0]
    assert stored(data.train)[:, 0, 0, 0].tolist() == [7, 5, 3, 0]
    del pairs.targets
    bare = [(item, i % 3) for i, item in enumerate(items)]
    assert from_dataset(bare, bare, in_memory=0).train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "train is empty"),
        ([torch.zeros(3)], "a pair"),
        ([("text", 0)], "PIL image, array or tensor"),
        ([(torch.zeros(1, 4, 4), 0), (torch.zeros(1, 5, 5), 0)], "item 1 is .*give `size`"),
        ([(torch.full((1, 4, 4), -2.0), 0)], "drop Normalize"),
    ],
)
def test_datasets_that_cannot_be_taken_say_why(items: list[object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        from_dataset(items, items)


def test_names_of_the_npz_arrays_are_those_promised() -> None:
    assert all(part in DATASETS["arrays"] for part in arrays.PARTS)
