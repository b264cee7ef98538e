"""Areas under accuracy for memory as the survey of MEMO's authors prints them (arXiv 2302.03648), typed in.

Neither paper says so, but the integral runs over the printed range of budgets alone: divided by it, 15.9 MiB on
CIFAR100 and 944 on ImageNet100, an area is the mean accuracy over the budgets.
"""

from __future__ import annotations

from dataclasses import dataclass

from clearn.published import budget_points


@dataclass(frozen=True)
class Area:
    """A published area under accuracy for memory, from the first budget point of a setting to its last.

    Attributes:
        setting: data set and split, one of those that have budget points.
        method: its name here; "gem" is no strategy of ours.
        average: AUC-A, of the average incremental accuracy as a fraction, in MiB.
        last: AUC-L, of the accuracy after the last task, in MiB.
        range_mib: between the setting's first and last points as the papers print them.
    """

    setting: str
    method: str
    average: float
    last: float
    range_mib: float

    @property
    def shares(self) -> tuple[float, float]:
        """Both areas over the range: mean accuracies over the budgets, as fractions."""
        return self.average / self.range_mib, self.last / self.range_mib


def areas() -> tuple[Area, ...]:
    """Published AUC-A and AUC-L over the budget points, in the papers' order.

    WA, iCaRL and MEMO lie within 0.3 points of mean accuracy of each other on CIFAR100; the papers give no deviations.
    """
    points = budget_points()
    found = []
    for setting, methods in _AREAS.items():
        printed = [float(point.printed_mib) for point in points if point.setting == setting]
        found += [Area(setting, name, *both, printed[-1] - printed[0]) for name, both in methods.items()]
    return tuple(found)


_AREAS = {  # the survey's table of areas; AUC-A and AUC-L in MiB
    "CIFAR100 B0 Inc10": {
        "gem": (4.31, 1.70),
        "podnet": (9.42, 6.80),
        "replay": (10.49, 8.02),
        "coil": (10.60, 7.82),
        "bic": (10.73, 8.30),
        "der_expand": (10.74, 8.95),
        "wa": (10.80, 8.92),
        "icarl": (10.81, 8.64),
        "memo": (10.85, 9.03),
        "foster": (11.12, 9.03),
    },
    "ImageNet100 B50 Inc5": {
        "replay": (553.6, 470.1),
        "bic": (592.7, 474.2),
        "coil": (601.9, 486.5),
        "icarl": (607.1, 527.5),
        "foster": (638.7, 566.3),
        "wa": (666.0, 581.7),
        "der_expand": (699.0, 639.1),
        "podnet": (701.8, 624.9),
        "memo": (713.0, 654.6),
    },
}
