"""The figures of the HTML page as inline SVG; the only module that imports matplotlib.

Text stays text, colours are the page's CSS variables, and the same runs give the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from clearn.metrics import Floats, Spread
from clearn.report.look import CATEGORIES, DASHES, MARKERS, PHASES, VARIABLES, group_colour, known
from clearn.report.tables import bytes_text

# matplotlib draws with one stand-in colour per CSS variable; `_inline` puts the variables in.
STAND_INS = {name: f"#0101{index:02x}" for index, name in enumerate(VARIABLES)}
NAMES = {colour: name for name, colour in STAND_INS.items()}
LABEL = 13  # font size of labels, in px at the figure's own width
TICK = 12

Bar = tuple[float, float, float, float]  # left, bottom, width, height


@contextmanager
def _axes(width: int, height: int) -> Iterator[tuple[Figure, Axes]]:
    """Give plain axes of a figure of so many px; drawn into it under our settings alone."""
    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "clearn",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": LABEL,
        "text.color": STAND_INS["ink"],
        "axes.edgecolor": STAND_INS["line"],
        "axes.labelcolor": STAND_INS["muted"],
        "axes.labelsize": LABEL,
        "axes.facecolor": "none",
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "grid.color": STAND_INS["grid"],
        "grid.linewidth": 1,
        "xtick.color": STAND_INS["line"],
        "ytick.color": STAND_INS["line"],
        "xtick.labelcolor": STAND_INS["muted"],
        "ytick.labelcolor": STAND_INS["muted"],
        "xtick.labelsize": TICK,
        "ytick.labelsize": TICK,
        "ytick.major.size": 0,
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)  # type: ignore[arg-type]  # keys are literals there
        layout = ConstrainedLayoutEngine(w_pad=2 / 72, h_pad=2 / 72)
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout=layout)
        axes = figure.add_subplot()
        axes.grid(True, axis="y")
        yield figure, axes


def _svg(figure: Figure, name: str, description: str) -> str:
    """Render a figure for use inside a page; `name` makes its ids unique there."""
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(out.getvalue(), name, description)


def _inline(svg: str, name: str, description: str) -> str:
    """Strip what a page does not need from matplotlib's SVG, and put the colour variables in."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.S)
    view = re.search(r'viewBox="([^"]*)"', svg)
    assert view is not None, "matplotlib writes a viewBox"
    head = f'<svg viewBox="{view[1]}" role="img" aria-label="{escape(description)}">'
    svg = head + svg[svg.index(">") + 1 :]
    svg = svg.replace("xlink:href", "href")
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
    targets = {target for pair in used for target in pair if target}
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in targets else "", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)  # the family is the page's, not ours
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    svg = re.sub(r"#0101[0-9a-f]{2}", lambda m: f"var(--{NAMES[m[0]]})", svg)
    svg = re.sub(r"<[^>]*>", lambda m: re.sub(r"(\d\.\d{2})\d+", r"\1", m[0]), svg)
    for _ in range(3):
        svg = re.sub(r"<g>\s*</g>|<defs>\s*</defs>", "", svg)
    return re.sub(r">\s+<", "><", svg).strip()


def _bars(axes: Axes, bars: Sequence[Bar], colour: str, alpha: float = 1.0) -> None:
    """Draw bars of one colour as one path, which keeps the page small."""
    corners = [[(x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y)] for x, y, w, h in bars if h and w]
    if corners:
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
        path = Path(np.concatenate(corners), codes * len(corners))
        if alpha < 1:
            axes.add_patch(PathPatch(path, facecolor=STAND_INS["surface"], edgecolor="none"))
        axes.add_patch(PathPatch(path, facecolor=STAND_INS[colour], edgecolor="none", alpha=alpha))


def _steps(axes: Axes, n: int, pad: float = 0.5) -> None:
    axes.set_xlim(1 - pad, n + pad)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.set_xlabel("tasks learned")


def _percent(axes: Axes, low: float, high: float) -> None:
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))


def _unit(most: float) -> tuple[float, str]:
    """Give the binary unit that suits the largest of some sizes: (bytes, name)."""
    power, name = next(((p, n) for p, n in ((30, "GiB"), (20, "MiB"), (10, "KiB")) if most >= 2**p), (0, "B"))
    return float(2**power), name


def accuracy_curves(curves: Sequence[tuple[int, bool, Sequence[Spread | None]]], name: str) -> str:
    """Draw the accuracy after each step with a band of one standard deviation.

    Args:
        curves: (index of the group, whether it is the headline read-out, accuracy per step). Others are dashed.
        name: prefix of the ids.
    """
    with _axes(580, 400) as (figure, axes):
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
        return _svg(figure, name, "Accuracy on all test samples seen so far, after each step, one line per method")


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
    with _axes(580, 400) as (figure, axes):
        sizes = [size.mean for _, size, _ in points]
        unit, word = _unit(float(np.median(sizes)))
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
        _memory_axis(axes, [size / unit for size in sizes])
        axes.set_xlabel(f"largest carried state, {word}")
        return _svg(figure, name, "Average incremental accuracy against bytes carried, one mark per method")


def _memory_axis(axes: Axes, sizes: Sequence[float]) -> None:
    """Scale x to some sizes: from 0, or by doublings where they span more than a factor of 8."""
    low, high = min(sizes), max(sizes)
    if low > 0 and high / low > 8:
        first, last = math.floor(math.log2(low) - 0.2), math.ceil(math.log2(high) + 0.2)
        axes.set_xscale("log", base=2)
        axes.set_xlim(2.0**first, 2.0**last)
        every = max(1, (last - first) // 6)
        axes.xaxis.set_major_locator(FixedLocator([2.0**power for power in range(first, last + 1, every)]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    else:
        axes.set_xlim(0, high * 1.12 or 1)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))


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
    n, (unit, word) = len(weighed), _unit(top)
    with _axes(400, 250) as (figure, axes):
        base = np.zeros(n)
        for category in (*CATEGORIES, *sorted({key for step in weighed for key in step} - set(CATEGORIES))):
            sizes = np.array([step.get(category, 0.0) / unit for step in weighed])
            if category != "shared_pretrained" and sizes.any():
                bars = [(i + 0.6, float(base[i]), 0.8, float(sizes[i])) for i in range(n)]
                _bars(axes, bars, known(category, CATEGORIES, "other"))
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
        return _svg(figure, name, "Carried bytes by category after each step")


def class_bars(accuracy: Floats, labels: Sequence[int], new: Sequence[bool] | None, group: int, name: str) -> str:
    """Draw the accuracy on each class after the last step; classes of the last task in the full colour.

    Args:
        accuracy: (c,) in [0, 1], NaN where nothing was tested.
        labels: (c,) class labels, in the order drawn.
        new: (c,) whether a class came with the last task; None where classes repeat over tasks.
        group: index of the group.
        name: prefix of the ids.
    """
    with _axes(400, 220) as (figure, axes):
        height = 100 * np.nan_to_num(accuracy)
        width = 0.8 if len(labels) <= 60 else 1.0
        bars = [(i - width / 2, 0.0, width, float(height[i])) for i in range(len(labels))]
        fresh = [True] * len(labels) if new is None else list(new)
        _bars(axes, [bar for bar, one in zip(bars, fresh, strict=True) if not one], group_colour(group), 0.45)
        _bars(axes, [bar for bar, one in zip(bars, fresh, strict=True) if one], group_colour(group))
        _percent(axes, 0, 101)
        axes.set_xlim(-0.7, len(labels) - 0.3)
        every = math.ceil(len(labels) / 20) if len(labels) <= 20 else 5 * math.ceil(len(labels) / 60)
        axes.xaxis.set_major_locator(FixedLocator(list(range(0, len(labels), every))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: str(labels[int(value)])))
        axes.set_xlabel("class, in the order learned" if new is not None else "class")
        return _svg(figure, name, "Accuracy on each class after the last step")


def time_split(rows: Sequence[tuple[str, Mapping[str, float]]], name: str) -> str:
    """Draw where the wall time went, a bar per group.

    Args:
        rows: (label, seconds by phase).
        name: prefix of the ids.
    """
    with _axes(680, 54 + 34 * len(rows)) as (figure, axes):
        base = np.zeros(len(rows))
        for phase in (*PHASES, *sorted({key for _, split in rows for key in split} - set(PHASES))):
            taken = np.array([split.get(phase, 0.0) for _, split in rows])
            bars = [(float(base[i]), i - 0.32, float(taken[i]), 0.64) for i in range(len(rows))]
            _bars(axes, bars, known(phase, PHASES, "other-phase"))
            base += taken
        for i, total in enumerate(base):
            text = f"{total:,.0f} s" if total >= 100 else f"{total:.1f} s"
            axes.annotate(text, (total, i), (5, 0), textcoords="offset points", va="center", size=TICK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, float(base.max(initial=0)) * 1.09 or 1)
        labels = [label if len(label) <= 34 else f"{label[:33]}…" for label, _ in rows]
        axes.set_yticks(range(len(rows)), labels=labels, size=LABEL, color=STAND_INS["ink"])
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
        axes.set_xlabel("wall seconds, whole stream")
        return _svg(figure, name, "Wall time by phase, one bar per method")
