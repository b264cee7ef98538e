"""What foreign objects hold: a walk over all that can be reached from one, to its tensors, arrays, numbers and text.

For code that cannot say what it carries. Followed are attributes, slots, containers, closures, bound methods, running
generators and, for anything else, what Python's garbage collector says that an object refers to. Not followed are
classes, modules and functions' globals: they are program text, and who hides data there is not found.
"""

from __future__ import annotations

import functools
import gc
import logging
import random
import re
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Children = Iterable[tuple[str, object]]
View = Callable[[Any], Children | None]

PROGRAM = (
    type(None),
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    types.CodeType,
    types.EllipsisType,
    torch.dtype,
    torch.device,
    torch.Size,
    torch.memory_format,
    torch.layout,
    logging.Logger,
    logging.Handler,
    re.Pattern,
    range,
    Enum,
    PurePath,
    weakref.ref,
)
NUMBERS = (bool, int, float, complex)
OPEN = (  # whose contents are all named below
    *(Mapping, list, tuple, set, frozenset, deque, functools.partial, types.MethodType, types.FunctionType),
    *(types.GeneratorType, np.ndarray, random.Random, np.random.Generator),
)


def walk(root: object, view: View = lambda _: None, known: Iterable[object] = ()) -> Iterator[tuple[str, Tensor]]:
    """Find everything that an object holds.

    Args:
        root: where to begin.
        view: gives an object's children by name where the walk should not look itself; None where it should.
        known: objects that are left out, with all that is reached through them alone.

    Yields:
        (dotted path, tensor): each tensor once, by its place in memory; arrays, numbers and text as tensors: 8 bytes a
        number, 1 a truth value, text in UTF-8, a generator as its state.
    """
    met: dict[int, object] = {id(one): one for one in known}  # kept, so that no address is used again
    places: set[tuple[Any, ...]] = set()
    ahead: deque[tuple[str, object]] = deque([("", root)])
    while ahead:
        path, found = ahead.popleft()
        if isinstance(found, Tensor):
            place = _place(found)
            if place not in places:
                places.add(place)
                met[id(found)] = found
                yield path, found.detach()
            if found.grad is not None:
                ahead.append((f"{path}.grad", found.grad))
            continue
        small = _as_tensor(found)
        if small is not None:
            yield path, small
            continue
        if isinstance(found, PROGRAM) or id(found) in met:
            continue
        met[id(found)] = found
        children = view(found)
        for name, child in _children(found) if children is None else children:
            ahead.append((f"{path}.{name}" if path else name, child))


def known_places(tensors: Iterable[Tensor]) -> set[tuple[Any, ...]]:
    """Where tensors lie, to tell whether others are the same."""
    return {_place(tensor) for tensor in tensors}


def lies_at(tensor: Tensor, places: AbstractSet[tuple[Any, ...]]) -> bool:
    """Whether a tensor is one of those that `known_places` was told."""
    return _place(tensor) in places


def _place(tensor: Tensor) -> tuple[Any, ...]:
    if not tensor.numel():
        return ("empty", id(tensor))
    return (str(tensor.device), tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _as_tensor(found: object) -> Tensor | None:
    """A number, text, array or generator as a tensor; None for anything else."""
    match found:
        case bool() | np.bool_():
            return torch.tensor(bool(found))
        case int() if -(2**63) <= found < 2**63:
            return torch.tensor(int(found), dtype=torch.int64)
        case int():
            return _text(found.to_bytes(found.bit_length() // 8 + 1, "little", signed=True))
        case float():
            return torch.tensor(found, dtype=torch.float64)
        case complex():
            return torch.tensor(found, dtype=torch.complex128)
        case str():
            return _text(found.encode())
        case bytes() | bytearray() | memoryview():
            return _text(bytes(found))
        case np.ndarray() | np.generic() if not found.dtype.hasobject:
            try:
                return torch.tensor(found)
            except TypeError:  # dates, text, records, unsigned numbers that torch has no type for
                return _text(np.asarray(found).tobytes())
        case torch.Generator():
            return found.get_state()
    return None


def _text(text: bytes) -> Tensor:
    return torch.tensor(list(text), dtype=torch.uint8)


def _children(found: Any) -> Iterator[tuple[str, object]]:
    """All that an object refers to, by name."""
    match found:
        case nn.Module():
            yield from _of_module(found)
        case Mapping():
            yield from _of_mapping(found)
        case list() | tuple() | deque():
            yield from _of_sequence(found)
        case set() | frozenset():
            yield from _of_sequence(sorted(found, key=repr))
        case functools.partial():
            yield from (("func", found.func), ("args", found.args), ("keywords", found.keywords))
        case types.MethodType():
            yield "self", found.__self__
        case types.FunctionType():
            yield from ((f"closure{i}", cell) for i, cell in enumerate(found.__closure__ or ()))
            yield from (("defaults", found.__defaults__), ("keywords", found.__kwdefaults__))
        case types.GeneratorType():
            frame = found.gi_frame
            yield from () if frame is None else frame.f_locals.items()
        case np.ndarray():
            yield from _of_sequence(found.ravel().tolist())
        case random.Random():
            yield "state", found.getstate()
        case np.random.Generator():
            yield "state", found.bit_generator.state
    if isinstance(found, nn.Module):
        return
    attributes = dict(_attributes(found))
    yield from attributes.items()
    if not attributes and not isinstance(found, OPEN):  # an object of C, such as an iterator
        own = (one for one in gc.get_referents(found) if not isinstance(one, type | types.ModuleType))
        yield from ((f"held{i}", one) for i, one in enumerate(own))


def _attributes(found: object) -> Iterator[tuple[str, object]]:
    yield from getattr(found, "__dict__", {}).items()
    for cls in type(found).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(found, name):
                yield name, getattr(found, name)


def _of_module(module: nn.Module) -> Iterator[tuple[str, object]]:
    """A network's tensors, inner networks, and whatever else hangs there; plain numbers are its structure."""
    yield from module._parameters.items()
    yield from module._buffers.items()
    yield from module._modules.items()
    inner = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
    for name, value in vars(module).items():
        if name not in inner and not isinstance(value, (*NUMBERS, str)):
            yield name, value


def _of_mapping(found: Mapping[Any, Any]) -> Iterator[tuple[str, object]]:
    """Values by key; keys that are text or numbers name their values, as in a state file, and cost nothing."""
    for i, (key, value) in enumerate(found.items()):
        if isinstance(key, str | int | float):
            yield str(key), value
        else:
            yield f"key{i}", key
            yield f"value{i}", value


def _of_sequence(found: Iterable[Any]) -> Iterator[tuple[str, object]]:
    """Items by place; many numbers, or many tensors of one kind, as one array."""
    items = list(found)
    if len(items) > 1:
        first = type(items[0])
        if first in (bool, int, float) and all(type(one) is first for one in items):
            try:
                yield "items", np.asarray(items, dtype={bool: np.bool_, int: np.int64, float: np.float64}[first])
            except OverflowError:
                yield from ((str(i), one) for i, one in enumerate(items))
            return
    yield from ((str(i), one) for i, one in enumerate(items))
