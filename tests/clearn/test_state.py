"""The carried state: copied out whole, refused where it cannot be weighed, the same bytes for the same state."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clearn.errors import StateError
from clearn.ledger import account
from clearn.state import (
    Frozen,
    State,
    check_leaf,
    checksum,
    content_hash,
    decode,
    encode,
    freeze,
    nbytes,
    thaw,
    write,
)

torch.set_num_threads(1)
quick = settings(max_examples=60, deadline=None, database=None)

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


def tensor_of(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def payload(blob: bytes) -> int:
    """Bytes behind the header: what a safetensors file truly holds of tensors."""
    return len(blob) - 8 - int.from_bytes(blob[:8], "little")


def back(state: State) -> State:
    return thaw(decode(encode(freeze(state))))


def same_bits(one: Any, other: Any) -> bool:
    return content_hash(one) == content_hash(other) and type(one) is type(other)


# --- what a state weighs


def test_two_names_of_one_tensor_weigh_once_and_come_back_as_one() -> None:
    tied = torch.arange(6.0)
    frozen = freeze({"model/decoder": tied, "model/encoder": tied})
    assert frozen.aliases == {"model/encoder": "model/decoder"}
    assert frozen.nbytes == payload(encode(frozen)) == 24
    leaves = {leaf.name: leaf.nbytes for leaf in account(frozen, lambda _: "params").leaves}
    assert leaves == {"model/decoder": 24, "model/encoder": 0}

    state = thaw(decode(encode(frozen)))
    assert state["model/encoder"] is state["model/decoder"]
    assert torch.equal(torch.as_tensor(state["model/encoder"]), tied)


def test_equal_tensors_that_are_not_one_weigh_twice() -> None:
    assert freeze({"model/a": torch.ones(3), "model/b": torch.ones(3)}).nbytes == 24


def test_tensors_without_elements_are_no_aliases() -> None:
    frozen = freeze({"model/a": torch.empty(0, 3), "model/b": torch.empty(0, 5)})
    assert not frozen.aliases
    assert [tuple(value.shape) for value in frozen.tensors.values()] == [(0, 3), (0, 5)]


def test_a_view_is_stored_as_what_it_shows_and_not_with_its_storage() -> None:
    images = torch.zeros(7400, 3, 32, 32, dtype=torch.uint8)  # 22.7 MB behind the view
    frozen = freeze({"memory/images": images[:10]})
    assert frozen.nbytes == 10 * 3072
    assert len(encode(frozen)) < 10 * 3072 + 500


def test_views_of_one_storage_that_show_different_rows_are_stored_each() -> None:
    both = torch.arange(8.0)
    state = back({"model/a": both[:4], "model/b": both[4:], "model/c": both[2:6]})
    assert [torch.as_tensor(v).tolist() for v in state.values()] == [[0, 1, 2, 3], [4, 5, 6, 7], [2, 3, 4, 5]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_dtype_weighs_as_stored_and_comes_back_bit_for_bit(dtype: torch.dtype) -> None:
    value = tensor_of(dtype, 3, 5)
    frozen = freeze({"model/a": value})
    assert frozen.nbytes == payload(encode(frozen)) == 15 * value.element_size()
    assert same_bits(back({"model/a": value})["model/a"], value)


def test_special_floats_keep_their_bits() -> None:
    value = torch.tensor([float("nan"), -0.0, float("inf"), 1e-45])
    assert same_bits(back({"model/a": value})["model/a"], value)


def test_float64_costs_twice_float32_and_a_mask_eight_times_its_packed_bits() -> None:
    means, mask = np.zeros((100, 64)), torch.zeros(800, dtype=torch.bool)
    assert freeze({"memory/means": means}).nbytes == 2 * freeze({"memory/means": means.astype(np.float32)}).nbytes
    packed = torch.from_numpy(np.packbits(mask.numpy()))
    assert (freeze({"model/mask": mask}).nbytes, freeze({"model/mask": packed}).nbytes) == (800, 100)


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(3.5),
        torch.arange(12).reshape(3, 4).T,
        torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        torch.arange(3.0).expand(4, 3),
        torch.arange(6.0)[::2],
        torch.tensor([1 + 2j, 3 - 1j]).conj(),
        torch.ones(3, requires_grad=True),
        torch.nn.Parameter(torch.ones(2)),
    ],
    ids=["0-d", "transposed", "channels last", "expanded", "strided", "conjugate", "requires grad", "parameter"],
)
def test_any_layout_is_stored_dense_and_comes_back_equal(value: Tensor) -> None:
    frozen = freeze({"model/a": value})
    stored = frozen.tensors["model/a"]
    assert isinstance(stored, Tensor)
    assert (stored.is_contiguous(), stored.requires_grad, type(stored)) == (True, False, Tensor)
    assert frozen.nbytes == value.numel() * value.element_size() == stored.untyped_storage().nbytes()
    found = torch.as_tensor(back({"model/a": value})["model/a"])
    assert torch.equal(found, value)
    assert found.shape == value.shape


def test_no_state_at_all_is_a_state() -> None:
    frozen = freeze({})
    assert (frozen.nbytes, payload(encode(frozen))) == (0, 0)
    assert decode(encode(frozen)) == frozen == decode(encode(frozen), torch=False)
    assert thaw(frozen) == {}


def test_nothing_frozen_shares_memory_with_the_learner_or_with_another_thaw() -> None:
    live, array = torch.zeros(3), np.zeros(3)
    frozen = freeze({"model/a": live, "model/b": array})
    first = thaw(frozen)
    live += 1
    array += 1
    torch.as_tensor(first["model/a"]).add_(1)
    again = thaw(frozen)
    assert torch.as_tensor(again["model/a"]).tolist() == [0, 0, 0]
    assert torch.as_tensor(again["model/b"]).tolist() == [0, 0, 0]


# --- what is refused


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.eye(3).to_sparse(), "store its indices and its values as two dense tensors"),
        (torch.empty(3, device="meta"), "store a real tensor"),
        (10**400, "is a int: only tensors are carried; put text and scalars into small tensors"),
        ("weights: 0.1 0.2", "is a str: only tensors are carried"),
        (b"\x00\x01", "is a bytes: only tensors are carried"),
        (0.5, "is a float: only tensors"),
        (None, "is a NoneType: only tensors"),
        ([torch.ones(2)], "is a list: only tensors"),
        ({"a": torch.ones(2)}, "is a dict: only tensors"),
        (np.array([object()]), "is a ndarray: only tensors"),
        (np.float64(1.0), "is a float64: only tensors"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_weighed_is_refused_with_the_remedy(value: Any, said: str) -> None:
    with pytest.raises(StateError, match=said) as caught:
        freeze({"model/a": value})
    assert "'model/a'" in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's, for making one
def test_a_quantised_tensor_is_refused_with_the_remedy() -> None:
    quantised = torch.quantize_per_tensor(torch.ones(3), scale=0.1, zero_point=0, dtype=torch.qint8)
    with pytest.raises(StateError, match="store its integers, scale and zero point as dense tensors"):
        freeze({"model/a": quantised})


@pytest.mark.parametrize("name", ["weight", "model/", "/weight", "modell/weight", "", "Model/weight"])
def test_an_entry_without_an_owner_is_refused(name: str) -> None:
    with pytest.raises(StateError, match="write 'owner/name' with an owner of model, memory"):
        check_leaf(name, torch.ones(1))


# --- bytes


def arrays() -> st.SearchStrategy[Tensor]:
    shapes = st.lists(st.integers(0, 4), max_size=3)
    return st.builds(lambda dtype, shape: tensor_of(dtype, *shape), st.sampled_from(DTYPES), shapes)


@quick
@given(st.dictionaries(st.from_regex(r"(model|memory)/[a-zäß./ ]{1,8}", fullmatch=True), arrays(), max_size=5))
def test_a_state_comes_back_equal_and_its_rows_add_up_to_the_payload(state: dict[str, Tensor]) -> None:
    frozen = freeze(dict(state))
    blob = encode(frozen)
    assert blob == encode(freeze(dict(reversed(state.items())))), "the order of entries moved the bytes"
    assert blob == encode(decode(blob))
    assert payload(blob) == frozen.nbytes == account(frozen, lambda _: "params").carried
    found = thaw(decode(blob))
    assert sorted(found) == sorted(state)
    assert all(same_bits(found[name], value) for name, value in state.items())


def test_the_same_state_gives_the_same_bytes_in_another_process() -> None:
    program = (
        "import torch, sys; from clearn.state import *\n"
        "s = {'model/b': torch.arange(3.), 'memory/a': torch.ones(2, dtype=torch.uint8)}\n"
        "print(checksum(encode(freeze(s))))"
    )
    mine = checksum(
        encode(freeze({"memory/a": torch.ones(2, dtype=torch.uint8), "model/b": torch.arange(3.0)})),
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == mine


def test_numpy_states_are_written_and_read_without_torch() -> None:
    program = (
        "import sys, numpy as np; from clearn.state import *\n"
        "s = {'client/memo': np.arange(5, dtype=np.uint16), 'server/counts': np.zeros((2, 3))}\n"
        "f = freeze(s); g = decode(encode(f), torch=False)\n"
        "assert all(np.array_equal(g.tensors[k], v) for k, v in s.items()) and f.nbytes == 58, f\n"
        "assert all(content_hash(g.tensors[k]) == content_hash(v) for k, v in s.items())\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_arrays_and_tensors_of_the_same_bytes_have_the_same_content_hash() -> None:
    assert content_hash(np.arange(4, dtype=np.float32)) == content_hash(torch.arange(4.0))
    assert content_hash(torch.zeros(4)) != content_hash(torch.zeros(2, 2))
    assert content_hash(torch.zeros(4)) != content_hash(torch.zeros(4, dtype=torch.int32))


def test_facts_of_shared_leaves_travel_with_the_state() -> None:
    shared = {"model/base": ("ab" * 32, 400)}
    frozen = freeze({"model/a": torch.ones(1)}, shared)
    assert decode(encode(frozen)).shared == shared
    assert frozen.nbytes == 4


@quick
@given(st.binary(max_size=60))
def test_any_other_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises(StateError, match=f"these {len(blob)} bytes are not a state that clearn wrote"):
        decode(blob)


def test_a_foreign_safetensors_file_and_any_cut_of_ours_are_refused() -> None:
    from safetensors.torch import save

    with pytest.raises(StateError, match="not a state that clearn wrote"):
        decode(save({"model/a": torch.ones(2)}))
    blob = encode(freeze({"model/a": torch.ones(20), "memory/b": torch.ones(3)}))
    for end in range(0, len(blob), 7):
        with pytest.raises(StateError, match="not a state that clearn wrote"):
            decode(blob[:end])


def test_a_flipped_header_is_refused_or_read_never_a_crash() -> None:
    blob = encode(freeze({"model/a": torch.ones(2), "model/b": torch.ones(2)}, {"model/c": ("ab", 4)}))
    for i in range(len(blob) - 16):
        for mask in (1, 0x80, 0xFF):
            broken = blob[:i] + bytes([blob[i] ^ mask]) + blob[i + 1 :]
            try:
                decode(broken)
            except StateError:
                continue


# --- the file


def test_writing_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for content in (b"first", b"second", b""):
        write(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("call", ["fsync", "open", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_half_one(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    write(path, b"old")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "open": (Path, "open"), "replace": (Path, "replace")}[call], full)
    with pytest.raises(StateError, match=r"(?s)cannot write .*a\.bin \(3 bytes\): No space left on device; make room"):
        write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_frozen_counts_its_own_bytes() -> None:
    frozen = Frozen({"model/a": torch.ones(3, dtype=torch.int16), "model/b": np.zeros(2)})
    assert frozen.nbytes == 22 == sum(nbytes(value) for value in frozen.tensors.values())
