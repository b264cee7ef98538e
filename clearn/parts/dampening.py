"""Selective synaptic dampening as arithmetic: which weights matter more to what goes than to the data, and by how much.

With importances I_f of the forgotten samples and I_D of a reference (Foster, Schoepf, Brintrup, AAAI 2024, Eq. 5-7): a
scalar is selected iff I_f > alpha I_D, and multiplied by beta = min(lambda I_D / I_f, 1). Everything here works on the
ratio I_f / I_D in float64, so that a threshold taken from the ratios selects exactly what lies above it; 0/0 is no
ratio and never selected, x/0 is infinite and zeroed.

Letters used below: n samples of the reference, m of them go, p = m / n; P scalars in all tensors together.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from clearn.errors import ConfigError, StateError

Importances = Mapping[str, Tensor]
"""Name of a parameter -> float tensor of its shape, at least 0."""


@dataclass(frozen=True)
class Threshold:
    """Options that say above which ratio a scalar is selected; the first that is given of the last two, else alpha.

    Attributes:
        alpha: of I_f / I_D, 0 or more.
        rest_alpha: of I_f / I_r, I_r the importance for what stays: see `against_all`.
        select_fraction: share of all scalars to select.
    """

    alpha: float
    rest_alpha: float | None = None
    select_fraction: float | None = None

    def __post_init__(self) -> None:
        if self.alpha < 0 or (self.rest_alpha or 0) < 0 or not 0 <= (self.select_fraction or 0) <= 1:
            raise ConfigError(
                f"alpha={self.alpha} and rest_alpha={self.rest_alpha} must be 0 or more, and "
                f"select_fraction={self.select_fraction} must lie in [0, 1]"
            )
        if self.rest_alpha is not None and self.select_fraction is not None:
            raise ConfigError("rest_alpha and select_fraction both take the place of alpha: give one of the two")

    def find(self, forget: Importances, reference: Importances, p: float) -> float:
        """Give the alpha that these options mean for measured importances."""
        if self.select_fraction is not None:
            return alpha_for_share(forget, reference, self.select_fraction)
        return self.alpha if self.rest_alpha is None else against_all(self.rest_alpha, p)

    def refuse_no_op(self, n: int, m: int, strict: bool = True) -> None:
        """Hold alpha against the largest ratio that there can be, before any pass over data.

        Args:
            n: samples that the reference stands for, those that go among them.
            m: samples that go.
            strict: whether the bound holds exactly; where squared batches may exceed it, a warning has to do.

        Raises:
            ConfigError: nothing can be selected.
        """
        highest = bound(n, m)
        if self.rest_alpha is not None or self.select_fraction is not None or self.alpha < highest:
            return
        text = (
            f"alpha={self.alpha:g} is at or above n / m = {n} / {m} = {highest:g}, which the importance for the {m} "
            f"samples that go over that for all {n} cannot exceed"
        )
        hint = f"choose alpha below {highest:g}, rest_alpha (which has no bound) or select_fraction"
        if strict:
            raise ConfigError(f"{text}: nothing would be selected, so nothing unlearned; {hint}")
        warnings.warn(f"{text} but by the noise of batches: it will select next to nothing; {hint}", stacklevel=4)


@dataclass(frozen=True)
class Dampened:
    """What a dampening did.

    Attributes:
        selected: scalars selected, by parameter; names without any are left out.
        zeroed: scalars that were not 0 and now are: a norm's scale among them kills its channel for good.
        total: P.
        alpha: threshold.
        largest: the largest ratio I_f / I_D.
    """

    selected: dict[str, int]
    zeroed: int
    total: int
    alpha: float
    largest: float

    @property
    def share(self) -> float:
        """Share of all scalars that were selected; 0 means that nothing was unlearned."""
        return sum(self.selected.values()) / self.total if self.total else 0.0

    def figures(self) -> dict[str, float]:
        """What a run folder should hold of it, by name; with the number of scalars selected in each parameter."""
        main = {"selected": self.share, "zeroed": self.zeroed, "alpha": self.alpha, "largest_ratio": self.largest}
        by_name = {f"selected/{name}": count for name, count in self.selected.items()}
        return {f"unlearn/{name}": float(value) for name, value in (main | by_name).items() if math.isfinite(value)}

    def show_effect(self, required: bool) -> None:
        """Warn where nothing was selected.

        Raises:
            StateError: where an effect is required.
        """
        if self.selected:
            return
        text = (
            f"no scalar was selected: the largest ratio of importances is {self.largest:g} and alpha={self.alpha:g}, "
            "so the network is as it was; choose a smaller alpha, or select_fraction"
        )
        if required:
            raise StateError(text)
        warnings.warn(text, stacklevel=3)


def bound(n: int, m: int) -> float:
    """Largest possible I_f / I_D where D holds the forgotten samples and both are means over samples: n / m.

    >>> bound(50_000, 5_000)
    10.0
    """
    return n / m if m else math.inf


def against_rest(alpha: float, p: float) -> float:
    """Turn a threshold on I_f / I_D into the one on I_f / I_r that selects the same: alpha (1 - p) / (1 - alpha p).

    Raises:
        ValueError: alpha p >= 1, where nothing can be selected and there is no such threshold.

    >>> round(against_rest(10, 0.01), 6), round(against_rest(10, 0.05), 6), round(against_rest(5, 0.1), 6)
    (11.0, 19.0, 9.0)
    """
    if alpha * p >= 1:
        raise ValueError(f"alpha={alpha} must lie below 1 / p = {1 / p:g}: above it nothing can be selected")
    return alpha * (1 - p) / (1 - alpha * p)


def against_all(rest_alpha: float, p: float) -> float:
    """Turn a threshold on I_f / I_r into the one on I_f / I_D that selects the same; always below 1 / p.

    >>> round(against_all(11, 0.01), 6), round(against_all(9, 0.1), 6)
    (10.0, 5.0)
    """
    return rest_alpha / (1 - p + rest_alpha * p)


def ratios(forget: Importances, reference: Importances, name: str) -> Tensor:
    """I_f / I_D of one parameter: float64, NaN for 0/0, infinite for x/0."""
    return forget[name].double() / reference[name].double()


def select(forget: Importances, reference: Importances, alpha: float) -> dict[str, Tensor]:
    """Mark the scalars with I_f > alpha I_D (strict): one bool mask a parameter."""
    return {name: ratios(forget, reference, name) > alpha for name in forget}


def damping(forget: Importances, reference: Importances, alpha: float, lam: float) -> dict[str, Tensor]:
    """Give the factor of every scalar: min(lam I_D / I_f, 1) where selected, 1 elsewhere; float64."""
    found = {}
    for name, selected in select(forget, reference, alpha).items():
        safe = torch.where(selected, forget[name].double(), 1.0)
        beta = (lam * reference[name].double() / safe).clamp(max=1)
        found[name] = torch.where(selected, beta, 1.0)
    return found


@torch.no_grad()
def dampen(
    parameters: Mapping[str, Tensor], forget: Importances, reference: Importances, alpha: float, lam: float
) -> Dampened:
    """Multiply the selected scalars by their factors, in place; every other bit stays.

    Args:
        parameters: those that have importances are dampened.
        forget: I_f.
        reference: I_D (or I_r), of the same names and shapes.
        alpha: selection threshold.
        lam: lambda of the factors.
    """
    counts, zeroed, total = {}, 0, 0
    for name in forget:
        one = ({name: forget[name]}, {name: reference[name]})
        value, selected = parameters[name], select(*one, alpha)[name]
        total += selected.numel()
        if bool(selected.any()):
            counts[name] = int(selected.sum())
            changed = (value.double() * damping(*one, alpha, lam)[name]).to(value.dtype)
            zeroed += int(((changed == 0) & (value != 0)).sum())
            value.copy_(torch.where(selected, changed, value))
    return Dampened(counts, zeroed, total, alpha, largest_ratio(forget, reference))


def largest_ratio(forget: Importances, reference: Importances) -> float:
    """The largest I_f / I_D of all scalars: an alpha at or above it selects nothing; 0 without any ratio."""
    top = _largest((ratios(forget, reference, name) for name in forget), 1, infinite=True)
    return float(top[0]) if len(top) else 0.0


def alpha_for_share(forget: Importances, reference: Importances, share: float) -> float:
    """Find the threshold above which the given share of all P scalars lies.

    Ties at the threshold are left out, so the share may come out smaller; scalars with I_f = 0 are never selected.

    Args:
        forget: I_f.
        reference: I_D (or I_r).
        share: in [0, 1].
    """
    total = sum(values.numel() for values in forget.values())
    wanted = round(share * total)
    top = _largest((ratios(forget, reference, name) for name in forget), wanted + 1, infinite=True)
    return float(top[wanted]) if wanted < len(top) else 0.0


def adaptive_percentile(n: int, m: int) -> float:
    """ASSD's percentile of the ratios, 100 - ln(1 + 100 m / n) (Schoepf, Foster, Brintrup 2024).

    >>> round(adaptive_percentile(10, 1), 6), round(adaptive_percentile(100, 1), 6)
    (97.602105, 99.306853)
    """
    return 100 - math.log1p(100 * m / n)


def alpha_at_percentile(forget: Importances, reference: Importances, q: float) -> float:
    """Find the q-th percentile of all finite ratios, pooled over the parameters, with linear interpolation.

    Holds no more ratios at a time than lie above it and those of one parameter.

    Args:
        forget: I_f.
        reference: I_D (or I_r).
        q: in [0, 100].

    Returns:
        The threshold; infinite without any finite ratio.
    """
    n_finite = sum(int(ratios(forget, reference, name).isfinite().sum()) for name in forget)
    if not n_finite:
        return math.inf
    place = (n_finite - 1) * q / 100
    below = min(math.floor(place), max(n_finite - 2, 0))
    top = _largest((ratios(forget, reference, name) for name in forget), n_finite - below, infinite=False)
    low, high = float(top[-1]), float(top[-2 if len(top) > 1 else -1])
    return low + (high - low) * (place - below)


def _largest(tensors: Iterable[Tensor], k: int, infinite: bool) -> Tensor:
    """The k largest numbers, descending, without NaN; fewer where there are no more."""
    best = torch.empty(0, dtype=torch.float64)
    for values in tensors:
        valid = ~values.isnan() if infinite else values.isfinite()
        pooled = torch.cat([best.to(values.device), values[valid]])
        best = pooled.topk(min(k, len(pooled))).values
    return best
