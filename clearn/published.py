"""The byte budgets of the published comparisons, recomputed: MEMO (Zhou et al. 2023) and its survey.

Three protocols: "benchmark" gives everyone as many exemplars, "memory-aligned" everyone the bytes that DER ends with,
"memory-agnostic" everyone the bytes of each point of a range, and measures the area under the accuracies
(`clearn.published_areas`).

One parameter is 4 bytes and one exemplar its uint8 pixels, so a net of P parameters is worth
floor(4 P / 3 H W) images. Classifiers, norm statistics and labels are not counted, as in the papers; a run's
own ledger counts them. Everything is integer arithmetic on the exact parameter counts of
`clearn.parts.backbones`. Typed in are only the settings, and figures that a paper or its scripts print
differently. MEMO is arXiv 2205.13218, the survey 2302.03648.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

PARAMETER_BYTES = 4
MIB = 2**20
CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)
CIFAR_NETS = ("convnet2", "resnet14", "resnet20", "resnet26", "resnet32", "cosine_resnet32")
"""Backbones that are counted on 32x32 images; all others are counted on 224x224."""


@dataclass(frozen=True)
class Weight:
    """What a module holds: parameters, values of norm statistics (float32) and batch counters (int64)."""

    params: int
    statistics: int
    counters: int

    @property
    def bytes(self) -> int:
        """As stored."""
        return 4 * self.params + 4 * self.statistics + 8 * self.counters


@dataclass(frozen=True)
class Halves:
    """A backbone in MEMO's two parts: groups shared by all tasks, and the last, which each task gets anew."""

    generalized: Weight
    specialized: Weight

    @property
    def params(self) -> int:
        """Parameters P of one whole net."""
        return self.generalized.params + self.specialized.params


@dataclass(frozen=True)
class Aligned:
    """A row of protocol 2: everyone gets the bytes that whole-network expansion (DER) ends with.

    Attributes:
        setting: data set and split, e.g. "CIFAR100 B0 Inc10".
        backbone: of all methods.
        tasks: T, the first one included.
        image_bytes: of one exemplar.
        budget_bytes: of everyone.
        der_exemplars: of DER, which sets the budget.
        single_exemplars: of methods that carry one net.
        memo_exemplars: of MEMO.
        memo_params: MEMO's backbone parameters after the last task.
        printed_mib: what a paper or script prints in place of `mib`, if it does.
        printed_single_exemplars: likewise.
        printed_memo_exemplars: likewise.
    """

    setting: str
    backbone: str
    tasks: int
    image_bytes: int
    budget_bytes: int
    der_exemplars: int
    single_exemplars: int
    memo_exemplars: int
    memo_params: int
    printed_mib: str | None = None
    printed_single_exemplars: int | None = None
    printed_memo_exemplars: int | None = None

    @property
    def mib(self) -> float:
        """The budget in MiB, which the papers call MB."""
        return self.budget_bytes / MIB


@dataclass(frozen=True)
class BudgetPoint:
    """A point of protocol 3, which draws accuracy over a range of budgets.

    Attributes:
        setting: data set and split.
        backbone: of the expanding methods at this point.
        single_backbone: of methods that carry one net, the same at every point.
        tasks: T, the first one included.
        image_bytes: of one exemplar.
        budget_bytes: of everyone.
        single_exemplars: of methods that carry one net.
        der_exemplars: of DER.
        der_params: its backbone parameters after the last task.
        memo_exemplars: of MEMO.
        memo_params: its backbone parameters after the last task.
        printed_mib: what the papers call the point.
        printed_single_exemplars: what a paper or script prints in place of `single_exemplars`, if it does.
        printed_memo_exemplars: likewise.
    """

    setting: str
    backbone: str
    single_backbone: str
    tasks: int
    image_bytes: int
    budget_bytes: int
    single_exemplars: int
    der_exemplars: int
    der_params: int
    memo_exemplars: int
    memo_params: int
    printed_mib: str
    printed_single_exemplars: int | None = None
    printed_memo_exemplars: int | None = None

    @property
    def mib(self) -> float:
        """The budget in MiB."""
        return self.budget_bytes / MIB

    @property
    def memo_model_bytes(self) -> int:
        """What MEMO's networks take of the budget after the last task."""
        return PARAMETER_BYTES * self.memo_params


@dataclass(frozen=True)
class Benchmark:
    """A row of protocol 1: as many exemplars for everyone, whatever the networks beside them weigh.

    Attributes:
        setting: data set and split.
        backbone: of all methods.
        tasks: T, the first one included.
        exemplars: K, of everyone.
        single_bytes: what a method with one net carries after the last task.
        memo_bytes: what MEMO carries.
        der_bytes: what DER carries.
    """

    setting: str
    backbone: str
    tasks: int
    exemplars: int
    single_bytes: int
    memo_bytes: int
    der_bytes: int


@cache
def halves(backbone: str) -> Halves:
    """Count a backbone in MEMO's two parts, on torch's meta device: nothing is allocated or drawn.

    Raises:
        ConfigError: no such backbone.
    """
    return halves_on(backbone, CIFAR if backbone in CIFAR_NETS else IMAGENET)


@cache
def halves_on(backbone: str, shape: tuple[int, ...]) -> Halves:
    """Count a backbone in MEMO's two parts for inputs of another shape than the papers'."""
    import torch

    from clearn.parts.backbones import blueprint
    from clearn.stream import Inputs

    plan = blueprint(backbone, Inputs(shape))
    with torch.device("meta"):
        generalized, specialized = (_weigh(build()) for build in plan.split())
    return Halves(generalized, specialized)


def _weigh(module: nn.Module) -> Weight:
    buffers = list(module.buffers())
    return Weight(
        params=sum(value.numel() for value in module.parameters()),
        statistics=sum(value.numel() for value in buffers if value.is_floating_point()),
        counters=sum(value.numel() for value in buffers if not value.is_floating_point()),
    )


def der_params(backbone: str, tasks: int) -> int:
    """Backbone parameters of DER (whole-network expansion) after `tasks` tasks: T P."""
    return tasks * halves(backbone).params


def memo_params(backbone: str, tasks: int) -> int:
    """Backbone parameters of MEMO after `tasks` tasks: G + T S."""
    parts = halves(backbone)
    return parts.generalized.params + tasks * parts.specialized.params


def final_bytes(method: str, backbone: str, tasks: int, exemplars: int, shape: tuple[int, ...]) -> int:
    """What a method carries after its last task in the papers' counting: 4 bytes a parameter, H x W x 3 an image.

    Args:
        method: "der_expand" carries T nets, "memo" its general layers and T specialised blocks, every other method
            one net.
        backbone: of each net.
        tasks: T.
        exemplars: K.
        shape: of one input; of vectors, 4 bytes a number are counted.
    """
    parts = halves_on(backbone, shape)
    copies = {"der_expand": (tasks, tasks), "memo": (1, tasks)}.get(method, (1, 1))
    params = copies[0] * parts.generalized.params + copies[1] * parts.specialized.params
    image_bytes = 3 * shape[1] * shape[2] if len(shape) == 3 else PARAMETER_BYTES * prod(shape)
    return PARAMETER_BYTES * params + exemplars * image_bytes


def room(budget_bytes: int, params: int, image_bytes: int) -> int:
    """How many exemplars fit beside a model, in the papers' counting; rounded down once, not per net."""
    return (budget_bytes - PARAMETER_BYTES * params) // image_bytes


def benchmark() -> tuple[Benchmark, ...]:
    """Protocol 1: the survey's settings, with what their equal exemplar numbers come to in bytes."""
    return (
        _benchmark("CIFAR100 B0 Inc5", 20),
        _benchmark("CIFAR100 B0 Inc10", 10),
        _benchmark("CIFAR100 B0 Inc20", 5),
        _benchmark("CIFAR100 B50 Inc10", 6),
        _benchmark("ImageNet100 B0 Inc5", 20),
        _benchmark("ImageNet100 B0 Inc10", 10),
        _benchmark("ImageNet100 B50 Inc10", 6),
        _benchmark("ImageNet1000 B0 Inc100", 10, exemplars=20_000),
    )


def _benchmark(setting: str, tasks: int, exemplars: int = 2000) -> Benchmark:
    backbone, image = _net_and_image(setting)
    single, memo, der = (
        final_bytes(method, backbone, tasks, exemplars, image) for method in ("replay", "memo", "der_expand")
    )
    return Benchmark(setting, backbone, tasks, exemplars, single, memo, der)


def _net_and_image(setting: str) -> tuple[str, tuple[int, int, int]]:
    """The benchmark's backbone and the shape of an image."""
    return ("resnet32", CIFAR) if setting.startswith("CIFAR") else ("resnet18", IMAGENET)


def aligned() -> tuple[Aligned, ...]:
    """Protocol 2 ("fair"): the published settings, in the papers' order."""
    return (
        _aligned("CIFAR100 B0 Inc5", 20),
        _aligned("CIFAR100 B0 Inc10", 10),
        _aligned("CIFAR100 B0 Inc20", 5),
        _aligned("CIFAR100 B50 Inc10", 6),
        _aligned("CIFAR100 B50 Inc5", 11),
        _aligned("CIFAR100 B50 Inc25", 3),
        _aligned("ImageNet100 B0 Inc10", 10, printed_mib="713.2", printed_single=4671, printed_memo=2652),
        _aligned("ImageNet100 B50 Inc5", 11, printed_single=4970),
        _aligned("ImageNet100 B0 Inc5", 20),
        _aligned("ImageNet100 B50 Inc10", 6),
        _aligned("ImageNet1000 B0 Inc100", 10, exemplars=20_000, printed_memo=20_666),
    )


def _aligned(
    setting: str,
    tasks: int,
    exemplars: int = 2000,
    printed_mib: str | None = None,
    printed_single: int | None = None,
    printed_memo: int | None = None,
) -> Aligned:
    backbone, image = _net_and_image(setting)
    image_bytes, own = prod(image), memo_params(backbone, tasks)
    budget = PARAMETER_BYTES * der_params(backbone, tasks) + exemplars * image_bytes
    return Aligned(
        setting=setting,
        backbone=backbone,
        tasks=tasks,
        image_bytes=image_bytes,
        budget_bytes=budget,
        der_exemplars=exemplars,
        single_exemplars=room(budget, halves(backbone).params, image_bytes),
        memo_exemplars=room(budget, own, image_bytes),
        memo_params=own,
        printed_mib=printed_mib,
        printed_single_exemplars=printed_single,
        printed_memo_exemplars=printed_memo,
    )


def budget_points() -> tuple[BudgetPoint, ...]:
    """Protocol 3 ("auc"): the points of CIFAR100 B0 Inc10 (T = 10), then of ImageNet100 B50 Inc5 (T = 11)."""
    return (
        _point("CIFAR100 B0 Inc10", "convnet2", "7.6"),
        _point("CIFAR100 B0 Inc10", "resnet14", "12.4"),
        _point("CIFAR100 B0 Inc10", "resnet20", "16.0"),
        _point("CIFAR100 B0 Inc10", "resnet26", "19.8"),
        _point("CIFAR100 B0 Inc10", "resnet32", "23.5"),
        _point("ImageNet100 B50 Inc5", "convnet4", "329"),
        _point("ImageNet100 B50 Inc5", "resnet10", "493"),
        _point("ImageNet100 B50 Inc5", "resnet18", "755", printed_single=4970),
        _point("ImageNet100 B50 Inc5", "timm/resnet26", "872"),
        _point("ImageNet100 B50 Inc5", "resnet34", "1180", printed_memo=4170),
        _point("ImageNet100 B50 Inc5", "resnet50", "1273"),
    )


def _point(
    setting: str,
    backbone: str,
    printed_mib: str,
    printed_single: int | None = None,
    printed_memo: int | None = None,
) -> BudgetPoint:
    """Give everyone DER's bytes with this backbone, or at the smallest point those of one benchmark net."""
    single, image = _net_and_image(setting)
    tasks, image_bytes, exemplars = (10 if setting.startswith("CIFAR") else 11), prod(image), 2000
    der, memo, one = der_params(backbone, tasks), memo_params(backbone, tasks), halves(single).params
    smallest = backbone in ("convnet2", "convnet4")
    budget = PARAMETER_BYTES * (one if smallest else der) + exemplars * image_bytes
    return BudgetPoint(
        setting=setting,
        backbone=backbone,
        single_backbone=single,
        tasks=tasks,
        image_bytes=image_bytes,
        budget_bytes=budget,
        single_exemplars=room(budget, one, image_bytes),
        der_exemplars=room(budget, der, image_bytes),
        der_params=der,
        memo_exemplars=room(budget, memo, image_bytes),
        memo_params=memo,
        printed_mib=printed_mib,
        printed_single_exemplars=printed_single,
        printed_memo_exemplars=printed_memo,
    )
