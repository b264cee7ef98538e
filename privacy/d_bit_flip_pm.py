"""dBitFlipPM: a few buckets of an ordered domain, one bit each, memoised (Ding, Kulkarni, Yekhanin, NeurIPS 2017).

A user draws d of the b buckets once and tells which. For each of them that the value may lie in, and for none of them,
d bits are drawn once: 1 with probability a / (a + 1) where the bucket holds the value, else 1 / (a + 1), with
a = e^(eps_inf/2). They are sent in every round as they are. A device keeps at most d + 1 rows of d bits, and a bitmap.

There is no fresh noise: the first report loses as much as all, and a change of value that changes the row is seen at
once (`loss_any` is infinite). The authors' library draws buckets anew in every round, which ends that promise, and cuts
values into buckets in floating point, which misplaces some (k = 18, b = 14, v = 9); neither is followed.
"""

from __future__ import annotations

from typing import Literal

from clearn.frequency import FrequencyProtocol, one_budget
from clearn.frequency.buckets import Buckets
from clearn.frequency.calibrate import symmetric

__methods__ = {"d_bit_flip_pm": "DBitFlipPM"}


class DBitFlipPM(FrequencyProtocol):
    """Memoised bits of a few buckets of an ordered domain, without fresh noise.

    Args:
        domains: values of the attribute.
        eps_inf: loss of the first report and of all later ones of an unchanged value.
        buckets: b, how many the domain is cut into; one a value by default. Frequencies of buckets are estimated.
        sampled: d, how many of them a user answers; all by default.
        normalise: samplers divides by the users who really sampled a bucket, expected by n d / b, as published.
    """

    def __init__(
        self,
        domains: tuple[int, ...],
        eps_inf: float = 1.0,
        buckets: int | None = None,
        sampled: int | None = None,
        normalise: Literal["samplers", "expected"] = "samplers",
    ) -> None:
        budgets = one_budget(eps_inf)
        self.sampled = sampled
        cuts = [(k, k if buckets is None else buckets) for k in domains]
        rates, expected = symmetric(eps_inf), normalise == "expected"
        chains = [Buckets(k, b, b if sampled is None else sampled, rates, expected) for k, b in cuts]
        super().__init__(domains, chains, budgets)

    def warnings(self) -> list[str]:
        """No noise hides a change; one bit spends half."""
        found = ["d_bit_flip_pm adds no fresh noise: a change of value that changes its bits is seen at once"]
        if self.sampled == 1:
            found.append(f"with sampled=1 two users differ in one bit, which loses {self.loss(1):.3f}: half of eps_inf")
        return found
