"""SSD, selective synaptic dampening: shrink the weights that matter far more to what goes than to the data.

Foster, Schoepf, Brintrup, "Fast Machine Unlearning without Retraining through Selective Synaptic Dampening", AAAI 2024.
I_S is the diagonal of the empirical Fisher information over S (Eq. 5). Scalars with I_f > alpha I_D are multiplied by
min(lambda I_D / I_f, 1) (Eq. 6 and 7); all other scalars and all buffers stay bit for bit. No training, no draw.

Where paper and released code disagree: the default "exact" squares the gradients of single samples, as the paper
defines it; "batch" squares mean gradients of batches in the order kept, then forgotten, as the code does; "class_mean"
is the limit of that for large batches of one class. Published alphas belong to "batch" and do not transfer. Frozen
blocks are included, since they saw what goes.

Facts: where the reference holds what goes, I_f / I_D <= n / m, so alpha at or above n / m selects nothing (10 on any
balanced 10-class problem): refused. A selected weight keeps less than lambda / alpha of itself.

Kept from training until a request: with `store`, one importance a scalar, 4 P bytes (2 P in bfloat16); always 8 bytes
a class. Read at a request: what goes; and unless importances are stored, what stays, or the strategy's exemplars, each
weighed by the samples of its class over its exemplars. Cost: one pass over what is read, with `store` one pass over
each task after it was learned.

LFSSD (Foster, Fogarty, Schoepf, Oztireli, Brintrup, "Loss-Free Machine Unlearning", ICLR 2024 Tiny Papers) is the same
with another importance, which needs no labels: the mean of |gradient of ||f(x)||^2|, f the logits. It is linear in the
gradient where SSD's is quadratic, so equal alphas select unequal shares: choose by `select_fraction`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from clearn.dampener import Dampener
from clearn.errors import ConfigError
from clearn.parts.dampening import Threshold
from clearn.parts.importance import CROSS_ENTROPY, LENGTH
from clearn.parts.sample_gradients import Objective
from clearn.parts.weighing import Kind, Weighed, Weighing
from clearn.stream import Forget

__methods__ = {"ssd": "Ssd", "lfssd": "Lfssd"}


class Ssd(Dampener):
    """SSD: dampen the weights that matter far more to what goes than to the data.

    Args:
        alpha: a scalar is selected if its importance for what goes is more than alpha times that for the reference.
        lam: lambda; selected scalars are multiplied by lambda I_D / I_f, at most 1.
        rest_alpha: instead of alpha, a threshold against what stays alone, which has no bound: alpha (1 - p) /
            (1 - alpha p), p the share that goes. It selects the same whatever that share.
        select_fraction: instead of alpha, the share of all scalars to select, those of the largest ratios.
        importance: "exact", "batch" or "class_mean", see above.
        reference: "all" data as in paper and code, or "remaining": what stays alone.
        store: measure the importances of the data after each task and carry them, so that a request reads what goes
            alone; stale as soon as another task was learned.
        precision: of what is stored; bfloat16 halves it and keeps 98 % of the selected set.
        batch_size: samples a batch; only "batch" depends on it.
        require_effect: fail where nothing was selected, instead of warning.
    """

    objective: ClassVar[Objective] = CROSS_ENTROPY

    def __init__(
        self,
        alpha: float = 10.0,
        lam: float = 1.0,
        rest_alpha: float | None = None,
        select_fraction: float | None = None,
        importance: Kind = "exact",
        reference: Literal["all", "remaining"] = "all",
        store: bool = False,
        precision: Literal["float32", "bfloat16"] = "float32",
        batch_size: int = 64,
        require_effect: bool = False,
    ) -> None:
        if lam < 0 or (rest_alpha is not None and reference == "remaining"):
            raise ConfigError(
                f"lam={lam} must be 0 or more, and rest_alpha={rest_alpha} goes with reference: all (with 'remaining', "
                "alpha itself is against what stays)"
            )
        self.threshold = Threshold(alpha, rest_alpha, select_fraction)
        how = Weighing(self.objective, importance, reference == "remaining", store, precision, batch_size)
        super().__init__(how, lam, require_effect)

    def check(self, request: Forget) -> None:
        """Refuse a threshold that cannot select anything, with the numbers."""
        if request.past is not None or self.scales.counted:
            self.size(sum(len(task.train) for task in request.past or ()), len(request.forget))

    def size(self, n_kept: int, n_gone: int) -> int:
        """Look at alpha and n / m before any pass; give n."""
        how, n = self.scales.how, super().size(n_kept, n_gone)
        if not how.remaining:
            self.threshold.refuse_no_op(n, n_gone, strict=how.kind != "batch")
        return n

    def threshold_for(self, found: Weighed, n: int, m: int) -> float:
        """Take alpha, or what stands in its place."""
        return self.threshold.find(found.forget, found.reference, m / n)


class Lfssd(Ssd):
    """LFSSD: SSD by the importance for the length of the outputs, which needs no labels."""

    objective = LENGTH
