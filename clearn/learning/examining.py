"""What a learner is asked around a request to forget, and what of its answers is written down as evidence.

Measures of unlearning are computed from these arrays alone (`clearn.forgetting`), so they can be computed again by
anyone. The learner that is asked afterwards is the one rebuilt from the weighed bytes. The examination's seconds are
the evaluation's, never the method's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clearn.errors import ConfigError
from clearn.forgetting.curves import TOLERANCE
from clearn.forgetting.probing import Features, probe
from clearn.parts.forgetting import classifier, find_heads, thawed
from clearn.parts.samples import Samples, concat
from clearn.strategy import Strategy
from clearn.stream import Forget, Task

MOST_STAYING = 10_000  # of the training samples that stay, evenly spaced: enough for an attack to be fitted on
MOST_PROBED = 300  # training samples of a class that the linear probe is fitted to
MOST_RELEARNED = 500  # forgotten samples that accuracy is taken on while relearning
RELEARN_STEPS, RELEARN_BATCH, RELEARN_RATE = 200, 32, 1e-3
BATCH = 250


class Examination:
    """The questions of one request: the same samples before and after, in the same order.

    Attributes:
        arrays: what was answered so far, by name: 'labels/NAME' (n,) int64 and 'before/NAME', 'after/NAME' (n, C)
            float32 scores, where NAME is "forget" (the samples that had to go), "stays" (an even choice of those that
            stay) or "test" (all test samples so far); 'random/forget' (m, C) float32 scores of a learner with fresh
            weights; for whole classes 'probe/before', 'probe/after' (4,) int64: right answers and test samples of the
            forgotten classes, then of the others, of a linear probe on the features; 'relearn/curve' (s + 1,) float32
            accuracy on the forgotten samples before the first and after each step of relearning, up to the step that
            reaches the level, and 'relearn/original' (1,) float32, what that level is a share of.

    Args:
        asked: the request.
        staying: the tasks learned so far without what was ever forgotten.
        order: draws the batches of relearning, the same for every method.
    """

    def __init__(self, asked: Forget, staying: Sequence[Task], order: torch.Generator) -> None:
        kept = concat([task.train for task in staying if len(task.train)])
        self.asked, self.order = asked, order
        self.parts: dict[str, Samples] = {
            "forget": asked.forget,
            "stays": kept.take(_even(len(kept), MOST_STAYING)),
            "test": concat([probe.data for probe in asked.probes]),
        }
        self.arrays: dict[str, Tensor] = {f"labels/{name}": samples.labels for name, samples in self.parts.items()}
        self.probed = self._probed(kept) if asked.request.classes else None

    def before(self, strategy: Strategy) -> None:
        """Ask the learner that knows the samples."""
        self._answers(strategy, "before")
        if len(self.asked.forget) and _has_head(strategy):
            self.arrays["relearn/original"] = _accuracy(strategy, self._relearned()).reshape(1)

    def after(self, strategy: Strategy, untrained: Strategy) -> None:
        """Ask the learner that forgot them; and one of the same classes that never learned anything."""
        self._answers(strategy, "after")
        if len(self.asked.forget):
            self.arrays["random/forget"] = _scores(untrained.eval(), self.asked.forget)
        if "relearn/original" in self.arrays:
            level = (1 - TOLERANCE) * float(self.arrays["relearn/original"])
            self.arrays["relearn/curve"] = self._relearn(strategy, level)

    def _answers(self, strategy: Strategy, when: str) -> None:
        strategy.eval()
        self.arrays |= {f"{when}/{name}": _scores(strategy, samples) for name, samples in self.parts.items()}
        if self.probed is not None and _has_head(strategy):
            self.arrays[f"probe/{when}"] = self._probe(strategy, *self.probed)

    def _probed(self, kept: Samples) -> tuple[Samples, Samples] | None:
        """Training samples that a probe is fitted to, some of each class, and test samples that it is judged by."""
        gone, test = torch.tensor(self.asked.request.classes), self.parts["test"]
        forgotten = torch.isin(test.labels, gone)
        if not set(gone.tolist()) <= set(test.labels.tolist()) or not len(kept):
            return None
        rows = [
            of.nonzero().flatten()[_even(int(of.sum()), MOST_PROBED)]
            for pool in (self.asked.forget, kept)
            for of in (pool.labels == label for label in torch.unique(pool.labels))
        ]
        mine = len(torch.unique(self.asked.forget.labels))
        train = concat([self.asked.forget.take(torch.cat(rows[:mine])), kept.take(torch.cat(rows[mine:]))])
        others = (~forgotten).nonzero().flatten()
        asked = [forgotten.nonzero().flatten(), others[_even(len(others), MOST_PROBED * len(rows))]]
        return train, test.take(torch.cat(asked))

    def _probe(self, strategy: Strategy, train: Samples, test: Samples) -> Tensor:
        fitted, judged = (Features(_features(strategy, one).numpy(), one.labels.numpy()) for one in (train, test))
        if not all(np.isfinite(one.values).all() for one in (fitted, judged)):  # destroyed: a probe finds nothing
            gone = int(np.isin(judged.labels, self.asked.request.classes).sum())
            return torch.tensor([0, gone, 0, len(test) - gone])
        found = probe(fitted, judged, self.asked.request.classes)
        shares = [(found.forgotten.hits, found.forgotten.total)]
        shares.append((0, 0) if found.remaining is None else (found.remaining.hits, found.remaining.total))
        return torch.tensor(shares).flatten()

    def _relearned(self) -> Samples:
        return self.asked.forget.take(_even(len(self.asked.forget), MOST_RELEARNED))

    def _relearn(self, strategy: Strategy, level: float) -> Tensor:
        """Train a copy on the forgotten samples alone until it knows them again.

        Plain SGD with momentum 0.9 on the cross-entropy of the classifier; BatchNorm keeps its statistics, since a
        batch of one class has others than any training batch.
        """
        twin = copy.deepcopy(strategy, {id(strategy.memory): strategy.memory})
        judged, samples = self._relearned(), self.asked.forget
        curve = [_accuracy(twin, judged)]
        batches = _forever(len(samples), self.order)
        with thawed(twin), torch.enable_grad():
            optimizer = torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], RELEARN_RATE, momentum=0.9)
            while float(curve[-1]) < level and len(curve) <= RELEARN_STEPS:
                rows = next(batches)
                inputs, labels = samples.fetch(rows).to(twin.device), samples.labels[rows].to(twin.device)
                optimizer.zero_grad()
                F.cross_entropy(classifier(twin, inputs).float(), labels).backward()
                optimizer.step()
                torch.clear_autocast_cache()
                curve.append(_accuracy(twin, judged))
        return torch.stack(curve)


@torch.no_grad()
def _scores(strategy: Strategy, samples: Samples) -> Tensor:
    parts = [strategy.predict(inputs.to(strategy.device)).float().cpu() for inputs, _ in samples.batches(BATCH)]
    return torch.cat(parts) if parts else torch.empty(0, len(strategy.classes))


@torch.no_grad()
def _accuracy(strategy: Strategy, samples: Samples) -> Tensor:
    """Compute the classifier's share of right answers, (), which for a nearest-mean method is not its headline."""
    found = [classifier(strategy, inputs.to(strategy.device)).argmax(1).cpu() for inputs, _ in samples.batches(BATCH)]
    return (torch.cat(found) == samples.labels).float().mean()


@torch.no_grad()
def _features(strategy: Strategy, samples: Samples) -> Tensor:
    """Catch what goes into the classifier's head: (n, d) float32."""
    found: list[Tensor] = []
    caught = find_heads(strategy)[0].register_forward_pre_hook(lambda _, given: found.append(given[0].float().cpu()))
    try:
        for inputs, _ in samples.batches(BATCH):
            classifier(strategy, inputs.to(strategy.device))
    finally:
        caught.remove()
    return torch.cat(found)


def _has_head(strategy: Strategy) -> bool:
    try:
        return bool(find_heads(strategy))
    except ConfigError:
        return False


def _even(n: int, most: int) -> Tensor:
    """Choose at most so many of n rows, evenly spaced."""
    return torch.linspace(0, max(n - 1, 0), min(most, n)).long()


def _forever(n: int, order: torch.Generator) -> Iterator[Tensor]:
    """Draw batches of rows, each row once an epoch."""
    while True:
        yield from torch.randperm(n, generator=order).split(RELEARN_BATCH)
