"""The figures of the learning part as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from clearn.metrics import Floats, Spread
from clearn.report.columns import bytes_text
from clearn.report.drawing import STAND_INS, TICK, byte_unit, canvas, draw_bars, memory_axis, render
from clearn.report.look import CATEGORIES, DASHES, MARKERS, group_colour, known


def _steps(axes: Axes, n: int, pad: float = 0.5) -> None:
    axes.set_xlim(1 - pad, n + pad)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.set_xlabel("tasks learned")


def _percent(axes: Axes, low: float, high: float) -> None:
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))


def accuracy_curves(curves: Sequence[tuple[int, bool, Sequence[Spread | None]]], name: str) -> str:
    """Draw the accuracy after each step with a band of one standard deviation.

    Args:
        curves: (index of the group, whether it is the headline read-out, accuracy per step). Others are dashed.
        name: prefix of the ids.
    """
    with canvas(580, 400) as (figure, axes):
        seen = [
            100 * (point.mean + sign * (point.std or 0))
            for _, _, curve in curves
            for point in curve
            if point
            for sign in (-1, 1)
        ]
        for index, headline, curve in reversed(curves):
            steps = np.array([step for step, point in enumerate(curve, 1) if point])
            mean = np.array([100 * point.mean for point in curve if point])
            std = np.array([100 * (point.std or 0) for point in curve if point])
            colour = STAND_INS[group_colour(index)]
            if std.any():
                axes.fill_between(steps, mean - std, mean + std, color=colour, alpha=0.15 if headline else 0.07, lw=0)
            axes.plot(
                steps,
                mean,
                color=colour,
                lw=2.2 if headline else 1.4,
                ls=DASHES[(index // 8) % len(DASHES)] if headline else (0, (2, 2.5)),
                marker=MARKERS[index % len(MARKERS)],
                ms=8.5 if headline else 5,
                mec=STAND_INS["surface"],
                mew=0.8 if headline else 0.5,
                markevery=max(1, len(steps) // 10),
            )
        high = min(100, 10 * math.ceil(max(seen, default=100) / 10))
        low = max(0, min(10 * math.floor(min(seen, default=0) / 10), high - 20))
        _percent(axes, low, max(high, low + 20) + 1)
        _steps(axes, max((len(curve) for _, _, curve in curves), default=1), pad=0.2)
        return render(figure, name, "Accuracy on all test samples seen so far, after each step, one line per method")


def accuracy_for_memory(
    points: Sequence[tuple[int, Spread, Spread]],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    name: str,
) -> str:
    """Draw average incremental accuracy against the largest number of bytes carried.

    Args:
        points: (index of the group, bytes, accuracy).
        curves: (MiB, accuracy) of methods run under several budgets, joined by a line.
        name: prefix of the ids.
    """
    with canvas(580, 400) as (figure, axes):
        sizes = [size.mean for _, size, _ in points]
        unit, word = byte_unit(float(np.median(sizes)))
        for curve in curves.values():
            axes.plot(
                [x * 2**20 / unit for x, _ in curve],
                [100 * y for _, y in curve],
                color=STAND_INS["line"],
                lw=1.4,
            )
        for index, size, accuracy in points:
            axes.errorbar(
                size.mean / unit,
                100 * accuracy.mean,
                xerr=(size.std or 0) / unit or None,
                yerr=100 * (accuracy.std or 0) or None,
                color=STAND_INS[group_colour(index)],
                marker=MARKERS[index % len(MARKERS)],
                ms=11,
                mec=STAND_INS["surface"],
                mew=0.8,
                elinewidth=1.6,
            )
        seen = [100 * (y.mean + sign * (y.std or 0)) for _, _, y in points for sign in (-1, 1)]
        room = max(0.15 * (max(seen) - min(seen)), 3.0)
        _percent(axes, max(0.0, min(seen) - room), min(101.0, max(seen) + room))
        axes.grid(True, axis="x")
        memory_axis(axes, [size / unit for size in sizes])
        axes.set_xlabel(f"largest carried state, {word}")
        return render(figure, name, "Average incremental accuracy against bytes carried, one mark per method")


def carried_bytes(
    weighed: Sequence[Mapping[str, float]], budgets: Sequence[float | None], top: float, name: str
) -> str:
    """Draw the carried bytes of one group after each step, stacked by category, with the budget.

    Args:
        weighed: per step, bytes by category; shared pretrained weights are not drawn.
        budgets: bytes per step, None without a budget.
        top: the most bytes in any such figure of the stream; all have one scale.
        name: prefix of the ids.
    """
    n, (unit, word) = len(weighed), byte_unit(top)
    with canvas(400, 250) as (figure, axes):
        base = np.zeros(n)
        for category in (*CATEGORIES, *sorted({key for step in weighed for key in step} - set(CATEGORIES))):
            sizes = np.array([step.get(category, 0.0) / unit for step in weighed])
            if category != "shared_pretrained" and sizes.any():
                bars = [(i + 0.6, float(base[i]), 0.8, float(sizes[i])) for i in range(n)]
                draw_bars(axes, bars, known(category, CATEGORIES, "other"))
                base += sizes
        limits = [(step, budget / unit) for step, budget in enumerate(budgets, 1) if budget is not None]
        if limits:
            x = [limits[0][0] - 0.5, *(step for step, _ in limits), limits[-1][0] + 0.5]
            y = [limits[0][1], *(limit for _, limit in limits), limits[-1][1]]
            axes.step(x, y, where="mid", color=STAND_INS["ink"], lw=1.5, ls=(0, (5, 3)))
        if n:
            text = bytes_text(float(base[-1]) * unit)
            axes.annotate(
                text,
                (n + 0.4, base[-1]),
                (0, 3),
                textcoords="offset points",
                ha="right",
                va="bottom",
                size=TICK,
            )
        axes.set_ylim(0, top / unit * 1.13 or 1)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g} {word}"))
        _steps(axes, max(n, 1))
        return render(figure, name, "Carried bytes by category after each step")


def class_bars(accuracy: Floats, labels: Sequence[int], new: Sequence[bool] | None, group: int, name: str) -> str:
    """Draw the accuracy on each class after the last step; classes of the last task in the full colour.

    Args:
        accuracy: (c,) in [0, 1], NaN where nothing was tested.
        labels: (c,) class labels, in the order drawn.
        new: (c,) whether a class came with the last task; None where classes repeat over tasks.
        group: index of the group.
        name: prefix of the ids.
    """
    with canvas(400, 220) as (figure, axes):
        height = 100 * np.nan_to_num(accuracy)
        width = 0.8 if len(labels) <= 60 else 1.0
        bars = [(i - width / 2, 0.0, width, float(height[i])) for i in range(len(labels))]
        fresh = [True] * len(labels) if new is None else list(new)
        draw_bars(axes, [bar for bar, one in zip(bars, fresh, strict=True) if not one], group_colour(group), 0.45)
        draw_bars(axes, [bar for bar, one in zip(bars, fresh, strict=True) if one], group_colour(group))
        _percent(axes, 0, 101)
        axes.set_xlim(-0.7, len(labels) - 0.3)
        every = math.ceil(len(labels) / 20) if len(labels) <= 20 else 5 * math.ceil(len(labels) / 60)
        axes.xaxis.set_major_locator(FixedLocator(list(range(0, len(labels), every))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: str(labels[int(value)])))
        axes.set_xlabel("class, in the order learned" if new is not None else "class")
        return render(figure, name, "Accuracy on each class after the last step")
