"""Hashes of ids and of networks."""

from __future__ import annotations

import torch

from clearn.parts.hashing import fingerprint, fingerprint_of, key


def test_a_key_is_the_start_of_a_sha_256() -> None:
    assert key("abc") == 0xBA7816BF8F01CFEA >> 1  # SHA-256 of "abc", FIPS 180-2, appendix B.1
    assert len({key(str(i)) for i in range(1000)}) == 1000


def test_a_fingerprint_is_of_names_dtypes_shapes_and_bits() -> None:
    some = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    ours = fingerprint_of([("w", some)])
    others = [("v", some), ("w", some.int()), ("w", some.flatten()), ("w", -some), ("w", some.bfloat16())]
    assert len({ours, *(fingerprint_of([one]) for one in others)}) == 6
    assert ours == fingerprint_of([("w", some.T.contiguous().T)])  # where its numbers lie in memory is no part of it
    layer = torch.nn.Linear(2, 2)
    assert fingerprint(layer) == fingerprint_of([("weight", layer.weight), ("bias", layer.bias)])
