from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as pil

from clearn.errors import ConfigError, DataError
from clearn.parts.samples import DatasetSamples
from clearn.stream import TaskInfo
from clearn.streams import domain_incremental
from clearn.streams.datasets import DataSet, dataset, from_arrays
from clearn.streams.domain_incremental import DomainIncremental, from_domains, plan, transformed

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return dataset("digits", per_class_train=3, per_class_test=2)


def pixels(samples: object) -> torch.Tensor:
    return samples.fetch(torch.arange(len(samples)))  # type: ignore[attr-defined, arg-type]


def test_each_task_has_all_classes_and_a_probe(digits: DataSet) -> None:
    stream = domain_incremental.build(tasks=3, per_class_train=3, per_class_test=2, augment="flip")
    assert stream.infos == tuple(TaskInfo(i, tuple(range(10))) for i in range(3))
    assert stream.about["domains"] == ["identity", "permute 1", "permute 2"]
    assert stream.augment is not None
    for i, task in enumerate(stream):
        assert torch.equal(task.train.labels, digits.train.labels)
        assert [(p.name, p.task, len(p.data)) for p in task.probes] == [(f"task {i + 1}", i, 20)]
    assert torch.equal(pixels(stream[0].train), pixels(digits.train))


def test_permutations_are_numpys_and_move_whole_pixels(digits: DataSet) -> None:
    data = dataset("digits", rgb=True, per_class_train=3)
    stream = DomainIncremental(transformed(data, plan("permute", 3), order_seed=4))
    rng = np.random.RandomState(4)
    for task in list(stream)[1:]:
        moves = rng.permutation(64)
        before, after = pixels(data.train).flatten(2), pixels(task.train).flatten(2)
        assert torch.equal(after, before[:, :, moves])
        test = pixels(data.test).flatten(2)[:, :, moves]
        assert torch.equal(pixels(task.probes[0].data).flatten(2), test)


def test_vectors_can_be_permuted() -> None:
    data = from_arrays(np.arange(20.0).reshape(10, 2), [0, 1] * 5)
    moved = transformed(data, ["permute"], order_seed=0)[0]
    moves = np.random.RandomState(0).permutation(2)
    assert torch.equal(pixels(moved.of(data.train)), pixels(data.train)[:, moves])
    with pytest.raises(ConfigError, match="take permute"):
        transformed(data, ["invert"])


def test_right_angles_are_exact_and_turn_as_torchvision_does(digits: DataSet) -> None:
    domains = transformed(digits, plan("rotate", 4))
    assert [d.name for d in domains] == ["identity", "rotate 90", "rotate 180", "rotate 270"]
    for i, domain in enumerate(domains):
        image = Image.fromarray(digits.train.inputs[5, 0].numpy())
        turned = np.array(pil.rotate(image, 90 * i))
        assert np.array_equal(pixels(domain.of(digits.train))[5, 0].numpy(), turned)


def test_other_angles_are_torchvisions_bilinear(digits: DataSet) -> None:
    domain = transformed(digits, ["rotate 30"])[0]
    expected = pil.rotate(digits.train.inputs, 30, interpolation=pil.InterpolationMode.BILINEAR)
    assert torch.equal(pixels(domain.of(digits.train)), expected)


def test_invert_twice_changes_nothing(digits: DataSet) -> None:
    domain = transformed(digits, plan("invert"))[1]
    once = domain.of(digits.train)
    assert torch.equal(pixels(once), 255 - pixels(digits.train))
    assert torch.equal(pixels(domain.of(once)), pixels(digits.train))


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        (("permute", None), ["identity"] + ["permute"] * 4),
        (("permute", 1), ["identity"]),
        (("rotate", None), ["identity", "rotate 90", "rotate 180", "rotate 270"]),
        (("rotate", 3, -45.0), ["identity", "rotate 315", "rotate 270"]),
        (("rotate", 3, 7.5), ["identity", "rotate 7.5", "rotate 15"]),
        (("invert", None), ["identity", "invert"]),
        (("invert", 1), ["identity"]),
        ((["identity", "rotate 12.5", "permute"], None), ["identity", "rotate 12.5", "permute"]),
    ],
)
def test_plans(arguments: tuple, steps: list[str]) -> None:  # type: ignore[type-arg]
    assert plan(*arguments) == steps


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rotate", 5), "only 4 rotations differ; take tasks 4"),
        (("rotate", 2, 0), "only 1 rotations differ"),
        (("invert", 3), "take tasks 2"),
        (("permute", 0), "1 or more"),
        (("shuffle", 2), "known: permute, rotate, invert"),
        ((["identity", "rotate"], None), "'rotate' is not known.*'rotate 90'"),
        ((["identity", "invert"], 3), "leave tasks out"),
        (([], None), "0 tasks"),
    ],
)
def test_plans_that_cannot_be_name_the_remedy(arguments: tuple, said: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=said):
        plan(*arguments)


def test_a_quarter_turn_needs_square_images() -> None:
    data = from_arrays(np.zeros((10, 4, 6), np.uint8), [0, 1] * 5)
    with pytest.raises(ConfigError, match="square images; data=arrays has 4x6"):
        transformed(data, ["rotate 90"])
    assert transformed(data, ["rotate 180"])[0].of(data.train).shape == (1, 4, 6)


def test_a_set_that_is_not_in_memory_is_not_transformed() -> None:
    items = [(torch.zeros(1, 2, 2, dtype=torch.uint8), 0)]
    samples = DatasetSamples(items, torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(ConfigError, match="raise in_memory"):
        transformed(DataSet("large", samples, samples, ("a",)), ["invert"])


def test_own_domains(tmp_path: Path) -> None:
    for shade, domain in enumerate(("photo", "sketch")):
        for part in ("train", "test"):
            for name in ("cat", "dog"):
                folder = tmp_path / domain / part / name
                folder.mkdir(parents=True)
                Image.new("RGB", (4, 4), (shade, 0, 0)).save(folder / "1.png")
    stream = domain_incremental.build(data="folder", root=str(tmp_path), domains=["sketch", "photo"])
    assert stream.about["domains"] == ["sketch", "photo"]
    assert [int(pixels(task.train)[0, 0, 0, 0]) for task in stream] == [1, 0]
    assert set(stream.about["data"]["photo"]["checksums"]) == {"train", "test"}

    (tmp_path / "sketch" / "train" / "dog").rename(tmp_path / "sketch" / "train" / "emu")
    (tmp_path / "sketch" / "test" / "dog").rename(tmp_path / "sketch" / "test" / "emu")
    with pytest.raises(DataError, match=r"photo and sketch must have the same classes.* dog, emu"):
        domain_incremental.build(data="folder", root=str(tmp_path), domains=["photo", "sketch"])
    with pytest.raises(ConfigError, match="leave transform and tasks out"):
        domain_incremental.build(data="folder", root=str(tmp_path), domains=["photo"], tasks=2)
    with pytest.raises(ConfigError, match="needs root"):
        domain_incremental.build(data="folder", domains=["photo"])


def test_domains_must_agree_in_shape_and_be_some() -> None:
    small = from_arrays(np.zeros((10, 4, 4), np.uint8), [0, 1] * 5, name="small")
    large = from_arrays(np.zeros((10, 6, 6), np.uint8), [0, 1] * 5, name="large")
    with pytest.raises(DataError, match=r"small and large have inputs \(1, 4, 4\) and \(1, 6, 6\)"):
        from_domains([small, large])
    with pytest.raises(ConfigError, match="at least one"):
        from_domains([])
    assert len(from_domains([small, small], augment="flip")) == 2
