"""The figures of the unlearning part as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from clearn.forgetting import LOW_FPRS, Roc
from clearn.metrics import Floats, Spread
from clearn.report.drawing import LABEL, STAND_INS, TICK, canvas, draw_bars, render
from clearn.report.look import DASHES, MARKERS, group_colour

LOWEST = 1e-3  # false positive rate at which the curves begin, and where a rate of 0 is drawn
RATES = np.geomspace(LOWEST, 1, 121)


@dataclass(frozen=True)
class Bar:
    """A group's accuracy.

    Attributes:
        label: of the group.
        index: of the group, for its colour.
        accuracy: over its runs.
        pale: for a control.
    """

    label: str
    index: int
    accuracy: Spread
    pale: bool


def accuracy_bars(
    bars: Sequence[Bar], retrained: float | None, interval: tuple[float, float] | None, name: str, about: str
) -> str:
    """Draw the accuracies of all groups beside retraining's mean and interval.

    Args:
        bars: top to bottom.
        retrained: mean of the retrained models, None without any.
        interval: of that mean; None for a single one.
        name: prefix of the ids.
        about: what the accuracy is of, for the axis.
    """
    with canvas(560, 64 + 30 * len(bars)) as (figure, axes):
        if interval is not None:
            axes.axvspan(100 * interval[0], 100 * interval[1], color=STAND_INS["ink"], alpha=0.13, lw=0)
        for at, bar in enumerate(bars):
            height = (0.0, at - 0.3, 100 * bar.accuracy.mean, 0.6)
            draw_bars(axes, [height], group_colour(bar.index), 0.45 if bar.pale else 1.0)
            if bar.accuracy.std:
                ends = np.clip([bar.accuracy.mean - bar.accuracy.std, bar.accuracy.mean + bar.accuracy.std], 0, 1)
                axes.plot(100 * ends, [at, at], color=STAND_INS["ink"], lw=1.4)
            edge = min(1.0, bar.accuracy.mean + (bar.accuracy.std or 0))
            text = f"{100 * bar.accuracy.mean:.1f}"
            axes.annotate(text, (100 * edge, at), (5, 0), textcoords="offset points", va="center", size=TICK)
        if retrained is not None:
            axes.axvline(100 * retrained, color=STAND_INS["ink"], lw=1.4, ls=(0, (5, 3)))
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlim(-1, 112)
        axes.xaxis.set_major_locator(FixedLocator([0, 20, 40, 60, 80, 100]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))
        labels = [bar.label if len(bar.label) <= 26 else f"{bar.label[:25]}…" for bar in bars]
        axes.set_yticks(range(len(bars)), labels=labels, size=LABEL, color=STAND_INS["ink"])
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
        axes.set_xlabel(about)
        return render(figure, name, f"{about}, one bar per method, with the interval of retraining")


def mean_tpr(curves: Sequence[Roc]) -> Floats:
    """Average the true positive rates of several curves at `RATES`: (121,)."""
    return np.mean([[curve.tpr_at(float(rate)) for rate in RATES] for curve in curves], axis=0)


def attack_curves(curves: Sequence[tuple[int, Floats]], name: str) -> str:
    """Draw the loss attack's ROC with both axes logarithmic, and where it is read.

    Args:
        curves: (index of the group, mean true positive rates at `RATES`).
        name: prefix of the ids.
    """
    with canvas(560, 430) as (figure, axes):
        axes.plot(RATES, RATES, color=STAND_INS["ink"], lw=1.2, ls=(0, (5, 3)))
        for rate in LOW_FPRS:
            axes.axvline(rate, color=STAND_INS["line"], lw=1.2, ls=(0, (1.5, 2)))
        for index, rates in reversed(curves):
            axes.plot(
                RATES,
                np.maximum(rates, LOWEST),
                color=STAND_INS[group_colour(index)],
                lw=2,
                ls=DASHES[(index // 8) % len(DASHES)],
                marker=MARKERS[index % len(MARKERS)],
                ms=6,
                mec=STAND_INS["surface"],
                mew=0.6,
                markevery=20,
            )
        for axis, scale, limit in (
            (axes.xaxis, axes.set_xscale, axes.set_xlim),
            (axes.yaxis, axes.set_yscale, axes.set_ylim),
        ):
            scale("log")
            limit(LOWEST * 0.85, 1.15)
            axis.set_major_locator(FixedLocator([0.001, 0.01, 0.1, 1]))
            axis.set_minor_locator(FixedLocator([]))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        axes.grid(True, axis="x")
        axes.set_xlabel("false positive rate: unseen samples called member")
        axes.set_ylabel("true positive rate")
        return render(figure, name, "True against false positive rate of the loss attack, one line per method")


def event_curves(
    curves: Sequence[tuple[int, Sequence[Spread | None], Sequence[Spread | None]]],
    events: Sequence[str],
    requests: Sequence[int],
    name: str,
) -> str:
    """Draw test accuracy on remaining classes (solid) and forgotten ones (dotted) after each event.

    Args:
        curves: (index of the group, accuracy on remaining classes, on forgotten ones), a point per event.
        events: what each is called on the axis.
        requests: steps, from 1, that are requests.
        name: prefix of the ids.
    """
    with canvas(820, 400) as (figure, axes):
        for step in requests:
            axes.axvline(step, color=STAND_INS["line"], lw=1.4, ls=(0, (5, 3)))
        for index, remaining, forgotten in reversed(curves):
            _event_line(axes, remaining, index, dotted=False)
            _event_line(axes, forgotten, index, dotted=True)
        axes.set_ylim(-2, 102)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))
        axes.set_xlim(0.7, len(events) + 0.3)
        every = -(-len(events) // 16)
        shown = sorted({*range(1, len(events) + 1, every), *requests})
        axes.set_xticks(shown, labels=[events[step - 1] for step in shown])
        axes.set_xlabel("task learned, or request answered (R)")
        return render(figure, name, "Test accuracy on remaining and on forgotten classes after each event")


def _event_line(axes: Axes, curve: Sequence[Spread | None], index: int, dotted: bool) -> None:
    steps = np.array([step for step, point in enumerate(curve, 1) if point])
    mean = np.array([100 * point.mean for point in curve if point])
    std = np.array([100 * (point.std or 0) for point in curve if point])
    colour = STAND_INS[group_colour(index)]
    if std.any():
        low, high = np.clip([mean - std, mean + std], 0, 100)
        axes.fill_between(steps, low, high, color=colour, alpha=0.08, lw=0)
    axes.plot(
        steps,
        mean,
        color=colour,
        lw=1.7 if dotted else 2.1,
        ls=(0, (1.5, 1.8)) if dotted else DASHES[(index // 8) % len(DASHES)],
        marker=MARKERS[index % len(MARKERS)],
        ms=5 if dotted else 7,
        mec=STAND_INS["surface"],
        mew=0.6,
    )
