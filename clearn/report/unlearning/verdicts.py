"""What to say of an answer to a request: did nothing, destroyed the model, apart, undecided, indistinguishable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clearn.forgetting import Comparison, Trial, compare, js, judge
from clearn.report.unlearning.grouping import Pick, UnlearningGroup
from clearn.report.unlearning.runs import Request

MEASURES: Mapping[str, Pick] = {
    "forget": lambda one: one.forget,
    "stays": lambda one: one.stays,
    "test kept": lambda one: one.kept,
    "test forgotten": lambda one: one.forgotten,
    "MIA": lambda one: one.mia_share,
    "loss AUC": lambda one: one.auc,
}
DIVERGENCE = "divergence"
CONDITIONS = (("destroyed", "destroyed the model"), ("idle", "did nothing"))


@dataclass(frozen=True)
class Judged:
    """A verdict for a table.

    Attributes:
        words: the verdict.
        more: in what, or why there is none; may be empty.
        failed: whether nothing was done or the model destroyed.
        reasons: a sentence for each thing that speaks against it.
    """

    words: str
    more: str = ""
    failed: bool = False
    reasons: tuple[str, ...] = ()


@lru_cache(maxsize=1024)
def judged(group: UnlearningGroup, request: Request) -> Judged:
    """Judge a group's answer to a request, against the runs that retrained where there are some."""
    if group.role == "reference":
        return Judged("reference")
    measured = group.measured(request)
    faults = [one.fault for one in measured if one.fault]
    if faults:
        broken = ["destroyed" if "finite" in one.fault else "" for one in measured]
        return _conditions(broken, Judged("not judged", faults[0]))
    if all(one.forget is None for one in measured):
        return Judged("nothing was asked")
    if not group.pairs:
        why = "no retrain run of these seeds" if group.reference else "no retrain run"
        return _conditions([one.condition_alone for one in measured], Judged("not judged", why))

    paired = group.paired[request.number - 1]
    wrong = [one.fault for one in paired if one.fault]
    trials = [one.trial for one in paired if one.trial is not None]
    if wrong or not trials:
        return Judged("not judged", wrong[0] if wrong else "")
    if len(trials) < 2:
        return _conditions([one.condition for one in trials], Judged("undecided", "one seed shows no spread"))
    return _judged(trials, _comparisons(group, request))


def _judged(trials: Sequence[Trial], comparisons: Mapping[str, Comparison]) -> Judged:
    verdict = judge(trials, comparisons)
    if any(one.condition != "acted" for one in trials):
        return Judged(verdict.headline, failed=True, reasons=verdict.reasons)
    if verdict.passed:
        return Judged("indistinguishable")
    apart, open_ = (
        [name for name, one in comparisons.items() if one.verdict == which] for which in ("different", "undecided")
    )
    if apart:
        return Judged("apart", f"in {', '.join(apart)}", reasons=verdict.reasons)
    return Judged("undecided", f"in {', '.join(open_)}: more seeds are needed", reasons=verdict.reasons)


def _conditions(conditions: Sequence[str], otherwise: Judged) -> Judged:
    """Say which seeds did nothing or were destroyed, `otherwise` where none."""
    of = f"of {len(conditions)} seed{'' if len(conditions) == 1 else 's'}"
    heads = [f"{words} in {n} {of}" for which, words in CONDITIONS if (n := conditions.count(which))]
    return Judged("; ".join(heads), otherwise.more, failed=True) if heads else otherwise


def _comparisons(group: UnlearningGroup, request: Request) -> dict[str, Comparison]:
    """Compare every measure that two seeds or more have, and the outputs' divergence from retrained models."""
    found = {}
    for name, pick in MEASURES.items():
        mine, theirs = group.both(request, pick)
        if len(mine) > 1:
            found[name] = compare(mine, theirs)
    across = _divergences(group, request)
    if across is not None:
        found[DIVERGENCE] = compare(*across)
    return found


def _divergences(group: UnlearningGroup, request: Request) -> tuple[list[float], list[float]] | None:
    """Give each seed's mean JS on the forgotten samples to the models retrained with the other seeds.

    Of the unlearned models, and of the retrained ones themselves, which tells what a seed alone makes. None where seeds
    were asked about other samples, as with other class orders.
    """
    if len({run.seeds[1] for run, _ in group.pairs}) > 1:
        return None
    evidence = [(run.evidence(request), other.evidence(request)) for run, other in group.pairs]
    labels = [theirs.labels["forget"] for _, theirs in evidence]
    if not all(np.array_equal(labels[0], one) for one in labels):
        return None
    retrained = [theirs.after["forget"] for _, theirs in evidence]

    def apart(scores: np.ndarray, seed: int) -> float:
        return float(np.mean([js(scores, one).mean() for at, one in enumerate(retrained) if at != seed]))

    mine = [apart(ours.after["forget"], seed) for seed, (ours, _) in enumerate(evidence)]
    return mine, [apart(scores, seed) for seed, scores in enumerate(retrained)]
