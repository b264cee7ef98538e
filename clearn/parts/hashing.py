"""Hashes by which things are known again: documents by their ids, networks by what they are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def key(document_id: str) -> int:
    """Hash a document's id: 63 bits of its SHA-256, never negative.

    >>> key("doc-1") == key("doc-1"), key("doc-1") == key("doc-2"), key("") >= 0
    (True, False, True)
    """
    return int.from_bytes(hashlib.sha256(document_id.encode()).digest()[:8], "big") >> 1


def fingerprint(module: nn.Module) -> bytes:
    """Hash what a module is made of: SHA-256 over names, dtypes, shapes and bytes of its parameters and buffers."""
    return fingerprint_of(module.state_dict().items())


def fingerprint_of(tensors: Iterable[tuple[str, Tensor]]) -> bytes:
    """Hash tensors and their names, in the order given."""
    digest = hashlib.sha256()
    for name, value in tensors:
        dense = value.detach().cpu().contiguous()
        digest.update(f"{name} {dense.dtype} {list(dense.shape)}".encode())
        digest.update(dense.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()
