"""What is kept of each class's features instead of its images: Gaussians, in the smallest form that says the same.

    statistics = Gaussians(Statistics(mode="exact"), width=768)
    statistics.add(features, labels)                       # all classes of a task at once
    x, y = statistics.sampler().draw(240, rng)             # 240 vectors of each class

Letters used below: n samples of a class, d features, K Gaussians (one a class, or one a centroid), r rows of a factor.
A class's covariance is S = the unbiased covariance of its features + 1e-4 I (Sun et al. 2025, "MOS"; specs "mos", 3.3).

Carried, in float32: `means` 4 K d bytes, and each covariance in one of four forms:

    thin       4 d r          F = (X - mean) / sqrt(n - 1), r = min(n, d) rows; S = F^T F + 1e-4 I
    packed     2 d (d + 1)    the lower triangle of S's Cholesky factor, row by row
    full       4 d^2          the same factor as a square, zeros and all: what a covariance weighs as published
    diagonal   4 d            the diagonal of S, the rest is dropped

The first three give the same distribution, and no sampling factorises anything. Beside them: `labels` (1 to 4 bytes a
Gaussian), `forms` (1 byte) and, for thin ones, `ranks` (2 bytes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from clearn.errors import BudgetExceeded, ConfigError, StateError
from clearn.parts.exemplars import label_dtype
from clearn.parts.samples import Samples

Form = Literal["thin", "packed", "full", "diagonal"]
Mode = Literal["exact", "thin", "packed", "full", "diagonal", "multi-centroid"]

FORMS: tuple[Form, ...] = get_args(Form)
RIDGE = 1e-4
CATEGORIES = {"memory": "covariances", "memory/means": "prototypes", "memory/labels": "index"}
"""Ledger categories of what a strategy keeps as its `memory` here."""


@dataclass(frozen=True)
class Statistics:
    """What a config may say of class statistics.

    Attributes:
        mode: "exact": thin or packed, whichever is smaller for the class; "thin", "packed" and "full" say the same in
            the form named; "diagonal" keeps variances alone; "multi-centroid": k-means, and variances in each cluster.
        centroids: clusters a class, for "multi-centroid".
        fallback: what becomes of covariances that the byte budget has no room for: "none" refuses with the numbers,
            "diagonal" keeps the variances alone, of all classes, and of those that come later.
    """

    mode: Mode = "exact"
    centroids: int = 10
    fallback: Literal["none", "diagonal"] = "none"

    def __post_init__(self) -> None:
        if self.centroids < 1:
            raise ConfigError(f"statistics.centroids={self.centroids} must be 1 or more")


@dataclass(frozen=True)
class Gaussian:
    """One of them.

    Attributes:
        label: of its class.
        form: how `factor` is stored.
        mean: (d,) float32.
        factor: float32; thin (r, d), packed (d (d + 1) / 2,), full (d, d), diagonal (d,).
    """

    label: int
    form: Form
    mean: Tensor
    factor: Tensor

    def spread(self) -> tuple[Tensor, Tensor]:
        """Say how to draw: x = mean + e G + e' * scale, hence S = G^T G + diag(scale^2).

        Returns:
            G (r, d) float32, with 0 rows for a diagonal, and scale (d,) float32.
        """
        d = len(self.mean)
        if self.form == "diagonal":
            return self.factor.new_zeros(0, d), self.factor.sqrt()
        if self.form == "thin":
            return self.factor, self.factor.new_full((d,), math.sqrt(RIDGE))
        return (unpacked(self.factor, d) if self.form == "packed" else self.factor).T, self.factor.new_zeros(d)

    def diagonal(self) -> Gaussian:
        """Keep the variances alone."""
        rows, scale = self.spread()
        return replace(self, form="diagonal", factor=rows.square().sum(0) + scale.square())


@dataclass(frozen=True)
class Sampler:
    """Draws from all Gaussians at once.

    Attributes:
        labels: (K,) int64; Gaussians of one class stand together.
        means: (K, d).
        factors: (K, r, d), r of the largest, filled up with zeros.
        scales: (K, d).
    """

    labels: Tensor
    means: Tensor
    factors: Tensor
    scales: Tensor

    def draw(self, n_per_class: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the same number of vectors of each class, in equal shares from its centroids.

        Args:
            n_per_class: vectors of each class.
            rng: a generator on the CPU.

        Returns:
            (m, d) float32 and (m,) int64 labels, class by class.
        """
        of_class = torch.unique_consecutive(self.labels, return_counts=True)[1]
        shares = torch.cat([_shares(n_per_class, k) for k in of_class.tolist()])  # (K,)
        most, (k, r, d) = int(shares.max()), self.factors.shape
        x = self.means[:, None, :].expand(k, most, d)
        if r:
            x = x + torch.randn(k, most, r, generator=rng) @ self.factors
        if bool(self.scales.any()):
            x = x + torch.randn(k, most, d, generator=rng) * self.scales[:, None, :]
        return x[torch.arange(most) < shares[:, None]], self.labels.repeat_interleave(shares)


class Gaussians:
    """The Gaussians of all classes seen, carried beside a network as its `memory`.

    Args:
        options: in which form.
        width: d.
    """

    def __init__(self, options: Statistics, width: int) -> None:
        self.options, self.width = options, width
        self.held: tuple[Gaussian, ...] = ()

    def __len__(self) -> int:
        """No samples are held."""
        return 0

    @property
    def nominal_bytes(self) -> int:
        """Nothing: the published counting knows of images alone."""
        return 0

    @property
    def nbytes(self) -> int:
        """Bytes carried now."""
        return sum(value.nbytes for value in self.state().values())

    @property
    def classes(self) -> list[int]:
        """Labels that have a Gaussian, in order of arrival."""
        return list(dict.fromkeys(one.label for one in self.held))

    @property
    def means(self) -> Tensor:
        """(K, d) float32."""
        return torch.stack([one.mean for one in self.held]) if self.held else torch.empty(0, self.width)

    def add(self, features: Tensor, labels: Tensor, seed: int = 0) -> None:
        """Take in the classes of a task.

        A class of one sample gets the mean covariance of the task's other classes, or 1e-4 I if there are none; the
        released code keeps NaN.

        Args:
            features: (n, d) float, all training samples of these classes.
            labels: (n,) int64.
            seed: of k-means.

        Raises:
            ConfigError: a class that has come before.
        """
        again = sorted(set(labels.tolist()) & set(self.classes))
        if again:
            raise ConfigError(
                f"classes {again} come back in a later task, but statistics are kept once a class: use a "
                "class_incremental stream"
            )
        x = features.detach().cpu().double()
        by_class = {label: x[labels.cpu() == label] for label in labels.unique(sorted=True).tolist()}
        rows = {label: thin_factor(own) for label, own in by_class.items()}
        found: list[Gaussian] = []
        for label, own in by_class.items():
            if self.options.mode == "multi-centroid" and len(own) > 1:
                found += clusters(label, own, self.options.centroids, seed)
                continue
            own_rows = rows[label] if len(own) > 1 else mean_factor([rows[k] for k in rows if len(by_class[k]) > 1], x)
            form = self._form(len(own_rows))
            found.append(Gaussian(label, form, own.mean(0).float(), encode(form, own_rows)))
        self.held += tuple(found)

    def fit_into(self, room: int | None) -> None:
        """Keep within the bytes left, as the options say.

        Args:
            room: bytes left for what is held here; None: no limit.

        Raises:
            BudgetExceeded: with the numbers; nothing is changed then.
        """
        if room is None or self.nbytes <= room:
            return
        small = Gaussians(self.options, self.width)
        small.held = tuple(one.diagonal() for one in self.held)
        if self.options.fallback == "none" or small.nbytes > room:
            raise BudgetExceeded(
                f"the statistics of {len(self.classes)} classes weigh {self.nbytes:,} bytes "
                f"(mode {self.options.mode}), the variances alone {small.nbytes:,}, but the budget leaves "
                f"{max(room, 0):,} bytes for them: raise budget.bytes"
                + (", or write statistics.fallback: diagonal" if small.nbytes <= room else "")
            )
        self.held = small.held

    def sampler(self) -> Sampler:
        """Put all factors side by side, once for many draws.

        Raises:
            ValueError: nothing is held.
        """
        if not self.held:
            raise ValueError("there is nothing to draw from: add the classes of a task first")
        spreads = [one.spread() for one in self.held]
        factors = torch.zeros(len(spreads), max(len(rows) for rows, _ in spreads), self.width)
        for k, (rows, _) in enumerate(spreads):
            factors[k, : len(rows)] = rows
        labels = torch.tensor([one.label for one in self.held])
        return Sampler(labels, self.means, factors, torch.stack([scale for _, scale in spreads]))

    def forget(self, samples: Samples, classes: Sequence[int] = ()) -> int:
        """Throw out the Gaussians of whole classes. Gives how many.

        Raises:
            ConfigError: single samples are to go: no sample can be taken out of a mean without its features.
        """
        left = sorted((set(samples.labels.tolist()) - set(classes)) & set(self.classes))
        if left:
            raise ConfigError(
                f"samples of classes {left} are to be forgotten, but their statistics hold all samples of a class "
                "together: forget whole classes, or take a strategy that keeps none"
            )
        kept = tuple(one for one in self.held if one.label not in classes)
        gone = len(self.held) - len(kept)
        self.held = kept
        return gone

    def state(self) -> dict[str, Tensor]:
        """`labels`, `forms`, `means`, and the factors of each form that occurs; nothing at all while empty."""
        if not self.held:
            return {}
        labels = torch.tensor([one.label for one in self.held])
        state = {
            "labels": labels.to(label_dtype(int(labels.max()) + 1)),
            "forms": torch.tensor([FORMS.index(one.form) for one in self.held], dtype=torch.uint8),
            "means": self.means,
        }
        for form in FORMS:
            factors = [one.factor for one in self.held if one.form == form]
            if form == "thin" and factors:
                state["ranks"] = torch.tensor([len(factor) for factor in factors], dtype=torch.int16)
            if factors:
                state[form] = torch.cat(factors) if form == "thin" else torch.stack(factors)
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave.

        Raises:
            StateError: for other names, dtypes or shapes; nothing is changed then.
        """
        if not state:
            self.held = ()
            return
        names = sorted({"labels", "forms", "means"} - state.keys())
        forms = [FORMS[int(code)] for code in state["forms"].clamp(max=len(FORMS) - 1)] if not names else []
        known = {"labels", "forms", "means", *forms, *(["ranks"] if "thin" in forms else [])}
        if names or known != state.keys():
            raise StateError(
                f"the statistics' state holds {sorted(state)}, but must hold {sorted(known)}: it is damaged, or from "
                "something else"
            )
        ranks = state["ranks"].tolist() if "thin" in forms else []
        wanted = {"labels": (len(forms),), "means": (len(forms), self.width)}
        wanted |= {form: (forms.count(form), *_shape(form, self.width)) for form in set(forms) - {"thin"}}
        wanted |= {"ranks": (forms.count("thin"),), "thin": (sum(ranks), self.width)} if "thin" in forms else {}
        wrong = {k: tuple(state[k].shape) for k, shape in wanted.items() if tuple(state[k].shape) != shape}
        if wrong:
            raise StateError(
                f"the statistics' tensors have shapes {wrong}, but must have { {k: wanted[k] for k in wrong} }: they "
                "are damaged, or of a network of another width"
            )
        factors = {form: iter(state[form]) for form in set(forms) - {"thin"}}
        if "thin" in forms:
            factors["thin"] = iter(state["thin"].split(ranks))
        labels = state["labels"].tolist()
        self.held = tuple(
            Gaussian(label, form, mean, next(factors[form]))
            for label, form, mean in zip(labels, forms, state["means"], strict=True)
        )

    def _form(self, r: int) -> Form:
        """The form of a covariance with a factor of r rows."""
        if any(one.form == "diagonal" for one in self.held):
            return "diagonal"  # where one class had no room for more, those that come later have none either
        match self.options.mode:
            case "multi-centroid":
                return "diagonal"
            case "exact":
                return "thin" if form_bytes("thin", self.width, r) < form_bytes("packed", self.width) else "packed"
            case form:
                return form


def form_bytes(form: Form, d: int, r: int = 0) -> int:
    """Bytes of one covariance; r matters to a thin one alone.

    >>> [form_bytes(form, 768, 47) for form in FORMS]
    [144384, 1181184, 2359296, 3072]
    """
    return 4 * math.prod((r, d) if form == "thin" else _shape(form, d))


def thin_factor(x: Tensor) -> Tensor:
    """Factorise an unbiased covariance: F = (X - mean) / sqrt(n - 1), so that F^T F is it.

    Args:
        x: (n, d) float64.

    Returns:
        (n, d) float64; (0, d) of one sample.
    """
    return (x - x.mean(0)) / math.sqrt(len(x) - 1) if len(x) > 1 else x[:0]


def mean_factor(rows: Sequence[Tensor], like: Tensor) -> Tensor:
    """Factorise the mean of covariances by their stacked factors: (sum of rows, d), none where there are none."""
    return torch.cat([*rows, like[:0]]) / math.sqrt(max(len(rows), 1))


def encode(form: Form, rows: Tensor) -> Tensor:
    """Store rows^T rows + 1e-4 I.

    Args:
        form: of what is stored; a thin one leaves the ridge to whoever draws.
        rows: (r, d) float64.

    Returns:
        float32, see `Gaussian.factor`.
    """
    d = rows.shape[1]
    if form == "thin":
        return (rows if len(rows) <= d else torch.linalg.qr(rows, mode="r").R).float()
    if form == "diagonal":
        return (rows.square().sum(0) + RIDGE).float()
    lower = torch.linalg.cholesky(rows.T @ rows + RIDGE * torch.eye(d, dtype=rows.dtype)).float()
    return lower[_triangle(d)] if form == "packed" else lower


def unpacked(packed: Tensor, d: int) -> Tensor:
    """(d (d + 1) / 2,) lower triangle, row by row -> (d, d)."""
    square = packed.new_zeros(d, d)
    square[_triangle(d)] = packed
    return square


def clusters(label: int, x: Tensor, n_clusters: int, seed: int) -> list[Gaussian]:
    """Cut a class into clusters by k-means, and keep mean and variances of each.

    As the released code: variances are over n, + 1e-4; clusters without any variance, such as one sample, are skipped.
    Where that leaves none, the class is one cluster.

    Args:
        label: of the class.
        x: (n, d) float64, n >= 2.
        n_clusters: at most; a class of fewer samples has no more than samples.
        seed: of the first centroids.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    distinct = len(x.unique(dim=0))
    with threadpool_limits(1):  # sums of several threads come in any order
        means = KMeans(min(n_clusters, distinct), n_init=1, random_state=seed % 2**32).fit(x.numpy())
    which = torch.from_numpy(means.labels_)
    parts = [x[which == k] for k in range(min(n_clusters, distinct))]
    varied = [part for part in parts if bool(part.var(0, correction=0).any())] or [x]
    variances = [(part.var(0, correction=0) + RIDGE).float() for part in varied]
    return [Gaussian(label, "diagonal", part.mean(0).float(), var) for part, var in zip(varied, variances, strict=True)]


def _shape(form: Form, d: int) -> tuple[int, ...]:
    """Shape of a stored factor whose size d alone decides."""
    return {"packed": (d * (d + 1) // 2,), "full": (d, d)}.get(form, (d,))


def _triangle(d: int) -> tuple[Tensor, Tensor]:
    rows, columns = torch.tril_indices(d, d)
    return rows, columns


def _shares(n: int, k: int) -> Tensor:
    """Share n among k as evenly as can be: (k,) int64, the first ones get what is over."""
    return n // k + (torch.arange(k) < n % k).long()
