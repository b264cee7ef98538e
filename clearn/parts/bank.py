"""A bank of memories, a row for each document read: what the methods on document streams keep, and nothing else.

A row is a block of vectors (or of integer codes) under the hash of its document's id, in the order of reading, with a
match key beside it where the method compares. Taking a document out drops its rows, and nothing of it stays.

Carried, in bytes, for N rows of shape (m, D):

    vectors    N m D itemsize              int8: N m (D + 2), a float16 scale for each of the m vectors
    keys       2 N K                       only where keys are kept: float16, K wide
    ids        8 N
    counts     4 N                         only with evict: merge, how many documents a row is the mean of
    met        8                           documents that came by, which a reservoir draws by
    version    32                          SHA-256 of what made the rows: others cannot read them

Letters used below: N rows held, n rows that come, m vectors a row, D their width, K the width of keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from clearn.errors import BudgetExceeded, ConfigError, DataError, StateError, demand
from clearn.parts.eviction import Evict, admitted, closest
from clearn.parts.vectors import quantised, unit

Form = Literal["float32", "bfloat16", "float16", "int8"]
"""How vectors are kept."""

Codes = Literal["uint8", "uint16", "int32"]
"""How integer codes are kept, exactly."""

FIXED = 8 + 32
"""Bytes of an empty bank: the counter and the version."""

MERGED = -1
"""The id of a row that is the mean of several documents; no document has it."""

UNSTAMPED = bytes(32)
"""The version of a bank into which nothing was put yet."""

CATEGORIES = {
    "memory/rows": "features",
    "memory/scales": "features",
    "memory/keys": "keys",
    "memory/ids": "index",
    "memory/counts": "counts",
    "memory/met": "meta",
    "memory/version": "meta",
}
"""The ledger's categories for a bank of vectors that is a reader's memory; one of codes has codes in its rows."""


@dataclass(frozen=True)
class Storage:
    """How memories are kept.

    Attributes:
        dtype: float32, bfloat16, float16, or int8 with a float16 scale a vector.
        capacity: memories at most; null for as many as the budget allows, or all.
        evict: what gives way for one more: "reservoir", "fifo" or "merge".
        dedupe: leave a document out that is held already, with the same id and the same memory.
    """

    dtype: Form = "bfloat16"
    capacity: int | None = None
    evict: Evict = "reservoir"
    dedupe: bool = True

    def __post_init__(self) -> None:
        demand(("bank.capacity", self.capacity, self.capacity is None or self.capacity >= 0, "0 or more, or null"))


class Bank:
    """Rows of documents; the newest last.

    Args:
        shape: of a row: (m, D) vectors, or any shape of codes.
        dtype: how rows are kept: float32, bfloat16, float16 or int8 for vectors; uint8, uint16 or int32 for codes.
            Numbers beyond float16's are cut at its largest.
        key_width: K of the match keys; 0 keeps none.
        evict: what gives way where `capacity` is reached. "reservoir": each document met is as likely as any other to
            be held (Vitter 1985, algorithm R); "fifo": the oldest goes; "merge": the two rows of largest cosine
            become one, the mean of all their documents, at the older one's place.

    Attributes:
        ids: (N,) int64, `key` of each row's document; MERGED for a mean of several.
        rows: (N, ...) as stored.
        scales: (N, m) float16 of int8 vectors; otherwise (N, 0).
        keys: (N, K) float16.
        counts: (N,) int32, how many documents a row is the mean of; carried with evict: merge alone.
        met: documents that came by, rows that were refused as doubles left out.
        version: 32 bytes, of what made the rows; see `stamp`.

    Raises:
        ConfigError: codes cannot be averaged.
    """

    nominal_bytes = 0
    """What its items cost in the published counting of images: nothing."""

    def __init__(
        self, shape: Sequence[int], dtype: Form | Codes = "float32", key_width: int = 0, evict: Evict = "reservoir"
    ) -> None:
        self.shape, self.form, self.key_width, self.evict = tuple(shape), dtype, key_width, evict
        self.codes = dtype in ("uint8", "uint16", "int32")
        if self.codes and evict == "merge":
            raise ConfigError(f"evict=merge averages vectors, but {dtype} codes have no mean: take reservoir or fifo")
        self.clear()

    def clear(self) -> None:
        """Be empty, as if nothing had come by."""
        self.ids = torch.empty(0, dtype=torch.int64)
        self.rows = torch.empty(0, *self.shape, dtype=getattr(torch, self.form))
        self.scales = self._blank(0)
        self.keys = torch.empty(0, self.key_width, dtype=torch.float16)
        self.counts = torch.empty(0, dtype=torch.int32)
        self.met, self.version = 0, UNSTAMPED

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def row_bytes(self) -> int:
        """What one row weighs, with its id and its key."""
        numbers = math.prod(self.shape) * self.rows.element_size()
        scales = 2 * math.prod(self.shape[:-1]) if self.form == "int8" else 0
        return numbers + scales + 2 * self.key_width + 8 + (4 if self.evict == "merge" else 0)

    def weigh(self, n: int) -> int:
        """Bytes that n rows carry, all told."""
        return FIXED + n * self.row_bytes

    def fits(self, room: int | None, capacity: int | None = None) -> int | None:
        """Count the rows that bytes and a capacity allow; None where neither limits.

        Args:
            room: bytes left for the bank; None = not limited.
            capacity: rows at most; None = not limited.

        Raises:
            BudgetExceeded: not even an empty bank has room.
        """
        if room is None:
            return capacity
        if room < FIXED:
            raise BudgetExceeded(
                f"the budget leaves {room:,} bytes for the bank of memories, but an empty one takes {FIXED} and each "
                f"document {self.row_bytes:,} more: raise budget.total, or make the other modules smaller"
            )
        fitting = (room - FIXED) // self.row_bytes
        return fitting if capacity is None else min(fitting, capacity)

    def vectors(self, which: Tensor | slice = slice(None), device: torch.device | str = "cpu") -> Tensor:
        """Read rows as they are computed with.

        Args:
            which: (...) int64 rows, or a slice of them.
            device: where to.

        Returns:
            (..., m, D) float32; codes come as int64.
        """
        if isinstance(which, Tensor):
            which = which.cpu()
        rows = self.rows[which].to(device)
        if self.codes:
            return rows.long()
        if self.form == "int8":
            return rows.float() * self.scales[which].to(device).float()[..., None]
        return rows.float()

    def matching(self, device: torch.device | str = "cpu") -> Tensor:
        """(N, K) float32, all match keys; as stored, so of length 1 to float16's rounding."""
        return self.keys.to(device).float()

    @torch.no_grad()
    def add(
        self,
        ids: Sequence[int],
        vectors: Tensor,
        keys: Tensor | None = None,
        capacity: int | None = None,
        rng: torch.Generator | None = None,
        dedupe: bool = False,
    ) -> int:
        """Take rows in, one after the other; adding them in one call or in several gives the same bank.

        Args:
            ids: n, `key` of each row's document.
            vectors: (n, m, D) float, or (n, ...) codes.
            keys: (n, K) float, where the bank keeps keys.
            capacity: rows at most from now on, so held ones may have to go; None = not limited.
            rng: of a reservoir, which draws one number a row.
            dedupe: leave out a row whose document has the very same row already. A row that was merged is no longer
                found.

        Returns:
            How many came by: all but the doubles.
        """
        new = self._stored(ids, vectors, keys)
        if dedupe:
            new = new._taken(self._fresh(new))
        if self.evict == "merge" and capacity is not None:
            self._merge_down(capacity)
            for i in range(len(new)):
                self._append(new._taken([i]))
                self._merge_down(capacity)
        else:
            staying, entering = admitted(len(self), len(new), capacity, self.evict, self.met, rng)
            if len(staying) < len(self):
                self._take(self._taken(staying))
            self._append(new._taken(entering))
        self.met += len(new)
        return len(new)

    def drop(self, ids: Iterable[int]) -> int:
        """Take documents out: their rows go, and the count of documents met shrinks by the same share.

        Where some have given way to others, a document that is not held changes nothing.

        Returns:
            How many rows went.

        Raises:
            DataError: a document was never put in; nothing is changed then.
            ConfigError: a document may be part of a mean, which cannot be taken apart; nothing is changed then.
        """
        wanted = set(ids)
        missing = wanted - set(self.ids.tolist())
        if missing and len(self) == self.met:
            raise DataError(
                f"{len(missing)} of {len(wanted)} documents to be forgotten are not in the bank of {len(self)}: they "
                "were never read, or are forgotten already; take them out of stream.requests"
            )
        if missing and bool((self.ids == MERGED).any()):
            raise ConfigError(
                f"{len(missing)} of {len(wanted)} documents to be forgotten are not held by themselves, and "
                f"{int((self.ids == MERGED).sum())} of {len(self)} memories are means of several documents, which "
                "cannot be taken apart: take evict: reservoir or fifo for streams with requests, or a larger capacity"
            )
        staying = [i for i, one in enumerate(self.ids.tolist()) if one not in wanted]
        gone = len(self) - len(staying)
        if gone:
            self.met = round(self.met * len(staying) / len(self))
            self._take(self._taken(staying))
        return gone

    def stamp(self, version: bytes) -> None:
        """Say what makes the rows, before any is put in.

        Args:
            version: 32 bytes, see `fingerprint`.

        Raises:
            StateError: it holds rows that something else made.
        """
        self.check(version)
        self.version = version

    def check(self, version: bytes) -> None:
        """Make sure that the rows held can be read.

        Raises:
            StateError: something else made them.
        """
        if len(self) and self.version != version:
            raise StateError(
                f"the bank's {len(self)} memories were made by parameters of SHA-256 {self.version.hex()[:12]}, but "
                f"those at hand are {version.hex()[:12]} and could not read them: load the parameters that belong to "
                "the bank, or clear it and read the documents again"
            )

    def state(self) -> dict[str, Tensor]:
        """Give what is carried, by name."""
        carried = {"ids": self.ids, "rows": self.rows}
        if self.form == "int8":
            carried["scales"] = self.scales
        if self.key_width:
            carried["keys"] = self.keys
        if self.evict == "merge":
            carried["counts"] = self.counts
        carried["met"] = torch.tensor(self.met)
        carried["version"] = torch.frombuffer(bytearray(self.version), dtype=torch.uint8)
        return carried

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave.

        Raises:
            StateError: for other names, dtypes or shapes; the bank is then unchanged.
        """
        n = len(state["ids"]) if "ids" in state and state["ids"].ndim else 0
        wrong = [f"no entry {name!r}" for name in self.state() if name not in state]
        wrong += [f"an unknown entry {name!r}" for name in sorted(state.keys() - self.state().keys())]
        for name, own in self.state().items():
            shape = own.shape if name in ("met", "version") else (n, *own.shape[1:])
            given = state.get(name)
            if given is not None and (given.dtype != own.dtype or given.shape != shape):
                wrong.append(f"{name} is {given.dtype} {tuple(given.shape)} and not {own.dtype} {tuple(shape)}")
        if not wrong and int(state["met"]) < n:
            wrong.append(f"met={int(state['met'])} is less than its {n} rows")
        if wrong:
            raise StateError(
                f"this is no state of a bank of {self.form} rows of shape {self.shape}: {', '.join(wrong)}; it is "
                "damaged, or of other options: resume it with the config in its own run folder"
            )
        self.ids, self.rows = state["ids"], state["rows"]
        self.scales = state.get("scales", self._blank(n))
        self.keys = state.get("keys", torch.empty(n, 0, dtype=torch.float16))
        self.counts = state.get("counts", torch.ones(n, dtype=torch.int32))
        self.met, self.version = int(state["met"]), state["version"].numpy().tobytes()

    def _blank(self, n: int) -> Tensor:
        """Scales of n rows, yet to be filled; without width where rows have none."""
        return torch.zeros(n, *(self.shape[:-1] if self.form == "int8" else (0,)), dtype=torch.float16)

    def _like(self) -> Bank:
        """An empty bank of the same options."""
        return Bank(self.shape, self.form, self.key_width, self.evict)

    def _stored(self, ids: Sequence[int], vectors: Tensor, keys: Tensor | None) -> Bank:
        """Put rows into the form in which they are kept."""
        n, new = len(ids), self._like()
        assert vectors.shape == (n, *self.shape), f"{tuple(vectors.shape)} is not {n} rows of {self.shape}"
        assert (keys is not None) == bool(self.key_width), "keys go with a bank that keeps keys"
        new.ids = torch.tensor(list(ids), dtype=torch.int64)
        new.counts = torch.ones(n, dtype=torch.int32)
        new.scales, new.keys = self._blank(n), torch.empty(n, 0, dtype=torch.float16)
        if keys is not None:
            new.keys = keys.detach().cpu().half()
        vectors = vectors.detach().cpu()
        if self.form == "int8":
            new.rows, new.scales = quantised(vectors)
        elif self.codes:
            new.rows = vectors.to(self.rows.dtype)
            assert torch.equal(new.rows.long(), vectors.long()), f"codes do not fit {self.form}"
        else:
            most = torch.finfo(self.rows.dtype).max
            new.rows = vectors.float().clamp(-most, most).to(self.rows.dtype)
        return new

    def _fresh(self, new: Bank) -> list[int]:
        """Rows among the new ones that are no doubles, neither of what is held nor of each other."""
        held: dict[int, set[bytes]] = {}
        wanted = set(new.ids.tolist())
        for i, one in enumerate(self.ids.tolist()):
            if one in wanted:
                held.setdefault(one, set()).add(self._bits(i))
        kept = []
        for i, one in enumerate(new.ids.tolist()):
            bits = new._bits(i)
            if bits not in held.setdefault(one, set()):
                held[one].add(bits)
                kept.append(i)
        return kept

    def _bits(self, i: int) -> bytes:
        """The row as it is stored."""
        parts = (self.rows[i], self.scales[i])
        return b"".join(part.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for part in parts)

    def _merge_down(self, capacity: int) -> None:
        """Average the closest two until no more than `capacity` rows are left; with 0, nothing is."""
        if not capacity:
            self._take(self._taken([]))
        while len(self) > capacity:
            older, newer = closest(self.matching() if self.key_width else self.vectors().flatten(1))
            pair = torch.tensor([older, newer])
            weights = self.counts[pair].double() / self.counts[pair].sum()  # (2,)
            mean = torch.einsum("i,i...->...", weights, self.vectors(pair).double())
            middle = unit(weights @ self.keys[pair].double())[None] if self.key_width else None
            one = self._stored([MERGED], mean[None].float(), middle)
            one.counts[0] = self.counts[pair].sum()
            tail = self._taken([i for i in range(older + 1, len(self)) if i != newer])
            self._take(self._taken(list(range(older))))
            self._append(one)
            self._append(tail)

    def _taken(self, which: Sequence[int]) -> Bank:
        """Some of the rows, as another bank."""
        index, some = torch.tensor(list(which), dtype=torch.int64), self._like()
        some.ids, some.rows, some.scales = self.ids[index], self.rows[index], self.scales[index]
        some.keys, some.counts = self.keys[index], self.counts[index]
        return some

    def _take(self, other: Bank) -> None:
        """Hold the rows of another bank instead."""
        self.ids, self.rows, self.scales = other.ids, other.rows, other.scales
        self.keys, self.counts = other.keys, other.counts

    def _append(self, other: Bank) -> None:
        """Hold the rows of another bank too."""
        self.ids, self.rows = torch.cat([self.ids, other.ids]), torch.cat([self.rows, other.rows])
        self.scales, self.keys = torch.cat([self.scales, other.scales]), torch.cat([self.keys, other.keys])
        self.counts = torch.cat([self.counts, other.counts])
