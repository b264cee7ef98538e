"""The base of every method that reads documents and answers questions about them.

A reader may be prepared before the stream begins (meta-training, with gradients, on other documents). After that it
takes each document in once, and is asked. What it keeps is its state, weighed and rebuilt like any learner's: the
modules that were prepared, and the memory of what was read. A frozen language model is told from its checkpoint by
content hash, and is neither.

The engine asks three times: with the memory, with nothing in it ("empty"), and with as many documents of another
stream in it ("shuffled"). What the memory is worth is the first less the last two, and no method has code for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from clearn.errors import ConfigError
from clearn.learner import Learner
from clearn.stream import Document, Query, Reading, Upstream

if TYPE_CHECKING:
    from clearn.context import Context


class Reader(Learner):
    """Reads documents, answers questions. The constructor's signature is the schema of its config.

    Attributes:
        readout: the name of the read-out that the method is judged by, a key of what `read` returns.
        after_preparing: options that do not change what `prepare` learns, such as the capacity of a bank; runs that
            differ in nothing else share one preparation.
        controls: whether answers with an empty and with a foreign memory are asked for; false for a method that keeps
            nothing of what it reads.
    """

    readout: ClassVar[str] = "memory"
    after_preparing: ClassVar[tuple[str, ...]] = ()
    controls: ClassVar[bool] = True

    def prepare(self, upstream: Upstream, ctx: Context) -> None:
        """Learn how to read before the stream begins. Nothing by default; see `Context.meta_train`."""

    def learn(self, reading: Reading, ctx: Context) -> None:
        """Read one task's documents."""
        self.grow(reading.info)
        self.take_in(reading.documents, ctx)

    def take_in(self, documents: Sequence[Document], ctx: Context) -> None:
        """Read documents, each once, in order; no question is known.

        A document that is read already under the same id and text changes nothing, or is kept twice: a method says.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define take_in")

    def answer(self, questions: Sequence[Query]) -> list[str]:
        """One answer each, in order; an empty memory has a defined answer. Changes nothing."""
        raise NotImplementedError(f"{type(self).__name__} does not define answer")

    def read(self, questions: Sequence[Query]) -> dict[str, list[str]]:
        """All read-outs: name -> answers. The default has one."""
        return {self.readout: self.answer(questions)}

    def forget(self, documents: Sequence[Document], ctx: Context) -> None:
        """Take documents out of what is kept, so that nothing of them is left.

        Raises:
            ConfigError: what was read went into weights, or nothing tells documents apart.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot forget a document: what it read is not told apart; take "
            "stream.requests out, or choose a method that can (mac, mbc, cmt, bm25)"
        )

    def clear(self) -> None:
        """Forget all documents: be as right after `prepare`."""
        raise NotImplementedError(f"{type(self).__name__} does not define clear")
