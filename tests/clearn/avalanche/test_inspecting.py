"""The walk over foreign objects: what it finds, what it counts once, and where data can hide from it."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clearn.avalanche.inspecting import walk


def weigh(root: object, **options: Any) -> int:
    return sum(value.nbytes for _, value in walk(root, **options))


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner: object) -> None:
        self.inner = inner


class Plain:
    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)

    def method(self) -> None:
        """Nothing."""


def closed_over(value: object) -> Callable[[], object]:
    return lambda: value


def yielding(value: object) -> Iterator[object]:
    yield 1
    yield value


PIXELS = torch.zeros(7, 3, dtype=torch.uint8)  # 21 bytes
HIDES: dict[str, Callable[[torch.Tensor], object]] = {
    "attribute": lambda x: Plain(a=x),
    "slot": Slotted,
    "list in dict": lambda x: {"a": [1.5, {"b": (x,)}], "c": None},
    "deque": lambda x: deque([x]),
    "ordered dict": lambda x: OrderedDict(a=x),
    "closure": closed_over,
    "default argument": lambda x: Plain(f=lambda y=x: y),
    "partial": lambda x: functools.partial(torch.add, x),
    "bound method": lambda x: Plain(a=x).method,
    "array": lambda x: Plain(a=x.numpy()),
    "bytes": lambda x: Plain(a=x.numpy().tobytes()),
    "buffer": lambda x: (
        nn.BatchNorm1d(1, affine=False, track_running_stats=False).register_buffer("a", x) or Plain(a=x)
    ),
    "module's attribute": lambda x: setattr(net := nn.Identity(), "a", [x]) or net,
    "object array": lambda x: np.array([x, None], dtype=object),
    "iterator of C": lambda x: itertools.chain([x]),
    "key": lambda x: {Slotted(x): None},
}


@pytest.mark.parametrize("hide", HIDES.values(), ids=HIDES)
def test_a_tensor_is_found_wherever_it_is(hide: Callable[[torch.Tensor], object]) -> None:
    assert PIXELS.nbytes in [value.nbytes for _, value in walk(hide(PIXELS.clone()))]


def test_a_running_generator_is_looked_into() -> None:
    running = yielding(PIXELS)
    next(running)
    assert weigh(running) == 21
    list(running)
    assert weigh(running) == 0, "it is over"


def test_gradients_are_found() -> None:
    weight = nn.Parameter(torch.ones(5))
    weight.sum().backward()
    assert weigh([weight]) == 2 * 5 * 4


def test_aliases_count_once_and_views_as_what_they_show() -> None:
    base = torch.zeros(100, 4)
    assert weigh({"a": base, "b": base, "c": Plain(a=base)}) == 1600
    assert weigh({"a": base[:10]}) == 160, "as stored alone"
    assert weigh({"a": base[:10], "b": base[10:20]}) == 320


def test_cycles_end() -> None:
    first, second = Plain(), Plain(a=PIXELS)
    first.other, second.other = second, first
    assert weigh(first) == 21


def test_numbers_and_text_by_the_conventions() -> None:
    assert weigh([3]) == weigh([3.5]) == 8
    assert weigh([True]) == 1
    assert weigh(["héllo"]) == 6
    assert weigh(list(range(100))) == 800
    assert weigh([1 << 800]) == 101, "no weights hide in a large number"
    assert weigh({"name": 3, 5: 4}) == 16, "keys are names"
    assert weigh(torch.Generator()) == 5056


def test_program_text_costs_nothing() -> None:
    assert weigh([torch, Plain, torch.float32, torch.device("cpu"), None, len, torch.Size([3])]) == 0
    assert weigh(nn.Linear(4, 3)) == 4 * (12 + 3), "the sizes of a layer are its structure"


def test_what_is_known_is_left_out_and_a_view_decides_instead_of_the_walk() -> None:
    shared = Plain(a=PIXELS)
    assert weigh([shared, Plain(b=PIXELS.clone())], known=[shared]) == 21
    assert weigh([shared], view=lambda found: () if found is shared else None) == 0
