"""What the memory adds: right answers with it minus right answers without, and whether that can be told from chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clearn.metrics import spread
from clearn.report.reading.runs import ReadingRun

CONTROLS = ("shuffled", "empty")  # what a memory must beat: one of other documents, and one of none
NEEDED = 3.0  # standard errors


@dataclass(frozen=True)
class Gain:
    """Strict EM with the memory minus that of a control, over the same questions.

    Attributes:
        mean: over the runs.
        error: its standard error.
        n: runs.
        paired: whether every run's error comes from the same question answered twice, not from two counts.
    """

    mean: float
    error: float
    n: int
    paired: bool

    @property
    def told(self) -> bool:
        """Whether it is positive beyond chance."""
        return self.mean > 0 and self.mean >= NEEDED * self.error

    @property
    def harms(self) -> bool:
        """Whether it is negative beyond chance."""
        return self.mean < 0 and -self.mean >= NEEDED * self.error


@dataclass(frozen=True)
class Judged:
    """A verdict for a table.

    Attributes:
        words: the verdict.
        more: in what, or why there is none; may be empty.
        failed: whether the memory adds nothing that can be told.
    """

    words: str
    more: str = ""
    failed: bool = False


def unpaired_error(right: int, other: int, n: int) -> float:
    """Standard error of the difference of two shares of n questions, from their counts alone.

    One right and one wrong answer are added to each (Agresti and Caffo 2000), so that a share of 0 or 1 out of a few
    questions does not look certain.

    >>> round(unpaired_error(0, 0, 8), 4), round(unpaired_error(8, 0, 8), 4)
    (0.1342, 0.1342)
    """
    shares = [(count + 1) / (n + 2) for count in (right, other)]
    return math.sqrt(sum(share * (1 - share) for share in shares) / (n + 2))


def paired_error(gained: int, lost: int, n: int) -> float:
    """Standard error of the same difference where each question was answered twice.

    Half a question is added to each of the four outcomes (Agresti and Min 2005).

    Args:
        gained: questions that the memory alone got right.
        lost: questions that the control alone got right.
        n: questions.

    >>> round(paired_error(8, 0, 8), 4)
    0.1612
    """
    total = n + 2
    return math.sqrt(gained + lost + 1 - (gained - lost) ** 2 / total) / total


def gain(runs: Sequence[ReadingRun], control: str) -> Gain | None:
    """Subtract a control from the headline, over runs that differ only in their seeds; None where none has it.

    Seeds usually ask the same questions, so more of them do not make the questions more. The error is the larger of
    two: that of one run's questions (root mean square over the runs), and that of the mean over seeds.
    """
    found = [one for run in runs if (one := _of_run(run, control)) is not None]
    seeds = spread(mean for mean, _, _ in found)
    if seeds is None:
        return None
    questions = math.sqrt(sum(error**2 for _, error, _ in found) / len(found))
    between = (seeds.std or 0.0) / math.sqrt(seeds.n)
    return Gain(seeds.mean, max(questions, between), seeds.n, all(paired for *_, paired in found))


def _of_run(run: ReadingRun, control: str) -> tuple[float, float, bool] | None:
    """Give (difference, its standard error, whether paired)."""
    mine, other = run.tally(run.headline), run.tally(control)
    if mine is None or other is None or run.headline is None:
        return None
    n, rights = mine.total, run.rights
    if not rights:
        return mine.em - other.em, unpaired_error(mine.right, other.right, n), False
    pairs = list(zip(rights[run.headline], rights[control], strict=True))
    return mine.em - other.em, paired_error(pairs.count((True, False)), pairs.count((False, True)), n), True


def judged(gains: Mapping[str, Gain | None]) -> Judged:
    """Judge a memory by its gains over `CONTROLS`: it works if both can be told."""
    known = {name: one for name, one in gains.items() if one is not None}
    missing = [name for name in CONTROLS if name not in known]
    if missing:
        return Judged("not judged", "no controls" if not known else f"no {missing[0]} control")
    if all(one.told for one in known.values()):
        return Judged("works")
    harms = [name for name, one in known.items() if one.harms]
    if harms:
        return Judged("adds nothing that can be told", f"worse than {' and '.join(harms)}", failed=True)
    under = [name for name, one in known.items() if not one.told]
    return Judged("adds nothing that can be told", f"over {' and '.join(under)}", failed=True)
