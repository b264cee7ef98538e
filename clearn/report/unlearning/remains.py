"""Numbers that rest on several runs at once: how fast is relearned, with bounds, and U-LiRA over the seeds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Literal

import numpy as np

from clearn.forgetting import ULira
from clearn.forgetting import u_lira as attack
from clearn.metrics import Spread, spread
from clearn.report.unlearning.grouping import UnlearningGroup
from clearn.report.unlearning.runs import Request

FEWEST = 3  # seeds for U-LiRA: a held-out Gaussian needs two others
FEWEST_TPR = 5  # seeds for its low false positive rates: with fewer, fits of two or three models saturate
ROC_FPR = 0.01


@dataclass(frozen=True)
class Bound:
    """A mean over runs some of which only bound it, or make it infinite.

    Attributes:
        mean: with what is known of each run.
        sign: ">" where the true mean is larger, "<" smaller, "" where it is infinite.
        n: runs.
        bounding: how many of them are only bounds.
    """

    mean: float
    sign: Literal[">", "<", ""]
    n: int
    bounding: int

    @property
    def words(self) -> str:
        """For whoever points at it."""
        return f"{self.mean:.9g}, n = {self.n}, of which {self.bounding} did not relearn within the steps tried"


def relearn_steps(group: UnlearningGroup, request: Request) -> Spread | Bound | None:
    """Average the steps of relearning; a lower bound where some run was not there at its last step."""
    found = [one.relearned for one in group.measured(request) if one.relearned is not None]
    short = sum(not one.reached for one in found)
    if short:
        return Bound(fmean(one.steps for one in found), ">", len(found), short)
    return spread(one.steps for one in found)


def anamnesis(group: UnlearningGroup, request: Request) -> Spread | Bound | str | None:
    """Average the anamnesis index over the pairs; words where that has no bound either."""
    found = [one.anamnesis for one in group.paired[request.number - 1] if one.anamnesis is not None]
    values = [one.value for one in found if one.value is not None]
    kinds = {one.known for one in found}
    if len(values) < len(found) or {"at least", "at most"} <= kinds:
        return f"unknown in {sum(one.known != 'exactly' for one in found)} of {len(found)}"
    bounding = sum(one.known != "exactly" for one in found)
    if np.inf in values:
        return Bound(np.inf, "<" if "at most" in kinds else "", len(values), bounding)
    if bounding:
        return Bound(fmean(values), ">" if "at least" in kinds else "<", len(values), bounding)
    return spread(values)


@lru_cache(maxsize=1024)
def attacked(group: UnlearningGroup, request: Request) -> ULira | None:
    """Attack the unlearned models beside the retrained ones of their seeds.

    None for the reference itself, below `FEWEST` seeds, where a model's scores are not finite, and where seeds were
    asked about other samples: other labels, or labels of another class order.
    """
    at = request.number - 1
    both = [(run.measured[at], other.measured[at]) for run, other in group.pairs]
    if group.role == "reference" or len(both) < FEWEST or len({run.seeds[1] for run, _ in group.pairs}) > 1:
        return None
    asked = [one.asked for pair in both for one in pair if one.asked is not None]
    if not all(np.array_equal(one, asked[0]) for one in asked):
        return None
    ours, theirs = ([one.margins for one in side if one.margins is not None] for side in zip(*both, strict=True))
    return attack(np.stack(ours), np.stack(theirs)) if len(ours) == len(theirs) == len(both) else None


def u_lira(group: UnlearningGroup, request: Request) -> Spread | None:
    """Give the accuracy of U-LiRA, seed by seed: of a held-out unlearned model and the retrained one."""
    found = attacked(group, request)
    return None if found is None else spread(map(float, found.per_model))


def u_lira_tpr(group: UnlearningGroup, request: Request) -> Spread | None:
    """Give U-LiRA's true positive rate at 1 % false positives; None below `FEWEST_TPR` seeds."""
    found = attacked(group, request)
    if found is None or len(found.unlearned) < FEWEST_TPR:
        return None
    return Spread(found.roc.tpr_at(ROC_FPR), None, len(found.unlearned))
