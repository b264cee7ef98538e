"""The figures of the collections part as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from clearn.metrics import Spread
from clearn.report.collections.looking import Look
from clearn.report.columns import bytes_text, digits_text
from clearn.report.drawing import STAND_INS, canvas, guess_line, log_errors, name_line, render
from clearn.report.look import DASHES, MARKERS, group_colour


@dataclass(frozen=True)
class Point:
    """An error at some x: a budget, or bytes; `budget` is eps_inf."""

    x: float
    error: Spread
    budget: float = 0.0


def _span(errors: Sequence[Spread | None], others: Sequence[float | None]) -> tuple[float, float]:
    """Give limits of a logarithmic axis around errors, their deviations where these leave something, and others."""
    seen = [one for one in others if one]
    for one in errors:
        if one and one.mean > 0:
            seen += [one.mean, one.mean + (one.std or 0), max(one.mean - (one.std or 0), one.mean / 2)]
    low, high = min(seen, default=0.1), max(seen, default=1.0)
    room = max(0.06 * math.log10(high / low), 0.06)
    return low / 10**room, high * 10 ** (1.6 * room)


def _band(axes: Axes, x: Sequence[float], errors: Sequence[Spread], low: float, colour: str, alpha: float) -> None:
    if any(one.std for one in errors):
        bottom = [max(one.mean - (one.std or 0), low / 2) for one in errors]
        top = [one.mean + (one.std or 0) for one in errors]
        axes.fill_between(x, bottom, top, color=STAND_INS[colour], alpha=alpha, lw=0)


def error_for_eps(lines: Sequence[tuple[Look, Sequence[Point]]], guess: float | None, title: str, name: str) -> str:
    """Draw the error against a budget, with a band of one standard deviation.

    Args:
        lines: (how it looks, points by ascending x).
        guess: error of the uniform guess.
        title: of the x axis.
        name: prefix of the ids.
    """
    with canvas(580, 400) as (figure, axes):
        low, high = _span([point.error for _, points in lines for point in points], [guess])
        for look, points in reversed(lines):
            x, colour = [point.x for point in points], group_colour(look.number)
            _band(axes, x, [point.error for point in points], low, colour, 0.11)
            axes.plot(
                x,
                [point.error.mean for point in points],
                color=STAND_INS[colour],
                lw=2.2,
                ls=DASHES[look.dash % len(DASHES)],
                ms=8.5,
                **_marker(look),
            )
        log_errors(axes, low, high)
        _budgets(axes, sorted({point.x for _, points in lines for point in points}))
        axes.set_xlabel(title)
        guess_line(axes, guess)
        return render(figure, name, "Error against the privacy budget, one line per protocol, and the uniform guess")


def _marker(look: Look) -> dict[str, Any]:
    """Give what matplotlib needs to draw a marker, filled or as an outline."""
    colour, surface = STAND_INS[group_colour(look.number)], STAND_INS["surface"]
    marker = MARKERS[look.number % len(MARKERS)]
    if look.hollow:
        return {"marker": marker, "mfc": surface, "mec": colour, "mew": 1.6}
    return {"marker": marker, "mfc": colour, "mec": surface, "mew": 0.8}


def _aside(places: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Give factors that set lines at one place side by side on a logarithmic axis over `sizes`."""
    doublings = math.log2(sizes[-1] / sizes[0]) + 1 if sizes else 1.0
    factors = []
    for at, place in enumerate(places):
        same = [other for other, here in enumerate(places) if here == place]
        factors.append(2.0 ** (0.024 * doublings * (same.index(at) - (len(same) - 1) / 2)))
    return factors


def _budgets(axes: Axes, values: Sequence[float]) -> None:
    """Scale x to the budgets that were run, by their logarithm where they span a lot."""
    if values[-1] / values[0] > 20:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        shown = values
    else:
        room = 0.04 * (values[-1] - values[0])
        axes.set_xlim(values[0] - room, values[-1] + room)
        steps = 1 + (len(values) - 1) // 12
        shown = values[:: steps or 1]
    axes.xaxis.set_major_locator(FixedLocator(list(shown)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: digits_text(value)))


def error_for_bytes(series: Sequence[tuple[Look, Sequence[Point]]], guess: float | None, name: str) -> str:
    """Draw the error against the bytes that a device may have to keep; larger marks are larger budgets.

    Args:
        series: (how it looks, points), joined by a line.
        guess: error of the uniform guess.
        name: prefix of the ids.
    """
    with canvas(580, 400) as (figure, axes):
        every = [point for _, points in series for point in points]
        sizes = sorted({point.x for point in every if point.x > 0})
        nothing = sizes[0] / 4 if sizes else 1.0  # where a logarithmic axis has its zero
        ranks = {budget: rank for rank, budget in enumerate(sorted({point.budget for point in every}))}
        low, high = _span([point.error for point in every], [guess])
        aside = _aside([point.x for _, points in series for point in points[:1]], sizes)
        for (look, points), shift in zip(series, aside, strict=True):
            colour, x = STAND_INS[group_colour(look.number)], [(point.x or nothing) * shift for point in points]
            dashes = DASHES[look.dash % len(DASHES)]
            axes.plot(x, [point.error.mean for point in points], color=colour, lw=1.2, ls=dashes, alpha=0.6)
            for place, point in zip(x, points, strict=True):
                spread = point.error.std or 0
                bars = [[min(spread, point.error.mean - low / 2)], [spread]] if spread else None
                axes.errorbar(
                    place,
                    point.error.mean,
                    yerr=bars,
                    color=colour,
                    ms=10 if len(ranks) == 1 else 6 + 6 * ranks[point.budget] / (len(ranks) - 1),
                    elinewidth=1.2,
                    **_marker(look),
                )
        log_errors(axes, low, high)
        _sizes(axes, sizes, nothing if any(not point.x for point in every) else None)
        axes.grid(True, axis="x")
        axes.set_xlabel("bytes on a device, worst case")
        guess_line(axes, guess)
        return render(
            figure, name, "Error against bytes on a device, one mark per configuration, and the uniform guess"
        )


def _sizes(axes: Axes, sizes: Sequence[float], nothing: float | None) -> None:
    """Scale x to bytes by doublings, with a place of its own for those who keep nothing."""
    axes.set_xscale("log", base=2)
    first = math.floor(math.log2(sizes[0]) - 0.2) if sizes else 0
    last = math.ceil(math.log2(sizes[-1]) + 0.2) if sizes else 1
    every = max(1, math.ceil((last - first) / 6))
    ticks = {2.0**power: bytes_text(2.0**power) for power in range(first, last + 1, every)}
    left = 2.0**first
    if nothing is not None:
        left = nothing / 1.6
        ticks = {nothing: "0 B"} | {at: text for at, text in ticks.items() if at > nothing * 1.5}
    axes.set_xlim(left, 2.0**last)
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: ticks.get(value, "")))


@dataclass(frozen=True)
class Losses:
    """Losses after each round; None where unknown, infinite where nothing bounds them."""

    static: Sequence[float | None]
    memo: Sequence[float | None]
    any: Sequence[float | None]
    eps_inf: float | None  # None also where nothing is kept, so that it bounds one round alone

    @property
    def drawn(self) -> list[float]:
        """What sets the scale: all but the loss between any trajectories, which may be far above."""
        return [
            one for one in (*self.static, *self.memo, self.eps_inf) if one is not None and one < math.inf and one > 0
        ]


def losses_over_rounds(losses: Losses, low: float, high: float, look: Look, name: str) -> str:
    """Draw what one group of users has lost after each round.

    Args:
        losses: to draw.
        low: least loss of any such figure; all have one scale, by powers of ten where it spans a lot.
        high: the largest.
        look: of its colour.
        name: prefix of the ids.
    """
    with canvas(400, 250) as (figure, axes):
        colour = STAND_INS[group_colour(look.number)]
        for curve, ink, width, dashes in (
            (losses.any, STAND_INS["muted"], 1.4, (0, (1.2, 1.8))),
            (losses.memo, colour, 1.8, (0, (5, 2))),
            (losses.static, colour, 2.4, "-"),
        ):
            known = [(step, one) for step, one in enumerate(curve, 1) if one is not None and one < math.inf]
            axes.plot([step for step, _ in known], [one for _, one in known], color=ink, lw=width, ls=dashes)
        if losses.eps_inf is not None:
            axes.axhline(losses.eps_inf, color=STAND_INS["ink"], lw=1.2, ls=(0, (5, 3)))
            name_line(axes, losses.eps_inf, "eps_inf", left=True)
        if high / low > 20:
            axes.set_yscale("log")
            axes.set_ylim(low / 1.3, high * 1.8)
            subs = (1.0, 2.0, 5.0) if high / low < 60 else (1.0,)
            axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.set_ylim(0, high * 1.18)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: digits_text(value)))
        _rounds(axes, len(losses.static))
        return render(figure, name, "Privacy loss after each round")


@dataclass(frozen=True)
class RoundErrors:
    """Errors of each round and of the mean of all rounds so far.

    Attributes:
        each: after the post-processing that is judged.
        running: the same of the mean; empty where values change.
        raw: of the mean before post-processing; empty where that is the one judged, or values change.
        linked: of all reports of each user decoded together, after the post-processing; empty where they were not.
        expected: closed form of `raw`.
        floor: what `expected` falls to.
        guess: of the uniform guess.
    """

    each: Sequence[Spread | None]
    running: Sequence[Spread | None]
    raw: Sequence[Spread | None]
    linked: Sequence[Spread | None]
    expected: Sequence[float]
    floor: float | None
    guess: float | None

    @property
    def span(self) -> tuple[float, float]:
        """Limits of the axis."""
        return _span([*self.each, *self.running, *self.raw, *self.linked], [*self.expected, self.floor, self.guess])


def errors_over_rounds(errors: RoundErrors, span: tuple[float, float], look: Look, name: str) -> str:
    """Draw the error of one group round by round.

    Args:
        errors: to draw.
        span: limits of y; all such figures of a collection have one scale.
        look: of its colour.
        name: prefix of the ids.
    """
    with canvas(400, 250) as (figure, axes):
        colour = group_colour(look.number)
        for curve, width, dashes, alpha in (
            (errors.raw, 1.3, (0, (1.2, 1.8)), 1.0),
            (errors.each, 1.3, "-", 0.75),
            (errors.running, 2.4, "-", 1.0),
            (errors.linked, 2.0, (0, (4.0, 1.6)), 1.0),
        ):
            known = [(step, one) for step, one in enumerate(curve, 1) if one]
            steps, found = [step for step, _ in known], [one for _, one in known]
            if curve is not errors.raw:
                _band(axes, steps, found, span[0], colour, 0.12)
            means = [one.mean for one in found]
            axes.plot(steps, means, color=STAND_INS[colour], lw=width, ls=dashes, alpha=alpha)
        if errors.expected:
            steps = list(range(1, len(errors.expected) + 1))
            axes.plot(steps, errors.expected, color=STAND_INS["ink"], lw=1.2, ls=(0, (1.2, 1.8)))
        if errors.floor is not None:
            axes.axhline(errors.floor, color=STAND_INS["muted"], lw=1.2)
            name_line(axes, errors.floor, "floor", left=True)
        log_errors(axes, *span)
        guess_line(axes, errors.guess)
        _rounds(axes, len(errors.each))
        return render(figure, name, "Error of each round, and of the mean of all rounds so far")


def _rounds(axes: Axes, n: int) -> None:
    axes.set_xlim(1 - 0.02 * n, n + 0.02 * n)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.set_xlabel("round")
