"""The carried state: a flat dictionary of tensors, its bytes, and the file that holds exactly those bytes.

A state's keys are 'owner/name' (owners: model, memory, unlearner, client, server); its values are dense tensors
(torch) or arrays (numpy), never anything else. Files are safetensors: loading never executes code. This module loads
torch only when a state holds torch tensors, so that a run that needs numpy alone stays light.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from clearn.errors import StateError

if TYPE_CHECKING:
    import torch

Array: TypeAlias = "torch.Tensor | np.ndarray[Any, Any]"
State: TypeAlias = "dict[str, Array]"
OWNERS = ("model", "memory", "unlearner", "client", "server")


@dataclass(frozen=True)
class Frozen:
    """A state copied out of its learner: nothing in it shares memory with anything.

    Attributes:
        tensors: 'owner/name' -> a dense copy on the CPU, in sorted order of names.
        aliases: names whose tensor is another name's very tensor (tied weights): name -> the name that is stored.
        shared: leaves left out because they are bit-identical to a published checkpoint: name -> (SHA-256, bytes).
    """

    tensors: State
    aliases: dict[str, str] = field(default_factory=dict)
    shared: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors: the payload of the file."""
        return sum(nbytes(value) for value in self.tensors.values())


def nbytes(value: Array) -> int:
    """Bytes of a dense tensor as stored: elements times bytes an element."""
    return int(value.nbytes)


def is_torch(value: object) -> bool:
    """Say whether a value is a torch tensor, without importing torch."""
    return type(value).__module__.split(".")[0] == "torch" and hasattr(value, "data_ptr")


def freeze(state: State, shared: dict[str, tuple[str, int]] | None = None) -> Frozen:
    """Copy a state out of its learner.

    A view is stored as what it shows and not with the storage behind it; two names of one tensor are stored once.

    Raises:
        StateError: a key without a known owner, or a value that is not a dense tensor or array.
    """
    tensors: State = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name in sorted(state):
        value = state[name]
        check_leaf(name, value)
        region = _region(value)
        if region is not None and region in first:
            aliases[name] = first[region]
            continue
        if region is not None:
            first[region] = name
        tensors[name] = _copy(value)
    return Frozen(tensors, aliases, dict(sorted((shared or {}).items())))


def check_leaf(name: str, value: object) -> None:
    """Refuse what cannot be weighed.

    Raises:
        StateError: says which entry, what it is, and what to store instead.
    """
    owner, _, rest = name.partition("/")
    if owner not in OWNERS or not rest:
        raise StateError(f"state entry '{name}' has no owner: write 'owner/name' with an owner of {', '.join(OWNERS)}")
    if is_torch(value):
        import torch

        assert isinstance(value, torch.Tensor)
        if value.layout is not torch.strided:
            raise StateError(
                f"state entry '{name}' is a sparse tensor ({value.layout}): store its indices and its values as two "
                "dense tensors, so that both are weighed"
            )
        if value.is_quantized:
            raise StateError(
                f"state entry '{name}' is a quantised tensor: store its integers, scale and zero point as dense tensors"
            )
        if value.is_meta:
            raise StateError(f"state entry '{name}' is on the meta device and has no values: store a real tensor")
    elif not isinstance(value, np.ndarray) or value.dtype.hasobject:
        raise StateError(
            f"state entry '{name}' is a {type(value).__name__}: only tensors are carried; put text and scalars into "
            "small tensors, so that they are weighed"
        )


def thaw(frozen: Frozen) -> State:
    """Copy a frozen state back, aliases included; every call gives new tensors."""
    state = {name: _copy(value) for name, value in frozen.tensors.items()}
    return state | {name: state[target] for name, target in frozen.aliases.items()}


def encode(frozen: Frozen) -> bytes:
    """Write a state as one safetensors blob; the same state gives the same bytes."""
    meta = {"clearn": json.dumps({"aliases": frozen.aliases, "shared": frozen.shared}, sort_keys=True)}
    if any(is_torch(value) for value in frozen.tensors.values()):
        from safetensors.torch import save as save_torch

        return save_torch(frozen.tensors, metadata=meta)  # type: ignore[arg-type]
    from safetensors.numpy import save as save_numpy

    return save_numpy(frozen.tensors, metadata=meta)  # type: ignore[arg-type]


def decode(blob: bytes, torch: bool = True) -> Frozen:
    """Read a blob that `encode` wrote.

    Args:
        blob: the file's bytes.
        torch: give torch tensors; otherwise numpy arrays, without loading torch.

    Raises:
        StateError: the blob is no safetensors file of ours.
    """
    from safetensors import SafetensorError

    try:
        header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
        ours = json.loads(header["__metadata__"]["clearn"])
        if torch:
            from safetensors.torch import load as load_torch

            tensors: State = dict(sorted(load_torch(blob).items()))
        else:
            from safetensors.numpy import load as load_numpy

            tensors = dict(sorted(load_numpy(blob).items()))
        shared = {name: (str(digest), int(size)) for name, (digest, size) in ours["shared"].items()}
        aliases = dict(ours["aliases"])
        if not tensors.keys() >= set(aliases.values()):
            raise ValueError("it names an alias of a tensor that is not there")
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(f"these {len(blob)} bytes are not a state that clearn wrote: {error}") from error
    return Frozen(tensors, aliases, shared)


def checksum(blob: bytes) -> str:
    """SHA-256 of a blob, in hex."""
    return hashlib.sha256(blob).hexdigest()


def content_hash(value: Array) -> str:
    """SHA-256 over dtype, shape and bytes of one tensor, in hex."""
    if is_torch(value):
        import torch

        assert isinstance(value, torch.Tensor)
        dense = value.detach().cpu().contiguous()
        dtype, payload = str(dense.dtype).removeprefix("torch."), dense.reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        dtype, payload = str(value.dtype), np.ascontiguousarray(value).tobytes()
    return hashlib.sha256(f"{dtype}{list(value.shape)}".encode() + payload).hexdigest()


def write(path: Path, blob: bytes) -> None:
    """Write bytes to a temporary name beside `path`, sync them to the disk, then rename: never half a file.

    Raises:
        StateError: the disk is full or the folder cannot be written; the temporary file is removed.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StateError(
            f"cannot write {path} ({len(blob):,} bytes): {error.strerror or error}; make room or choose another 'out' "
            "folder, then go on with 'clearn resume'"
        ) from error


def _region(value: Array) -> tuple[Any, ...] | None:
    """What two names of one tensor have in common; None for empty tensors, which occupy nothing."""
    if not nbytes(value):
        return None
    if is_torch(value):
        import torch

        assert isinstance(value, torch.Tensor)
        return (str(value.device), value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
    assert isinstance(value, np.ndarray)
    return ("numpy", value.__array_interface__["data"][0], value.dtype, value.shape, value.strides)


def _copy(value: Array) -> Array:
    if is_torch(value):
        import torch

        assert isinstance(value, torch.Tensor)
        return value.detach().to("cpu", copy=True).contiguous().clone(memory_format=torch.contiguous_format)
    assert isinstance(value, np.ndarray)
    return np.array(value, order="C", copy=True)
