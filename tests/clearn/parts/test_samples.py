from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clearn.errors import DataError
from clearn.parts.samples import DatasetSamples, Samples, TensorSamples, concat

torch.set_num_threads(1)


class Numbers:
    """Item i is an image full of i, with a label that nobody reads."""

    def __init__(self, n: int, size: int = 2) -> None:
        self.n, self.size = n, size

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return torch.full((1, self.size, self.size), i, dtype=torch.uint8), -1


def tensor_samples(n: int, start: int = 0) -> TensorSamples:
    values = torch.arange(start, start + n, dtype=torch.uint8)
    return TensorSamples(values.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous(), values.long())


def dataset_samples(n: int, workers: int = 0) -> DatasetSamples:
    rows = torch.arange(n)
    return DatasetSamples(Numbers(n), rows, rows, workers)


def first_pixels(inputs: Tensor) -> list[int]:
    return inputs[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("samples", [tensor_samples(7), dataset_samples(7)])
def test_fetch_take_and_batches_keep_the_order_asked_for(samples: Samples) -> None:
    index = torch.tensor([5, 0, 5])
    assert (len(samples), samples.shape, samples.dtype) == (7, (1, 2, 2), torch.uint8)
    assert first_pixels(samples.fetch(index)) == [5, 0, 5]
    taken = samples.take(index)
    assert type(taken) is type(samples)
    assert taken.labels.tolist() == [5, 0, 5]
    assert first_pixels(taken.fetch(torch.tensor([1]))) == [0]
    batches = list(taken.batches(2))
    assert [first_pixels(x) for x, _ in batches] == [[5, 0], [5]]
    assert [y.tolist() for _, y in batches] == [[5, 0], [5]]


@pytest.mark.parametrize("samples", [tensor_samples(3), dataset_samples(3)])
def test_empty_selection_has_the_shape_and_no_batches(samples: Samples) -> None:
    none = samples.take(torch.empty(0, dtype=torch.int64))
    assert len(none) == 0 and none.shape == (1, 2, 2)
    assert none.fetch(torch.empty(0, dtype=torch.int64)).shape == (0, 1, 2, 2)
    assert list(none.batches(4)) == []


def test_loader_yields_batches_in_the_given_order() -> None:
    order = [torch.tensor([2, 1]), torch.tensor([0])]
    for samples in (tensor_samples(3), dataset_samples(3)):
        assert [(first_pixels(x), y.tolist()) for x, y in samples.loader(order)] == [
            ([2, 1], [2, 1]),
            ([0], [0]),
        ]


def test_reading_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    list(dataset_samples(3).batches(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_worker_processes_change_no_bit() -> None:
    alone, helped = (list(dataset_samples(5, workers).batches(2)) for workers in (0, 1))
    assert len(alone) == len(helped) == 3
    for (x, y), (x_helped, y_helped) in zip(alone, helped, strict=True):
        assert torch.equal(x, x_helped) and torch.equal(y, y_helped)


def test_concat_of_tensors_is_in_memory() -> None:
    joined = concat([tensor_samples(2), tensor_samples(0), tensor_samples(2, start=10)])
    assert isinstance(joined, TensorSamples)
    assert joined.labels.tolist() == [0, 1, 10, 11]
    assert first_pixels(joined.inputs) == [0, 1, 10, 11]


def test_concat_of_two_kinds_asks_each_for_its_rows() -> None:
    joined = concat([tensor_samples(3, start=100), dataset_samples(4), tensor_samples(1, start=200)])
    assert (joined.in_memory, joined.workers, len(joined)) == (False, 0, 8)
    assert joined.labels.tolist() == [100, 101, 102, 0, 1, 2, 3, 200]
    index = torch.tensor([7, 4, 0, 3, 4])
    assert first_pixels(joined.fetch(index)) == [200, 1, 100, 0, 1]
    taken = joined.take(index).take(torch.tensor([4, 0]))
    assert [(first_pixels(x), y.tolist()) for x, y in taken.batches(2)] == [([1, 200], [1, 200])]
    assert joined.fetch(torch.empty(0, dtype=torch.int64)).shape == (0, 1, 2, 2)


def test_concat_with_an_empty_memory_is_the_other_part() -> None:
    data = dataset_samples(2)
    assert concat([data, tensor_samples(0)]) is data
    assert len(concat([tensor_samples(0), tensor_samples(0)])) == 0


def test_wrong_inputs_are_refused_with_what_would_be_right() -> None:
    images, labels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"float64.*convert"):
        TensorSamples(images.double(), labels)
    with pytest.raises(TypeError, match=r"uint8.*labels.long\(\)"):
        TensorSamples(images, labels.byte())
    with pytest.raises(ValueError, match=r"\(1,\), but must be \(2,\)"):
        TensorSamples(images, labels[:1])
    with pytest.raises(ValueError, match="missing dimension"):
        TensorSamples(images.flatten(), labels.repeat(4))
    with pytest.raises(ValueError, match="from 0 to 2, but must lie in"):
        DatasetSamples(Numbers(2), torch.arange(3), torch.arange(3))
    with pytest.raises(TypeError, match="int64"):
        DatasetSamples(Numbers(2), torch.arange(2).int(), torch.arange(2))
    with pytest.raises(ValueError, match="workers=-1"):
        DatasetSamples(Numbers(2), torch.arange(2), torch.arange(2), workers=-1)
    with pytest.raises(ValueError, match="size=0"):
        tensor_samples(2).batches(0)
    with pytest.raises(ValueError, match="parts is empty"):
        concat([])
    with pytest.raises(ValueError, match=r"\(1, 3, 3\) cannot follow .*\(1, 2, 2\)"):
        concat([tensor_samples(1), DatasetSamples(Numbers(1, size=3), torch.arange(1), torch.arange(1))])


def test_items_that_do_not_fit_together_are_named() -> None:
    class Growing(Numbers):
        def __getitem__(self, i: int) -> tuple[Any, int]:
            return torch.zeros(1, 2 + i, 2, dtype=torch.uint8), 0

    class Files(Numbers):
        def __getitem__(self, i: int) -> tuple[Any, int]:
            return "a picture", 0

    rows = torch.arange(2)
    with pytest.raises(DataError, match=r"item 1 is .*\(1, 3, 2\), but item 0 is .*\(1, 2, 2\): resize"):
        DatasetSamples(Growing(2), rows, rows).fetch(rows)
    with pytest.raises(DataError, match="item 0 of the data set is a str"):
        DatasetSamples(Files(2), rows, rows).fetch(rows)
    with pytest.raises(DataError, match="empty"):
        _ = DatasetSamples(Numbers(0), rows[:0], rows[:0]).shape
