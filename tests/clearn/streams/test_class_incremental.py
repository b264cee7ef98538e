from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from clearn import streams
from clearn.errors import ConfigError, DataError
from clearn.parts.samples import DatasetSamples
from clearn.stream import Inputs, TaskInfo
from clearn.streams import class_incremental
from clearn.streams.class_incremental import ClassIncremental, class_order, split
from clearn.streams.datasets import DataSet, from_arrays

torch.set_num_threads(1)


def toy(classes: int, each: int = 2) -> DataSet:
    """Images whose only pixel is the class; samples of all classes take turns."""
    labels = np.tile(np.arange(classes), each)
    images = labels.astype(np.uint8).reshape(-1, 1, 1)
    return from_arrays(images, labels, images[:classes], labels[:classes], name="toy")


def test_order_1993_is_the_fields() -> None:
    assert class_order(100, 1993)[:5].tolist() == [68, 56, 78, 8, 23]
    assert class_order(4, None).tolist() == [0, 1, 2, 3]


def test_jth_class_of_the_order_has_label_j() -> None:
    stream = ClassIncremental(toy(10, each=3), increment=5, order_seed=1993)
    order = np.random.RandomState(1993).permutation(10)
    assert stream.about["order"] == order.tolist()
    assert stream.about["classes"] == [str(c) for c in order]
    for task, labels in zip(stream, ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9]), strict=True):
        assert list(task.info.classes) == labels
        for samples, each in ((task.train, 3), (task.probes[0].data, 1)):
            pixels = samples.fetch(torch.arange(len(samples))).flatten()
            assert pixels.tolist() == order[samples.labels.numpy()].tolist()
            assert samples.labels.bincount(minlength=10)[labels].tolist() == [each] * 5


def test_samples_keep_file_order() -> None:
    task = ClassIncremental(toy(4), increment=2)[1]
    assert task.train.labels.tolist() == [2, 3, 2, 3]


def test_one_probe_a_task() -> None:
    stream = ClassIncremental(toy(6), increment=2)
    assert [[(p.name, p.task) for p in task.probes] for task in stream] == [
        [("task 1", 0)],
        [("task 2", 1)],
        [("task 3", 2)],
    ]
    assert stream[-1].info == TaskInfo(2, (4, 5))


@pytest.mark.parametrize(
    ("increment", "base", "sizes"),
    [(10, 0, [10] * 10), (10, 50, [50] + [10] * 5), (5, 50, [50] + [5] * 10), ([60, 1, 39], 0, [60, 1, 39])],
)
def test_splits_of_the_literature(increment: int | list[int], base: int, sizes: list[int]) -> None:
    assert split(100, increment, base) == sizes


@pytest.mark.parametrize(
    ("classes", "increment", "base", "said"),
    [
        (10, 3, 0, "leaves 1 of the 10 classes .* increment 2 or 5, or base 1 or 4 with increment 3"),
        (100, 15, 50, "leaves 5 of the 50 classes after base=50 .* 10 or 25, or base 40 or 55"),
        (3, 2, 0, "increment 1 or 3, or base 1 with increment 2"),
        (4, 9, 0, "increment 4, or a list"),
        (10, 0, 0, "1 or more"),
        (10, 2, 11, "in \\[0, 10\\]"),
        (10, [4, 4], 0, "sum to 8; .* sum to the 10"),
        (10, [10, 0], 0, "1 or more"),
        (10, [5, 5], 5, "leave base out"),
    ],
)
def test_sizes_that_do_not_fit_name_the_right_ones(
    classes: int, increment: int | list[int], base: int, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        split(classes, increment, base)


@pytest.mark.parametrize(("increment", "tasks"), [(1, 2), (2, 1)])
def test_two_classes_are_enough(increment: int, tasks: int) -> None:
    stream = ClassIncremental(toy(2), increment)
    assert len(stream) == tasks
    assert len(stream[tasks - 1].train) == 4 // tasks


def test_a_thousand_tasks_are_built_without_scanning_the_labels_each_time() -> None:
    n = 100_000
    labels = np.arange(n) % 1000
    data = from_arrays(np.zeros((n, 2), np.float32), labels, np.zeros((1000, 2)), np.arange(1000))
    start = time.process_time()
    stream = ClassIncremental(data, increment=1, order_seed=0)
    assert all(len(task.train) == 100 for task in stream)
    assert time.process_time() - start < 2


def test_infos_ask_for_no_pixels() -> None:
    class Forbidden(torch.utils.data.Dataset[object]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> object:
            assert index == 0, "only the shape may be asked for"
            return torch.zeros(3, 2, 2, dtype=torch.uint8), -1

    samples = DatasetSamples(Forbidden(), torch.arange(4), torch.tensor([0, 0, 1, 1]))
    stream = ClassIncremental(DataSet("lazy", samples, samples, ("a", "b")), increment=1, order_seed=1)
    assert stream.infos == (TaskInfo(0, (0,)), TaskInfo(1, (1,)))
    assert stream[0].train.index.tolist() == ([0, 1] if stream.about["order"][0] == 0 else [2, 3])
    assert stream[0].train.labels.tolist() == [0, 0]


def test_a_class_without_training_samples_is_named() -> None:
    data = toy(4)
    holey = DataSet("holey", data.train.take(torch.tensor([0, 1, 3])), data.test, ("a", "b", "c", "d"))
    with pytest.raises(DataError, match="1 of 4 classes have no training sample, 'c'"):
        ClassIncremental(holey, 2)
    holey = DataSet("holey", data.train, data.test.take(torch.tensor([0, 1])), ("a", "b", "c", "d"))
    with pytest.raises(DataError, match=r"task 2 \(classes c, d\) has no test sample"):
        ClassIncremental(holey, 2)
    assert len(ClassIncremental(holey, 4)) == 1


def test_build_of_the_default_runs_on_the_embedded_digits() -> None:
    stream = class_incremental.build(order_seed=1993, augment="crop_flip", pad=1, rgb=True)
    assert stream.inputs == Inputs((3, 10, 10), "uint8", (0.2872,) * 3, (0.354,) * 3)
    assert [len(task.train) + len(task.probes[0].data) for task in stream] == [
        358,
        360,
        361,
        356,
        362,
    ]
    changed = stream.augment(stream[0].train.fetch(torch.arange(4)), torch.Generator().manual_seed(0))
    assert changed.shape == (4, 3, 10, 10)
    about = json.loads(json.dumps(stream.about))
    assert about["data"] == "digits"
    assert about["sizes"] == [2] * 5
    assert len(about["checksums"]) == 1
    assert about["train"] == 1442
    assert about["test"] == 355


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"order_seed": -1}, "order_seed=-1"),
        ({"order_seed": 2**32}, "4294967295"),
        ({"augment": "cifra"}, "did you mean 'cifar'"),
        ({"data": "digit"}, "did you mean 'digits'"),
    ],
)
def test_build_refuses_what_is_out_of_range(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        class_incremental.build(**options)  # type: ignore[arg-type]


def test_own_arrays_are_a_stream_in_one_call() -> None:
    x = np.random.RandomState(0).rand(60, 5)
    y = np.repeat(["cat", "ant", "bee"], 20)
    stream = streams.from_arrays(x, y, increment=1)
    assert stream.inputs == Inputs((5,), "float32")
    assert stream.about["classes"] == ["ant", "bee", "cat"]
    assert [len(t.train) for t in stream] == [16, 16, 16]
    assert len(stream[0].probes[0].data) == 4
    with pytest.raises(ConfigError, match="augment is for images"):
        streams.from_arrays(x, y, increment=1, augment="flip")


def test_own_datasets_are_a_stream_in_one_call() -> None:
    pairs = [(torch.full((1, 4, 4), i, dtype=torch.uint8), i % 2) for i in range(8)]
    stream = streams.from_dataset(pairs, pairs[:4], increment=1, augment="flip")
    assert stream.inputs.shape == (1, 4, 4)
    assert len(stream) == 2
    assert stream[1].train.fetch(torch.arange(4))[:, 0, 0, 0].tolist() == [1, 3, 5, 7]


def test_listing_streams_and_datasets_loads_no_torch() -> None:
    code = (
        "import sys, clearn.streams as s; assert s.STREAMS and s.DATASETS; "
        "assert not {'torch', 'numpy', 'torchvision', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
