"""The figures of the learning part as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from clearn.metrics import Floats, Spread
from clearn.report.columns import bytes_text
from clearn.report.drawing import STAND_INS, TICK, byte_unit, canvas, draw_bars, memory_axis, render, series
from clearn.report.look import CATEGORIES, DASHES, MARKERS, group_colour, known


def _steps(axes: Axes, n: int, pad: float = 0.5) -> None:
    axes.set_xlim(1 - pad, n + pad)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.set_xlabel("tasks learned")


def _percent(axes: Axes, low: float, high: float) -> None:
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))


@dataclass(frozen=True)
class Line:
    """What one group is in a figure.

    Attributes:
        label: the group's.
        index: of its colour and marker; the budgets of one method share them.
        strength: in (0, 1], paler under smaller budgets.
        points: after each step; or (bytes, accuracy) alone.
        headline: whether it is by the read-out that is judged; others are dotted.
    """

    label: str
    index: int
    strength: float
    points: Sequence[Spread | None]
    headline: bool = True


def accuracy_curves(lines: Sequence[Line], name: str) -> str:
    """Draw the accuracy after each step with a band of one standard deviation; `name` prefixes the ids."""
    with canvas(580, 400) as (figure, axes):
        seen = _draw(axes, lines)
        high = min(100, 10 * math.ceil(max(seen, default=100) / 10))
        low = max(0, min(10 * math.floor(min(seen, default=0) / 10), high - 20))
        _percent(axes, low, max(high, low + 20) + 1)
        _steps(axes, max((len(line.points) for line in lines), default=1), pad=0.2)
        about = "Accuracy on all test samples seen so far, after each step, one line per method"
        return render(figure, name, about, [line.label for line in lines])


def forgetting_curves(lines: Sequence[Line], name: str) -> str:
    """Draw forgetting after each step with a band of one standard deviation; `name` prefixes the ids."""
    with canvas(580, 400) as (figure, axes):
        seen = _draw(axes, lines)
        low, high = min(seen, default=0), max(seen, default=0)
        room = max(0.08 * (high - low), 1.0)
        _percent(axes, min(low - room, 0), high + room)
        if low < 0:
            axes.axhline(0, color=STAND_INS["line"], lw=1)
        _steps(axes, max((len(line.points) for line in lines), default=1), pad=0.2)
        about = "Forgetting after each step, one line per method"
        return render(figure, name, about, [line.label for line in lines])


def _draw(axes: Axes, lines: Sequence[Line]) -> list[float]:
    """Draw percentages by step, the first line on top; give all that is to be in view."""
    for at, line in reversed(list(enumerate(lines))):
        steps = np.array([step for step, point in enumerate(line.points, 1) if point])
        mean = np.array([100 * point.mean for point in line.points if point])
        std = np.array([100 * (point.std or 0) for point in line.points if point])
        colour = STAND_INS[group_colour(line.index)]
        if std.any():
            alpha = (0.15 if line.headline else 0.07) * line.strength
            series(axes.fill_between(steps, mean - std, mean + std, color=colour, alpha=alpha, lw=0), at)
        (drawn,) = axes.plot(
            steps,
            mean,
            color=colour,
            alpha=line.strength,
            lw=2.2 if line.headline else 1.4,
            ls=DASHES[(line.index // 8) % len(DASHES)] if line.headline else (0, (2, 2.5)),
            marker=MARKERS[line.index % len(MARKERS)],
            ms=8.5 if line.headline else 5,
            mec=STAND_INS["surface"],
            mew=0.8 if line.headline else 0.5,
            markevery=max(1, len(steps) // 10),
        )
        series(drawn, at)
    points = [point for line in lines for point in line.points if point]
    return [100 * (point.mean + sign * (point.std or 0)) for point in points for sign in (-1, 1)]


@dataclass(frozen=True)
class Curve:
    """A method under several budgets: its label, the index of its colour, and (bytes, accuracy) of each."""

    label: str
    index: int
    points: Sequence[tuple[Spread, Spread]]


def accuracy_for_memory(marks: Sequence[Line], curves: Sequence[Curve], what: str, name: str) -> str:
    """Draw an accuracy against the largest number of bytes carried.

    Args:
        marks: a group each, `points` its (bytes, accuracy).
        curves: of methods run under several budgets: a line through the means, a band of one standard deviation.
        what: the accuracy, for a screen reader.
        name: prefix of the ids.
    """
    labels = [*(mark.label for mark in marks), *(curve.label for curve in curves)]
    points = [(size, accuracy) for size, accuracy in (mark.points for mark in marks) if size and accuracy]
    with canvas(580, 400) as (figure, axes):
        sizes = [size.mean for size, _ in points]
        unit, word = byte_unit(float(np.median(sizes)))
        for at, curve in enumerate(curves, len(marks)):
            x = np.array([size.mean / unit for size, _ in curve.points])
            y = np.array([100 * accuracy.mean for _, accuracy in curve.points])
            std = np.array([100 * (accuracy.std or 0) for _, accuracy in curve.points])
            colour = STAND_INS[group_colour(curve.index)]
            if std.any():
                series(axes.fill_between(x, y - std, y + std, color=colour, alpha=0.15, lw=0), at)
            (line,) = axes.plot(x, y, color=colour, lw=2, ls=DASHES[(curve.index // 8) % len(DASHES)])
            series(line, at)
        for at, (mark, (size, accuracy)) in enumerate(zip(marks, points, strict=True)):
            drawn = axes.errorbar(
                size.mean / unit,
                100 * accuracy.mean,
                xerr=(size.std or 0) / unit or None,
                yerr=100 * (accuracy.std or 0) or None,
                color=STAND_INS[group_colour(mark.index)],
                marker=MARKERS[mark.index % len(MARKERS)],
                ms=10,
                mec=STAND_INS["surface"],
                mew=0.8,
                elinewidth=1.6,
            )
            for artist in drawn.get_children():
                series(artist, at)
        seen = [100 * (y.mean + sign * (y.std or 0)) for _, y in points for sign in (-1, 1)]
        room = max(0.15 * (max(seen) - min(seen)), 3.0)
        _percent(axes, max(0.0, min(seen) - room), min(101.0, max(seen) + room))
        axes.grid(True, axis="x")
        memory_axis(axes, [size / unit for size in sizes])
        axes.set_xlabel(f"largest carried state, {word}")
        return render(figure, name, f"{what} against bytes carried, one mark per method and budget", labels)


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
