"""Context-aware decoding: what a memory adds to a language model's answer, exaggerated (Shi et al., NAACL 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clearn.parts.language.decoding import greedy
from clearn.parts.language.frozen_lm import FrozenLM
from clearn.parts.language.memories import Memory

PLAUSIBLE = 0.1
"""When contrast decides, tokens below this share of the likeliest one's probability are out (specs "cmt", trap 11)."""


def say_contrasted(lm: FrozenLM, questions: Sequence[Sequence[int]], memory: Memory, alpha: float) -> list[str]:
    """Decode from logits with memory set against those without; nothing is kept from token to token.

    Args:
        lm: answers greedily, at most `new_tokens` of its options.
        questions: b of them, as tokens.
        memory: of b rows.
        alpha: see `contrasted`.

    Returns:
        b answers.
    """
    words = lm.words
    said: list[list[int]] = [[] for _ in questions]

    def logits() -> Tensor:
        so_far = [[*ids, words.eos] for ids in said]  # the last one is asked for, whatever it is
        with_, without = (lm.answer_logits(questions, so_far, one)[0][:, -1] for one in (memory, None))
        return plausible(contrasted(with_, without, alpha), with_)

    def go_on(tokens: Tensor, _: int) -> Tensor:
        for ids, token in zip(said, tokens.tolist(), strict=True):
            ids.append(token)
        return logits()

    return [words.said(ids) for ids in greedy(logits(), go_on, words.complete, lm.options.new_tokens)]


def contrasted(with_memory: Tensor, without: Tensor, alpha: float) -> Tensor:
    """What the memory adds, exaggerated: (1 + alpha) l1 - alpha l0 (context-aware decoding, Shi et al. 2024).

    >>> contrasted(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]), 1.0)
    tensor([ 3., -1.,  0.])
    """
    return (1 + alpha) * with_memory - alpha * without


def plausible(logits: Tensor, with_memory: Tensor) -> Tensor:
    """Rule out tokens that the memory itself makes unlikely: p1 below a tenth of its largest gets -inf.

    Args:
        logits: (b, V) to choose from.
        with_memory: (b, V) l1.
    """
    least = with_memory.amax(1, keepdim=True) + math.log(PLAUSIBLE)
    return logits.masked_fill(with_memory < least, -torch.inf)
