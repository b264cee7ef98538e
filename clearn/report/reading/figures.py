"""The figures of the reading part as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from clearn.metrics import Spread
from clearn.report.columns import bytes_text
from clearn.report.drawing import STAND_INS, byte_unit, canvas, render
from clearn.report.look import DASHES, MARKERS, group_colour

Curve = Sequence[Spread | None]


def score_curves(
    curves: Sequence[tuple[int, bool, Curve]], read: Sequence[int], requests: Sequence[int], about: str, name: str
) -> str:
    """Draw a score over the documents read so far, with a band of one standard deviation.

    Args:
        curves: (index of the group, whether of documents to be forgotten, score after each step). Those are dotted.
        read: documents read up to each step.
        requests: steps, from 1, that are requests to forget: they read none and are marked by a line.
        about: what is drawn, for those who cannot see it.
        name: prefix of the ids.
    """
    with canvas(480, 350) as (figure, axes):
        for step in requests:
            axes.axvline(read[step - 1], color=STAND_INS["line"], lw=1.4, ls=(0, (5, 3)))
        high = 0.0
        for index, forgotten, curve in reversed(curves):
            at = np.array([read[step] for step, point in enumerate(curve) if point])
            mean = np.array([100 * point.mean for point in curve if point])
            std = np.array([100 * (point.std or 0) for point in curve if point])
            high = max(high, float((mean + std).max(initial=0)))
            colour = STAND_INS[group_colour(index)]
            if std.any():
                low = np.clip(mean - std, 0, None)
                axes.fill_between(at, low, mean + std, color=colour, alpha=0.07 if forgotten else 0.15, lw=0)
            axes.plot(
                at,
                mean,
                color=colour,
                lw=1.5 if forgotten else 2.2,
                ls=(0, (1.5, 1.8)) if forgotten else DASHES[(index // 8) % len(DASHES)],
                marker=MARKERS[index % len(MARKERS)],
                ms=5 if forgotten else 8.5,
                mec=STAND_INS["surface"],
                mew=0.8,
                markevery=max(1, len(at) // 10),
            )
        _percent(axes, high)
        axes.set_xlim(0, read[-1] * 1.04 or 1)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("documents read")
        return render(figure, name, about)


def score_for_bytes(points: Sequence[tuple[int, Spread, Spread]], words: str, name: str) -> str:
    """Draw strict EM against bytes, a mark per method; a method without any stands at 0, left of all others.

    Args:
        points: (index of the group, bytes, EM).
        words: what the bytes are, for the axis.
        name: prefix of the ids.
    """
    with canvas(480, 350) as (figure, axes):
        for index, size, em in points:
            axes.errorbar(
                size.mean,
                100 * em.mean,
                xerr=size.std or None,
                yerr=100 * (em.std or 0) or None,
                color=STAND_INS[group_colour(index)],
                marker=MARKERS[index % len(MARKERS)],
                ms=11,
                mec=STAND_INS["surface"],
                mew=0.8,
                elinewidth=1.6,
                clip_on=False,
            )
        _percent(axes, max(100 * (em.mean + (em.std or 0)) for _, _, em in points))
        axes.grid(True, axis="x")
        _byte_axis(axes, [size.mean for _, size, _ in points])
        axes.set_xlabel(words)
        return render(figure, name, f"Exact match against {words}, one mark per method")


def _percent(axes: Axes, high: float) -> None:
    """Scale y from 0 to a little above the highest score, which may be far below 100 %."""
    top = min(max(1.12 * high, 5.0), 102.0) if high <= 100 else 1.06 * high
    axes.set_ylim(-0.02 * top, top)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))


def _byte_axis(axes: Axes, sizes: Sequence[float]) -> None:
    """Scale x to bytes: from 0, or by doublings where they span more than a factor of 8, with a place for 0 then."""
    some, most = [size for size in sizes if size > 0], max(sizes)
    if not some or (len(some) == len(sizes) and most / min(some) <= 8):
        unit, _ = byte_unit(most)
        ticks = [unit * float(tick) for tick in MaxNLocator(nbins=6).tick_values(0, most / unit or 1)]
        axes.set_xlim(0, ticks[-1])
    else:
        first, last = math.floor(math.log2(min(some)) - 0.2), math.ceil(math.log2(most) + 0.2)
        ticks = [2.0**power for power in range(first, last + 1, max(1, math.ceil((last - first) / 5)))]
        if len(some) == len(sizes):
            axes.set_xscale("log", base=2)
            axes.set_xlim(2.0**first, 2.0**last)
        else:
            axes.set_xscale("symlog", base=2, linthresh=2.0**first, linscale=max(1.0, (last - first) / 10))
            axes.set_xlim(-(2.0**first) * 0.15, 2.0**last)
            ticks = [0.0, *ticks]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _size(value)))


def _size(value: float) -> str:
    """Print a round number of bytes without decimals that say nothing.

    >>> _size(0), _size(512), _size(1536), _size(2.0**21)
    ('0', '512 B', '1.5 KiB', '2 MiB')
    """
    if value <= 0:
        return "0"
    number, _, unit = bytes_text(value).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"
