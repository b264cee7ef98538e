"""ASSD, adaptive dampening: SSD whose threshold follows from the share that goes, without a parameter to tune.

Schoepf, Foster, Brintrup, "Parameter-Tuning-Free Data Entry Error Unlearning with Adaptive Selective Synaptic
Dampening" (2024). With r = I_f / I_D of all scalars pooled, alpha is the percentile 100 - ln(1 + 100 m / n) of the
finite ratios; lambda is 1. So about ln(1 + 100 m / n) % of them are dampened whatever the data: it cannot abstain.
Released code takes what stays as the reference (`reference: remaining`, n still all samples) and gradients of batches
(importance "batch"); the defaults here are those of SSD.

Kept from training until a request: with `store`, one importance a scalar, 4 P bytes (2 P in bfloat16); always 8 bytes
a class. Read at a request: what goes; and unless importances are stored, what stays, or the strategy's exemplars, each
weighed by the samples of its class over its exemplars. Cost: one pass over what is read, with `store` one pass over
each task after it was learned; ratios above the percentile are held in memory.
"""

from __future__ import annotations

from typing import Literal

from clearn.dampener import Dampener
from clearn.parts.dampening import adaptive_percentile, alpha_at_percentile
from clearn.parts.importance import CROSS_ENTROPY
from clearn.parts.weighing import Kind, Weighed, Weighing


class Assd(Dampener):
    """Dampen by importance, the more scalars the more goes.

    Args:
        importance: "exact" sums squares over samples, "batch" over batches, "class_mean" over classes.
        reference: "all" data, or "remaining": what stays alone, as in released code.
        store: measure the importances of the data after each task and carry them, so that a request reads what goes
            alone; stale as soon as another task was learned.
        precision: of what is stored.
        batch_size: samples a batch; only "batch" depends on it.
        require_effect: fail where nothing was selected, instead of warning.
    """

    def __init__(
        self,
        importance: Kind = "exact",
        reference: Literal["all", "remaining"] = "all",
        store: bool = False,
        precision: Literal["float32", "bfloat16"] = "float32",
        batch_size: int = 64,
        require_effect: bool = False,
    ) -> None:
        how = Weighing(CROSS_ENTROPY, importance, reference == "remaining", store, precision, batch_size)
        super().__init__(how, lam=1.0, require_effect=require_effect)

    def threshold_for(self, found: Weighed, n: int, m: int) -> float:
        """Take the percentile of the ratios that the share m / n asks for."""
        return alpha_at_percentile(found.forget, found.reference, adaptive_percentile(n, m))
