"""Benchmarks of Avalanche as streams, and back: labels, task labels, bytes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

import clearn
from clearn.errors import ConfigError, DataError, UserError
from clearn.parts.samples import TensorSamples
from clearn.stream import Facts, Request, Stream
from clearn.streams import class_incremental, domain_incremental
from clearn.streams.avalanche import from_avalanche, to_avalanche

pytest.importorskip("avalanche", reason="pip install 'clearn[avalanche]'")
torch.set_num_threads(1)


def images(labels: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (len(labels), 1, 6, 5), dtype=torch.uint8, generator=rng), torch.tensor(labels)


def contents(samples: Any) -> tuple[Tensor, Tensor]:
    return samples.fetch(torch.arange(len(samples))), samples.labels


def same(one: Stream, other: Stream) -> bool:
    pairs = [(one.task(i), other.task(i)) for i in range(len(one))]
    sides = [(a.train, b.train) for a, b in pairs] + [(a.probes[0].data, b.probes[0].data) for a, b in pairs]
    return all(torch.equal(x, y) for a, b in sides for x, y in zip(contents(a), contents(b), strict=True)) and all(
        a.info == b.info for a, b in pairs
    )


def benchmark(parts: list[tuple[Tensor, Tensor]], tests: list[tuple[Tensor, Tensor]], **tasks: Any) -> Any:
    """An Avalanche benchmark of (inputs, labels) by experience; `task_labels` of the experiences."""
    from avalanche.benchmarks import benchmark_from_datasets

    from clearn.avalanche.data import dataset

    told = tasks.get("task_labels", [0] * len(parts))
    made = {
        name: [dataset(TensorSamples(x, y), told[i] if i < len(told) else 0) for i, (x, y) in enumerate(of)]
        for name, of in (("train", parts), ("test", tests))
    }
    return benchmark_from_datasets(**made)


@pytest.mark.parametrize("order_seed", [None, 3])
def test_a_class_incremental_stream_comes_back_as_it_went(order_seed: int | None) -> None:
    stream = class_incremental.build(
        data="digits", increment=2, per_class_train=9, per_class_test=4, order_seed=order_seed
    )
    back = from_avalanche(to_avalanche(stream))
    assert len(back) == 5
    assert same(stream, back)
    assert back.inputs.dtype == "uint8"
    assert back.inputs.shape == stream.inputs.shape


def test_a_domain_incremental_stream_comes_back_as_it_went() -> None:
    stream = domain_incremental.build(data="digits", transform=["identity", "invert"], per_class_train=5)
    back = from_avalanche(to_avalanche(stream))
    assert same(stream, back)
    assert [info.classes for info in back.infos] == [tuple(range(10))] * 2


def test_vectors_come_back_as_float32() -> None:
    x = np.random.default_rng(0).normal(size=(40, 7)).astype(np.float32)
    stream = clearn.from_arrays(x, np.repeat(np.arange(4), 10), increment=2)
    back = from_avalanche(to_avalanche(stream))
    assert same(stream, back)
    assert back.inputs.dtype == "float32"


def test_what_a_benchmark_of_ours_looks_like() -> None:
    stream = class_incremental.build(data="digits", increment=2, per_class_train=6, per_class_test=3)
    made = to_avalanche(stream)
    train = list(made.streams["train"])
    assert [one.classes_in_this_experience for one in train] == [{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}]
    assert [one.task_label for one in train] == [0] * 5
    assert (made.n_classes_per_exp, made.classes_order) == ([2] * 5, list(range(10)))
    x, y, task = train[1].dataset[0]
    raw, labels = contents(stream.task(1).train)
    mean, std = stream.inputs.mean[0], stream.inputs.std[0]
    torch.testing.assert_close(x, (raw[0] / 255 - mean) / std)
    assert (y, task) == (int(labels[0]), 0)
    assert [one.task_label for one in to_avalanche(stream, task_labels=True).streams["test"]] == [0, 1, 2, 3, 4]


def test_augmentation_reaches_training_items_alone() -> None:
    base = class_incremental.build(data="digits", increment=5, per_class_train=6, per_class_test=3)
    stream = class_incremental.build(data="digits", increment=5, per_class_train=6, per_class_test=3, augment="flip")
    made, plain = to_avalanche(stream).streams, to_avalanche(base).streams
    train = made["train"][0].dataset
    torch.manual_seed(0)
    drawn = [train[0][0] for _ in range(20)]
    flipped = [not torch.equal(x, plain["train"][0].dataset[0][0]) for x in drawn]
    assert any(flipped)
    assert not all(flipped)
    assert torch.equal(train.eval()[0][0], plain["train"][0].dataset[0][0])
    assert torch.equal(made["test"][0].dataset[0][0], plain["test"][0].dataset[0][0])


def test_a_strategy_of_avalanche_trains_on_a_benchmark_of_ours() -> None:
    from avalanche.training import Naive
    from avalanche.training.plugins import EvaluationPlugin
    from torch import nn

    made = to_avalanche(class_incremental.build(data="digits", increment=5, per_class_train=20))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with pytest.warns(UserWarning, match="No loggers"):
        evaluator = EvaluationPlugin()
    torch.manual_seed(0)
    trained = Naive(
        model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), train_mb_size=10, train_epochs=10,
        evaluator=evaluator,
    )  # fmt: skip
    trained.train(made.streams["train"][0], eval_streams=[])
    items = [made.streams["test"][0].dataset[i] for i in range(100)]
    right = sum(int(model(x[None]).argmax()) == y for x, y, _ in items)
    assert right > 70


class Items(Dataset[Any]):
    """Items as a torch data set gives them."""

    def __init__(self, inputs: list[Any], targets: list[int]) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.inputs[index], self.targets[index]


def of_items(inputs: list[Any], targets: list[int], **more: Any) -> Any:
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import _make_taskaware_classification_dataset, make_avalanche_dataset
    from avalanche.benchmarks.utils.transform_groups import DefaultTransformGroups

    frozen = more.pop("frozen", None)
    made = _make_taskaware_classification_dataset(Items(inputs, targets), targets=targets, task_labels=0, **more)
    if frozen is not None:
        made = make_avalanche_dataset(made, frozen_transform_groups=DefaultTransformGroups((frozen, None)))
    return benchmark_from_datasets(train=[made], test=[made])


def test_pictures_behind_transforms_stay_bytes() -> None:
    from PIL import Image
    from torchvision.transforms import Compose, Normalize, RandomCrop, ToTensor

    pixels, _ = images([0, 1, 0, 1])
    pictures = [Image.fromarray(x[0].numpy()) for x in pixels]
    chain = Compose([RandomCrop((6, 5), padding=2), ToTensor(), Normalize((0.5,), (0.5,))])
    stream = from_avalanche(of_items(pictures, [0, 1, 0, 1], transform=chain))
    assert torch.equal(contents(stream.task(0).train)[0], pixels)


def test_floats_that_were_bytes_become_bytes_again() -> None:
    pixels, _ = images([0, 1, 0, 1])
    stream = from_avalanche(of_items(list(pixels.float() / 255), [0, 1, 0, 1]))
    found, _ = contents(stream.task(0).train)
    assert found.dtype == torch.uint8
    assert torch.equal(found, pixels)


def test_frozen_transforms_are_part_of_the_data() -> None:
    pixels, _ = images([0, 1, 0, 1])
    stream = from_avalanche(of_items(list(pixels), [0, 1, 0, 1], frozen=lambda x: 255 - x))
    assert torch.equal(contents(stream.task(0).train)[0], 255 - pixels)


def test_labels_are_numbered_as_they_come_and_tests_follow_their_experience() -> None:
    parts = [images([7, 3, 7], 1), images([5, 3], 2)]
    tests = [images([3, 7], 3), images([5], 4)]
    stream = from_avalanche(benchmark(parts, tests))
    assert stream.about["classes"] == ["3", "7", "5"]
    assert [info.classes for info in stream.infos] == [(0, 1), (0, 2)]
    assert stream.task(0).train.labels.tolist() == [1, 0, 1]
    assert stream.task(1).train.labels.tolist() == [2, 0]
    assert [stream.task(i).probes[0].data.labels.tolist() for i in range(2)] == [[0, 1], [2]]
    assert torch.equal(contents(stream.task(1).train)[0], parts[1][0])


def test_one_test_set_is_shared_out_by_the_class_s_first_task() -> None:
    tests = [images([2, 0, 1, 0], 3)]
    stream = from_avalanche(benchmark([images([0, 1]), images([2, 0])], tests))
    assert stream.task(0).probes[0].data.labels.tolist() == [0, 1, 0]
    assert stream.task(1).probes[0].data.labels.tolist() == [2]
    same_classes = from_avalanche(benchmark([images([0, 1]), images([1, 0])], tests[:1] and [images([0, 1], 3)]))
    assert same_classes.task(1).probes == (), "the first task's probe tests them all"


def test_the_same_label_under_another_task_label_must_be_explained() -> None:
    made = benchmark([images([0, 1]), images([0, 1], 2)], [images([0, 1], 3), images([0, 1], 4)], task_labels=[0, 1])
    with pytest.raises(DataError, match=r"label 0 comes under task labels 0 and 1: say whether .* labels='by_task'"):
        from_avalanche(made)
    apart, together = from_avalanche(made, labels="by_task"), from_avalanche(made, labels="as_they_are")
    assert [info.classes for info in apart.infos] == [(0, 1), (2, 3)]
    assert apart.about["classes"][2] == "task 1 class 0"
    assert apart.task(1).probes[0].data.labels.tolist() == [2, 3]
    assert [info.classes for info in together.infos] == [(0, 1), (0, 1)]
    assert together.about["task_labels"] == [0, 1]


def test_larger_sets_are_read_on_access() -> None:
    made = benchmark([images([0, 1]), images([2, 3])], [images([0, 1]), images([2, 3])])
    kept, read = from_avalanche(made), from_avalanche(made, in_memory=10)
    assert not read.task(0).train.in_memory
    assert torch.equal(contents(read.task(1).train)[0], contents(kept.task(1).train)[0])
    assert read.task(1).train.labels.tolist() == [2, 3]


def test_a_run_on_a_benchmark(tmp_path: Path) -> None:
    labels = [0, 1] * 10
    made = benchmark([images(labels), images([y + 2 for y in labels], 1)], [images(labels, 2), images([2, 3], 3)])
    phase = {"epochs": 1, "batch_size": 8, "schedule": "constant"}
    out = clearn.run(
        from_avalanche(made), "finetune", backbone="mlp", first=phase, later=phase, out=tmp_path, progress=False
    )
    assert (out / "state" / "0002.safetensors").exists()


def test_what_is_no_benchmark() -> None:
    with pytest.raises(DataError, match=r"with streams train and test is right, got list: give such a one"):
        from_avalanche([1, 2])
    with pytest.raises(DataError, match=r"got streams train: give such a one"):
        from_avalanche(SimpleNamespace(streams={"train": []}))
    with pytest.raises(DataError, match=r"its train stream is empty"):
        from_avalanche(SimpleNamespace(streams={"train": [], "test": []}))
    with pytest.raises(DataError, match=r"test labels 4 have no training sample"):
        from_avalanche(benchmark([images([0, 1])], [images([0, 4])]))
    with pytest.raises(ConfigError, match=r"augment='flop' is not known; did you mean 'flip'"):
        from_avalanche(benchmark([images([0, 1])], [images([0, 1])]), augment="flop")


def test_requests_have_no_place_in_a_benchmark() -> None:
    stream = class_incremental.build(data="digits", increment=5, per_class_train=4, per_class_test=2)
    stream.facts = Facts(stream.inputs, stream.infos, None, stream.about, (Request(1, (0,)),))
    with pytest.raises(ConfigError, match=r"1 requests to forget, which an Avalanche benchmark cannot hold"):
        to_avalanche(stream)


def test_without_the_package_the_message_gives_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "avalanche"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "avalanche", None)
    with pytest.raises(UserError, match=r"pip install 'clearn\[avalanche\]'"):
        from_avalanche(object())
