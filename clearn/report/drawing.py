"""What every figure of the page is drawn with: matplotlib under our settings, as inline SVG.

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
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from clearn.report.look import PHASES, VARIABLES, known

# matplotlib draws with one stand-in colour per CSS variable; `_inline` puts the variables in.
STAND_INS = {name: f"#0101{index:02x}" for index, name in enumerate(VARIABLES)}
NAMES = {colour: name for name, colour in STAND_INS.items()}
LABEL = 13  # font size of labels, in px at the figure's own width
TICK = 12

Bar = tuple[float, float, float, float]  # left, bottom, width, height


@contextmanager
def canvas(width: int, height: int) -> Iterator[tuple[Figure, Axes]]:
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


def series(artist: Artist, at: int) -> None:
    """Mark what belongs to the at-th series of a figure, so that the page's filter can hide it."""
    artist.set_gid(f"series-{at}")


def render(figure: Figure, name: str, description: str, labels: Sequence[str] = ()) -> str:
    """Render a figure for use inside a page.

    Args:
        figure: drawn.
        name: makes its ids unique there.
        description: for a screen reader.
        labels: of its series, see `series`.
    """
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(out.getvalue(), name, description, labels)


def _inline(svg: str, name: str, description: str, labels: Sequence[str]) -> str:
    """Strip what a page does not need from matplotlib's SVG, and put the colour variables in."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.S)
    view = re.search(r'viewBox="([^"]*)"', svg)
    assert view is not None, "matplotlib writes a viewBox"
    head = f'<svg viewBox="{view[1]}" role="img" aria-label="{escape(description)}">'
    svg = head + svg[svg.index(">") + 1 :]
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r' id="series-(\d+)"', lambda m: f' data-label="{escape(labels[int(m[1])])}"', svg)
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


def draw_bars(axes: Axes, bars: Sequence[Bar], colour: str, alpha: float = 1.0) -> None:
    """Draw bars of one colour as one path, which keeps the page small."""
    corners = [[(x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y)] for x, y, w, h in bars if h and w]
    if corners:
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
        path = Path(np.concatenate(corners), codes * len(corners))
        if alpha < 1:
            axes.add_patch(PathPatch(path, facecolor=STAND_INS["surface"], edgecolor="none"))
        axes.add_patch(PathPatch(path, facecolor=STAND_INS[colour], edgecolor="none", alpha=alpha))


def byte_unit(most: float) -> tuple[float, str]:
    """Give the binary unit that suits the largest of some sizes: (bytes, name)."""
    power, name = next(((p, n) for p, n in ((30, "GiB"), (20, "MiB"), (10, "KiB")) if most >= 2**p), (0, "B"))
    return float(2**power), name


def memory_axis(axes: Axes, sizes: Sequence[float]) -> None:
    """Scale x to some sizes: from 0, by doublings where they span a factor of 8, around them where they are close."""
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
        room = 0.12 * (high - low)
        axes.set_xlim(*((low - room, high + room) if room and high < 2.5 * low else (0, high * 1.12 or 1)))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))


def log_errors(axes: Axes, low: float, high: float) -> None:
    """Scale y to squared errors by their powers of ten, with ticks between where there are few of these."""
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    subs = (1.0, 2.0, 5.0) if math.log10(high / low) < 1.8 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-")))


def guess_line(axes: Axes, guess: float | None) -> None:
    """Draw the error of the uniform guess, and name it at the right; none has no place on a logarithmic axis."""
    if guess:
        axes.axhline(guess, color=STAND_INS["ink"], lw=1.3, ls=(0, (5, 3)))
        name_line(axes, guess, "uniform guess")


def name_line(axes: Axes, y: float, text: str, left: bool = False) -> None:
    """Write above a horizontal line what it is, at its right end or its left."""
    axes.annotate(
        text,
        (0.0 if left else 1.0, y),
        (0, 4),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="left" if left else "right",
        va="bottom",
        size=TICK,
    )


def time_split(rows: Sequence[tuple[str, Mapping[str, float]]], name: str) -> str:
    """Draw where the wall time went, a bar per group.

    Args:
        rows: (label, seconds by phase).
        name: prefix of the ids.
    """
    with canvas(680, 54 + 34 * len(rows)) as (figure, axes):
        base = np.zeros(len(rows))
        for phase in (*PHASES, *sorted({key for _, split in rows for key in split} - set(PHASES))):
            taken = np.array([split.get(phase, 0.0) for _, split in rows])
            bars = [(float(base[i]), i - 0.32, float(taken[i]), 0.64) for i in range(len(rows))]
            draw_bars(axes, bars, known(phase, PHASES, "other-phase"))
            base += taken
        for i, total in enumerate(base):
            text = f"{total:,.0f} s" if total >= 100 else f"{total:.1f} s" if total >= 1 else f"{total:.2f} s"
            axes.annotate(text, (total, i), (5, 0), textcoords="offset points", va="center", size=TICK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, float(base.max(initial=0)) * 1.09 or 1)
        labels = [label if len(label) <= 34 else f"{label[:33]}…" for label, _ in rows]
        axes.set_yticks(range(len(rows)), labels=labels, size=LABEL, color=STAND_INS["ink"])
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
        axes.set_xlabel("wall seconds, whole stream")
        return render(figure, name, "Wall time by phase, one bar per method")
