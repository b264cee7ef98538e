"""Text to tokens and back, within the limits of a frozen language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearn.errors import ConfigError, DataError
from clearn.parts.language.options import Lm

Ids = Sequence[int]


class Words:
    """A tokenizer, and how much of a text the model is given.

    Args:
        tokenizer: of transformers.
        options: which model it is of, and the limits.
        known: tokens that the network's matrices have rows for.

    Attributes:
        eos: the token that ends an answer.
        start: the token that starts a text; the end token where a model has none.

    Raises:
        DataError: it names no end of text, or has tokens that the network does not know.
    """

    def __init__(self, tokenizer: Any, options: Lm, known: int) -> None:
        self.tokenizer, self.options = tokenizer, options
        if tokenizer.eos_token_id is None:
            raise DataError(
                f"the tokenizer of lm.model={options.model} names no end of text (eos_token is null): answers would "
                "never end; name it in tokenizer_config.json"
            )
        if len(tokenizer) > known:
            raise DataError(
                f"the tokenizer of lm.model={options.model} has {len(tokenizer)} tokens, but the network knows "
                f"{known}: they are of different models; give files of one"
            )
        self.eos = int(tokenizer.eos_token_id)
        self.start = self.eos if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)

    def tokens(self, text: str) -> list[int]:
        """Cut a text into tokens; special tokens are neither added nor read from the text."""
        found = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        ids: list[int] = found["input_ids"]
        return ids

    def document(self, text: str) -> list[int]:
        """Tokens of a document, without what is beyond the limit."""
        return self.tokens(text)[: self.options.document_tokens]

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where the tokens of a document stand in its text: first character and the one after the last.

        Raises:
            ConfigError: its tokenizer cannot tell.
        """
        if not self.tokenizer.is_fast:
            raise ConfigError(
                f"the tokenizer of lm.model={self.options.model} does not tell where in a text a token stands, which "
                "weights by word need: take a model with a tokenizer.json, or the method uniform"
            )
        found = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        places: list[tuple[int, int]] = found["offset_mapping"][: self.options.document_tokens]
        return places

    def question(self, text: str) -> list[int]:
        """Tokens of a question; its front is cut so that an answer of `new_tokens` has room.

        A question without tokens becomes the model's start token (or end token, which is what GPT-2 starts with),
        because an answer's first token is read off the token before it.
        """
        ids = self.tokens(text) or [self.start]
        return ids[-(self.options.sequence_tokens - self.options.new_tokens) :]

    def answer(self, text: str) -> list[int]:
        """Tokens of an answer, with the space before it and the end token after it."""
        return [*self.tokens(f" {text}"), self.eos]

    def cut(self, question: Ids, answer: Ids) -> Ids:
        """Cut the front of a question so that its answer fits.

        Raises:
            DataError: the answer leaves no room for any token of its question.
        """
        room = self.options.sequence_tokens - len(answer)
        if room < 1:
            raise DataError(
                f"an answer of {len(answer)} tokens leaves no room for its question within "
                f"lm.sequence_tokens={self.options.sequence_tokens}: it takes {len(answer) + 1} or more; set that, or "
                "leave such answers out of the stream"
            )
        return question[-room:]

    def complete(self, ids: Ids) -> bool:
        """Say whether an answer of new tokens has ended: by the end token, or a line end that follows some text."""
        return ids[-1] == self.eos or "\n" in self._text(ids)

    def said(self, ids: Ids) -> str:
        """The answer in new tokens: their first line with text, stripped of spaces."""
        return self._text(ids).partition("\n")[0].strip()

    def _text(self, ids: Ids) -> str:
        """Text of new tokens; line ends before it say nothing, and untuned models like to begin with them."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).lstrip()
