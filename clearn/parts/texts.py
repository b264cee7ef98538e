"""A store of raw documents: the honest yardstick beside every compressed memory.

All texts lie in one row of bytes, so that what is weighed is the text itself and 12 bytes a document. Capacity is in
bytes. Which documents stay under it is a function of their ids and not of draws, so nothing random is carried, and
neither the order of the stream nor its cut into tasks changes which ones they are. Letters: n documents held.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from clearn.errors import BudgetExceeded, DataError, StateError
from clearn.parts.hashing import key
from clearn.stream import Document

EACH = 12
"""Bytes of a document beside its text: a length, int32, and the hash of its id, int64."""
COUNT = 8
"""Bytes of a store that is not empty: how many documents it left out, int64."""


@dataclass(frozen=True)
class TextMemory:
    """What a config may say of a store of texts; it fills the bytes that the budget leaves.

    Attributes:
        codec: "utf8": as it is. "zlib": all texts together, deflated at level 9. Together, because a window over many
            short documents finds far more than each alone would repeat, and a baseline should get all it can out of
            its bytes; the bytes are still a function of the texts held, so deletion stays exact.
        eviction: what is left out when not all fit. "reservoir": an even sample of what was read. "fifo": the oldest.
    """

    codec: Literal["utf8", "zlib"] = "utf8"
    eviction: Literal["reservoir", "fifo"] = "reservoir"


def priority(document: int, salt: int) -> int:
    """Draw a document's place in the sample: the same 64 bits whenever it is asked for.

    Keeping the lowest ones is an even sample without replacement (bottom-k sampling, Cohen and Kaplan 2007), and a
    document that went can never be among the lowest again, so sampling task by task equals sampling at once.

    Args:
        document: the hash of its id.
        salt: another one gives another sample.
    """
    return int.from_bytes(hashlib.sha256(f"{salt}/{document}".encode()).digest()[:8], "little")


class Texts:
    """Documents as they were read, oldest first; empty when made.

    Carried: `text` uint8, the UTF-8 bytes one document after the other, deflated under zlib; `lengths` (n,) int32, of
    each document's UTF-8 bytes; `keys` (n,) int64, hashes of ids; `left_out` () int64. Nothing for an empty store.

    Args:
        options: how stored, and what goes first.
    """

    def __init__(self, options: TextMemory = TextMemory()) -> None:
        self.options = options
        self._held: dict[int, bytes] = {}  # hash of the id -> UTF-8 bytes, oldest first
        self._left_out = 0
        self._read: tuple[str, ...] | None = None  # what `texts` gave, until something changes
        self._packed: Tensor | None = None  # likewise `text` of `state`

    def __len__(self) -> int:
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """Bytes carried now."""
        return sum(tensor.nbytes for tensor in self.state().values())

    @property
    def nominal_bytes(self) -> int:
        """Documents have no published counting."""
        return 0

    @property
    def left_out(self) -> int:
        """How many documents were read and are not held, because they did not fit."""
        return self._left_out

    def texts(self) -> tuple[str, ...]:
        """The documents, oldest first; the same tuple until the store changes, so what is made of it can be kept."""
        if self._read is None:
            self._read = tuple(blob.decode() for blob in self._held.values())
        return self._read

    def find(self, document_id: str) -> str | None:
        """A document by its id, or None where it is not held."""
        blob = self._held.get(key(document_id))
        return None if blob is None else blob.decode()

    def add(self, documents: Sequence[Document], room: int | None = None, salt: int = 0, beside: int = 0) -> Tensor:
        """Store documents, and leave out what does not fit.

        An id that is held already with the same text changes nothing; with another text the new one takes its place,
        as the newest. Under both evictions the store stops at the first document that does not fit, since to look for
        smaller ones would favour short texts; one that would not fit into an empty store is passed over.

        Args:
            documents: in the order in which they were read.
            room: bytes for all that is carried and what lies beside it; None: not limited.
            salt: of the sample, the same for all calls.
            beside: bytes that the owner carries with each document, such as a vector.

        Returns:
            (n,) int64: for each document held now its row among those held before, followed by `documents`.

        Raises:
            BudgetExceeded: there is no room even for the count of what is left out; nothing is changed.
            DataError: a text is empty or not Unicode; nothing is changed.
        """
        found = {known: (row, blob) for row, (known, blob) in enumerate(self._held.items())}
        for row, document in enumerate(documents, len(found)):
            known, blob = key(document.id), _encoded(document)
            if known in found and found[known][1] == blob:
                continue
            found.pop(known, None)
            found[known] = (row, blob)
        if found and room is not None and room < COUNT:
            raise BudgetExceeded(
                f"the budget leaves {room} bytes for documents, but a store of texts takes {COUNT} before the first "
                "one: raise budget.bytes or take a smaller model"
            )
        blobs = {known: blob for known, (_, blob) in found.items()}
        kept = list(found) if room is None else self._fitting(blobs, room, salt, beside)
        self._left_out += len(found) - len(kept)
        self._hold({known: found[known][1] for known in kept})
        return torch.tensor([found[known][0] for known in kept], dtype=torch.int64)

    def drop(self, ids: Sequence[str]) -> Tensor:
        """Take documents out, so that the store is bit for bit one that never held them.

        What they had displaced before is not had back: it was not kept anywhere.

        Returns:
            (n,) int64 rows of those that stay.

        Raises:
            DataError: a document was never read; nothing is changed. Where documents were left out, one that is not
                held counts as one of those.
        """
        names = {key(name): name for name in ids}
        absent = [name for known, name in names.items() if known not in self._held]
        if len(absent) > self._left_out:
            raise DataError(
                f"{len(absent)} of {len(names)} documents to forget are not held and {self._left_out} were left out, "
                f"so some were never read (such as {absent[-1]!r}): take them out of stream.requests"
            )
        rows = [row for row, known in enumerate(self._held) if known not in names]
        self._left_out -= len(absent)
        self._hold({known: blob for known, blob in self._held.items() if known not in names})
        return torch.tensor(rows, dtype=torch.int64)

    def clear(self) -> None:
        """Be empty, as when made."""
        self._left_out = 0
        self._hold({})

    def state(self) -> dict[str, Tensor]:
        """What is carried, by name; nothing at all for a store that has met no document."""
        if not self._held and not self._left_out:
            return {}
        if self._packed is None:
            self._packed = _tensor(self._pack(list(self._held.values())))
        return {
            "text": self._packed,
            "lengths": torch.tensor([len(blob) for blob in self._held.values()], dtype=torch.int32),
            "keys": torch.tensor(list(self._held), dtype=torch.int64),
            "left_out": torch.tensor(self._left_out),
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned, of a store with the same codec.

        Raises:
            StateError: for other names, dtypes or shapes, or bytes that are no texts; the store is then unchanged.
        """
        if not state:
            self.clear()
            return
        self._check(state)
        try:
            everything = state["text"].numpy().tobytes()
            everything = zlib.decompress(everything) if self.options.codec == "zlib" and everything else everything
            blobs = _cut(everything, state["lengths"].tolist())
            for blob in blobs:
                blob.decode()
        except (zlib.error, ValueError) as error:
            raise StateError(
                f"the {len(state['text'])} bytes of the stored texts cannot be read with codec {self.options.codec!r} "
                f"({error}): load them with the codec that they were written with"
            ) from error
        self._left_out = int(state["left_out"])
        self._hold(dict(zip(state["keys"].tolist(), blobs, strict=True)))

    def _hold(self, held: dict[int, bytes]) -> None:
        self._held, self._read, self._packed = held, None, None

    def _pack(self, blobs: Sequence[bytes]) -> bytes:
        everything = b"".join(blobs)
        return zlib.compress(everything, 9) if self.options.codec == "zlib" and everything else everything

    def _fitting(self, found: dict[int, bytes], room: int, salt: int, beside: int) -> list[int]:
        """Choose the documents that stay, in their order: as many of the first in rank as fit."""
        ranked = list(found)[::-1]
        if self.options.eviction == "reservoir":
            ranked.sort(key=lambda known: priority(known, salt))
        each = EACH + beside

        def weight(some: Sequence[int]) -> int:
            chosen = set(some)
            return COUNT + len(some) * each + len(self._pack([found[k] for k in found if k in chosen]))

        ranked = [k for k in ranked if COUNT + each + len(found[k]) <= room or weight([k]) <= room]
        fit, over = 0, len(ranked) + 1
        while over - fit > 1:  # deflated texts have no sizes of their own to add up: halve instead
            middle = (fit + over) // 2
            if weight(ranked[:middle]) <= room:
                fit = middle
            else:
                over = middle
        stay = set(ranked[:fit])
        return [k for k in found if k in stay]

    def _check(self, state: dict[str, Tensor]) -> None:
        """Refuse a state of another form."""
        wanted = {"text": torch.uint8, "lengths": torch.int32, "keys": torch.int64, "left_out": torch.int64}
        got = {name: (value.dtype, value.ndim) for name, value in state.items()}
        if got != {name: (dtype, int(name != "left_out")) for name, dtype in wanted.items()}:
            entries = ", ".join(f"{name} {dtype}" for name, dtype in wanted.items())
            raise StateError(
                f"a store of texts holds {entries}, but this state holds {got}: it is damaged or from another method"
            )
        n, keys, left_out = len(state["lengths"]), state["keys"], int(state["left_out"])
        if len(keys) != n or len(keys.unique()) != n or bool((state["lengths"] < 1).any()) or left_out < 0:
            raise StateError(
                "a store of texts has a length of 1 byte or more and a key of its own for each document, but this "
                f"state has {n} lengths and {len(keys.unique())} different keys, {left_out} left out: it is damaged"
            )


def _encoded(document: Document) -> bytes:
    """UTF-8 bytes of a document.

    Raises:
        DataError: it is empty or holds half of a surrogate pair.
    """
    if not document.text.strip():
        raise DataError(f"document {document.id!r} is empty, but must have a text: take it out of the stream")
    try:
        return document.text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"document {document.id!r} is not valid Unicode ({error.reason}): write its file anew"
        ) from error


def _cut(everything: bytes, lengths: Sequence[int]) -> list[bytes]:
    """Cut bytes into pieces of these lengths, which must add up.

    Raises:
        ValueError: they do not.
    """
    if sum(lengths) != len(everything):
        raise ValueError(f"lengths add up to {sum(lengths)}, but there are {len(everything)} bytes")
    pieces, start = [], 0
    for length in lengths:
        pieces.append(everything[start : start + length])
        start += length
    return pieces


def _tensor(blob: bytes) -> Tensor:
    """(b,) uint8."""
    return torch.frombuffer(bytearray(blob), dtype=torch.uint8) if blob else torch.empty(0, dtype=torch.uint8)
