"""Ask a frozen language model in its own words: passages, the question, and a place for the answer.

    <passage>
    Question: <question>
    Answer:

Without a passage the question stands alone: that is an empty memory, or a closed book. A small model that was not
told how to answer copies sentences instead of spans: of SmolLM2-135M's answers with the right document in the prompt
10 % are exact, and 73 % after some 26 steps of LoRA (specs "mbc", section 2). So LoRA may be tuned to answer from the
passage; nothing else moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from clearn.errors import demand
from clearn.parts.language.frozen_lm import FrozenLM
from clearn.parts.language.options import Lm
from clearn.stream import Row

LORA = "answering"


@dataclass(frozen=True)
class PromptLora:
    """What is trained where answering is tuned; not there at all where it is not.

    Attributes:
        targets: projections it stands beside.
        last: in so many of the last layers; null for all.
        rank: r; each projection has r (inputs + outputs) parameters.
        alpha: its outputs are scaled by alpha / r.
        dropout: of its inputs while it is trained.
    """

    targets: tuple[Literal["q", "k", "v", "o"], ...] = ("q", "k", "v", "o")
    last: int | None = None
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05


class Prompting(nn.Module):
    """A language model that is asked with passages in its prompt.

    Args:
        lm: which model. Each passage gets `document_tokens`, question and answer together `sequence_tokens`.
        passages: at most so many stand before a question, 0 or more.
        lora: what is tuned, or None.
        make: how the model is made.

    Raises:
        ConfigError: passages, question and answer together are longer than what the model takes.
    """

    def __init__(
        self,
        lm: Lm,
        passages: int = 0,
        lora: PromptLora | None = None,
        make: Callable[[Lm], FrozenLM] = FrozenLM,
    ) -> None:
        super().__init__()
        demand(("k", passages, passages >= 0, "0 or more"))
        self.passages = passages
        self.question_limit = lm.sequence_tokens - lm.new_tokens
        self.lm = make(replace(lm, sequence_tokens=lm.sequence_tokens + passages * lm.document_tokens))
        self._using = None
        if lora is not None:
            self._using = LORA
            self.lm.add_lora(LORA, lora.targets, lora.last, lora.rank, lora.alpha, lora.dropout)

    def prompt(self, question: str, passages: Sequence[str] = ()) -> list[int]:
        """Write the tokens that an answer follows.

        A passage that is too long loses its end. A question never gives way to a passage; one that is too long for
        `lm.sequence_tokens` loses its front.
        """
        assert len(passages) <= self.passages, f"{len(passages)} passages, but room was made for {self.passages}"
        asked = self.lm.words.tokens(f"Question: {question}\nAnswer:")[-self.question_limit :]
        line_end, limit = self.lm.words.tokens("\n"), self.lm.options.document_tokens
        before: list[int] = []
        for passage in passages:
            before += [*self.lm.words.tokens(passage)[: max(limit - len(line_end), 0)], *line_end][:limit]
        return before + asked

    def answer(self, questions: Sequence[str], passages: Sequence[Sequence[str]] | None = None) -> list[str]:
        """One answer to each question, read from its passages if any."""
        given = passages if passages is not None else [()] * len(questions)
        prompts = [self.prompt(question, own) for question, own in zip(questions, given, strict=True)]
        with self.lm.using(self._using):
            return self.lm.generate(prompts)

    def losses(self, rows: Sequence[Row]) -> Tensor:
        """(b,) float32: cross-entropy of each row's answer, a mean over its tokens, with gradient.

        Passages are those of `with_distractors`.
        """
        prompts = [
            self.prompt(row.question.text, own)
            for row, own in zip(rows, with_distractors(rows, self.passages), strict=True)
        ]
        with self.lm.using(self._using):
            return self.lm.answer_losses(prompts, [self.lm.words.answer(row.question.answer) for row in rows])


def with_distractors(rows: Sequence[Row], k: int) -> list[list[str]]:
    """Put each row's document among others of the batch, so that which of k passages is the right one is to be found.

    Row i has its own document in place i mod k and those of the rows after it, in a circle, in the others; a batch of
    fewer than k rows gives fewer passages. With k = 0 there are none.

    Args:
        rows: b rows of distinct documents.
        k: passages a row.
    """
    texts, n = [row.document.text for row in rows], min(k, len(rows))
    found = []
    for i, own in enumerate(texts):
        others = [texts[(i + j) % len(texts)] for j in range(1, n)]
        place = i % n if n else 0
        found.append([*others[:place], own, *others[place:]] if n else [])
    return found
