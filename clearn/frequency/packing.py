"""Bits side by side: memos and reports as rows of whole bytes, as one run without gaps, and cells met as a bitmap.

The high bit of a byte comes first, everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from clearn.frequency.coins import Ints
from clearn.frequency.mechanism import Array, Mechanism

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
BLOCK = 2**17  # words of users who are drawn together: half a megabyte, which a core's cache holds


def blocks(users: int, lanes: int) -> Iterator[slice]:
    """Cut users into runs of about `BLOCK` words, `lanes` each."""
    size = max(1, BLOCK // lanes)
    return (slice(start, min(start + size, users)) for start in range(0, users, size))


def pack(mechanism: Mechanism, memos: Array) -> Bytes:
    """(n, ...) memos or reports -> (n, ceil(memo_bits / 8)) uint8, a row a user."""
    return np.packbits(mechanism.to_bits(memos), axis=1)


def unpack(mechanism: Mechanism, rows: Bytes) -> Array:
    """Undo `pack`."""
    return mechanism.from_bits(np.unpackbits(rows, axis=1, count=mechanism.memo_bits).view(bool))


def tighten(rows: Bytes, bits: int) -> Bytes:
    """(m, ceil(bits / 8)) rows of `bits` bits each -> (ceil(m bits / 8),) without gaps."""
    tight = np.empty(-(-len(rows) * bits // 8), np.uint8)
    for block in _whole_bytes(len(rows), bits):
        first, last = block.start * bits // 8, -(-block.stop * bits // 8)
        tight[first:last] = np.packbits(np.unpackbits(rows[block], axis=1, count=bits))
    return tight


def loosen(tight: Bytes, count: int, bits: int) -> Bytes:
    """Undo `tighten` for `count` rows."""
    rows = np.empty((count, -(-bits // 8)), np.uint8)
    for block in _whole_bytes(count, bits):
        first, last = block.start * bits // 8, -(-block.stop * bits // 8)
        flat = np.unpackbits(tight[first:last], count=(block.stop - block.start) * bits)
        rows[block] = np.packbits(flat.reshape(-1, bits), axis=1)
    return rows


def bitmap(keys: Ints, size: int) -> Bytes:
    """Distinct positions below `size` -> ceil(size / 8) bytes, the first position in the high bit."""
    found = np.zeros(-(-size // 8), np.uint8)
    np.add.at(found, keys >> 3, np.uint8(128) >> (keys & 7).astype(np.uint8))
    return found


def positions(found: Bytes) -> Ints:
    """Undo `bitmap`; memory follows the positions, not the size."""
    filled = np.flatnonzero(found)
    row, bit = np.nonzero(np.unpackbits(found[filled, None], axis=1))
    return filled[row] * 8 + bit


def _whole_bytes(rows: int, bits: int) -> Iterator[slice]:
    """Runs of rows that begin on a whole byte: all but the last have a multiple of 8 rows."""
    size = 8 * max(1, BLOCK // bits)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))
