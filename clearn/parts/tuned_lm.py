"""A pretrained language model whose weights read documents: one gradient step each.

It is loaded, asked and known by its content as the frozen one is, so it weighs nothing until it is trained; from the
first step on all its weights differ from the checkpoint and are carried, 4 bytes each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.errors import Diverged
from clearn.parts.language.frozen_lm import FrozenLM
from clearn.parts.language.options import Lm

SPAN = re.compile(r"\w+(?:[.,:]\d+)*")
"""A word, or a number with its marks: 1,020 and 12:30 are one."""


class TunedLM(FrozenLM):
    """The same network with weights that take gradients and modes that can be set.

    Args:
        options: which model. Its weights are float32 whatever `dtype` says: a step of 1e-5 is lost where a weight of
            0.02 is rounded to 8 bits. Autocast sets what it computes in.
    """

    def __init__(self, options: Lm) -> None:
        super().__init__(replace(options, dtype="float32"))
        self.net.requires_grad_(True)

    def train(self, mode: bool = True) -> TunedLM:
        """Set the mode, as of any module: what a network drops while it is trained is dropped."""
        return nn.Module.train(self, mode)

    def reset(self) -> None:
        """Have the checkpoint's weights again."""
        self.load_state_dict(type(self)(self.options).state_dict())

    def document_losses(self, ids: Sequence[int]) -> Tensor:
        """Cross-entropy of each token of a document after those before it, with gradient.

        Args:
            ids: n tokens, 2 or more.

        Returns:
            (n - 1,) float32; the first token has nothing before it and no loss.
        """
        assert len(ids) >= 2, "a lone token has nothing before it"
        x, _ = self._inputs([ids])
        logits = self._logits(self._run(x, None)[0, :-1])  # (n - 1, V)
        return cross_entropy(logits, torch.tensor(ids[1:], device=logits.device), reduction="none")


@dataclass(frozen=True)
class Pass:
    """What one pass through documents took.

    Attributes:
        steps: of the optimiser.
        transient: bytes that existed only meanwhile: gradients and Adam's two moments.
    """

    steps: int
    transient: int


Weigh = Callable[[str], Tensor]
"""text -> (n,) float32, a weight for each token of a document."""


@torch.enable_grad()
def read(lm: TunedLM, texts: Sequence[str], lr: float, clip: float, weigh: Weigh | None = None) -> Pass:
    """Take one step of Adam for each document, in order, on mean_t(weight_t loss_t) (specs "mbc", section 9).

    The optimiser is made anew and its moments are dropped at the end, so only weights go on. A document without any
    weight, or of one token, takes no step. What the network drops while training is kept: each text is met once.

    Args:
        lm: all its parameters are trained.
        texts: of documents.
        lr: learning rate.
        clip: the gradient's norm is cut to this; 0 leaves it.
        weigh: None weighs all tokens 1.

    Raises:
        Diverged: a loss or a weight is not finite.
    """
    lm.eval()
    weights = list(lm.net.parameters())
    optimizer, steps = torch.optim.Adam(weights, lr=lr, fused=True), 0
    for text in texts:
        ids = lm.words.document(text)
        own = torch.ones(len(ids)) if weigh is None else weigh(text)
        assert len(own) == len(ids), "a weight for each token"
        if len(ids) < 2 or not bool(own[1:].any()):
            continue
        losses = lm.document_losses(ids)
        loss = (own[1:].to(losses.device) * losses).mean()
        if not bool(loss.isfinite()):
            raise _diverged(f"the loss after {steps} documents is {loss.item()}", lr, clip)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(weights, clip)
        optimizer.step()
        torch.clear_autocast_cache()  # casts made before this step are stale
        steps += 1
    lm.zero_grad(set_to_none=True)
    if steps and not all(bool(weight.isfinite().all()) for weight in weights):
        raise _diverged(f"weights after {steps} documents are not finite numbers", lr, clip)
    return Pass(steps, 3 * sum(weight.nbytes for weight in weights) if steps else 0)


def _diverged(what: str, lr: float, clip: float) -> Diverged:
    return Diverged(f"{what}, but must be finite: training has diverged; lower lr={lr:g} or clip={clip:g}")


def salient(text: str) -> list[tuple[int, int]]:
    """Find the spans that name something: words with a capital first letter, and all that holds a digit.

    An approximation of named entities that needs no tagger: the first word of a sentence is taken for a name too.

    >>> text = "Highest point: Dead Sea 1,020 m in B2b."
    >>> [text[start:end] for start, end in salient(text)]
    ['Highest', 'Dead', 'Sea', '1,020', 'B2b']
    """
    found = [match for match in SPAN.finditer(text) if match[0][0].isupper() or any(map(str.isdigit, match[0]))]
    return [match.span() for match in found]


def salient_weights(lm: TunedLM, text: str) -> Tensor:
    """(n,) float32: 1 for tokens of a document that share a character with a salient span, else 0."""
    held = torch.zeros(len(text) + 1)
    for start, end in salient(text):
        held[start:end] = 1
    return torch.tensor([float(held[start:end].any()) for start, end in lm.words.places(text)])
