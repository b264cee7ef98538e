"""How a group of collection runs looks on the page: a colour and marker per protocol, dashes per ratio of budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clearn.report.blocks import heading, stroke, swatch
from clearn.report.collections.grouping import CollectionGroup
from clearn.report.grouping import looks
from clearn.report.look import GROUPS, group_colour

STROKES = ("solid", "dashed", "dotted")  # as `look.DASHES` begins


@dataclass(frozen=True)
class Look:
    """A line of a figure.

    Attributes:
        number: of the protocol, for colour and marker.
        rank: of the ratio of its budgets, for the dash; markers are hollow after the first.
        several: whether there is more than one ratio.
    """

    number: int
    rank: int
    several: bool

    @property
    def dash(self) -> int:
        """Which dash it is drawn with; those whose colour comes again have the next one."""
        return self.rank + self.number // len(GROUPS)

    @property
    def hollow(self) -> bool:
        """Whether the marker is an outline."""
        return self.rank > 0

    def mark(self) -> str:
        """Write the marker."""
        return swatch(self.number, self.hollow)

    def line(self) -> str:
        """Write the marker for a legend, with a piece of the line where dashes mean something."""
        if not (self.several or self.dash):
            return self.mark()
        return stroke(STROKES[self.dash % len(STROKES)], colour=group_colour(self.number)) + self.mark()

    def heading(self, label: str) -> str:
        """Write marker and label above a small figure."""
        return heading(label, self.number, self.hollow)


def group_looks(apart: Mapping[str, Sequence[CollectionGroup]]) -> dict[str, dict[str, Look]]:
    """Give by setting and line how each looks; a protocol keeps its colour over settings if it can."""
    numbers = looks({name: list(dict.fromkeys(one.series for one in groups)) for name, groups in apart.items()})
    found: dict[str, dict[str, Look]] = {}
    for name, groups in apart.items():
        ratios = sorted({group.ratio for group in groups if group.ratio})
        ranks = {ratio: rank for rank, ratio in enumerate(ratios)}
        found[name] = {
            group.line: Look(numbers[name][group.series], ranks.get(group.ratio, 0), len(ratios) > 1)
            for group in groups
        }
    return found
