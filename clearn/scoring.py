"""Scores: integer counts of correct answers per probe, class and read-out, on one pass over all probes at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from clearn.parts.samples import Samples
from clearn.strategy import Strategy
from clearn.stream import Probe


@torch.no_grad()
def score(
    strategy: Strategy, probes: Sequence[Probe], step: int, batch: int, device: torch.device
) -> list[dict[str, Any]]:
    """Count correct answers on every probe.

    Batches run over all probes as one sequence, so that small probes cost no more than their samples.

    Args:
        strategy: the learner, put into evaluation mode.
        probes: of the tasks seen so far, in order.
        step: tasks learned, from 1.
        batch: samples at a time.
        device: where the network is.

    Returns:
        One row per probe and read-out: counts in all, per class, and among the five best.
    """
    strategy.eval()
    labels = torch.cat([probe.data.labels for probe in probes])
    owner = torch.repeat_interleave(torch.arange(len(probes)), torch.tensor([len(probe.data) for probe in probes]))
    hits: dict[str, list[Tensor]] = {}
    start = 0
    for inputs in _batches([probe.data for probe in probes], batch):
        targets = labels[start : start + len(inputs)]
        start += len(inputs)
        for readout, scores in strategy.read(inputs.to(device)).items():
            hits.setdefault(readout, []).append(_hits(scores.float().cpu(), targets))
    counts = {readout: _counts(torch.cat(parts), labels, owner, len(probes)) for readout, parts in hits.items()}
    return [
        {
            "step": step,
            "task": probe.task + 1,
            "probe": probe.name,
            "readout": readout,
            "headline": readout == strategy.readout,
            **counted[i],
        }
        for i, probe in enumerate(probes)
        for readout, counted in counts.items()
    ]


def _hits(scores: Tensor, targets: Tensor) -> Tensor:
    """(b, 2) bool: the target is the best; it is among the five best. Equal scores favour low labels."""
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :5] == targets[:, None]
    return torch.stack([best[:, 0], best.any(1)], dim=1)


def _counts(hits: Tensor, labels: Tensor, owner: Tensor, n_probes: int) -> list[dict[str, Any]]:
    """The counts of every probe's row, in one pass: a loop over rows would look at every sample for each of them.

    Args:
        hits: (n, 2) bool, see `_hits`.
        labels: (n,) int64.
        owner: (n,) int64, ascending: which probe a sample belongs to.
        n_probes: how many there are.
    """
    n_labels = int(labels.max()) + 1
    pairs, place = torch.unique(owner * n_labels + labels, return_inverse=True)  # (p,) probe and class, ascending
    totals, correct, top5 = (
        torch.bincount(rows, minlength=len(pairs)).tolist() for rows in (place, place[hits[:, 0]], place[hits[:, 1]])
    )
    counted: list[dict[str, Any]] = [{"correct": 0, "total": 0, "classes": {}, "top5": 0} for _ in range(n_probes)]
    for pair, total, right, near in zip(pairs.tolist(), totals, correct, top5, strict=True):
        probe, label = divmod(pair, n_labels)
        row = counted[probe]
        row["correct"] += right
        row["total"] += total
        row["top5"] += near
        row["classes"][str(label)] = [right, total]
    return counted


def _batches(parts: Sequence[Samples], size: int) -> Iterator[Tensor]:
    """Inputs of all parts as one sequence, `size` at a time."""
    held: list[Tensor] = []
    count = 0
    for part in parts:
        for inputs, _ in part.batches(size):
            held.append(inputs)
            count += len(inputs)
            while count >= size:
                joined = torch.cat(held) if len(held) > 1 else held[0]
                yield joined[:size]
                held, count = [joined[size:]], count - size
    if count:
        yield torch.cat(held)
