"""Raw documents, each with a vector to find it by. Letters: n documents held, e width of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clearn.errors import StateError
from clearn.parts.texts import TextMemory, Texts
from clearn.parts.vectors import quantised
from clearn.stream import Document

Index = Literal["int8", "float16"]
DTYPES = {"int8": torch.int8, "float16": torch.float16}


class EmbeddedTexts:
    """A store of texts and the directions of their vectors.

    Carried beside what `Texts` carries: `vectors` (n, e) int8 or float16, e or 2 e bytes a document. A cosine asks for
    directions alone, so int8 needs no scale.

    Args:
        options: how texts are stored, and what goes first.
        width: e.
        index: how vectors are stored.
    """

    def __init__(self, options: TextMemory, width: int, index: Index) -> None:
        self.texts, self.width, self.dtype = Texts(options), width, DTYPES[index]
        self.vectors = torch.empty(0, width, dtype=self.dtype)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def nominal_bytes(self) -> int:
        """Documents have no published counting."""
        return 0

    def add(self, documents: Sequence[Document], vectors: Tensor, room: int | None = None, salt: int = 0) -> None:
        """Store documents with their vectors; see `Texts.add`.

        Args:
            documents: in the order in which they were read.
            vectors: (len(documents), e) float32.
            room: bytes for texts and vectors; None: not limited.
            salt: of the sample.
        """
        coming = quantised(vectors.cpu())[0] if self.dtype == torch.int8 else vectors.cpu().to(self.dtype)
        kept = self.texts.add(documents, room, salt, beside=self.width * self.dtype.itemsize)
        self.vectors = torch.cat([self.vectors, coming])[kept]

    def drop(self, ids: Sequence[str]) -> None:
        """Take documents out with their vectors; see `Texts.drop`."""
        self.vectors = self.vectors[self.texts.drop(ids)]

    def clear(self) -> None:
        """Be empty, as when made."""
        self.texts.clear()
        self.vectors = self.vectors[:0]

    def nearest(self, questions: Tensor, k: int) -> list[list[int]]:
        """Find documents by the cosine of their vectors.

        Args:
            questions: (q, e) float32.
            k: how many for each.

        Returns:
            q lists of at most k rows, best first; of equals the oldest.
        """
        units = normalize(self.vectors.float(), dim=1)  # (n, e)
        found = []
        for question in questions.cpu():  # one by one, a sum a row: equal vectors get equal cosines
            cosines = (units * question).sum(1)  # (n,)
            found.append(cosines.sort(descending=True, stable=True).indices[:k].tolist())
        return found

    def state(self) -> dict[str, Tensor]:
        """What is carried, by name; nothing at all for a store that has met no document."""
        texts = self.texts.state()
        return {**texts, "vectors": self.vectors} if texts else {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned.

        Raises:
            StateError: for other names, dtypes or shapes; the store is then unchanged.
        """
        vectors = state.get("vectors", torch.empty(0, self.width, dtype=self.dtype))
        n = len(state.get("lengths", ()))
        if vectors.dtype != self.dtype or vectors.shape != (n, self.width) or ("vectors" in state) != bool(state):
            raise StateError(
                f"the vectors of the stored texts are {vectors.dtype} {tuple(vectors.shape)}, but must be {self.dtype} "
                f"{(n, self.width)}: the state is damaged, or of another encoder or index"
            )
        self.texts.load({name: value for name, value in state.items() if name != "vectors"})
        self.vectors = vectors
